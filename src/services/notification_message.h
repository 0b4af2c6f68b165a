/* The text that a user reads about one operation on the account. */
#ifndef SKALD_SERVICES_NOTIFICATION_MESSAGE_H
#define SKALD_SERVICES_NOTIFICATION_MESSAGE_H

#include "json/json.h"

/* One operation of Billing's history. Texts are in display form; absent: null in the history. */
typedef struct Operation {
  Uuid id, billing_id;
  Str type, status, sum, wallet;
} Operation;

/* row: a row of billing.history_billings as in an event; NULL: the event has none. Returns NULL, or why it can never
 * become a notification; *ret is then unchanged. Its texts live in row and arena. */
const char *notification_operation_read(Arena *arena, const JsonValue *row, Operation *ret);
Str notification_message(Arena *arena, const Operation *o);

#endif

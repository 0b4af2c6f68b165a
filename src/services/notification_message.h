/* What a user reads of one operation on the account. */
#ifndef SKALD_SERVICES_NOTIFICATION_MESSAGE_H
#define SKALD_SERVICES_NOTIFICATION_MESSAGE_H

#include "json/json.h"

/* One operation of Billing's history. Texts are as they are shown; absent: null in the history. */
typedef struct Operation {
  Uuid id, billing_id;
  Str type, status, sum, wallet;
} Operation;

/* row: one of billing.history_billings as an event carries it, NULL without one. NULL, or why it can never be a
 * notification; *ret is then untouched. Its texts live in row and arena. */
const char *notification_operation_read(Arena *arena, const JsonValue *row, Operation *ret);
Str notification_message(Arena *arena, const Operation *o);

#endif

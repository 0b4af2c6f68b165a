/* The recipient of a notification. Its event has an account; the user service knows the account's user. While a
 * registration is running the user is not known yet. */
#ifndef SKALD_SERVICES_NOTIFICATION_RECIPIENTS_H
#define SKALD_SERVICES_NOTIFICATION_RECIPIENTS_H

#include "service/def.h"

typedef struct Recipient { /* to look up */
  Uuid billingId, userId;
  Str email, traceparent; /* traceparent: of the first event with this account; absent: none */
  bool looked_up;
} Recipient;

void notification_recipients_prepare(void); /* before the fork: metrics */
/* Looks up all users concurrently, within bounds. On an error the results received so far are kept for the next call.
 * userId stays nil if there is no such user. E-mail addresses live in arena. */
MUST_CHECK int notification_recipients_look_up(Arena *arena, Recipient *recipients, int count);

typedef struct NotificationResolver NotificationResolver;
/* In the loop: a fiber that resolves pending recipients, for the lifetime of the process. */
NotificationResolver *notification_resolver_start(Service *s);
void notification_resolver_wake(NotificationResolver *r); /* rows with pending recipients were stored */

#endif

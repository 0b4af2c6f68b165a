/* Who a notification is for. Its event names an account; the user service knows whose it is, now or, while a
 * registration has not ended, later. */
#ifndef SKALD_SERVICES_NOTIFICATION_RECIPIENTS_H
#define SKALD_SERVICES_NOTIFICATION_RECIPIENTS_H

#include "service/def.h"

typedef struct Recipient { /* whose user is looked for */
  Uuid billingId, userId;
  Str email, traceparent; /* traceparent: of the first event that asks; absent: none */
  bool answered;
} Recipient;

void notification_recipients_prepare(void); /* before the fork: metrics */
/* Asks for all users at once, within bounds; on an error those that have answered are kept. userId stays nil where
 * there is no such user. E-mail addresses live in arena. */
MUST_CHECK int notification_recipients_look_up(Arena *arena, Recipient *recipients, int count);

typedef struct NotificationResolver NotificationResolver;
/* In the loop: a fiber that looks up the users of rows stored without one, for as long as the process lives. */
NotificationResolver *notification_resolver_start(Service *s);
void notification_resolver_wake(NotificationResolver *r); /* such rows were stored */

#endif

/* From a source's events to stored notifications, exactly one for each row of Billing's history. */
#ifndef SKALD_SERVICES_NOTIFICATION_CONSUMER_H
#define SKALD_SERVICES_NOTIFICATION_CONSUMER_H

#include "cdc/source.h"
#include "services/notification_recipients.h"

typedef struct NotificationConsumer NotificationConsumer;

void notification_consumer_prepare(void); /* before the fork: metrics */
/* In the loop: a fiber that works off the source, which stays the caller's. */
NotificationConsumer *notification_consumer_start(Service *s, Source *source, NotificationResolver *resolver);
/* In a fiber: ends it and frees it. A batch in hand is given up, it comes again. E_TIMEOUT, E_CANCELED: it has not
 * ended, nothing is freed. */
MUST_CHECK int notification_consumer_stop(NotificationConsumer *c, int64_t deadline_us);

#endif

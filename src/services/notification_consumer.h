/* From a source's events to stored notifications, exactly one for each row of Billing's history. */
#ifndef SKALD_SERVICES_NOTIFICATION_CONSUMER_H
#define SKALD_SERVICES_NOTIFICATION_CONSUMER_H

#include "cdc/source.h"
#include "services/notification_recipients.h"

typedef struct NotificationConsumer NotificationConsumer;

void notification_consumer_prepare(void); /* before the fork: metrics */
/* In the loop: a fiber that consumes the source. The source remains the caller's. */
NotificationConsumer *notification_consumer_start(Service *s, Source *source, NotificationResolver *resolver);
/* In a fiber: ends and frees it. A batch in hand is abandoned and delivered again. E_TIMEOUT, E_CANCELED: it has not
 * ended, and nothing is freed. */
MUST_CHECK int notification_consumer_stop(NotificationConsumer *c, int64_t deadline_us);

#endif

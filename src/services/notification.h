/* Where Notification reads its events. Set before the services start. */
#ifndef SKALD_SERVICES_NOTIFICATION_H
#define SKALD_SERVICES_NOTIFICATION_H

#include "rt/config.h"

#define NOTIFICATION_SLOT "billing_cdc"
/* With each row's traceparent; and the one without it, for rows that were written before the column existed. */
#define NOTIFICATION_PUBLICATION       "billing_pub_traced"
#define NOTIFICATION_PUBLICATION_PLAIN "billing_pub"

extern const Option notification_options[];
void notification_use_wal(const char *billing_dsn); /* before the services start; the text must stay valid */

#endif

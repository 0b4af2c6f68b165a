/* The audit's rule of notifications: each row of the history has exactly one, and an account's stand in the order of
 * its operations. */
#ifndef SKALD_AUDIT_NOTIFICATIONS_H
#define SKALD_AUDIT_NOTIFICATIONS_H

#include "audit_stream.h"

MUST_CHECK int audit_notifications(AuditSource *sources, AuditReport *report);

#endif

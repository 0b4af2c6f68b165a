/* The audit's rule of notifications: each row of the history has exactly one, and an account's stand in the order of
 * its operations. */
#ifndef SKALD_COMMANDS_AUDIT_NOTIFICATIONS_H
#define SKALD_COMMANDS_AUDIT_NOTIFICATIONS_H

#include "commands/audit/stream.h"

MUST_CHECK int audit_notifications(AuditSource *sources, AuditReport *report);

#endif

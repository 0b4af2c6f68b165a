/* The audit's rule for notifications: each row of the history has exactly one, and those of an account are in the order
 * of its operations. */
#ifndef SKALD_COMMANDS_AUDIT_NOTIFICATIONS_H
#define SKALD_COMMANDS_AUDIT_NOTIFICATIONS_H

#include "commands/audit/stream.h"

MUST_CHECK int audit_notifications(AuditSource *sources, AuditReport *report);

#endif

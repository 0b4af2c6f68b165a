/* The part of the audit that follows each order of a saga through the databases of all who took part in it. */
#ifndef SKALD_COMMANDS_AUDIT_ORDERS_H
#define SKALD_COMMANDS_AUDIT_ORDERS_H

#include "commands/audit/stream.h"

/* Every order made by a saga has ended as its saga did; a successful one has all it needs, a canceled one nothing.
 * sources: AUDIT_SOURCES of them, open. */
MUST_CHECK int audit_orders(AuditSource *sources, AuditReport *report);

#endif

/* The part of the audit that checks each order of a saga in the databases of all participants. */
#ifndef SKALD_COMMANDS_AUDIT_ORDERS_H
#define SKALD_COMMANDS_AUDIT_ORDERS_H

#include "commands/audit/stream.h"

/* Every order of a saga ended like its saga. A successful order has everything it needs, a canceled one has nothing.
 * sources: AUDIT_SOURCES of them, open. */
MUST_CHECK int audit_orders(AuditSource *sources, AuditReport *report);

#endif

/* Migrations: each service's versioned SQL, built into the executable, applied once. A script is cut at its lines
 * "-- migration N: title"; {schema} in it stands for the service's schema. */
#ifndef SKALD_SERVICE_MIGRATE_H
#define SKALD_SERVICE_MIGRATE_H

#include "service/def.h"

/* Brings one service's database up to date, creating the database when there is none. One advisory lock: safe to run
 * twice and side by side. Waits for a table's lock for a moment only, as everybody else would queue behind it, and
 * retries until patience_us is over, counted for each migration. Blocks. Prints what was done or what went wrong. */
MUST_CHECK int migrate_service(const ServiceDef *def, const char *dsn, int64_t patience_us);

#endif

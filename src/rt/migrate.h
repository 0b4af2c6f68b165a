/* Migrations: each service's versioned SQL, built into the executable, applied once. A script is cut at its lines
 * "-- migration N: title"; {schema} in it stands for the service's schema. */
#ifndef SKALD_RT_MIGRATE_H
#define SKALD_RT_MIGRATE_H

#include "rt/service.h"

/* Brings one service's database up to date, creating the database when there is none. One advisory lock: safe to run
 * twice and side by side. Blocks. What was done or what went wrong is printed. */
MUST_CHECK int migrate_service(const ServiceDef *def, const char *dsn);

#endif

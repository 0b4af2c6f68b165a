/* Opening a libpq connection in a fiber. Private to the rt/db_*.c files. */
#ifndef SKALD_DB_CONNECT_H
#define SKALD_DB_CONNECT_H

#include "db/pq.h"

#define DB_CONNECT_US 5000000

/* keys and values end with NULL and are laid over what dsn says. Names are resolved in the loop. *ret is a connection
 * also on most errors, as with PQconnectStart: it tells the error, and takes a PQfinish; NULL: the host has no address.
 */
MUST_CHECK int db_connect(const char *dsn, const char *const keys[], const char *const values[], PGconn **ret);

#endif

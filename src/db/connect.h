/* Opening a libpq connection in a fiber. Private to db/. */
#ifndef SKALD_DB_CONNECT_H
#define SKALD_DB_CONNECT_H

#include "db/pq.h"
#include "db/session.h"
#include "rt/clock.h"

#define DB_CONNECT_US (5 * SECONDS) /* for one address, and for one command on a new connection */
#define DB_RESOLVE_US (6 * SECONDS) /* for all names; the C library sends a lost question again after five */

typedef struct DbConnect {
  const char *dsn;
  const char *application_name;
  DbSession session;
} DbConnect;

/* A connection, nonblocking, whose session holds to what session_sql says. Names are looked up without libpq, which
 * would block the loop; of several addresses one that gives no response in time is left out, and for DB_SESSION_POOL
 * one that takes no writes: a standby, a demoted primary, a server made read-only as a whole. On failure *ret is
 * untouched and reason is one line without any secret: E_FIELD: dsn is malformed; E_UNAVAILABLE; E_CANCELED. */
MUST_CHECK int db_connect(const DbConnect *how, PGconn **ret, char reason[DB_REASON]);

/* What libpq says about a connection, its lines joined to one, without its advice. */
void db_reason(const PGconn *pq, char reason[DB_REASON]);

#endif

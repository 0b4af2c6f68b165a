/* Opening a libpq connection and waiting for its socket, in fibers. Private to the rt/db_*.c files. */
#ifndef SKALD_RT_DB_CONNECT_H
#define SKALD_RT_DB_CONNECT_H

#include "rt/pq.h"

#define DB_CONNECT_US 5000000

/* Waits for a socket in the current fiber; one fiber at a time. */
typedef struct DbSocket DbSocket;
DbSocket *db_socket_new(int fd);
void db_socket_free(DbSocket *s); /* takes NULL; before the socket is closed */
/* events: of libuv. 0 when the socket is ready or the fiber was woken otherwise. */
MUST_CHECK int db_socket_wait(DbSocket *s, int events, const char *why, int64_t deadline_us);

/* keys and values end with NULL and are laid over what dsn says. Names are resolved in the loop. *ret is a connection
 * also on most errors, as with PQconnectStart: it tells the error, and takes a PQfinish; NULL: the host has no address.
 */
MUST_CHECK int db_connect(const char *dsn, const char *const keys[], const char *const values[], PGconn **ret);

#endif

/* Scripts for PostgreSQL outside of any loop: migrations and checks. These calls block. */
#ifndef SKALD_DB_SCRIPT_H
#define SKALD_DB_SCRIPT_H

#include "db/db.h"

typedef struct DbScript DbScript; /* one connection */

#define DB_LOCK_NOT_AVAILABLE "55P03"
#define DB_DUPLICATE_OBJECT   "42710"

/* dsn: a libpq connection string or URI. E_UNAVAILABLE, or E_FIELD where it is malformed, with the reason in *error (in
 * the arena), which shows nothing of the dsn but host, port, user and database. */
MUST_CHECK int db_script_open(const char *dsn, Arena *arena, DbScript **ret, Str *error);
/* The same, for the commands of the replication protocol; the role needs REPLICATION. */
MUST_CHECK int db_script_open_replication(const char *dsn, Arena *arena, DbScript **ret, Str *error);
/* Many statements of the simple protocol; without BEGIN they are one transaction. last (may be NULL) gets the last
 * statement's rows. E_INTERNAL with the server's text in *error. */
MUST_CHECK int db_script_run(DbScript *s, const char *sql, Arena *arena, DbResult *last, Str *error);
/* One command without rows, canceled when it takes longer. The same error. */
MUST_CHECK int db_script_run_within(DbScript *s, const char *command, int64_t timeout_us, Arena *arena, Str *error);
bool db_script_failed_by(const DbScript *s, const char *sqlstate); /* whether the last run did */
/* Makes the database that dsn names, through one that every server has. E_EXISTS: there is one, maybe just made by
 * another process. E_UNAVAILABLE, E_INTERNAL: as above. */
MUST_CHECK int db_script_create_database(const char *dsn, Arena *arena, Str *error);
void db_script_close(DbScript *s); /* takes NULL */

#endif

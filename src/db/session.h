/* What a session with PostgreSQL must hold to. An administrator may set nearly every parameter for a role or a
 * database, and so may the environment (PGOPTIONS, PGDATESTYLE, PGTZ): formats in which values come and go, durability,
 * isolation, timeouts. Each session of ours sets those that its correctness depends on itself, in one round trip after
 * connecting: poolers refuse most parameters at the start of a session. */
#ifndef SKALD_DB_SESSION_H
#define SKALD_DB_SESSION_H

#include "base/arena.h"

typedef enum DbSession {
  DB_SESSION_POOL,   /* short transactions; statements give up before requests do */
  DB_SESSION_SCRIPT, /* migrations and checks, which may take long */
  DB_SESSION_STREAM, /* logical replication */
} DbSession;

/* Statements of the simple protocol, for a server of this version (as PQserverVersion numbers it). Zero-terminated. */
Str session_sql(Arena *arena, DbSession session, int server_version);

#endif

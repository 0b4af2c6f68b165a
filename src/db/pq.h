/* libpq, for the files of db/ only, and what they share about parameters. */
#ifndef SKALD_DB_PQ_H
#define SKALD_DB_PQ_H

#include "db/db.h"

#include <libpq-fe.h>

#define DB_REASON 320 /* bytes of why a connection failed, with the zero behind it */

typedef struct DbBound { /* a statement with its parameters as PostgreSQL's text; a NULL is NULL */
  const Sql *sql;
  const char *const *values;
  int n;
} DbBound;

DbBound db_bind(Arena *memory, const DbStmt *statement);
/* One value in the memory given. NULL: it is NULL. */
const char *db_text(Arena *memory, const DbValue *value);

#endif

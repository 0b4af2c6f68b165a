/* Blocking scripts over libpq. */
#include "rt/db_script.h"

#include "rt/pq.h"

#include <stdlib.h>
#include <string.h>

struct DbScript {
  PGconn *pq;
};

static void keep_error(Arena *arena, PGconn *pq, Str *error) {
  Str text = str_from(PQerrorMessage(pq));
  while (text.n && text.p[text.n - 1] == '\n')
    text.n--;
  *error = arena_str(arena, text);
}

static void no_notice(void *arg, const char *message) {
  (void)arg;
  (void)message; /* "already exists, skipping" is what idempotent scripts expect */
}

static int open_as(const char *dsn, const char *database, Arena *arena, DbScript **ret, Str *error) {
  const char *keys[] = {"dbname", "application_name", "client_encoding", database ? "dbname" : NULL, NULL};
  const char *values[] = {dsn, "skald", "UTF8", database, NULL};
  PGconn *pq = PQconnectdbParams(keys, values, 1);
  if (PQstatus(pq) != CONNECTION_OK) {
    keep_error(arena, pq, error);
    PQfinish(pq);
    return E_UNAVAILABLE;
  }
  PQsetNoticeProcessor(pq, no_notice, NULL);
  *ret = calloc(1, sizeof(**ret));
  if (!*ret)
    abort();
  (*ret)->pq = pq;
  return 0;
}

int db_script_open(const char *dsn, Arena *arena, DbScript **ret, Str *error) {
  return open_as(dsn, NULL, arena, ret, error);
}

static void keep_rows(const PGresult *res, Arena *arena, DbResult *r) {
  r->rows = PQntuples(res);
  r->columns = PQnfields(res);
  r->affected = 0;
  r->cells = ARENA_ARRAY(arena, Str, (size_t)r->rows * (size_t)r->columns + 1);
  for (int i = 0; i < r->rows * r->columns; i++) {
    int row = i / r->columns, column = i % r->columns;
    Str cell = {PQgetvalue(res, row, column), (size_t)PQgetlength(res, row, column)};
    if (!PQgetisnull(res, row, column))
      r->cells[i] = arena_str(arena, cell);
  }
}

int db_script_run(DbScript *s, const char *sql, Arena *arena, DbResult *last, Str *error) {
  PGresult *res = PQexec(s->pq, sql);
  ExecStatusType status = PQresultStatus(res);
  bool ok = status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
  if (!ok)
    keep_error(arena, s->pq, error);
  else if (last)
    keep_rows(res, arena, last);
  PQclear(res);
  return ok ? 0 : E_INTERNAL;
}

static Str database_of(Arena *arena, const char *dsn) {
  Str name = {0};
  PQconninfoOption *options = PQconninfoParse(dsn, NULL);
  for (PQconninfoOption *o = options; o && o->keyword; o++)
    if (!strcmp(o->keyword, "dbname") && o->val)
      name = arena_str(arena, str_from(o->val));
  PQconninfoFree(options);
  return name;
}

int db_script_create_database(const char *dsn, Arena *arena, Str *error) {
  Str name = database_of(arena, dsn);
  DbScript *s;
  if (!name.n) {
    *error = STR("the connection string names no database");
    return E_FIELD;
  }
  TRY(open_as(dsn, "postgres", arena, &s, error));
  char *quoted = PQescapeIdentifier(s->pq, name.p, name.n);
  Str sql = arena_printf(arena, "CREATE DATABASE %s", quoted ? quoted : "");
  PQfreemem(quoted);
  int rc = db_script_run(s, sql.p, arena, NULL, error);
  db_script_close(s);
  return rc;
}

void db_script_close(DbScript *s) {
  if (!s)
    return;
  PQfinish(s->pq);
  free(s);
}

/* Blocking scripts over libpq. */
#include "db/script.h"

#include "db/pq.h"
#include "rt/clock.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct DbScript {
  PGconn *pq;
  char sqlstate[6]; /* of the last run; empty: it succeeded, or the connection is gone */
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

/* key, unless it is NULL, is a parameter of libpq that goes before the one in the dsn. */
static int open_with(const char *dsn, const char *key, const char *value, Arena *arena, DbScript **ret, Str *error) {
  const char *keys[] = {"dbname", "application_name", "client_encoding", key, NULL};
  const char *values[] = {dsn, "skald", "UTF8", value, NULL};
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
  return open_with(dsn, NULL, NULL, arena, ret, error);
}

int db_script_open_replication(const char *dsn, Arena *arena, DbScript **ret, Str *error) {
  return open_with(dsn, "replication", "database", arena, ret, error);
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

static int take_result(DbScript *s, PGresult *res, Arena *arena, DbResult *last, Str *error) {
  ExecStatusType status = PQresultStatus(res);
  bool ok = status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
  const char *sqlstate = ok ? NULL : PQresultErrorField(res, PG_DIAG_SQLSTATE);
  snprintf(s->sqlstate, sizeof(s->sqlstate), "%s", sqlstate ? sqlstate : "");
  if (!ok)
    keep_error(arena, s->pq, error);
  else if (last)
    keep_rows(res, arena, last);
  PQclear(res);
  return ok ? 0 : E_INTERNAL;
}

int db_script_run(DbScript *s, const char *sql, Arena *arena, DbResult *last, Str *error) {
  return take_result(s, PQexec(s->pq, sql), arena, last, error);
}

/* An error ends the waiting too: the result tells it. */
static bool is_answered(PGconn *pq, int64_t deadline_us) {
  struct pollfd socket = {.fd = PQsocket(pq), .events = POLLIN};
  while (PQisBusy(pq)) {
    int64_t left_us = deadline_us - clock_now_us();
    if (left_us <= 0)
      return false;
    poll(&socket, 1, (int)(left_us / 1000) + 1);
    if (!PQconsumeInput(pq))
      return true;
  }
  return true;
}

static void cancel(PGconn *pq) {
  char ignored[256]; /* the command's own result tells whether it was canceled */
  PGcancel *handle = PQgetCancel(pq);
  PQcancel(handle, ignored, sizeof(ignored));
  PQfreeCancel(handle);
}

int db_script_run_within(DbScript *s, const char *command, int64_t timeout_us, Arena *arena, Str *error) {
  PGresult *last = NULL;
  if (PQsendQuery(s->pq, command) && !is_answered(s->pq, clock_now_us() + timeout_us))
    cancel(s->pq);
  for (PGresult *res; (res = PQgetResult(s->pq));) {
    PQclear(last);
    last = res;
  }
  return take_result(s, last, arena, NULL, error);
}

bool db_script_failed_by(const DbScript *s, const char *sqlstate) {
  return !strcmp(s->sqlstate, sqlstate);
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
  TRY(open_with(dsn, "dbname", "postgres", arena, &s, error));
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

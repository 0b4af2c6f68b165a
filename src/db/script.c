/* Blocking scripts over libpq. */
#include "db/script.h"

#include "db/connect.h"
#include "db/dsn.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONNECT_TIMEOUT "10" /* seconds for each host, unless the dsn says how long */

#define DUPLICATE_DATABASE "42P04"
#define UNIQUE_VIOLATION   "23505" /* of its name, when two create it at once */

struct DbScript {
  PGconn *pq;
  char sqlstate[6]; /* of the last run; empty: it succeeded, or the connection is gone */
};

/* The server's or libpq's words, without the line end. */
static void keep_error(Arena *arena, PGconn *pq, Str *error) {
  *error = arena_str(arena, str_trim(str_from(PQerrorMessage(pq))));
}

static void no_notice(void *arg, const char *message) {
  (void)arg;
  (void)message; /* "already exists, skipping" is what idempotent scripts expect */
}

/* An error of the connection as one line. */
static int fail_open(PGconn *pq, Arena *arena, Str *error) {
  char reason[DB_REASON];
  db_reason(pq, reason);
  *error = arena_str(arena, str_from(reason));
  PQfinish(pq);
  return E_UNAVAILABLE;
}

/* Parameters that go before those in the dsn; NULL: as it says. */
typedef struct Overlay {
  const char *database, *replication;
} Overlay;

static int open_with(const char *dsn, Overlay overlay, Arena *arena, DbScript **ret, Str *error) {
  Dsn read;
  TRY(dsn_read(dsn, arena, &read, error));
  const char *keys[] = {"dbname", "application_name", "client_encoding", "connect_timeout", "replication", "dbname",
                        NULL};
  const char *values[] = {
      dsn, "skald", "UTF8", read.has_timeout ? NULL : CONNECT_TIMEOUT, overlay.replication, overlay.database, NULL};
  PGconn *pq = PQconnectdbParams(keys, values, 1);
  if (PQstatus(pq) != CONNECTION_OK)
    return fail_open(pq, arena, error);
  PQsetNoticeProcessor(pq, no_notice, NULL);
  DbSession session = overlay.replication ? DB_SESSION_STREAM : DB_SESSION_SCRIPT;
  PGresult *result = PQexec(pq, session_sql(arena, session, PQserverVersion(pq)).p);
  ExecStatusType status = PQresultStatus(result);
  PQclear(result);
  if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
    return fail_open(pq, arena, error);
  *ret = calloc(1, sizeof(**ret));
  if (!*ret)
    die("out of memory");
  (*ret)->pq = pq;
  return 0;
}

int db_script_open(const char *dsn, Arena *arena, DbScript **ret, Str *error) {
  return open_with(dsn, (Overlay){0}, arena, ret, error);
}

int db_script_open_replication(const char *dsn, Arena *arena, DbScript **ret, Str *error) {
  return open_with(dsn, (Overlay){.replication = "database"}, arena, ret, error);
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

/* Waits until the result of the command can be read; it says so, too, if the connection has failed. */
static bool has_result(PGconn *pq, int64_t deadline_us) {
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
  if (PQsendQuery(s->pq, command) && !has_result(s->pq, clock_now_us() + timeout_us))
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

/* Through the databases that every server has, of which either may be closed to us. */
static int open_maintenance(const char *dsn, Arena *arena, DbScript **ret, Str *error) {
  int rc = open_with(dsn, (Overlay){.database = "postgres"}, arena, ret, error);
  return rc == E_UNAVAILABLE ? open_with(dsn, (Overlay){.database = "template1"}, arena, ret, error) : rc;
}

static int create_missing(DbScript *s, const char *name, Arena *arena, Str *error) {
  char *literal = PQescapeLiteral(s->pq, name, strlen(name)), *quoted = PQescapeIdentifier(s->pq, name, strlen(name));
  Str find = arena_printf(arena, "SELECT FROM pg_database WHERE datname = %s", literal ? literal : "");
  Str create = arena_printf(arena, "CREATE DATABASE %s", quoted ? quoted : "");
  PQfreemem(literal);
  PQfreemem(quoted);
  DbResult found = {0};
  TRY(db_script_run(s, find.p, arena, &found, error));
  if (found.rows > 0)
    return E_EXISTS;
  int rc = db_script_run(s, create.p, arena, NULL, error);
  return rc < 0 && (db_script_failed_by(s, DUPLICATE_DATABASE) || db_script_failed_by(s, UNIQUE_VIOLATION)) ? E_EXISTS
                                                                                                            : rc;
}

int db_script_create_database(const char *dsn, Arena *arena, Str *error) {
  Dsn read;
  DbScript *s;
  TRY(dsn_read(dsn, arena, &read, error));
  TRY(open_maintenance(dsn, arena, &s, error));
  int rc = create_missing(s, read.database, arena, error);
  db_script_close(s);
  return rc;
}

void db_script_close(DbScript *s) {
  if (!s)
    return;
  PQfinish(s->pq);
  free(s);
}

/* One pipelined connection to PostgreSQL. Its pipeline is a queue of flights, each ended by a Sync: either one
 * statement being prepared, or a batch of groups, which is one transaction. Statements are prepared in a flight of
 * their own, so that a failing batch never takes a preparation with it. */
#include "db/connect.h"
#include "db/pq.h"
#include "log/log.h"
#include "rt/clock.h"
#include "rt/loop.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#define BATCHES_IN_FLIGHT 2 /* PostgreSQL works on one while the next is being filled; measured: 1 costs a third */
#define STUCK_US          13000000
#define WATCH_US          1000000
#define RETRY_FIRST_US    50000
#define RETRY_MOST_US     1000000
#define CONNECT_US        5000000

static DbFlight *flight(DbConn *c, int i) {
  return &c->flights[(c->flight_first + i) % DB_FLIGHTS];
}

static DbFlight *add_flight(DbConn *c) {
  assert(c->flight_count < DB_FLIGHTS);
  DbFlight *f = flight(c, c->flight_count++);
  *f = (DbFlight){.sent_us = clock_now_us()};
  return f;
}

static size_t prepared_slot(const DbConn *c, const Sql *sql) {
  size_t mask = c->prepared_cap - 1;
  size_t at = ((uintptr_t)sql >> 3) * UINT64_C(0x9E3779B97F4A7C15) >> 40;
  for (at &= mask; c->prepared[at] && c->prepared[at] != sql; at = (at + 1) & mask)
    continue;
  return at;
}

static void remember_prepared(DbConn *c, const Sql *sql) {
  if ((c->prepared_count + 1) * 2 > c->prepared_cap) {
    const Sql **old = c->prepared;
    size_t old_cap = c->prepared_cap;
    c->prepared_cap = old_cap ? old_cap * 2 : 128;
    c->prepared = calloc(c->prepared_cap, sizeof(*c->prepared));
    if (!c->prepared)
      abort();
    for (size_t i = 0; i < old_cap; i++)
      if (old[i])
        c->prepared[prepared_slot(c, old[i])] = old[i];
    free(old);
  }
  c->prepared[prepared_slot(c, sql)] = sql;
  c->prepared_count++;
}

/* Its place stays taken, so that those behind it are still found. */
static void forget_prepared(DbConn *c, const Sql *sql) {
  static const Sql forgotten;
  c->prepared[prepared_slot(c, sql)] = &forgotten;
}

static void statement_name(const Sql *sql, char out[32]) {
  snprintf(out, 32, "s%llx", (unsigned long long)(uintptr_t)sql);
}

static void on_poll(uv_poll_t *handle, int status, int events);

/* To start a poll anew is two system calls, even if nothing changes. */
static void watch(DbConn *c, bool writing) {
  int events = UV_READABLE | (writing ? UV_WRITABLE : 0);
  if (events != c->watched)
    uv_poll_start(c->poll, events, on_poll);
  c->watched = events;
}

/* The connection is of no use any more; its fiber cleans up. */
static void break_conn(DbConn *c) {
  if (c->broken)
    return;
  c->broken = true;
  c->tried = true;
  c->up = false;
  if (c->poll)
    uv_poll_stop(c->poll);
  db_conn_changed(c->db);
  fiber_wake(c->fiber);
}

static void flush(DbConn *c) {
  int rc = PQflush(c->pq);
  if (rc < 0)
    break_conn(c);
  else
    watch(c, rc > 0);
}

/* A sent statement is known as prepared from now on: the server handles the flights in order. */
static bool prepare(DbConn *c, const Sql *sql) {
  if (c->prepared_cap && c->prepared[prepared_slot(c, sql)] == sql)
    return true;
  char name[32];
  statement_name(sql, name);
  if (!PQsendPrepare(c->pq, name, sql->text, 0, NULL) || !PQpipelineSync(c->pq))
    return false;
  add_flight(c)->prepare = sql;
  remember_prepared(c, sql);
  return true;
}

static bool send_group(DbConn *c, const DbGroup *g) {
  for (int i = 0; i < g->count; i++) {
    char name[32];
    statement_name(g->statements[i].sql, name);
    if (!PQsendQueryPrepared(c->pq, name, g->statements[i].n, g->statements[i].values, NULL, NULL, 0))
      return false;
  }
  return true;
}

static bool prepare_all(DbConn *c, const DbGroup *first) {
  bool ok = true;
  for (const DbGroup *g = first; g && ok; g = g->next)
    for (int i = 0; i < g->count && ok; i++)
      ok = prepare(c, g->statements[i].sql);
  return ok;
}

bool db_conn_has_room(const DbConn *c) {
  if (!c->up)
    return false;
  int batches = 0;
  for (int i = 0; i < c->flight_count; i++)
    batches += !c->flights[(c->flight_first + i) % DB_FLIGHTS].prepare;
  return batches < BATCHES_IN_FLIGHT;
}

void db_conn_send(DbConn *c, DbGroup *first, int groups) {
  bool ok = prepare_all(c, first);
  DbFlight *f = add_flight(c);
  f->first = f->at_group = first;
  f->groups = groups;
  for (DbGroup *g = first; g && ok; g = g->next)
    ok = send_group(c, g);
  if (ok && PQpipelineSync(c->pq))
    flush(c);
  else
    break_conn(c);
}

static void keep_result(DbGroup *g, int statement, const PGresult *res) {
  if (!g->fiber || !g->results)
    return;
  DbResult *r = &g->results[statement];
  r->rows = PQntuples(res);
  r->columns = PQnfields(res);
  r->affected = strtoll(PQcmdTuples((PGresult *)(uintptr_t)res), NULL, 10);
  r->cells = ARENA_ARRAY(g->result_arena, Str, (size_t)r->rows * (size_t)r->columns);
  for (int row = 0; row < r->rows; row++)
    for (int column = 0; column < r->columns; column++) {
      Str cell = {PQgetvalue(res, row, column), (size_t)PQgetlength(res, row, column)};
      if (!PQgetisnull(res, row, column))
        r->cells[row * r->columns + column] = arena_str(g->result_arena, cell);
    }
}

/* A schema, table, column or function: the database is not the one that this executable knows, and nothing was done. */
static bool is_missing(const char *sqlstate) {
  static const char *const missing[] = {"3F000", "42P01", "42703", "42883"};
  for (size_t i = 0; i < sizeof(missing) / sizeof(missing[0]); i++)
    if (!strcmp(sqlstate, missing[i]))
      return true;
  return false;
}

static int error_code(const char *sqlstate) {
  static const struct {
    const char *prefix;
    int code;
  } codes[] = {
      {"23505", E_EXISTS},   {"22003", E_RANGE},       {"40", E_BUSY},      {"26000", E_BUSY},
      {"55P03", E_BUSY},     {"57014", E_TIMEOUT},     {"57P", E_UNKNOWN},  {"08", E_UNKNOWN},
      {"53", E_UNAVAILABLE}, {"25006", E_UNAVAILABLE}, {"SK001", E_FENCED},
  };
  for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
    if (!strncmp(sqlstate, codes[i].prefix, strlen(codes[i].prefix)))
      return codes[i].code;
  return is_missing(sqlstate) ? E_UNAVAILABLE : E_INTERNAL;
}

static void keep_error(DbConn *c, DbFlight *f, const PGresult *res) {
  const char *sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);
  snprintf(f->sqlstate, sizeof(f->sqlstate), "%s", sqlstate ? sqlstate : "08006");
  f->error = error_code(f->sqlstate);
  if (f->error == E_INTERNAL || is_missing(f->sqlstate)) {
    const char *text = f->prepare ? f->prepare->text : f->at_group ? f->at_group->statements[0].sql->text : "";
    LOG(ERROR, "db", "%s: %s: %s in: %s", db_name(c->db), f->sqlstate, PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY),
        text);
  }
}

static void next_statement(DbFlight *f) {
  f->seen = false;
  if (!f->at_group)
    return;
  if (++f->at_statement >= f->at_group->count) {
    f->at_statement = 0;
    f->at_group = f->at_group->next;
  }
}

static void land(DbConn *c) {
  DbFlight done = *flight(c, 0);
  c->flight_first = (c->flight_first + 1) % DB_FLIGHTS;
  c->flight_count--;
  if (!done.prepare)
    db_flight_landed(c->db, &done);
  else if (done.error && c->prepared)
    forget_prepared(c, done.prepare);
}

static void take_result(DbConn *c, const PGresult *res) {
  DbFlight *f = flight(c, 0);
  switch (PQresultStatus(res)) {
  case PGRES_PIPELINE_SYNC: /* only now is it durable */
    land(c);
    return;
  case PGRES_TUPLES_OK:
  case PGRES_COMMAND_OK:
    if (f->at_group && !f->error)
      keep_result(f->at_group, f->at_statement, res);
    break;
  case PGRES_PIPELINE_ABORTED:
    break;
  default: /* also an error at commit, which names no statement */
    keep_error(c, f, res);
  }
  f->seen = true;
}

static void read_results(DbConn *c) {
  if (!PQconsumeInput(c->pq)) {
    break_conn(c);
    return;
  }
  while (c->flight_count > 0 && !PQisBusy(c->pq)) {
    PGresult *res = PQgetResult(c->pq);
    if (res)
      take_result(c, res);
    else if (flight(c, 0)->seen)
      next_statement(flight(c, 0));
    else if (PQstatus(c->pq) == CONNECTION_BAD)
      break;
    PQclear(res);
  }
  if (PQstatus(c->pq) == CONNECTION_BAD)
    break_conn(c);
}

static void on_poll(uv_poll_t *handle, int status, int events) {
  DbConn *c = handle->data;
  if (status < 0 || (events & UV_READABLE))
    read_results(c);
  if (c->up && (events & UV_WRITABLE))
    flush(c);
}

static void free_poll(uv_handle_t *handle) {
  free(handle);
}

static void drop_poll(DbConn *c) {
  if (c->poll)
    uv_close((uv_handle_t *)c->poll, free_poll);
  c->poll = NULL;
}

static int open_conn(DbConn *c) {
  c->reason[0] = 0;
  TRY(db_connect(&(DbConnect){db_dsn(c->db), "skald", DB_SESSION_POOL}, &c->pq, c->reason));
  if (!PQenterPipelineMode(c->pq))
    return E_UNAVAILABLE;
  c->poll = calloc(1, sizeof(*c->poll));
  if (!c->poll || uv_poll_init(loop_uv(), c->poll, PQsocket(c->pq)) < 0)
    abort();
  c->poll->data = c;
  c->watched = 0;
  watch(c, false);
  return 0;
}

/* What was sent may have been done or not: only its owner can find out, by its key. */
static void close_conn(DbConn *c) {
  drop_poll(c);
  while (c->flight_count > 0) {
    flight(c, 0)->error = E_UNKNOWN;
    land(c);
  }
  PQfinish(c->pq);
  c->pq = NULL;
  free(c->prepared);
  c->prepared = NULL;
  c->prepared_cap = c->prepared_count = 0;
}

static void log_broken(const DbConn *c) {
  char lost[DB_REASON];
  if (c->pq)
    db_reason(c->pq, lost);
  LOG(WARN, "db", "%s: connection lost or refused: %s", db_name(c->db), c->pq ? lost : c->reason);
}

/* The server's own statement_timeout is shorter: who says nothing for this long is frozen, or cut off. */
static bool is_stuck(DbConn *c) {
  return c->flight_count > 0 && clock_now_us() - flight(c, 0)->sent_us > STUCK_US;
}

void db_conn_main(void *arg) {
  DbConn *c = arg;
  c->fiber = fiber_current();
  int64_t wait_us = RETRY_FIRST_US;
  for (;;) {
    c->broken = false;
    if (open_conn(c) == 0) {
      c->up = true;
      wait_us = RETRY_FIRST_US;
      LOG(DEBUG, "db", "%s: connected", db_name(c->db));
      db_conn_changed(c->db);
      while (!c->broken) {
        if (fiber_wait("postgres", clock_now_us() + WATCH_US) == E_CANCELED)
          return;
        if (is_stuck(c))
          break_conn(c);
      }
    }
    log_broken(c);
    close_conn(c);
    c->tried = true;
    db_conn_changed(c->db);
    if (fiber_sleep(wait_us) == E_CANCELED)
      return;
    wait_us = wait_us * 2 < RETRY_MOST_US ? wait_us * 2 : RETRY_MOST_US;
  }
}

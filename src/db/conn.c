/* One pipelined connection to PostgreSQL. Its pipeline is a queue of flights, each ended by a Sync: either one
 * statement being prepared, or a batch of groups, which is one transaction. Statements are prepared in a flight of
 * their own, so that a failing batch never takes a preparation with it. */
#include "db/conn.h"

#include "base/backoff.h"
#include "db/connect.h"
#include "log/log.h"
#include "rt/clock.h"
#include "rt/loop.h"
#include "rt/random.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#define BATCHES_IN_FLIGHT 2 /* PostgreSQL works on one while the next is being filled; measured: 1 costs a third */
#define STALLED_US        (100 * MILLISECONDS)
#define WATCH_US          (1 * SECONDS)
#define HEARTBEAT_US      (5 * SECONDS)
#define RETRY_FIRST_US    (50 * MILLISECONDS)
#define RETRY_MAX_US      (1 * SECONDS)

/* What the server itself ends: statement_timeout of session.c. It keeps the results of a flight back until its end, so
 * a flight may be silent for as long as all its statements may run, and MARGIN_US for its commit and the way. */
#define STATEMENT_US (10 * SECONDS)
#define MARGIN_US    (3 * SECONDS)

#define READ_ONLY "the server takes no writes"

const DbFlight *db_conn_flight(const DbConn *c, int i) {
  assert(i >= 0 && i < c->flight_count);
  return &c->flights[(c->flight_first + i) % DB_FLIGHTS_MAX];
}

static DbFlight *flight(DbConn *c, int i) {
  return &c->flights[(c->flight_first + i) % DB_FLIGHTS_MAX];
}

static DbFlight *add_flight(DbConn *c) {
  assert(c->flight_count < DB_FLIGHTS_MAX);
  DbFlight *f = flight(c, c->flight_count);
  *f = (DbFlight){.sent_us = clock_now_us()};
  if (c->flight_count++ == 0)
    c->head_us = f->sent_us;
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
      die("out of memory");
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

/* It takes no more, and is left when what was sent has landed. */
static void leave_conn(DbConn *c, const char *problem) {
  if (c->leaving)
    return;
  c->leaving = true;
  c->tried = true;
  c->up = false;
  c->problem = problem;
  db_conn_changed(c->db);
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

bool db_conn_is_stalled(const DbConn *c, int64_t now_us) {
  for (int i = 0; i < c->flight_count; i++)
    if (db_conn_flight(c, i)->first && db_conn_flight(c, i)->first->suspect)
      return true;
  return c->flight_count > 0 && now_us - c->head_us > STALLED_US;
}

bool db_conn_has_room(const DbConn *c, int64_t now_us) {
  return c->up && c->batches < BATCHES_IN_FLIGHT && !db_conn_is_stalled(c, now_us);
}

void db_conn_send(DbConn *c, DbGroup *first, int groups) {
  assert(c->up && first && groups > 0);
  bool ok = prepare_all(c, first);
  DbFlight *f = add_flight(c);
  c->batches++;
  f->first = f->at_group = first;
  f->groups = groups;
  for (DbGroup *g = first; g && ok; g = g->next)
    ok = send_group(c, g);
  if (ok && PQpipelineSync(c->pq))
    flush(c);
  else
    break_conn(c);
}

/* A Sync alone. A connection that was cut while it was idle is noticed, and so are parameters that have changed. */
static void send_heartbeat(DbConn *c) {
  add_flight(c);
  if (PQpipelineSync(c->pq))
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

static void remember_unprepared(DbConn *c, const DbFlight *f, const char *message) {
  if (c->unprepared.sql)
    return;
  c->unprepared.sql = f->prepare;
  memcpy(c->unprepared.sqlstate, f->sqlstate, sizeof(f->sqlstate));
  snprintf(c->unprepared.message, sizeof(c->unprepared.message), "%s", message ? message : "");
}

/* To be logged by the one whose it is, and only if the group ends so: alone it may succeed. */
static void keep_text(DbFlight *f, const char *sqlstate, const char *message) {
  DbGroup *g = f->at_group ? f->at_group : f->groups == 1 ? f->first : NULL;
  const char *text = f->at_group ? f->at_group->statements[f->at_statement].sql->text : "COMMIT";
  if (g)
    g->error = arena_printf(g->memory, "SQL error %s: %s in: %s", sqlstate, message, text);
}

/* An error of the statement, or that of its preparation, which came before it. */
static void keep_error(DbConn *c, DbFlight *f, const PGresult *res) {
  const char *sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);
  const char *message = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
  snprintf(f->sqlstate, sizeof(f->sqlstate), "%s", sqlstate ? sqlstate : "08006");
  if (f->prepare) {
    f->error = E_INTERNAL;
    remember_unprepared(c, f, message);
    return;
  }
  f->culprit = f->at_group;
  const Sql *sql = f->at_group ? f->at_group->statements[f->at_statement].sql : NULL;
  if (sql && sql == c->unprepared.sql && !strcmp(f->sqlstate, "26000")) {
    memcpy(f->sqlstate, c->unprepared.sqlstate, sizeof(f->sqlstate));
    message = c->unprepared.message;
  }
  f->error = error_code(f->sqlstate);
  if (f->error == E_INTERNAL || is_missing(f->sqlstate))
    keep_text(f, f->sqlstate, message ? message : "");
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

static bool is_read_only(const DbConn *c) {
  const char *fresh = PQparameterStatus(c->pq, "default_transaction_read_only");
  const char *standby = PQparameterStatus(c->pq, "in_hot_standby");
  return (fresh && !strcmp(fresh, "on")) || (standby && !strcmp(standby, "on"));
}

static void land_batch(DbConn *c, DbFlight *done) {
  assert(c->batches > 0 && done->groups > 0);
  c->batches--;
  c->unprepared.sql = NULL;
  db_flight_landed(c->db, done);
  if (!strcmp(done->sqlstate, "25006"))
    leave_conn(c, READ_ONLY);
}

static void land(DbConn *c) {
  assert(c->flight_count > 0);
  DbFlight done = *flight(c, 0);
  c->flight_first = (c->flight_first + 1) % DB_FLIGHTS_MAX;
  c->flight_count--;
  c->head_us = clock_now_us();
  if (done.first)
    land_batch(c, &done);
  else if (done.prepare && done.error && c->prepared)
    forget_prepared(c, done.prepare);
  else if (!done.prepare && !done.error && is_read_only(c))
    leave_conn(c, READ_ONLY);
  if (c->leaving && c->flight_count == 0)
    break_conn(c);
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
  while (c->flight_count > 0 && !c->broken && !PQisBusy(c->pq)) {
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
  if (!c->broken && (events & UV_WRITABLE))
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
  if (!c->poll)
    die("out of memory");
  if (uv_poll_init(loop_uv(), c->poll, PQsocket(c->pq)) < 0)
    die("a connection's socket cannot be watched");
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
  c->unprepared.sql = NULL;
}

static void log_broken(const DbConn *c) {
  char lost[DB_REASON];
  if (c->pq)
    db_reason(c->pq, lost);
  LOG(WARN, "db", "%s: connection lost or refused: %s", db_name(c->db),
      c->problem ? c->problem
      : c->pq    ? lost
                 : c->reason);
}

static bool is_waited_for(const DbConn *c) {
  for (int i = 0; i < c->flight_count; i++)
    for (const DbGroup *g = db_conn_flight(c, i)->first; g; g = g->next)
      if (g->fiber)
        return true;
  return false;
}

static int statements_of(const DbFlight *f) {
  int count = 0;
  for (const DbGroup *g = f->first; g; g = g->next)
    count += g->count;
  return count > 0 ? count : 1;
}

/* Frozen, or cut off. The wait behind an earlier flight does not count; what nobody waits for is given up sooner. */
static bool is_stuck(const DbConn *c) {
  int64_t silent_us = clock_now_us() - c->head_us;
  if (c->flight_count == 0 || silent_us <= STATEMENT_US + MARGIN_US)
    return false;
  return !is_waited_for(c) || silent_us > statements_of(db_conn_flight(c, 0)) * STATEMENT_US + MARGIN_US;
}

/* Until it breaks. E_CANCELED. */
static int watch_over(DbConn *c) {
  while (!c->broken) {
    if (fiber_wait("postgres", clock_now_us() + WATCH_US) == E_CANCELED)
      return E_CANCELED;
    if (c->broken)
      break;
    if (is_stuck(c)) {
      c->problem = "no response in time";
      break_conn(c);
    } else if (c->flight_count == 0 && clock_now_us() - c->head_us >= HEARTBEAT_US) {
      send_heartbeat(c);
    }
  }
  return E_OK;
}

/* Connects, and watches over the connection to its end. *failures: consecutive attempts without a connection. */
static int live(DbConn *c, int *failures) {
  c->broken = c->leaving = false;
  c->problem = NULL;
  if (open_conn(c) < 0) {
    ++*failures;
    return E_OK;
  }
  *failures = 0;
  c->up = true;
  c->head_us = clock_now_us();
  LOG(DEBUG, "db", "%s: connected", db_name(c->db));
  db_conn_changed(c->db);
  return watch_over(c);
}

void db_conn_main(void *arg) {
  DbConn *c = arg;
  c->fiber = fiber_current();
  for (int failures = 0;;) {
    if (live(c, &failures) == E_CANCELED)
      return;
    log_broken(c);
    close_conn(c);
    c->tried = true;
    db_conn_changed(c->db);
    if (fiber_sleep(backoff_us(failures, RETRY_FIRST_US, RETRY_MAX_US, random_u64())) == E_CANCELED)
      return;
  }
}

/* The pool: groups wait in one queue, and before each poll they are sent in batches over the connections that have
 * room. */
#include "db/conn.h"
#include "log/log.h"
#include "metrics/metrics.h"
#include "rt/clock.h"
#include "rt/loop.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOCK_NOT_AVAILABLE "55P03"

#define QUEUE_MAX    4096
#define ATTEMPTS_MAX 6 /* of a group that runs into deadlocks or lock timeouts, each alone */

/* What a group can end in; the last stands for all others. */
static const struct {
  int code;
  const char *label;
} error_classes[] = {{E_EXISTS, "class=\"exists\""},           {E_RANGE, "class=\"range\""},
                     {E_FENCED, "class=\"fenced\""},           {E_BUSY, "class=\"busy\""},
                     {E_UNAVAILABLE, "class=\"unavailable\""}, {E_UNKNOWN, "class=\"unknown\""},
                     {E_TIMEOUT, "class=\"timeout\""},         {E_OK, "class=\"other\""}};
enum { DB_ERRORS = sizeof(error_classes) / sizeof(error_classes[0]) };

struct Db {
  const char *dsn, *name;
  DbConn *conns;
  int conn_count, batch;
  DbGroup *first, **end; /* waiting to be sent; *end is NULL */
  int queued;
  DbGroup *spare;
  Metric *groups, *statements, *batches, *batch_size, *round_trip, *resent, *waiting;
  Metric *used, *idle, *connections_max;
  Metric *errors[DB_ERRORS];
};

static void add_metrics(Db *db) {
  static const MetricBuckets sizes = {{1, 2, 4, 8, 16, 32, 64}};
  static const MetricBuckets seconds = {
      {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}};
  static const MetricFamily families[] = {
      {.type = METRIC_COUNTER, .name = "skald_db_groups_total", .help = "Groups of statements finished."},
      {.type = METRIC_COUNTER, .name = "skald_db_statements_total", .help = "Statements sent."},
      {.type = METRIC_COUNTER, .name = "skald_db_batches_total", .help = "Transactions sent, each a batch of groups."},
      {.type = METRIC_HISTOGRAM, .name = "skald_db_batch_size", .help = "Groups in a transaction.", .buckets = &sizes},
      {.type = METRIC_HISTOGRAM,
       .name = "skald_db_round_trip_seconds",
       .help = "From sending a transaction to its outcome.",
       .buckets = &seconds},
      {.type = METRIC_COUNTER,
       .name = "skald_db_groups_resent_total",
       .help = "Groups sent again after their batch failed."},
      {.type = METRIC_GAUGE, .name = "skald_db_queued_groups", .help = "Groups waiting to be sent."},
      {.type = METRIC_GAUGE, .name = "skald_db_connections_max", .help = "Connections the pool is configured for."},
  };
  static const MetricFamily connections = {
      .type = METRIC_GAUGE, .name = "skald_db_connections", .help = "Open connections, by what they do."};
  static const MetricFamily errors = {
      .type = METRIC_COUNTER, .name = "skald_db_errors_total", .help = "Groups that ended in an error, by class."};
  Metric **const targets[] = {&db->groups,     &db->statements, &db->batches, &db->batch_size,
                              &db->round_trip, &db->resent,     &db->waiting, &db->connections_max};
  char labels[96];
  snprintf(labels, sizeof(labels), "database=\"%s\"", db->name);
  for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++)
    *targets[i] = metric_in(&families[i], labels, "");
  db->used = metric_in(&connections, labels, "state=\"used\"");
  db->idle = metric_in(&connections, labels, "state=\"idle\"");
  for (int i = 0; i < DB_ERRORS; i++)
    db->errors[i] = metric_in(&errors, labels, error_classes[i].label);
}

Db *db_new(const char *dsn, const char *name) {
  Db *db = calloc(1, sizeof(*db));
  if (!db)
    die("out of memory");
  db->end = &db->first;
  db->dsn = dsn;
  db->name = name;
  add_metrics(db);
  return db;
}

const char *db_dsn(const Db *db) {
  return db->dsn;
}

const char *db_name(const Db *db) {
  return db->name;
}

static DbGroup *group_new(Db *db) {
  DbGroup *g = db->spare;
  if (g) {
    db->spare = g->next;
    Arena *memory = g->memory;
    arena_reset(memory);
    *g = (DbGroup){.memory = memory};
    return g;
  }
  g = calloc(1, sizeof(*g));
  if (!g)
    die("out of memory");
  g->memory = arena_new();
  return g;
}

static void group_free(Db *db, DbGroup *g) {
  g->next = db->spare;
  db->spare = g;
}

/* Before the one that *at points to, or at the end. Returns where the next one goes to stand behind it. */
static DbGroup **enqueue(Db *db, DbGroup **at, DbGroup *g) {
  assert(!g->queued && !g->done);
  g->next = *at;
  *at = g;
  if (db->end == at)
    db->end = &g->next;
  g->queued = true;
  db->queued++;
  return &g->next;
}

static DbGroup *dequeue(Db *db, DbGroup **at) {
  DbGroup *g = *at;
  assert(g->queued && db->queued > 0);
  *at = g->next;
  if (db->end == &g->next)
    db->end = at;
  db->queued--;
  g->queued = false;
  return g;
}

/* Nobody waits for it any more, and it was never sent. */
static void unqueue(Db *db, const DbGroup *gone) {
  DbGroup **at = &db->first;
  while (*at != gone)
    at = &(*at)->next;
  dequeue(db, at);
}

static void count_error(Db *db, int code) {
  int i = 0;
  while (error_classes[i].code != code && error_classes[i].code != E_OK)
    i++;
  metric_add(db->errors[i], 1);
}

static void log_error(const DbGroup *g) {
  if (g->outcome == E_INTERNAL && g->error.p)
    LOG(ERROR, "db", "%.*s", STR_FMT(g->error));
}

/* The fiber frees the group once it has seen the outcome, and logs what it was; without one both are done here. */
static void finish(Db *db, DbGroup *g, int outcome) {
  assert(!g->done && !g->queued); /* an outcome is final */
  metric_add(db->groups, 1);
  if (outcome < 0 && g->fiber)
    count_error(db, outcome);
  g->outcome = outcome;
  g->done = true;
  if (g->fiber) {
    fiber_wake(g->fiber);
  } else {
    log_error(g);
    group_free(db, g);
  }
}

/* What failed in company is sent again, each group alone; only the outcome of what was not known stays so. */
static bool is_sent_again(const DbGroup *g, const DbFlight *f) {
  if (f->error == E_OK || f->error == E_UNKNOWN)
    return false;
  return f->groups > 1 || (f->error == E_BUSY && g->attempts < ATTEMPTS_MAX && g->fiber);
}

static void note_lock(DbGroup *g, const DbFlight *f) {
  const DbGroup *waited = strcmp(f->sqlstate, LOCK_NOT_AVAILABLE) ? NULL : f->culprit;
  g->suspect = waited != NULL;
  g->blocked = waited && (g == waited || (!uuid_is_nil(g->hot_key) && uuid_eq(g->hot_key, waited->hot_key)));
}

void db_flight_landed(Db *db, DbFlight *f) {
  metric_observe(db->round_trip, (double)(clock_now_us() - f->sent_us) / 1e6);
  for (DbGroup *g = f->first; g; g = g->next)
    note_lock(g, f);
  DbGroup **front = &db->first, *next;
  for (DbGroup *g = f->first; g; g = next) {
    next = g->next;
    if (!is_sent_again(g, f)) {
      finish(db, g, f->error);
      continue;
    }
    g->alone = true;
    g->attempts++;
    metric_add(db->resent, 1);
    if (g->blocked)
      enqueue(db, db->end, g); /* the others need not wait for its lock as well */
    else
      front = enqueue(db, front, g);
  }
}

static bool is_sent(const DbConn *c, Uuid hot_key) {
  for (int i = 0; i < c->flight_count; i++)
    for (const DbGroup *g = db_conn_flight(c, i)->first; g; g = g->next)
      if (uuid_eq(g->hot_key, hot_key))
        return true;
  return false;
}

/* Some connections wait for a lock, as it seems. What wants a row of theirs would only make another one wait, so it
 * stays in the queue; and so does what is known to wait, if it took the last connection from the others. */
static bool is_held(const Db *db, const DbGroup *g, int64_t now_us) {
  int up = 0, stalled = 0;
  for (int i = 0; i < db->conn_count; i++) {
    const DbConn *c = &db->conns[i];
    up += c->up;
    if (!c->up || !db_conn_is_stalled(c, now_us))
      continue;
    stalled++;
    if (!uuid_is_nil(g->hot_key) && is_sent(c, g->hot_key))
      return true;
  }
  return g->blocked && stalled > 0 && stalled >= up - 1;
}

static bool any_stalled(const Db *db, int64_t now_us) {
  for (int i = 0; i < db->conn_count; i++)
    if (db->conns[i].up && db_conn_is_stalled(&db->conns[i], now_us))
      return true;
  return false;
}

/* Takes the groups of the next transaction off the queue, those of hot rows sorted by their key. NULL: none may go. */
static DbGroup *take_batch(Db *db, int64_t now_us, int *ret_count) {
  DbGroup *batch = NULL, **at = &db->first;
  bool stalled = any_stalled(db, now_us), full = false;
  int count = 0;
  while (*at && count < db->batch && !full) {
    if (stalled && is_held(db, *at, now_us)) {
      at = &(*at)->next;
      continue;
    }
    if (count && (*at)->alone)
      break;
    DbGroup *g = dequeue(db, at);
    DbGroup **place = &batch;
    while (*place && uuid_cmp((*place)->hot_key, g->hot_key) <= 0)
      place = &(*place)->next;
    g->next = *place;
    *place = g;
    count++;
    full = g->alone;
  }
  *ret_count = count;
  return batch;
}

static void count_batch(Db *db, const DbGroup *batch, int count) {
  int statements = 0;
  for (const DbGroup *g = batch; g; g = g->next)
    statements += g->count;
  metric_add(db->statements, statements);
  metric_add(db->batches, 1);
  metric_observe(db->batch_size, count);
}

static void show_connections(Db *db) {
  int used = 0, idle = 0;
  for (int i = 0; i < db->conn_count; i++) {
    const DbConn *c = &db->conns[i];
    used += c->up && c->flight_count > 0;
    idle += c->up && c->flight_count == 0;
  }
  metric_set(db->used, used);
  metric_set(db->idle, idle);
  metric_set(db->waiting, db->queued);
}

/* The one with the fewest batches, and of those the one whose batch is the youngest. NULL: none has room. */
static DbConn *roomiest(Db *db, int64_t now_us) {
  DbConn *best = NULL;
  for (int i = 0; i < db->conn_count; i++) {
    DbConn *c = &db->conns[i];
    if (!db_conn_has_room(c, now_us))
      continue;
    if (!best || c->batches < best->batches ||
        (c->batches == best->batches && c->batches && c->head_us > best->head_us))
      best = c;
  }
  return best;
}

static void send_waiting(void *arg) {
  Db *db = arg;
  int64_t now_us = clock_now_us();
  DbConn *c;
  while (db->first && (c = roomiest(db, now_us))) {
    int count;
    DbGroup *batch = take_batch(db, now_us, &count);
    if (!batch)
      break;
    count_batch(db, batch, count);
    db_conn_send(c, batch, count);
  }
  show_connections(db);
}

void db_start(Db *db, int connections, int batch) {
  assert(connections > 0 && batch > 0);
  db->batch = batch < DB_BATCH_MAX ? batch : DB_BATCH_MAX;
  db->conn_count = connections;
  metric_set(db->connections_max, connections);
  db->conns = calloc((size_t)connections, sizeof(*db->conns));
  if (!db->conns)
    die("out of memory");
  for (int i = 0; i < connections; i++) {
    db->conns[i].db = db;
    if (!fiber_start("postgres", db_conn_main, &db->conns[i]))
      die("no fiber is left for a database connection");
  }
  loop_before_poll(send_waiting, db);
}

bool db_is_up(const Db *db) {
  for (int i = 0; i < db->conn_count; i++)
    if (db->conns[i].up)
      return true;
  return false;
}

/* Every connection has failed: better said at once than waited for. Before the first attempt has ended, it is waited
 * for. */
static bool is_down(const Db *db) {
  for (int i = 0; i < db->conn_count; i++)
    if (db->conns[i].up || !db->conns[i].tried)
      return false;
  return true;
}

void db_conn_changed(Db *db) {
  show_connections(db);
  while (is_down(db) && db->first)
    finish(db, dequeue(db, &db->first), E_UNAVAILABLE);
}

DbStmt db_hot(Uuid key, DbStmt statement) {
  statement.hot_key = key;
  return statement;
}

static Uuid hot_key_of(const DbStmt *statements, int count) {
  int i = 0;
  while (i < count - 1 && uuid_is_nil(statements[i].hot_key))
    i++;
  return statements[i].hot_key;
}

static int wait_group(Db *db, DbGroup *g, int64_t deadline_us) {
  int rc = 0;
  while (!g->done && rc == 0)
    rc = fiber_wait("database", deadline_us);
  if (g->done) {
    rc = g->outcome;
    log_error(g);
    group_free(db, g);
    return rc;
  }
  count_error(db, rc);
  if (g->queued && !g->attempts) {
    unqueue(db, g);
    group_free(db, g);
    return rc;
  }
  g->fiber = NULL; /* nobody waits for what comes of it */
  g->results = NULL;
  return rc;
}

int db_group(Db *db, Arena *arena, const DbStmt *statements, int count, DbResult *results, int64_t deadline_us) {
  assert(count > 0);
  int rc = is_down(db) ? E_UNAVAILABLE : db->queued >= QUEUE_MAX ? E_BUSY : E_OK;
  if (rc < 0) {
    count_error(db, rc);
    return rc;
  }
  DbGroup *g = group_new(db);
  g->fiber = fiber_current();
  g->result_arena = arena;
  g->results = results;
  g->count = count;
  g->hot_key = hot_key_of(statements, count);
  g->statements = ARENA_ARRAY(g->memory, DbBound, (size_t)count);
  for (int i = 0; i < count; i++)
    g->statements[i] = db_bind(g->memory, &statements[i]);
  enqueue(db, db->end, g);
  return wait_group(db, g, deadline_us);
}

int db_exec(Db *db, Arena *arena, DbStmt statement, DbResult *result, int64_t deadline_us) {
  return db_group(db, arena, &statement, 1, result, deadline_us);
}

/* The pool: groups wait in one queue, and before each poll they are sent in batches over the connections that have
 * room. */
#include "db/pq.h"
#include "log/log.h"
#include "metrics/metrics.h"
#include "rt/clock.h"
#include "rt/loop.h"

#include <stdio.h>
#include <stdlib.h>

#define QUEUE_MOST 8192
#define ATTEMPTS   6 /* of a group that runs into deadlocks or lock timeouts, each alone */

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
  DbGroup *first, *last; /* waiting to be sent */
  int queued;
  DbGroup *spare;
  Metric *groups, *statements, *batches, *batch_size, *round_trip, *resent, *waiting;
  Metric *used, *idle, *most; /* connections */
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
      {.type = METRIC_GAUGE, .name = "skald_db_connections_max", .help = "How many connections there shall be."},
  };
  static const MetricFamily connections = {
      .type = METRIC_GAUGE, .name = "skald_db_connections", .help = "Open connections, by what they do."};
  static const MetricFamily errors = {
      .type = METRIC_COUNTER, .name = "skald_db_errors_total", .help = "Groups that ended in an error, by class."};
  Metric **const targets[] = {&db->groups,     &db->statements, &db->batches, &db->batch_size,
                              &db->round_trip, &db->resent,     &db->waiting, &db->most};
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
    abort();
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
    abort();
  g->memory = arena_new();
  return g;
}

static void group_free(Db *db, DbGroup *g) {
  g->next = db->spare;
  db->spare = g;
}

static void enqueue(Db *db, DbGroup *g) {
  g->next = NULL;
  if (db->last)
    db->last->next = g;
  else
    db->first = g;
  db->last = g;
  g->queued = true;
  db->queued++;
}

static void enqueue_first(Db *db, DbGroup *g) {
  g->next = db->first;
  db->first = g;
  if (!db->last)
    db->last = g;
  g->queued = true;
  db->queued++;
}

static DbGroup *dequeue(Db *db) {
  DbGroup *g = db->first;
  db->first = g->next;
  if (!db->first)
    db->last = NULL;
  db->queued--;
  g->queued = false;
  return g;
}

/* Out of the middle of the queue: nobody waits for it any more, and it was never sent. */
static void unqueue(Db *db, DbGroup *gone) {
  DbGroup *before = NULL;
  for (DbGroup *g = db->first; g != gone; g = g->next)
    before = g;
  if (!before) {
    dequeue(db);
    return;
  }
  before->next = gone->next;
  if (db->last == gone)
    db->last = before;
  db->queued--;
}

static void count_error(Db *db, int code) {
  int i = 0;
  while (error_classes[i].code != code && error_classes[i].code != E_OK)
    i++;
  metric_add(db->errors[i], 1);
}

/* The fiber frees the group once it has seen the outcome; without one it is freed here. */
static void finish(Db *db, DbGroup *g, int outcome) {
  metric_add(db->groups, 1);
  if (outcome < 0 && g->fiber)
    count_error(db, outcome);
  g->outcome = outcome;
  g->done = true;
  if (g->fiber)
    fiber_wake(g->fiber);
  else
    group_free(db, g);
}

static void land_group(Db *db, DbGroup *g, const DbFlight *f) {
  bool again = f->groups > 1 ? f->error != E_UNKNOWN : f->error == E_BUSY && g->attempts < ATTEMPTS && g->fiber;
  if (f->error == 0 || !again) {
    finish(db, g, f->error);
    return;
  }
  g->alone = true;
  g->attempts++;
  metric_add(db->resent, 1);
  enqueue_first(db, g);
}

void db_flight_landed(Db *db, DbFlight *f) {
  metric_observe(db->round_trip, (double)(clock_now_us() - f->sent_us) / 1e6);
  DbGroup *next;
  for (DbGroup *g = f->first; g; g = next) {
    next = g->next;
    land_group(db, g, f);
  }
}

/* Takes the groups of the next transaction off the queue, those of hot rows sorted by their key. */
static DbGroup *take_batch(Db *db, int most, int *ret_count) {
  DbGroup *batch = NULL;
  int count = 0;
  while (db->first && count < most && !(count && db->first->alone)) {
    DbGroup *g = dequeue(db);
    DbGroup **place = &batch;
    while (*place && uuid_cmp((*place)->hot_key, g->hot_key) <= 0)
      place = &(*place)->next;
    g->next = *place;
    *place = g;
    count++;
    if (g->alone)
      break;
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

static void send_waiting(void *arg) {
  Db *db = arg;
  for (int i = 0; i < db->conn_count && db->first; i++) {
    DbConn *c = &db->conns[i];
    while (db->first && db_conn_has_room(c)) {
      int count;
      DbGroup *batch = take_batch(db, db->batch, &count);
      if (!batch)
        break;
      count_batch(db, batch, count);
      db_conn_send(c, batch, count);
    }
  }
  show_connections(db);
}

void db_start(Db *db, int connections, int batch) {
  db->batch = batch < DB_BATCH_MOST ? batch : DB_BATCH_MOST;
  db->conn_count = connections;
  metric_set(db->most, connections);
  db->conns = calloc((size_t)connections, sizeof(*db->conns));
  if (!db->conns)
    abort();
  for (int i = 0; i < connections; i++) {
    db->conns[i].db = db;
    if (!fiber_start("postgres", db_conn_main, &db->conns[i]))
      abort();
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
    finish(db, dequeue(db), E_UNAVAILABLE);
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
    group_free(db, g);
    return rc;
  }
  count_error(db, rc);
  if (g->queued && !g->attempts) {
    unqueue(db, g);
    group_free(db, g);
    return rc;
  }
  g->fiber = NULL; /* whatever comes of it now, nobody is told */
  g->results = NULL;
  return rc;
}

int db_group(Db *db, Arena *arena, const DbStmt *statements, int count, DbResult *results, int64_t deadline_us) {
  int rc = is_down(db) ? E_UNAVAILABLE : db->queued >= QUEUE_MOST ? E_BUSY : E_OK;
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
  g->statements = ARENA_ARRAY(g->memory, struct DbBound, (size_t)count);
  for (int i = 0; i < count; i++)
    g->statements[i] = db_bind(g->memory, &statements[i]);
  enqueue(db, g);
  return wait_group(db, g, deadline_us);
}

int db_exec(Db *db, Arena *arena, DbStmt statement, DbResult *result, int64_t deadline_us) {
  return db_group(db, arena, &statement, 1, result, deadline_us);
}

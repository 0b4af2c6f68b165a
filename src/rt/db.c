/* The pool: groups wait in one queue, and before each poll they are sent in batches over the connections that have
 * room. */
#include "rt/log.h"
#include "rt/loop.h"
#include "rt/metrics.h"
#include "rt/pq.h"

#include <stdio.h>
#include <stdlib.h>

#define QUEUE_MOST 8192
#define ATTEMPTS   6 /* of a group that runs into deadlocks or lock timeouts, each alone */

struct Db {
  const char *dsn, *name;
  DbConn *conns;
  int conn_count, batch;
  DbGroup *first, *last; /* waiting to be sent */
  int queued;
  DbGroup *spare;
  Metric *groups, *batches, *resent, *errors, *up, *waiting;
};

static Uuid next_hot_key;

static Metric *db_metric(MetricType type, const char *what, const char *help, const char *name) {
  char full[64], labels[96];
  snprintf(full, sizeof(full), "skald_db_%s", what);
  snprintf(labels, sizeof(labels), "database=\"%s\"", name);
  return metric_new(type, full, help, labels);
}

Db *db_new(const char *dsn, const char *name) {
  Db *db = calloc(1, sizeof(*db));
  if (!db)
    abort();
  db->dsn = dsn;
  db->name = name;
  db->groups = db_metric(METRIC_COUNTER, "groups_total", "Atomic groups of statements finished", name);
  db->batches = db_metric(METRIC_COUNTER, "batches_total", "Transactions sent, each a batch of groups", name);
  db->resent = db_metric(METRIC_COUNTER, "groups_resent_total", "Groups sent again after their batch failed", name);
  db->errors = db_metric(METRIC_COUNTER, "errors_total", "Groups that ended in an error", name);
  db->up = db_metric(METRIC_GAUGE, "connections", "Connections that are up", name);
  db->waiting = db_metric(METRIC_GAUGE, "queued_groups", "Groups waiting to be sent", name);
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

/* The fiber frees the group once it has seen the outcome; without one it is freed here. */
static void finish(Db *db, DbGroup *g, int outcome) {
  metric_add(db->groups, 1);
  if (outcome < 0)
    metric_add(db->errors, 1);
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

static void send_waiting(void *arg) {
  Db *db = arg;
  for (int i = 0; i < db->conn_count && db->first; i++) {
    DbConn *c = &db->conns[i];
    while (db->first && db_conn_has_room(c)) {
      int count;
      DbGroup *batch = take_batch(db, db->batch, &count);
      if (!batch)
        break;
      metric_add(db->batches, 1);
      db_conn_send(c, batch, count);
    }
  }
  metric_set(db->waiting, db->queued);
}

void db_start(Db *db, int connections, int batch) {
  db->batch = batch < DB_BATCH_MOST ? batch : DB_BATCH_MOST;
  db->conn_count = connections;
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
  int up = 0;
  for (int i = 0; i < db->conn_count; i++)
    up += db->conns[i].up;
  metric_set(db->up, up);
  while (is_down(db) && db->first)
    finish(db, dequeue(db), E_UNAVAILABLE);
}

void db_hot_key(Uuid key) {
  next_hot_key = key;
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
  Uuid hot_key = next_hot_key;
  next_hot_key = (Uuid){0};
  if (is_down(db))
    return E_UNAVAILABLE;
  if (db->queued >= QUEUE_MOST)
    return E_BUSY;
  DbGroup *g = group_new(db);
  g->fiber = fiber_current();
  g->result_arena = arena;
  g->results = results;
  g->count = count;
  g->hot_key = hot_key;
  g->statements = ARENA_ARRAY(g->memory, struct DbBound, (size_t)count);
  for (int i = 0; i < count; i++)
    g->statements[i] = db_bind(g->memory, &statements[i]);
  enqueue(db, g);
  return wait_group(db, g, deadline_us);
}

int db_exec(Db *db, Arena *arena, DbStmt statement, DbResult *result, int64_t deadline_us) {
  return db_group(db, arena, &statement, 1, result, deadline_us);
}

/* The sagas' rows in PostgreSQL. Leases are by the database's clock; clock_timestamp(), because a batch of groups is
 * one transaction and now() would be its beginning. */
#include "saga/store.h"

#include "db/array.h"
#include "rt/clock.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLAIM_MAX  64
#define EXPIRE_MAX 1000
#define STORE_US   (5 * SECONDS)

struct SagaStore {
  Db *db;
  Str name, owner;
  int64_t lease_ms;
  Sql begin, compensate, park, finish, look, claim, renew, release, parked, expire, show, list, list_open;
  SagaStoreOperate operate;
};

static Sql statement(const char *format, const char *schema) {
  char *text;
  if (asprintf(&text, format, schema, schema) < 0)
    die("out of memory for a statement of the sagas of %s", schema);
  return (Sql){text};
}

#define LEASE(n) "clock_timestamp() + $" #n " * interval '1 millisecond'"

#define SHOWN                                                                                                          \
  "id, type, state, failed_step, reason, steps, to_json(created_at) #>> '{}', to_json(finished_at) #>> '{}',"          \
  " CASE state WHEN 'PARKED' THEN json_build_object('step', parked_step, 'reason', parked_reason, 'state',"            \
  " parked_state, 'at', parked_at) END,"                                                                               \
  " (SELECT coalesce(json_agg(json_build_object('action', o.action, 'step', o.step, 'reason', o.reason, 'by', o.by,"   \
  " 'at', o.at) ORDER BY o.id), '[]') FROM %1$s.saga_operation o WHERE o.saga_id = saga.id)"
#define PAGE " AND id > $2 ORDER BY id LIMIT $3"

static void make_views(SagaStore *s, const char *schema) {
  s->show = statement("SELECT " SHOWN " FROM %1$s.saga WHERE id = $1", schema);
  s->list = statement("SELECT " SHOWN ", id FROM %1$s.saga WHERE ($1::text IS NULL OR state = $1)" PAGE, schema);
  s->list_open = statement("SELECT " SHOWN ", id FROM %1$s.saga WHERE due_at IS NOT NULL AND state = $1" PAGE, schema);
}

/* The epoch fences the process that runs it, and any may take it over at once. */
#define MAKE_DUE "owner = '', epoch = epoch + 1, due_at = clock_timestamp(), resumed_at = clock_timestamp()"
#define RECORD_OPERATION(step)                                                                                         \
  " INSERT INTO %1$s.saga_operation (id, saga_id, action, step, reason, by)"                                           \
  " SELECT $1, $2, $3, " step ", $5, $6 FROM changed"

static void make_operations(SagaStore *s, const char *schema) {
  s->operate.resume = statement(
      "WITH was AS MATERIALIZED (SELECT id, parked_state, parked_step FROM %1$s.saga WHERE id = $2 AND state ="
      " 'PARKED' AND type = ANY ($7::text[]) AND ($4::text IS NULL OR parked_step = $4) FOR UPDATE),"
      " changed AS (UPDATE %1$s.saga s SET state = was.parked_state, parked_state = NULL, parked_step = NULL,"
      " parked_reason = NULL, parked_at = NULL, " MAKE_DUE
      " FROM was WHERE s.id = was.id RETURNING was.parked_step)" RECORD_OPERATION("parked_step"),
      schema);
  s->operate.cancel = statement(
      "WITH changed AS (UPDATE %1$s.saga SET state = 'COMPENSATING', reason = 'canceled by an operator', " MAKE_DUE
      " WHERE id = $2 AND state = 'RUNNING' AND type = ANY ($7::text[]) RETURNING 1)" RECORD_OPERATION("$4::text"),
      schema);
  s->operate.forget = statement("DELETE FROM %1$s.idempotency WHERE key = $1 AND NOT EXISTS"
                                " (SELECT FROM %1$s.saga_operation WHERE id = $2)",
                                schema);
  s->operate.look = statement("SELECT state, parked_step FROM %1$s.saga WHERE id = $1", schema);
}

SagaStore *saga_store_new(const char *schema) {
  SagaStore *s = calloc(1, sizeof(*s));
  if (!s)
    die("out of memory for the sagas of %s", schema);
  make_views(s, schema);
  make_operations(s, schema);
  s->begin = statement("INSERT INTO %1$s.saga (id, type, state, owner, input, trace_id, due_at)"
                       " VALUES ($1, $2, 'RUNNING', $3, $4, $5, " LEASE(6) ")",
                       schema);
  s->compensate =
      statement("WITH changed AS (UPDATE %1$s.saga SET state = 'COMPENSATING', failed_step = $3, reason = $4"
                " WHERE id = $1 AND epoch = $2 AND state = 'RUNNING' RETURNING 1)"
                " SELECT %1$s.saga_fence(count(*)) FROM changed",
                schema);
  s->park = statement("WITH changed AS (UPDATE %1$s.saga SET state = 'PARKED', parked_state = state, parked_step = $3,"
                      " parked_reason = $4, parked_at = clock_timestamp(), steps = $5, owner = '', due_at = 'infinity'"
                      " WHERE id = $1 AND epoch = $2 AND state IN ('RUNNING', 'COMPENSATING') RETURNING 1)"
                      " SELECT %1$s.saga_fence(count(*)) FROM changed",
                      schema);
  s->finish = statement("WITH changed AS (UPDATE %1$s.saga SET state = $3, steps = $4, due_at = NULL,"
                        " finished_at = clock_timestamp() WHERE id = $1 AND epoch = $2 AND due_at IS NOT NULL AND"
                        " state = CASE $3 WHEN 'SUCCEEDED' THEN 'RUNNING' ELSE 'COMPENSATING' END RETURNING 1)"
                        " SELECT %1$s.saga_fence(count(*)) FROM changed",
                        schema);
  s->look = statement("SELECT state FROM %1$s.saga WHERE id = $1 AND epoch = $2", schema);
  /* now() and not clock_timestamp(): only what is stable in a statement can be looked up in an index. */
  s->claim = statement("WITH due AS MATERIALIZED (SELECT id FROM %1$s.saga WHERE due_at < now() OR (due_at IS NOT NULL"
                       " AND split_part(owner, '#', 1) = $3 AND owner <> $1) ORDER BY due_at LIMIT $4"
                       " FOR UPDATE SKIP LOCKED)"
                       " UPDATE %1$s.saga s SET owner = $1, epoch = epoch + 1, due_at = " LEASE(
                           2) " FROM due WHERE s.id = due.id"
                              " RETURNING s.id, type, state, epoch, input, failed_step, reason, trace_id,"
                              " (extract(epoch FROM clock_timestamp() - created_at) * 1000000)::bigint,"
                              " (extract(epoch FROM clock_timestamp() - coalesce(resumed_at, created_at)) * 1000000)"
                              "::bigint, (SELECT string_agg(step, ',') FROM %1$s.saga_operation o WHERE"
                              " o.saga_id = s.id AND action = 'skip')",
                       schema);
  s->renew =
      statement("WITH asked AS (SELECT * FROM unnest($1::uuid[], $4::integer[]) WITH ORDINALITY AS a(id, epoch, n)),"
                " kept AS (UPDATE %1$s.saga s SET due_at = " LEASE(
                    2) " FROM asked a WHERE s.id = a.id AND s.epoch = a.epoch AND owner = $3 AND due_at IS NOT"
                       " NULL RETURNING n) SELECT n - 1 FROM asked WHERE n NOT IN (SELECT n FROM kept)",
                schema);
  s->release =
      statement("UPDATE %1$s.saga SET owner = '', due_at = clock_timestamp() WHERE owner = $1 AND due_at IS NOT"
                " NULL",
                schema);
  s->parked = statement("SELECT type, count(*) FROM %1$s.saga WHERE due_at = 'infinity' GROUP BY type", schema);
  /* In portions, found by the key: ids are made in the order of time. One statement for all would have to read the
   * whole table, and where that takes longer than a statement may, nothing would ever be deleted. */
  s->expire =
      statement("WITH gone AS (DELETE FROM %1$s.saga WHERE id = ANY (ARRAY(SELECT id FROM %1$s.saga WHERE id < $1"
                " AND finished_at < now() - $2 * interval '1 millisecond' ORDER BY id LIMIT $3"
                " FOR UPDATE SKIP LOCKED)) RETURNING id), trails AS (DELETE FROM %1$s.saga_operation WHERE"
                " saga_id IN (SELECT id FROM gone)) SELECT count(*) FROM gone",
                schema);
  return s;
}

const Sql *saga_store_show(const SagaStore *s) {
  return &s->show;
}

const Sql *saga_store_list(const SagaStore *s, bool open) {
  return open ? &s->list_open : &s->list;
}

const SagaStoreOperate *saga_store_operate(const SagaStore *s) {
  return &s->operate;
}

void saga_store_open(SagaStore *s, Db *db, const char *owner, int64_t lease_us) {
  s->db = db;
  s->owner = str_from(owner);
  Str rest = s->owner;
  s->name = str_cut(&rest, '#');
  s->lease_ms = lease_us / 1000;
}

int saga_store_begin(SagaStore *s, const SagaRun *run, const DbStmt *statements, int count, int64_t deadline_us) {
  assert(run->state == SAGA_RUNNING && run->epoch == 1 && count >= 0);
  DbStmt *all = ARENA_ARRAY(run->arena, DbStmt, (size_t)count + 1);
  if (count)
    memcpy(all, statements, sizeof(*all) * (size_t)count);
  const char *trace = fiber_context()->trace.trace_id;
  const DbValue values[] = {V_UUID(run->id),
                            V_TEXT(str_from(run->type->name)),
                            V_TEXT(s->owner),
                            V_TEXT(run->input),
                            V_TEXT(trace[0] ? str_from(trace) : (Str){0}),
                            V_INT(s->lease_ms)};
  all[count] = (DbStmt){.sql = &s->begin, .values = values, .count = 6};
  return db_group(s->db, run->arena, all, count + 1, NULL, deadline_us);
}

/* Whether it is as we want it because an earlier attempt of unknown outcome succeeded. */
static int was_done(SagaStore *s, const SagaRun *run, SagaState state, int64_t deadline_us) {
  DbResult found;
  TRY(db_exec(s->db, run->arena, DB_STMT(&s->look, V_UUID(run->id), V_INT(run->epoch)), &found, deadline_us));
  return found.rows && str_eq(db_cell(&found, 0, 0), str_from(saga_state_name(state))) ? 0 : E_FENCED;
}

int saga_store_compensate(SagaStore *s, const SagaRun *run, int64_t deadline_us) {
  int rc = db_exec(
      s->db, run->arena,
      DB_STMT(&s->compensate, V_UUID(run->id), V_INT(run->epoch), V_TEXT(run->failed_step), V_TEXT(run->reason)), NULL,
      deadline_us);
  return rc == E_FENCED ? was_done(s, run, SAGA_COMPENSATING, deadline_us) : rc;
}

int saga_store_park(SagaStore *s, const SagaRun *run, Str steps, int64_t deadline_us) {
  int rc = db_exec(s->db, run->arena,
                   DB_STMT(&s->park, V_UUID(run->id), V_INT(run->epoch), V_TEXT(run->parked_step),
                           V_TEXT(run->parked_reason), V_TEXT(steps)),
                   NULL, deadline_us);
  return rc == E_FENCED ? was_done(s, run, SAGA_PARKED, deadline_us) : rc;
}

int saga_store_finish(SagaStore *s, const SagaRun *run, SagaState end, const SagaEnd *with, int64_t deadline_us) {
  const DbValue values[] = {V_UUID(run->id), V_INT(run->epoch), V_TEXT(str_from(saga_state_name(end))),
                            V_TEXT(with->steps)};
  DbStmt all[1 + SAGA_FINISH_STATEMENTS] = {{.sql = &s->finish, .values = values, .count = 4}};
  assert(with->count >= 0 && with->count <= SAGA_FINISH_STATEMENTS);
  memcpy(all + 1, with->statements, sizeof(DbStmt) * (size_t)with->count);
  int rc = db_group(s->db, run->arena, all, 1 + with->count, NULL, deadline_us);
  return rc == E_FENCED ? was_done(s, run, end, deadline_us) : rc;
}

int saga_store_claim(SagaStore *s, Arena *arena, bool mine, int64_t max, List *ret) {
  static const Field fields[] = {
      FIELD(SagaClaim, id, F_UUID),       FIELD(SagaClaim, type, F_TEXT),    FIELD(SagaClaim, state, F_TEXT),
      FIELD(SagaClaim, epoch, F_INT),     FIELD(SagaClaim, input, F_TEXT),   FIELD(SagaClaim, failedStep, F_TEXT),
      FIELD(SagaClaim, reason, F_TEXT),   FIELD(SagaClaim, traceId, F_TEXT), FIELD(SagaClaim, ageUs, F_INT),
      FIELD(SagaClaim, resumedUs, F_INT), FIELD(SagaClaim, skipped, F_TEXT), {0}};
  DbResult found;
  TRY(db_exec(s->db, arena,
              DB_STMT(&s->claim, V_TEXT(s->owner), V_INT(s->lease_ms), V_TEXT(mine ? s->name : (Str){0}),
                      V_INT(max < CLAIM_MAX ? max : CLAIM_MAX)),
              &found, clock_now_us() + STORE_US));
  return db_read_rows(arena, &found, fields, sizeof(SagaClaim), ret);
}

int saga_store_renew(SagaStore *s, Arena *arena, SagaRun *const *runs, size_t count, List *ret_lost) {
  static const Field fields[] = {FIELD(SagaLost, at, F_INT), {0}};
  DbResult found;
  DbArray ids = db_array(arena), epochs = db_array(arena);
  for (size_t i = 0; i < count; i++) {
    db_array_add(&ids, V_UUID(runs[i]->id));
    db_array_add(&epochs, V_INT(runs[i]->epoch));
  }
  const DbValue values[] = {db_array_end(&ids), V_INT(s->lease_ms), V_TEXT(s->owner), db_array_end(&epochs)};
  TRY(db_exec(s->db, arena, (DbStmt){.sql = &s->renew, .values = values, .count = 4}, &found,
              clock_now_us() + STORE_US));
  return db_read_rows(arena, &found, fields, sizeof(SagaLost), ret_lost);
}

int saga_store_release(SagaStore *s, Arena *arena, int64_t deadline_us) {
  return db_exec(s->db, arena, DB_STMT(&s->release, V_TEXT(s->owner)), NULL, deadline_us);
}

int saga_store_parked(SagaStore *s, Arena *arena, List *ret) {
  static const Field fields[] = {FIELD(SagaParked, type, F_TEXT), FIELD(SagaParked, count, F_INT), {0}};
  DbResult found;
  TRY(db_exec(s->db, arena, (DbStmt){.sql = &s->parked}, &found, clock_now_us() + STORE_US));
  return db_read_rows(arena, &found, fields, sizeof(SagaParked), ret);
}

int saga_store_expire(SagaStore *s, Arena *arena, int64_t age_us) {
  static const uint8_t lowest[10];
  Uuid young = uuid_v7(clock_unix_ms() - age_us / 1000, lowest);
  DbResult found;
  int64_t gone = 0;
  assert(age_us > 0);
  TRY(db_exec(s->db, arena, DB_STMT(&s->expire, V_UUID(young), V_INT(age_us / 1000), V_INT(EXPIRE_MAX)), &found,
              clock_now_us() + STORE_US));
  TRY(str_to_int(db_cell(&found, 0, 0), &gone));
  return gone == EXPIRE_MAX;
}

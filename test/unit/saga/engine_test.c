/* The engine over a store in memory and participants that reply as a test says. The store guards its rows as
 * PostgreSQL's does, by epoch and state; what is stored and what is sent stand in one log, in their order. */
#include "saga/engine.h"

#include "metrics/metrics.h"
#include "rt/clock.h"
#include "rt/loop.h"
#include "rt/random.h"
#include "saga/run.h"
#include "unit/unit.h"

#include <stdio.h>
#include <string.h>

enum { FIRST, SECOND, STEPS };
enum { FORWARD, BACK };
enum { ENGINES = 48, ROWS = 80, CALLS = 8, FAILURES = 4, REFUSALS = 3, RUNNING_MAX = 4 };

typedef struct Row {
  Uuid id;
  SagaState state;
  int64_t epoch, due_us, age_us, resumed_us;
  const char *type, *skipped;
  bool left_by_us; /* by an earlier process of our name */
} Row;

struct SagaStore {
  const char *owner;
  Row rows[ROWS];
  int count;
  int writes; /* attempts to store a state, after the begin */
  int claims, claimed, renewals, releases, parked_counts, expiries;
  int64_t asked; /* for how many rows by the last claim */
  bool asked_for_ours;
  int failures[SAGA_PARKED + 1][FAILURES]; /* of the next attempts to store a state; 0: none */
  bool applied;                            /* although they failed */
  int begin_rc, claim_rc, parked_rc;
  int portions; /* of ended sagas that can be deleted */
  int64_t renewed_epoch;
  const DbStmt *end;
  int end_count;
};

static struct {
  SagaStore stores[ENGINES];
  int engines;
} all;

static struct {
  SagaEngine *engine;
  SagaStore *store;
  char log[1024];
  int statuses[STEPS][2][CALLS]; /* of the calls one after the other; 0: the one before it once more, at first 200 */
  int calls[STEPS][2];
  bool held; /* participants do not reply until it is over */
  int finished, ended, load_rc;
  bool success;
} world;

static void note(const char *text) {
  size_t n = strlen(world.log);
  snprintf(world.log + n, sizeof(world.log) - n, "%s%s", n ? " " : "", text);
}

/* ---- the store ---- */

SagaStore *saga_store_new(const char *schema) {
  (void)schema;
  return &all.stores[all.engines++];
}

void saga_store_open(SagaStore *s, Db *db, const char *owner, int64_t lease_us) {
  (void)db, (void)lease_us;
  s->owner = owner;
}

static Row *row_of(SagaStore *s, Uuid id) {
  for (int i = 0; i < s->count; i++)
    if (uuid_eq(s->rows[i].id, id))
      return &s->rows[i];
  return NULL;
}

static Row *add_row(SagaStore *s, Uuid id, SagaState state, int64_t due_us) {
  s->rows[s->count] = (Row){.id = id, .state = state, .epoch = 1, .due_us = due_us, .type = "test"};
  return &s->rows[s->count++];
}

int saga_store_begin(SagaStore *s, const SagaRun *run, const DbStmt *statements, int count, int64_t deadline_us) {
  (void)statements, (void)count, (void)deadline_us;
  if (s->begin_rc < 0)
    return s->begin_rc;
  add_row(s, run->id, SAGA_RUNNING, clock_now_us() + saga_config.lease_us);
  note("RUNNING");
  return 0;
}

static int take_failure(SagaStore *s, SagaState state) {
  int rc = s->failures[state][0];
  memmove(s->failures[state], s->failures[state] + 1, sizeof(s->failures[state]) - sizeof(int));
  return rc;
}

/* As the statements of store.c guard it. */
static int change(SagaStore *s, const SagaRun *run, SagaState from, SagaState to, int64_t due_us) {
  int rc = take_failure(s, to);
  s->writes++;
  if (rc < 0 && !s->applied)
    return rc;
  Row *row = row_of(s, run->id);
  bool ours = row && row->epoch == run->epoch;
  if (ours && row->state == to)
    return rc; /* an earlier attempt of ours did it */
  if (!ours || row->state != from)
    return E_FENCED;
  row->state = to;
  row->due_us = due_us;
  note(saga_state_name(to));
  return rc;
}

int saga_store_compensate(SagaStore *s, const SagaRun *run, int64_t deadline_us) {
  (void)deadline_us;
  return change(s, run, SAGA_RUNNING, SAGA_COMPENSATING, clock_now_us() + saga_config.lease_us);
}

int saga_store_park(SagaStore *s, const SagaRun *run, Str steps, int64_t deadline_us) {
  (void)deadline_us;
  CHECK(run->parked_step.p && run->parked_reason.p && steps.p);
  Row *row = row_of(s, run->id);
  return change(s, run, row ? row->state : SAGA_RUNNING, SAGA_PARKED, INT64_MAX);
}

int saga_store_finish(SagaStore *s, const SagaRun *run, SagaState end, const SagaEnd *with, int64_t deadline_us) {
  (void)deadline_us;
  CHECK(with->steps.p != NULL);
  s->end = with->statements;
  s->end_count = with->count;
  return change(s, run, end == SAGA_SUCCEEDED ? SAGA_RUNNING : SAGA_COMPENSATING, end, INT64_MAX);
}

int saga_store_claim(SagaStore *s, Arena *arena, bool mine, int64_t most, List *ret) {
  SagaClaim *claims = ARENA_ARRAY(arena, SagaClaim, ROWS);
  size_t count = 0;
  s->claims++;
  s->asked = most;
  s->asked_for_ours = mine;
  if (s->claim_rc < 0)
    return s->claim_rc;
  for (int i = 0; i < s->count && count < (size_t)most; i++) {
    Row *row = &s->rows[i];
    if (row->due_us >= clock_now_us() && !(mine && row->left_by_us))
      continue;
    row->epoch++;
    row->left_by_us = false;
    row->due_us = clock_now_us() + saga_config.lease_us;
    bool back = row->state == SAGA_COMPENSATING;
    claims[count++] = (SagaClaim){.id = row->id,
                                  .type = str_from(row->type),
                                  .state = str_from(saga_state_name(row->state)),
                                  .epoch = row->epoch,
                                  .input = STR("{}"),
                                  .failedStep = back ? STR("second") : (Str){0},
                                  .reason = back ? STR("409: no") : (Str){0},
                                  .ageUs = row->age_us,
                                  .resumedUs = row->resumed_us,
                                  .skipped = row->skipped ? str_from(row->skipped) : (Str){0}};
  }
  s->claimed += (int)count;
  *ret = (List){claims, count};
  return 0;
}

int saga_store_renew(SagaStore *s, Arena *arena, SagaRun *const *runs, size_t count, List *ret_lost) {
  SagaLost *lost = ARENA_ARRAY(arena, SagaLost, count);
  size_t n = 0;
  s->renewals++;
  for (size_t i = 0; i < count; i++) {
    Row *row = row_of(s, runs[i]->id);
    s->renewed_epoch = runs[i]->epoch;
    if (!row || row->epoch != runs[i]->epoch)
      lost[n++].at = (int64_t)i;
    else
      row->due_us = clock_now_us() + saga_config.lease_us;
  }
  *ret_lost = (List){lost, n};
  return 0;
}

int saga_store_release(SagaStore *s, Arena *arena, int64_t deadline_us) {
  (void)arena, (void)deadline_us;
  s->releases++;
  note("release");
  return 0;
}

int saga_store_parked(SagaStore *s, Arena *arena, List *ret) {
  s->parked_counts++;
  SagaParked *parked = ARENA_NEW(arena, SagaParked);
  *parked = (SagaParked){.type = STR("test"), .count = 7};
  if (s->parked_rc == 0)
    *ret = (List){parked, 1};
  return s->parked_rc;
}

int saga_store_expire(SagaStore *s, Arena *arena, int64_t age_us) {
  (void)arena, (void)age_us;
  s->expiries++;
  return s->portions-- > 0;
}

/* ---- the participants ---- */

static int reply(const char *service, HttpRequest *request, HttpReply *ret) {
  int step = service[0] == 'f' ? FIRST : SECOND, way = str_eq(request->method, STR("DELETE")) ? BACK : FORWARD;
  int call = world.calls[step][way]++;
  char text[32];
  snprintf(text, sizeof(text), "%s%s", way == BACK ? "-" : "+", service);
  note(text);
  Uuid id = {0};
  CHECK_INT(uuid_parse(request->path, &id), 0);
  CHECK(row_of(world.store, id) != NULL); /* a retry comes under the saga's id, too */
  while (world.held && clock_now_us() < request->deadline_us)
    TRY(fiber_sleep(MILLISECONDS));
  if (clock_now_us() >= request->deadline_us)
    return E_TIMEOUT;
  int status = 200;
  for (int i = 0; i <= call && i < CALLS; i++)
    status = world.statuses[step][way][i] ? world.statuses[step][way][i] : status;
  *ret = (HttpReply){.status = status, .body = STR("{}")};
  return 0;
}

static int call_step(const SagaRun *run, SagaCall *call, const char *service, const char *method) {
  char id[UUID_TEXT];
  uuid_format(run->id, id);
  call->service = service;
  call->method = method;
  call->path = arena_str(call->arena, str_from(id));
  call->body = STR("{}");
  return 0;
}

static int do_first(const SagaRun *run, SagaCall *call) {
  return call_step(run, call, "first", "PUT");
}

static int undo_first(const SagaRun *run, SagaCall *call) {
  return call_step(run, call, "first", "DELETE");
}

static int do_second(const SagaRun *run, SagaCall *call) {
  return call_step(run, call, "second", "PUT");
}

static int undo_second(const SagaRun *run, SagaCall *call) {
  return call_step(run, call, "second", "DELETE");
}

static int load(SagaRun *run) {
  (void)run;
  return world.load_rc;
}

static const Sql store_response = {"UPDATE idempotency"};

static int finish(const SagaRun *run, bool success, DbStmt *statements) {
  (void)run;
  world.finished++;
  world.success = success;
  statements[0] = (DbStmt){.sql = &store_response};
  return 1;
}

static void ended(const SagaRun *run) {
  (void)run;
  world.ended++;
}

static const SagaStep steps[STEPS] = {
    {.name = "first",
     .kind = SAGA_COMPENSATABLE,
     .timeout_us = 2 * SECONDS,
     .forward = do_first,
     .compensate = undo_first},
    {.name = "second",
     .kind = SAGA_COMPENSATABLE,
     .after = 1u << FIRST,
     .timeout_us = 100 * MILLISECONDS,
     .forward = do_second,
     .compensate = undo_second},
};
static const SagaType types[] = {
    {.name = "test", .steps = steps, .step_count = STEPS, .load = load, .finish = finish, .ended = ended}, {0}};

/* ---- the tests ---- */

const char *__lsan_default_suppressions(void);
/* The engines' own fibers never end, and nobody looks for pointers on their stacks. */
const char *__lsan_default_suppressions(void) {
  return "leak:recover\nleak:renew\nleak:keep_house\n";
}

/* A new engine, not started yet. */
static void prepare(void) {
  static bool begun;
  if (!begun) {
    loop_init();
    metrics_init(1);
    saga_set_owner("test");
  }
  begun = true;
  if (world.engine)
    world.engine->stopping = true;
  memset(&world, 0, sizeof(world));
  const char *owner = saga_config.owner;
  saga_config = (SagaConfig){.owner = owner,
                             .lease_us = 10 * SECONDS,
                             .attempt_us = SECONDS,
                             .retention_us = 60 * SECONDS,
                             .running_max = RUNNING_MAX,
                             .calls_per_target = 8,
                             .park_refusals = REFUSALS,
                             .park_after_us = 3600 * SECONDS};
  char schema[16];
  snprintf(schema, sizeof(schema), "s%d", all.engines);
  world.store = &all.stores[all.engines];
  world.engine = saga_engine_new(schema, types, reply);
}

static void start(void) {
  saga_engine_start(world.engine, NULL, 1);
}

static void in_fiber(void *arg) {
  UnitFn *const *body = arg;
  (*body)();
  loop_stop();
}

static void run_scenario(UnitFn *body) {
  prepare();
  loop_resume();
  CHECK(fiber_start("test", in_fiber, &body) != NULL);
  loop_run();
}

#define SCENARIO(name)                                                                                                 \
  static void scenario_##name(void);                                                                                   \
  TEST(name) {                                                                                                         \
    run_scenario(scenario_##name);                                                                                     \
  }                                                                                                                    \
  static void scenario_##name(void)

static SagaRun *new_run(void) {
  SagaRun *run = NULL;
  CHECK_INT(saga_new(world.engine, &types[0], uuid_new(), STR("{}"), &run), 0);
  return run;
}

static int begin(SagaRun *run) {
  return saga_begin(run, NULL, 0, clock_now_us() + SECONDS);
}

static int wait_end(SagaRun *run) {
  return saga_wait(run, clock_now_us() + 5 * SECONDS);
}

static int begin_and_wait(SagaRun *run) {
  TRY(begin(run));
  return wait_end(run);
}

/* Until the condition holds; a test whose condition never does fails at its deadline. */
#define WAIT_FOR(condition)                                                                                            \
  do {                                                                                                                 \
    int64_t until_us = clock_now_us() + 5 * SECONDS;                                                                   \
    while (!(condition) && clock_now_us() < until_us)                                                                  \
      CHECK_INT(fiber_sleep(MILLISECONDS), 0);                                                                         \
    CHECK(condition);                                                                                                  \
  } while (0)

static int64_t running_now(void) {
  const SagaStats *stats = &world.engine->stats[0];
  return (int64_t)(metric_value(stats->running[0]) + metric_value(stats->running[1]));
}

static int count_of(const char *word) {
  int count = 0;
  for (const char *at = world.log; (at = strstr(at, word)); at += strlen(word))
    count++;
  return count;
}

static bool is_before(const char *one, const char *other) {
  const char *a = strstr(world.log, one), *b = strstr(world.log, other);
  return a && b && a < b;
}

SCENARIO(a_saga_succeeds) {
  start();
  SagaRun *run = new_run();
  CHECK_INT(begin_and_wait(run), 0);
  CHECK_INT(run->state, SAGA_SUCCEEDED);
  CHECK_STR(world.log, "RUNNING +first +second SUCCEEDED");
  CHECK_INT(world.ended, 1);
  CHECK_INT(world.engine->active_count, 0);
  CHECK_INT(running_now(), 0);
  CHECK_INT((int64_t)metric_value(world.engine->stats[0].ended[true]), 1);
  saga_release(run);
}

SCENARIO(the_response_is_stored_with_the_end) {
  start();
  SagaRun *run = new_run();
  CHECK_INT(begin_and_wait(run), 0);
  CHECK_INT(world.finished, 1);
  CHECK(world.success);
  CHECK_INT(world.store->end_count, 1);
  saga_release(run);
  run = new_run();
  world.statuses[FIRST][FORWARD][1] = 409;
  CHECK_INT(begin_and_wait(run), 0);
  CHECK(!world.success);
  CHECK_INT(world.store->end_count, 1);
  saga_release(run);
}

SCENARIO(the_decision_is_stored_before_the_first_compensation_is_sent) {
  start();
  world.statuses[SECOND][FORWARD][0] = 409;
  SagaRun *run = new_run();
  CHECK_INT(begin_and_wait(run), 0);
  CHECK_INT(run->state, SAGA_COMPENSATED);
  CHECK_STR(run->failed_step, "second");
  CHECK(is_before("+second", "COMPENSATING"));
  CHECK(is_before("COMPENSATING", "-first"));
  CHECK(is_before("COMPENSATING", "-second"));
  CHECK(is_before("-first", "COMPENSATED") && is_before("-second", "COMPENSATED"));
  CHECK_INT(running_now(), 0);
  CHECK_INT((int64_t)metric_value(world.engine->stats[0].ended[false]), 1);
  CHECK_INT((int64_t)metric_value(world.engine->stats[0].steps[SECOND].failed), 1);
  saga_release(run);
}

SCENARIO(no_compensation_is_sent_while_the_decision_cannot_be_stored) {
  start();
  world.statuses[FIRST][FORWARD][0] = 422;
  memcpy(world.store->failures[SAGA_COMPENSATING], (int[FAILURES]){E_UNAVAILABLE, E_TIMEOUT, E_BUSY}, sizeof(int) * 3);
  SagaRun *run = new_run();
  CHECK_INT(begin_and_wait(run), 0);
  CHECK_STR(world.log, "RUNNING +first COMPENSATING -first COMPENSATED");
  saga_release(run);
}

SCENARIO(a_step_of_unknown_outcome_is_compensated) {
  start();
  world.statuses[SECOND][FORWARD][0] = 503;
  SagaRun *run = new_run();
  CHECK_INT(begin_and_wait(run), 0);
  CHECK_INT(run->state, SAGA_COMPENSATED);
  CHECK(world.calls[SECOND][FORWARD] > 1);
  CHECK_INT(world.calls[SECOND][BACK], 1);
  CHECK_INT(world.calls[FIRST][BACK], 1);
  saga_release(run);
}

SCENARIO(an_end_of_unknown_outcome_is_stored_once) {
  start();
  world.store->applied = true;
  memcpy(world.store->failures[SAGA_SUCCEEDED], (int[FAILURES]){E_UNKNOWN, E_TIMEOUT}, sizeof(int) * 2);
  SagaRun *run = new_run();
  CHECK_INT(begin_and_wait(run), 0);
  CHECK_INT(count_of("SUCCEEDED"), 1);
  CHECK_INT(world.finished, 1);
  CHECK_INT(world.ended, 1);
  saga_release(run);
}

SCENARIO(a_fenced_run_stores_no_end) {
  start();
  world.held = true;
  SagaRun *run = new_run();
  CHECK_INT(begin(run), 0);
  WAIT_FOR(world.calls[FIRST][FORWARD] == 1);
  world.store->rows[0].epoch++; /* another has taken it over */
  world.held = false;
  CHECK_INT(wait_end(run), E_FENCED);
  CHECK_STR(world.log, "RUNNING +first +second");
  CHECK_INT(world.store->writes, 1);
  CHECK_INT(world.store->rows[0].state, SAGA_RUNNING);
  CHECK(!run->ended);
  CHECK_INT(world.ended, 0);
  CHECK_INT(running_now(), 0);
  saga_release(run);
}

SCENARIO(a_fenced_run_decides_nothing) {
  start();
  world.held = true;
  world.statuses[FIRST][FORWARD][0] = 409;
  SagaRun *run = new_run();
  CHECK_INT(begin(run), 0);
  WAIT_FOR(world.calls[FIRST][FORWARD] == 1);
  world.store->rows[0].epoch++;
  world.held = false;
  CHECK_INT(wait_end(run), E_FENCED);
  CHECK_STR(world.log, "RUNNING +first");
  CHECK_INT(world.store->writes, 1);
  CHECK_INT((int64_t)metric_value(world.engine->stats[0].steps[FIRST].failed), 0);
  saga_release(run);
}

SCENARIO(what_was_left_behind_is_taken_over_and_runs_again_under_its_id) {
  Row *row = add_row(world.store, uuid_new(), SAGA_RUNNING, 0);
  start();
  WAIT_FOR(world.ended == 1);
  CHECK_STR(world.log, "+first +second SUCCEEDED");
  CHECK_INT(row->epoch, 2);
  CHECK_INT((int64_t)metric_value(world.engine->stats[0].takeovers), 1);
}

SCENARIO(a_saga_taken_over_while_compensating_is_only_compensated) {
  Row *row = add_row(world.store, uuid_new(), SAGA_COMPENSATING, 0);
  start();
  WAIT_FOR(world.ended == 1);
  CHECK_INT(row->state, SAGA_COMPENSATED);
  CHECK_INT(count_of("+"), 0);
  CHECK_INT(count_of("COMPENSATING"), 0);
  CHECK_INT(world.calls[FIRST][BACK], 1); /* every step: nobody knows how far the one before had come */
  CHECK_INT(world.calls[SECOND][BACK], 1);
}

SCENARIO(a_step_that_an_operator_skipped_stays_skipped) {
  add_row(world.store, uuid_new(), SAGA_COMPENSATING, 0)->skipped = "x,second";
  start();
  WAIT_FOR(world.ended == 1);
  CHECK_INT(world.calls[FIRST][BACK], 1);
  CHECK_INT(world.calls[SECOND][BACK], 0);
}

SCENARIO(what_an_earlier_process_of_our_name_left_is_taken_over_at_once) {
  Row *row = add_row(world.store, uuid_new(), SAGA_RUNNING, INT64_MAX);
  row->left_by_us = true;
  saga_config.lease_us = 500 * MILLISECONDS;
  start();
  WAIT_FOR(world.ended == 1);
  CHECK_INT(row->state, SAGA_SUCCEEDED);
  WAIT_FOR(!world.store->asked_for_ours); /* once all of them are there */
}

SCENARIO(a_saga_that_this_version_cannot_read_keeps_nobody_waiting) {
  add_row(world.store, uuid_new(), SAGA_RUNNING, 0)->type = "of another version";
  add_row(world.store, uuid_new(), SAGA_RUNNING, 0);
  start();
  WAIT_FOR(world.ended == 1);
  CHECK_INT(world.store->rows[0].state, SAGA_RUNNING);
  CHECK_INT(world.store->rows[1].state, SAGA_SUCCEEDED);
}

SCENARIO(beyond_the_maximum_nothing_begins) {
  start();
  world.held = true;
  SagaRun *runs[RUNNING_MAX + 1];
  for (int i = 0; i <= RUNNING_MAX; i++)
    runs[i] = new_run();
  for (int i = 0; i < RUNNING_MAX; i++)
    CHECK_INT(begin(runs[i]), 0);
  CHECK_INT(begin(runs[RUNNING_MAX]), E_BUSY);
  CHECK_INT(world.store->count, RUNNING_MAX);
  world.held = false;
  for (int i = 0; i < RUNNING_MAX; i++)
    CHECK_INT(wait_end(runs[i]), 0);
  for (int i = 0; i <= RUNNING_MAX; i++)
    saga_release(runs[i]);
}

SCENARIO(no_more_is_taken_over_than_there_is_room_for) {
  world.held = true;
  saga_config.lease_us = 2 * SECONDS;
  for (int i = 0; i < 3 * RUNNING_MAX; i++)
    add_row(world.store, uuid_new(), SAGA_RUNNING, 0);
  start();
  WAIT_FOR(world.store->claimed > 0);
  CHECK_INT(world.store->asked, RUNNING_MAX + RUNNING_MAX / 2);
  CHECK_INT(fiber_sleep(20 * MILLISECONDS), 0);
  CHECK_INT(world.engine->active_count, RUNNING_MAX + RUNNING_MAX / 2);
  CHECK_INT(world.store->claims, 1); /* there is no room to ask for more */
  world.held = false;
  WAIT_FOR(world.ended == 3 * RUNNING_MAX);
}

SCENARIO(what_could_not_be_stored_at_its_begin_is_not_driven) {
  start();
  world.store->begin_rc = E_EXISTS;
  SagaRun *run = new_run();
  CHECK_INT(begin(run), E_EXISTS);
  CHECK_INT(fiber_sleep(5 * MILLISECONDS), 0);
  CHECK_STR(world.log, "");
  CHECK_INT(world.engine->active_count, 0);
  CHECK_INT((int64_t)metric_value(world.engine->stats[0].started), 0);
  saga_release(run);
}

/* Whoever is late here because the machine is busy must not find its own sagas due. */
static void claim_nothing(void) {
  world.store->claim_rc = E_UNAVAILABLE;
}

SCENARIO(a_lease_is_renewed_once_the_run_is_old) {
  saga_config.lease_us = 200 * MILLISECONDS;
  claim_nothing();
  start();
  world.held = true;
  SagaRun *run = new_run();
  CHECK_INT(begin(run), 0);
  run->began_us += 60 * SECONDS;
  CHECK_INT(fiber_sleep(saga_config.lease_us), 0);
  CHECK_INT(world.store->renewals, 0); /* most end long before, and cost no statement */
  int64_t first_due_us = world.store->rows[0].due_us;
  run->began_us -= 60 * SECONDS;
  WAIT_FOR(world.store->renewals >= 2);
  CHECK(world.store->rows[0].due_us > first_due_us);
  CHECK_INT(world.store->renewed_epoch, 1);
  world.held = false;
  CHECK_INT(wait_end(run), 0);
  saga_release(run);
}

SCENARIO(a_run_whose_lease_was_lost_sends_and_stores_nothing_more) {
  saga_config.lease_us = 40 * MILLISECONDS;
  claim_nothing();
  start();
  world.statuses[FIRST][FORWARD][0] = 503;
  SagaRun *run = new_run();
  CHECK_INT(begin(run), 0);
  WAIT_FOR(world.calls[FIRST][FORWARD] == 1);
  world.store->rows[0].epoch += 5;
  world.store->rows[0].due_us = INT64_MAX;
  CHECK_INT(wait_end(run), E_FENCED);
  int calls = world.calls[FIRST][FORWARD];
  CHECK_INT(world.calls[FIRST][BACK], 0);
  CHECK_INT(world.store->writes, 0); /* it did not need one to learn of it */
  CHECK_INT(fiber_sleep(100 * MILLISECONDS), 0);
  CHECK_INT(world.calls[FIRST][FORWARD], calls);
  saga_release(run);
}

SCENARIO(a_refused_compensation_parks_the_saga) {
  start();
  world.statuses[SECOND][FORWARD][0] = 409;
  world.statuses[FIRST][BACK][0] = 409;
  SagaRun *run = new_run();
  CHECK_INT(begin_and_wait(run), E_FENCED);
  CHECK_INT(run->state, SAGA_PARKED);
  CHECK_INT(world.calls[FIRST][BACK], REFUSALS);
  CHECK(is_before("-second", "PARKED"));
  CHECK_INT(world.store->rows[0].state, SAGA_PARKED);
  CHECK_INT(world.engine->active_count, 0);
  CHECK_INT(running_now(), 0);
  CHECK_INT((int64_t)metric_value(world.engine->stats[0].steps[FIRST].parkings), 1);
  CHECK_INT(world.ended, 0);
  CHECK_INT(world.finished, 0);
  saga_release(run);
}

SCENARIO(parking_is_stored_even_if_the_database_is_away_for_a_while) {
  start();
  world.statuses[FIRST][FORWARD][0] = 409;
  world.statuses[FIRST][BACK][0] = 409;
  world.store->failures[SAGA_PARKED][0] = E_UNAVAILABLE;
  SagaRun *run = new_run();
  CHECK_INT(begin_and_wait(run), E_FENCED);
  CHECK_INT(count_of("PARKED"), 1);
  CHECK_INT(world.calls[FIRST][BACK], REFUSALS);
  saga_release(run);
}

SCENARIO(an_operator_s_resume_gives_a_parked_saga_its_time_anew) {
  Row *row = add_row(world.store, uuid_new(), SAGA_COMPENSATING, 0);
  saga_config.park_after_us = 60 * SECONDS;
  row->age_us = 3600 * SECONDS; /* its time was over long ago */
  row->resumed_us = 0;
  for (int i = 0; i < REFUSALS; i++)
    world.statuses[FIRST][BACK][i] = 503;
  world.statuses[FIRST][BACK][REFUSALS] = 200;
  start();
  WAIT_FOR(world.ended == 1);
  CHECK_INT(row->state, SAGA_COMPENSATED);
  CHECK_INT(world.calls[FIRST][BACK], REFUSALS + 1);
}

SCENARIO(a_participant_gets_a_bounded_number_of_calls) {
  saga_config.calls_per_target = 1;
  start();
  world.held = true;
  SagaRun *runs[2] = {new_run(), new_run()};
  for (int i = 0; i < 2; i++)
    CHECK_INT(begin(runs[i]), 0);
  CHECK_INT(fiber_sleep(20 * MILLISECONDS), 0);
  CHECK_INT(world.calls[FIRST][FORWARD], 1);
  world.held = false;
  for (int i = 0; i < 2; i++) {
    CHECK_INT(wait_end(runs[i]), 0);
    saga_release(runs[i]);
  }
  CHECK_INT(world.calls[FIRST][FORWARD], 2);
}

SCENARIO(a_stop_waits_for_runs_and_releases_the_rest) {
  start();
  world.held = true;
  SagaRun *run = new_run(), *late = new_run();
  CHECK_INT(begin(run), 0);
  saga_engine_stop(world.engine, clock_now_us() + 30 * MILLISECONDS);
  CHECK_INT(world.store->releases, 1);
  CHECK_INT(world.engine->active_count, 1);
  CHECK_INT(begin(late), E_BUSY);
  CHECK_INT(count_of("RUNNING"), 1);
  world.held = false;
  CHECK_INT(wait_end(run), 0);
  saga_release(run);
  saga_release(late);
}

static void lets_go(void *arg) {
  (void)arg;
  CHECK_INT(fiber_sleep(20 * MILLISECONDS), 0);
  world.held = false;
}

SCENARIO(a_stop_ends_with_the_last_run) {
  start();
  world.held = true;
  SagaRun *run = new_run();
  CHECK_INT(begin(run), 0);
  CHECK(fiber_start("lets go", lets_go, NULL) != NULL);
  int64_t began_us = clock_now_us();
  saga_engine_stop(world.engine, began_us + 5 * SECONDS);
  CHECK(clock_now_us() < began_us + 2 * SECONDS);
  CHECK_STR(world.log, "RUNNING +first +second SUCCEEDED release");
  CHECK(run->ended);
  saga_release(run);
}

SCENARIO(housekeeping_counts_the_parked_and_deletes_in_portions) {
  world.store->portions = 3;
  saga_engine_start(world.engine, NULL, 0);
  WAIT_FOR(world.store->expiries > 0);
  CHECK_INT(world.store->expiries, 4);
  CHECK_INT(world.store->parked_counts, 1);
  CHECK_INT((int64_t)metric_value(world.engine->stats[0].parked), 7);
}

SCENARIO(a_number_of_parked_sagas_that_is_not_known_is_not_shown_as_none) {
  world.store->parked_rc = E_UNAVAILABLE;
  saga_engine_start(world.engine, NULL, 0);
  WAIT_FOR(world.store->parked_counts == 1);
  CHECK_INT(fiber_sleep(5 * MILLISECONDS), 0);
  Buf text = {0};
  metrics_render(&text);
  char series[64];
  snprintf(series, sizeof(series), "skald_sagas_parked{service=\"s%d\"", all.engines - 1);
  buf_char(&text, '\0');
  CHECK(strstr(text.p, series) == NULL);
  buf_free(&text);
}

SCENARIO(a_wait_that_times_out_leaves_the_run_alone) {
  start();
  world.held = true;
  SagaRun *run = new_run();
  CHECK_INT(begin(run), 0);
  CHECK_INT(saga_wait(run, clock_now_us() + 10 * MILLISECONDS), E_TIMEOUT);
  world.held = false;
  CHECK_INT(wait_end(run), 0);
  CHECK_INT(world.ended, 1);
  saga_release(run);
}

/* The engine: runs begin, are driven, end; leases are renewed, and abandoned sagas are taken over. */
#include "saga/engine.h"

#include "http/span.h"
#include "log/log.h"
#include "rt/clock.h"
#include "rt/random.h"
#include "saga/run.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STORE_US           (5 * SECONDS)
#define RELEASE_US         (1 * SECONDS)
#define CLAIM_RETRY_US     (200 * MILLISECONDS)
#define RETENTION_EVERY_US (600 * SECONDS)
#define PARKED_EVERY_US    (5 * SECONDS)

SagaConfig saga_config;

const Option saga_options[] = {
    {.env = "SAGA_LEASE",
     .type = OPTION_MILLIS,
     .target = &saga_config.lease_us,
     .def = "10s",
     .min = 1000,
     .max = 600000,
     .help = "how long a process that does not renew its lease keeps its sagas"},
    {.env = "SAGA_ATTEMPT_TIMEOUT",
     .type = OPTION_MILLIS,
     .target = &saga_config.attempt_us,
     .def = "2s",
     .min = 10,
     .max = 60000,
     .help = "timeout of one call to a participant, before it is retried"},
    {.env = "SAGA_RETENTION",
     .type = OPTION_MILLIS,
     .target = &saga_config.retention_us,
     .def = "10080m",
     .min = 60000,
     .max = 31536000000,
     .help = "how long ended sagas are kept"},
    {.env = "SAGA_RUNNING_MAX",
     .old_env = "SAGA_RUNNING_MOST",
     .type = OPTION_INT,
     .target = &saga_config.running_max,
     .def = "1500",
     .min = 1,
     .max = 100000,
     .help =
         "maximum of sagas one process runs at once; beyond it new ones get 503, and half as many more are taken over"},
    {.env = "SAGA_CALLS_PER_SERVICE",
     .type = OPTION_INT,
     .target = &saga_config.calls_per_target,
     .def = "256",
     .min = 1,
     .max = 4096,
     .help = "concurrent calls to one participant"},
    {.env = "SAGA_PARK_REFUSALS",
     .type = OPTION_INT,
     .target = &saga_config.park_refusals,
     .def = "10",
     .min = 1,
     .max = 1000000,
     .help = "consecutive refusals of a step that must succeed, such as a compensation, before its saga is parked"},
    {.env = "SAGA_PARK_AFTER",
     .type = OPTION_MILLIS,
     .target = &saga_config.park_after_us,
     .def = "1440m",
     .min = 1000,
     .max = 31536000000,
     .help = "how long such a step is retried without a usable response before its saga is parked"},
    {0},
};

static SagaStats *stats_of(const SagaRun *run) {
  return &run->engine->stats[run->type - run->engine->types];
}

/* A schema's name as a label's value. */
static Str unquoted(const char *schema) {
  Str name = str_from(schema);
  return name.n > 1 && name.p[0] == '"' ? (Str){name.p + 1, name.n - 2} : name;
}

SagaEngine *saga_engine_new(const char *schema, const SagaType *types, SagaTransport *transport) {
  SagaEngine *e = calloc(1, sizeof(*e));
  if (!e)
    die("out of memory for the saga engine of %s", schema);
  e->types = types;
  e->transport = transport;
  e->store = saga_store_new(schema);
  e->active.next = e->active.previous = &e->active;
  char service[64];
  snprintf(service, sizeof(service), "%.*s", STR_FMT(unquoted(schema)));
  for (int i = 0; types[i].name; i++) {
    if (i == SAGA_TYPES || types[i].step_count > SAGA_STEPS)
      die("saga type %s: more than %d types, or more than %d steps", types[i].name, SAGA_TYPES, SAGA_STEPS);
    saga_stats_init(&e->stats[i], service, &types[i]);
  }
  return e;
}

int saga_new(SagaEngine *e, const SagaType *type, Uuid id, Str input, SagaRun **ret) {
  Arena *arena = arena_new();
  SagaRun *run = ARENA_NEW(arena, SagaRun);
  *run = (SagaRun){.id = id, .type = type, .engine = e, .arena = arena, .epoch = 1, .references = 1};
  run->input = arena_str(arena, input);
  run->began_us = run->resumed_us = clock_now_us();
  int rc = type->load(run);
  if (rc < 0) {
    arena_free(arena);
    return rc;
  }
  *ret = run;
  return 0;
}

void saga_release(SagaRun *run) {
  assert(run->references > 0);
  if (--run->references == 0)
    arena_free(run->arena);
}

/* For the log: what this fiber, and those it starts, do from now on is for this saga. */
static void work_for(Uuid id, const SagaType *type) {
  FiberContext *context = fiber_context();
  uuid_format(id, context->saga_id);
  context->saga_type = type->name;
  context->saga_subject = type->subject;
}

static bool is_busy(const SagaEngine *e) {
  return e->active_count > 0 || e->claiming;
}

static void wake_stopper(const SagaEngine *e) {
  if (e->stopping && !is_busy(e))
    fiber_wake(e->stopper);
}

static void show_oldest(const SagaEngine *e, const SagaType *type) {
  const SagaRun *run = e->active.next;
  while (run != &e->active && run->type != type)
    run = run->next;
  metric_set(e->stats[type - e->types].oldest, run == &e->active ? 0 : (double)run->began_us);
}

static bool is_open(SagaState state) {
  return state == SAGA_RUNNING || state == SAGA_COMPENSATING;
}

/* The list is in the order of their begin; all but those taken over come at its end. */
static void link_run(SagaRun *run) {
  assert(is_open(run->state) && !run->next && !run->ended);
  SagaRun *before = run->engine->active.previous;
  while (before != &run->engine->active && before->began_us > run->began_us)
    before = before->previous;
  run->previous = before;
  run->next = before->next;
  run->previous->next = run;
  run->next->previous = run;
  run->engine->active_count++;
  saga_stats_state(stats_of(run), run->state, 1);
  show_oldest(run->engine, run->type);
}

static void unlink_run(SagaRun *run) {
  run->previous->next = run->next;
  run->next->previous = run->previous;
  run->next = run->previous = NULL;
  run->engine->active_count--;
  assert(run->engine->active_count >= 0);
  if (is_open(run->state)) /* left to another */
    saga_stats_state(stats_of(run), run->state, -1);
  show_oldest(run->engine, run->type);
  wake_stopper(run->engine);
}

static int start_run(SagaRun *run) {
  run->references++;
  link_run(run);
  if (fiber_start("saga", saga_drive, run))
    return 0;
  unlink_run(run);
  saga_release(run);
  return E_BUSY;
}

int saga_begin(SagaRun *run, const DbStmt *statements, int count, int64_t deadline_us) {
  if (run->engine->stopping || run->engine->active_count >= saga_config.running_max)
    return E_BUSY;
  work_for(run->id, run->type);
  TRY(saga_store_begin(run->engine->store, run, statements, count, deadline_us));
  metric_add(stats_of(run)->started, 1);
  if (start_run(run) < 0) { /* stored, so it is not lost: it is taken over when its lease ends */
    LOG(WARN, "saga", "begun, but no fiber is free to run it: waits for its lease to expire");
    run->fenced = true;
  }
  return 0;
}

int saga_wait(SagaRun *run, int64_t deadline_us) {
  assert(!run->waiter);
  run->waiter = fiber_current();
  int rc = 0;
  while (!run->ended && !run->fenced && rc == 0)
    rc = fiber_wait("saga", deadline_us);
  run->waiter = NULL;
  if (run->ended)
    return 0;
  return run->fenced ? E_FENCED : rc;
}

Str saga_steps_json(const SagaRun *run) {
  Buf b = {.arena = run->arena};
  buf_char(&b, '[');
  for (int i = 0; i < run->type->step_count; i++) {
    const SagaStepRun *s = &run->steps[i];
    buf_printf(&b, "%s{\"name\":\"%s\",\"state\":\"%s\",\"attempts\":%d,\"status\":%d,\"micros\":%lld}", i ? "," : "",
               run->type->steps[i].name, s->skipped ? "SKIPPED" : saga_step_state_name(s->state), s->attempts,
               s->status, (long long)s->took_us);
  }
  buf_char(&b, ']');
  return buf_view(&b);
}

static int store(SagaRun *run, SagaState state, const SagaEnd *end) {
  SagaStore *s = run->engine->store;
  int64_t deadline = clock_now_us() + STORE_US;
  if (state == SAGA_COMPENSATING)
    return saga_store_compensate(s, run, deadline);
  return state == SAGA_PARKED ? saga_store_park(s, run, end->steps, deadline)
                              : saga_store_finish(s, run, state, end, deadline);
}

static void log_parked(const SagaRun *run) {
  const LogField fields[] = {{LOG_SAGA_STATE, str_from(saga_state_name(run->state)), 0},
                             {LOG_STEP, run->parked_step, 0},
                             {LOG_REASON, run->parked_reason, 0}};
  LOG_WITH(ERROR, "saga", fields, "parked, an operator must intervene: %.*s %.*s", STR_FMT(run->parked_step),
           STR_FMT(run->parked_reason));
}

static void log_end(const SagaRun *run) {
  const LogField fields[] = {
      {LOG_SAGA_STATE, str_from(saga_state_name(run->state)), 0},
      {LOG_DURATION, (Str){0}, clock_now_us() - run->began_us},
      {run->failed_step.p ? LOG_STEP : LOG_NO_KEY, run->failed_step, 0},
      {run->reason.p ? LOG_REASON : LOG_NO_KEY, run->reason, 0},
  };
  if (run->state == SAGA_SUCCEEDED)
    LOG_WITH(DEBUG, "saga", fields, "succeeded");
  else if (!run->failed_step.p)
    LOG_WITH(INFO, "saga", fields, "rolled back: %.*s", STR_FMT(run->reason));
  else
    LOG_WITH(INFO, "saga", fields, "rolled back: %.*s did not succeed: %.*s", STR_FMT(run->failed_step),
             STR_FMT(run->reason));
}

static void conclude(SagaRun *run) {
  run->ended = true;
  log_end(run);
  saga_stats_ended(stats_of(run), run);
  if (run->type->ended)
    run->type->ended(run);
}

/* The one place where a run's state changes, once that is stored: what counts and logs it follows from here. */
static void change_state(SagaRun *run, SagaState state) {
  SagaState from = run->state;
  assert(is_open(from) && state != from && !run->ended);
  assert(state != SAGA_SUCCEEDED || from == SAGA_RUNNING);
  assert(state != SAGA_COMPENSATED || from == SAGA_COMPENSATING);
  run->state = state;
  saga_stats_state(stats_of(run), from, -1);
  switch (state) {
  case SAGA_COMPENSATING:
    saga_stats_state(stats_of(run), state, 1);
    saga_stats_failed(stats_of(run), run);
    LOG(DEBUG, "saga", "rolling back: %.*s: %.*s", STR_FMT(run->failed_step), STR_FMT(run->reason));
    break;
  case SAGA_SUCCEEDED:
  case SAGA_COMPENSATED:
    conclude(run);
    break;
  case SAGA_PARKED:
    saga_stats_parked(stats_of(run), run);
    log_parked(run);
    break;
  case SAGA_RUNNING:
    die("a saga cannot return to state RUNNING");
  }
}

/* A write that met no database, or got no response from it, is retried: it is guarded, so a repeat does no harm. */
static int persist(SagaRun *run, SagaState state) {
  SagaEnd end = {0};
  if (state != SAGA_COMPENSATING)
    end.steps = saga_steps_json(run);
  if (state == SAGA_SUCCEEDED || state == SAGA_COMPENSATED)
    end.count = run->type->finish(run, state == SAGA_SUCCEEDED, end.statements);
  assert(end.count <= SAGA_FINISH_STATEMENTS);
  for (int attempts = 0;; attempts++) {
    int rc = store(run, state, &end);
    if (rc == 0)
      change_state(run, state);
    if (rc == 0 || rc == E_FENCED || rc == E_CANCELED || run->fenced)
      return rc;
    if (attempts == 0)
      LOG(WARN, "saga", "state %s could not be stored, retrying: %s", saga_state_name(state), err_info(rc)->title);
    TRY(fiber_sleep(saga_backoff_us(attempts)));
  }
}

static int roll_back(SagaRun *run) {
  if (run->state == SAGA_RUNNING)
    TRY(persist(run, SAGA_COMPENSATING));
  TRY(saga_backward(run));
  return persist(run, SAGA_COMPENSATED);
}

static int advance(SagaRun *run) {
  if (run->state == SAGA_COMPENSATING)
    return roll_back(run);
  int rc = saga_forward(run);
  if (rc == 0)
    return persist(run, SAGA_SUCCEEDED);
  return rc == E_REFUSED && !run->parked_step.p ? roll_back(run) : rc;
}

static int drive(SagaRun *run) {
  int rc = advance(run);
  return rc == E_REFUSED ? persist(run, SAGA_PARKED) : rc;
}

void saga_drive(void *arg) {
  SagaRun *run = arg;
  if (drive(run) < 0)
    LOG(WARN, "saga", "lost ownership: fenced by a newer epoch");
  run->fenced = !run->ended;
  unlink_run(run);
  fiber_wake(run->waiter);
  saga_release(run);
}

static const SagaType *type_named(const SagaEngine *e, Str name) {
  for (const SagaType *t = e->types; t->name; t++)
    if (str_eq(str_from(t->name), name))
      return t;
  return NULL;
}

/* How far the former owner had come is unknown: every step may have run, unless an operator has resolved it. */
static void resume_steps(SagaRun *run, Str skipped) {
  for (int i = 0; i < run->type->step_count; i++)
    run->steps[i].started = true;
  while (skipped.p) {
    Str name = str_cut(&skipped, ',');
    for (int i = 0; i < run->type->step_count; i++)
      if (str_eq(name, str_from(run->type->steps[i].name)))
        run->steps[i] = (SagaStepRun){.started = true, .skipped = true, .answer = STR("null")};
  }
}

/* Abandoned sagas are taken over in portions: each one that runs holds fibers, and without a free one no request is
 * served. New sagas leave some room, so that many of them cannot starve the old ones. */
static int64_t takeover_room(const SagaEngine *e) {
  return saga_config.running_max + (saga_config.running_max + 1) / 2 - e->active_count;
}

/* The fiber it starts goes on with the saga's trace. */
static void adopt(SagaEngine *e, const SagaClaim *claim) {
  static const SagaType unknown = {.name = "unknown"};
  const SagaType *type = type_named(e, claim->type);
  SagaRun *run;
  span_resume(claim->traceId);
  work_for(claim->id, type ? type : &unknown);
  if (!type || saga_new(e, type, claim->id, claim->input, &run) < 0) {
    LOG(ERROR, "saga", "not taken over: this version cannot read its type %.*s or its input", STR_FMT(claim->type));
    return;
  }
  const LogField fields[] = {{LOG_SAGA_STATE, claim->state, 0}};
  LOG_WITH(INFO, "saga", fields, "taken over in state %.*s", STR_FMT(claim->state));
  metric_add(stats_of(run)->takeovers, 1);
  run->began_us -= claim->ageUs;
  run->resumed_us -= claim->resumedUs;
  run->epoch = claim->epoch;
  run->failed_step = arena_str(run->arena, claim->failedStep);
  run->reason = arena_str(run->arena, claim->reason);
  run->state = str_eq(claim->state, STR("COMPENSATING")) ? SAGA_COMPENSATING : SAGA_RUNNING;
  resume_steps(run, claim->skipped);
  if (start_run(run) < 0)
    LOG(WARN, "saga", "no fiber is free to run it: waits for its lease to expire");
  saga_release(run);
}

static void recover(void *arg) {
  SagaEngine *e = arg;
  SCOPED_ARENA arena = arena_new();
  bool mine = true;
  while (!e->stopping) {
    List claims = {0};
    e->claiming = true;
    int64_t room = takeover_room(e);
    int rc = room > 0 ? saga_store_claim(e->store, arena, mine, room, &claims) : 0;
    FiberContext own = *fiber_context();
    for (size_t i = 0; i < claims.count; i++)
      adopt(e, &((SagaClaim *)claims.items)[i]);
    *fiber_context() = own;
    e->claiming = false;
    wake_stopper(e);
    if (rc < 0 && rc != E_UNAVAILABLE)
      LOG(WARN, "saga", "abandoned sagas could not be claimed: %s", err_info(rc)->title);
    arena_reset(arena);
    if (rc == 0 && claims.count == 0 && room > 0)
      mine = false; /* everything that an earlier process of our name left is claimed */
    if (claims.count == 0 && fiber_sleep(rc < 0 ? CLAIM_RETRY_US : saga_config.lease_us / 10) < 0)
      return;
  }
}

/* References are held meanwhile: a run may end while its lease is being renewed. */
static size_t hold_old(SagaEngine *e, int64_t older_than_us, SagaRun **runs) {
  size_t count = 0;
  for (SagaRun *run = e->active.next; run != &e->active; run = run->next)
    if (run->began_us < older_than_us && !run->fenced) {
      run->references++;
      runs[count++] = run;
    }
  return count;
}

static void renew_once(SagaEngine *e, Arena *arena, int64_t older_than_us) {
  SagaRun **runs = ARENA_ARRAY(arena, SagaRun *, (size_t)e->active_count + 1);
  size_t count = hold_old(e, older_than_us, runs);
  List lost = {0};
  if (!count)
    return;
  int rc = saga_store_renew(e->store, arena, runs, count, &lost);
  if (rc < 0)
    LOG(WARN, "saga", "%zu leases could not be renewed: %s", count, err_info(rc)->title);
  for (size_t i = 0; i < lost.count; i++)
    runs[((SagaLost *)lost.items)[i].at]->fenced = true;
  for (size_t i = 0; i < count; i++)
    saga_release(runs[i]);
}

static void renew(void *arg) {
  SagaEngine *e = arg;
  SCOPED_ARENA arena = arena_new();
  int64_t every = saga_config.lease_us / 4;
  while (fiber_sleep(every) == 0) {
    renew_once(e, arena, clock_now_us() - every); /* most have ended long before their first renewal */
    arena_reset(arena);
  }
}

static void count_parked(SagaEngine *e, Arena *arena) {
  List parked = {0};
  int rc = saga_store_parked(e->store, arena, &parked);
  for (const SagaType *t = e->types; t->name; t++)
    metric_set(e->stats[t - e->types].parked, rc < 0 ? NAN : 0);
  for (size_t i = 0; i < parked.count; i++) {
    const SagaParked *p = &((SagaParked *)parked.items)[i];
    const SagaType *type = type_named(e, p->type);
    if (type)
      metric_set(e->stats[type - e->types].parked, (double)p->count);
  }
}

static void expire(SagaEngine *e, Arena *arena) {
  int rc = 1;
  while (rc > 0) {
    rc = saga_store_expire(e->store, arena, saga_config.retention_us);
    arena_reset(arena);
  }
  if (rc < 0)
    LOG(WARN, "saga", "ended sagas could not be deleted: %s", err_info(rc)->title);
}

static void keep_house(void *arg) {
  SagaEngine *e = arg;
  SCOPED_ARENA arena = arena_new();
  int64_t expire_at = clock_now_us();
  do {
    count_parked(e, arena);
    if (clock_now_us() >= expire_at) {
      expire(e, arena);
      expire_at += RETENTION_EVERY_US;
    }
    arena_reset(arena);
  } while (fiber_sleep(PARKED_EVERY_US) == 0);
}

void saga_set_owner(const char *owner) {
  saga_config.owner = owner;
}

void saga_engine_start(SagaEngine *e, Db *db, int worker) {
  char *owner, life[UUID_TEXT];
  uuid_format(uuid_new(), life);
  if (asprintf(&owner, "%s/%d#%s", saga_config.owner, worker, life) < 0)
    die("out of memory for the owner's name");
  saga_store_open(e->store, db, owner, saga_config.lease_us);
  bool ok = fiber_start("saga recovery", recover, e) && fiber_start("saga leases", renew, e) &&
            (worker > 0 || fiber_start("saga housekeeping", keep_house, e));
  if (!ok)
    die("no fiber for the saga engine: the limit of fibers is too low to start");
}

void saga_engine_stop(SagaEngine *e, int64_t deadline_us) {
  SCOPED_ARENA arena = arena_new();
  e->stopper = fiber_current();
  e->stopping = true;
  int rc = 0;
  while (is_busy(e) && rc == 0)
    rc = fiber_wait("end of all sagas", deadline_us);
  if (is_busy(e))
    LOG(INFO, "saga", "releasing %d unfinished sagas", e->active_count);
  /* Also without any: one that could not be stored, or could not be read when it was claimed, is still ours. */
  rc = saga_store_release(e->store, arena, clock_now_us() + RELEASE_US);
  if (rc < 0)
    LOG(WARN, "saga", "unfinished sagas could not be released, their leases must expire: %s", err_info(rc)->title);
}

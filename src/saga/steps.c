/* Steps: calls to participants, forward and back. The outcome of a call is read from the status code alone, by
 * http_outcome; without a response it is unknown. An unknown one is retried under the same id. */
#include "base/backoff.h"
#include "http/http.h"
#include "http/problem.h"
#include "rt/clock.h"
#include "rt/random.h"
#include "saga/run.h"
#include "json/json.h"

#include <assert.h>
#include <string.h>

#define BACKOFF_FIRST_US (20 * MILLISECONDS)
#define BACKOFF_MAX_US   (5 * SECONDS)
#define ATTEMPTS_KEPT    4

typedef struct StepTask { /* one step's fiber */
  SagaRun *run;
  int step;
  Fiber *parent;
  int *running;
  bool back;
  int outcome;
} StepTask;

typedef struct RetryState { /* of one step */
  bool must_succeed;
  int attempts, refusals; /* refusals: consecutive */
} RetryState;

static struct SagaStepStats *stats_of(const SagaRun *run, int step) {
  return &run->engine->stats[run->type - run->engine->types].steps[step];
}

static Semaphore *target_of(SagaEngine *e, const char *service) {
  for (int i = 0; i < e->target_count; i++)
    if (!strcmp(e->targets[i].service, service))
      return &e->targets[i].slots;
  if (e->target_count == SAGA_TARGETS)
    return &e->targets[0].slots; /* more participants than places share the first's */
  e->targets[e->target_count].service = service;
  e->targets[e->target_count].slots = (Semaphore){.free = (int)saga_config.calls_per_target};
  return &e->targets[e->target_count++].slots;
}

/* One attempt, everything of it in the arena: it is built anew each time, which costs little. */
static HttpOutcome attempt(SagaRun *run, Arena *arena, int step, bool back, int64_t deadline_us, HttpReply *reply) {
  const SagaStep *s = &run->type->steps[step];
  SagaCall call = {.arena = arena, .method = "PUT"};
  *reply = (HttpReply){0};
  int rc = back ? s->compensate(run, &call) : s->forward(run, &call);
  if (rc < 0)
    return HTTP_REFUSED;
  HttpRequest *request = ARENA_NEW(arena, HttpRequest);
  request->arena = arena;
  request->method = str_from(call.method);
  request->path = call.path;
  request->body = call.body;
  Semaphore *slots = target_of(run->engine, call.service);
  if (semaphore_acquire(slots, "saga target", deadline_us) < 0)
    return HTTP_UNKNOWN;
  int64_t attempt_end = clock_now_us() + saga_config.attempt_us;
  request->deadline_us = attempt_end < deadline_us ? attempt_end : deadline_us;
  rc = run->engine->transport(call.service, request, reply);
  semaphore_release(slots);
  run->steps[step].attempts++;
  run->steps[step].status = rc < 0 ? 0 : reply->status;
  HttpOutcome outcome = rc < 0 ? HTTP_UNKNOWN : http_outcome(reply->status);
  JsonValue *body;
  if (outcome == HTTP_DONE && json_parse(arena, reply->body, &body, NULL) < 0)
    outcome = HTTP_UNKNOWN; /* it becomes part of our own response, so it must be JSON */
  metric_add(stats_of(run, step)->calls[outcome], 1);
  return outcome;
}

int64_t saga_backoff_us(int tries) {
  return backoff_us(tries, BACKOFF_FIRST_US, BACKOFF_MAX_US, random_u64());
}

static Str reason_of(SagaRun *run, const SagaStepRun *step, Str body) {
  if (!step->status)
    return STR("no response before the deadline");
  Str text = problem_text(run->arena, body);
  return arena_printf(run->arena, "%d: %.*s", step->status, STR_FMT(text));
}

static void step_failed(SagaRun *run, int i, SagaStepState state, Str body) {
  run->steps[i].state = state;
  if (run->failed_step.p)
    return;
  run->failed_step = str_from(run->type->steps[i].name);
  run->reason = reason_of(run, &run->steps[i], body);
}

/* Whether the saga is to be parked for an operator. A refusal will hardly change by itself; a participant that is down
 * comes back, and gets its time. Even when that is over, as after a long downtime of our own, it gets some attempts. */
static bool retries_exhausted(SagaRun *run, int i, RetryState *retry, HttpOutcome outcome, Str body) {
  retry->attempts++;
  retry->refusals = outcome == HTTP_REFUSED ? retry->refusals + 1 : 0;
  bool refused = retry->refusals >= saga_config.park_refusals;
  bool late = clock_now_us() - run->resumed_us >= saga_config.park_after_us;
  if (!retry->must_succeed || (!refused && !(late && retry->attempts >= saga_config.park_refusals)))
    return false;
  if (run->parked_step.p)
    return true;
  Str last = reason_of(run, &run->steps[i], body);
  run->parked_step = str_from(run->type->steps[i].name);
  run->parked_reason =
      refused ? arena_printf(run->arena, "refused %d consecutive times, last with %.*s", retry->refusals, STR_FMT(last))
              : arena_printf(run->arena, "did not succeed in time, last with %.*s", STR_FMT(last));
  return true;
}

/* The first attempts live with the run, which needs the response of one of them; many retries must not grow it. */
static Arena *attempt_arena(SagaRun *run, int attempts, Arena **scratch) {
  if (attempts < ATTEMPTS_KEPT)
    return run->arena;
  if (!*scratch)
    *scratch = arena_new();
  arena_reset(*scratch);
  return *scratch;
}

static int step_forward(SagaRun *run, int i) {
  const SagaStep *s = &run->type->steps[i];
  Arena *scratch __attribute__((cleanup(arena_cleanup))) = NULL;
  int64_t began = clock_now_us();
  /* What cannot be compensated must be known: a pivot is retried until there is a response. */
  RetryState retry = {.must_succeed = s->kind != SAGA_COMPENSATABLE};
  int64_t deadline = retry.must_succeed ? FIBER_FOREVER : began + s->timeout_us;
  SagaStepRun *step = &run->steps[i];
  for (;;) {
    HttpReply reply;
    Arena *arena = attempt_arena(run, step->attempts, &scratch);
    HttpOutcome outcome = attempt(run, arena, i, false, deadline, &reply);
    step->took_us = clock_now_us() - began;
    if (outcome == HTTP_DONE) {
      step->answer = scratch ? arena_str(run->arena, reply.body) : reply.body;
      step->state = STEP_DONE;
      return 0;
    }
    if (outcome == HTTP_REFUSED && s->kind != SAGA_RETRIABLE) {
      step_failed(run, i, STEP_REFUSED, reply.body);
      return E_REFUSED;
    }
    if (retries_exhausted(run, i, &retry, outcome, reply.body)) {
      step->state = STEP_MAYBE;
      return E_REFUSED;
    }
    int64_t wait = saga_backoff_us(step->attempts);
    if (run->fenced || clock_now_us() + wait >= deadline || fiber_sleep(wait) < 0) {
      step_failed(run, i, STEP_MAYBE, reply.body);
      return run->fenced ? E_FENCED : E_REFUSED;
    }
    metric_add(stats_of(run, i)->retries, 1);
  }
}

static int step_backward(SagaRun *run, int i) {
  Arena *scratch __attribute__((cleanup(arena_cleanup))) = NULL;
  RetryState retry = {.must_succeed = true};
  for (;;) {
    HttpReply reply;
    int64_t wait = saga_backoff_us(retry.attempts);
    Arena *arena = attempt_arena(run, retry.attempts, &scratch);
    HttpOutcome outcome = attempt(run, arena, i, true, FIBER_FOREVER, &reply);
    if (outcome == HTTP_DONE) {
      run->steps[i].state = STEP_UNDONE;
      return 0;
    }
    if (run->fenced)
      return E_FENCED;
    if (retries_exhausted(run, i, &retry, outcome, reply.body))
      return E_REFUSED;
    TRY(fiber_sleep(wait));
    metric_add(stats_of(run, i)->retries, 1);
  }
}

static void run_task(StepTask *task) {
  int64_t began_us = clock_now_us();
  task->outcome = task->back ? step_backward(task->run, task->step) : step_forward(task->run, task->step);
  SagaStepState state = task->run->steps[task->step].state;
  if (!task->back || state == STEP_UNDONE)
    metric_observe(stats_of(task->run, task->step)->duration[state], (double)(clock_now_us() - began_us) / 1e6);
  (*task->running)--;
  fiber_wake(task->parent);
}

static void task_main(void *arg) {
  run_task(arg);
}

/* Runs the steps of the set at once, the last of them in this fiber, and waits for all. The first error counts. */
static int run_together(SagaRun *run, unsigned set, bool back) {
  StepTask tasks[SAGA_STEPS];
  int running = 0, count = 0;
  for (int i = 0; i < run->type->step_count; i++)
    if (set & (1u << i))
      tasks[count++] = (StepTask){.run = run, .step = i, .parent = fiber_current(), .running = &running, .back = back};
  for (int i = 0; i < count; i++) {
    run->steps[tasks[i].step].started = true;
    running++;
    if (i + 1 == count || !fiber_start("saga step", task_main, &tasks[i]))
      run_task(&tasks[i]);
  }
  while (running > 0) /* the tasks are on this stack: wait even if canceled */
    fiber_wait_uncancelable("saga steps", FIBER_FOREVER);
  assert(running == 0 && count > 0);
  int rc = 0;
  for (int i = 0; i < count && rc == 0; i++)
    rc = tasks[i].outcome;
  return rc;
}

int saga_forward(SagaRun *run) {
  assert(run->state == SAGA_RUNNING);
  unsigned done = 0, all = (1u << run->type->step_count) - 1;
  for (int i = 0; i < run->type->step_count; i++)
    done |= run->steps[i].skipped ? 1u << i : 0;
  while (done != all) {
    unsigned ready = 0;
    for (int i = 0; i < run->type->step_count; i++)
      if (!(done & (1u << i)) && (run->type->steps[i].after & ~done) == 0)
        ready |= 1u << i;
    assert(ready); /* a step waits for itself: a defect of the type's table */
    TRY(run_together(run, ready, false));
    done |= ready;
  }
  return 0;
}

int saga_backward(SagaRun *run) {
  unsigned set = 0;
  for (int i = 0; i < run->type->step_count; i++)
    if (run->steps[i].started && !run->steps[i].skipped && run->type->steps[i].compensate)
      set |= 1u << i;
  return set ? run_together(run, set, true) : 0;
}

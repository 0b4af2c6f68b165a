/* Steps against participants that answer by the book of a test: which failures are undone, which are asked again, and
 * which park a saga. */
#include "rt/clock.h"
#include "rt/loop.h"
#include "saga/run.h"
#include "unit/unit.h"

#include <string.h>

enum { FIRST, SECOND, THIRD, STEPS };
enum { REFUSALS = 4, CALLS = 64 };

static struct {
  int statuses[STEPS][CALLS]; /* one for each call; the last one before 0 for all that follow */
  int calls[STEPS];
  char paths[STEPS][16]; /* of the last call */
} book;

static int step_of(const char *service) {
  return service[0] - '0';
}

static int answer(const char *service, HttpRequest *request, HttpReply *reply) {
  int step = step_of(service), call = book.calls[step]++;
  const int *statuses = book.statuses[step];
  int last = 0;
  while (last < call && statuses[last + 1])
    last++;
  memcpy(book.paths[step], request->path.p, request->path.n);
  *reply = (HttpReply){.status = statuses[last], .body = STR("{}")};
  return 0;
}

static int call_step(SagaCall *call, int step, const char *path) {
  static const char *const services[STEPS] = {"0", "1", "2"};
  call->service = services[step];
  call->path = str_from(path);
  call->body = STR("{}");
  return 0;
}

#define CALLS_OF(name, step)                                                                                           \
  static int do_##name(const SagaRun *run, SagaCall *call) {                                                           \
    (void)run;                                                                                                         \
    return call_step(call, step, "/do");                                                                               \
  }                                                                                                                    \
  static int undo_##name(const SagaRun *run, SagaCall *call) {                                                         \
    (void)run;                                                                                                         \
    return call_step(call, step, "/undo");                                                                             \
  }
CALLS_OF(first, FIRST)
CALLS_OF(second, SECOND)
CALLS_OF(third, THIRD)

/* A pivot behind what can be undone, and behind that what must succeed. */
static const SagaStep steps[STEPS] = {
    {"first", SAGA_COMPENSATABLE, 0, 200000, do_first, undo_first},
    {"second", SAGA_PIVOT, 1u << FIRST, 200000, do_second, undo_second},
    {"third", SAGA_RETRIABLE, 1u << SECOND, 200000, do_third, undo_third},
};
static const SagaType types[] = {{.name = "test", .steps = steps, .step_count = STEPS}, {0}};

static struct {
  SagaEngine engine;
  SagaRun run;
  int rc;
} world;

static void go_forward(void *arg) {
  (void)arg;
  world.rc = saga_forward(&world.run);
  loop_stop();
}

static void go_back(void *arg) {
  (void)arg;
  for (int i = 0; i < STEPS; i++)
    world.run.steps[i].started = true;
  world.rc = saga_backward(&world.run);
  loop_stop();
}

/* A new saga, whose participants all say yes. */
static void begin(void) {
  static bool begun;
  if (!begun) {
    loop_init();
    metrics_init(1);
  }
  begun = true;
  if (world.run.arena)
    arena_free(world.run.arena);
  memset(&book, 0, sizeof(book));
  memset(&world, 0, sizeof(world));
  saga_config = (SagaConfig){
      .attempt_us = 1000000, .calls_per_target = 8, .park_refusals = REFUSALS, .park_after_us = INT64_C(3600000000)};
  world.engine.types = types;
  world.engine.transport = answer;
  saga_stats_init(&world.engine.stats[0], "test", &types[0]);
  world.run = (SagaRun){.type = &types[0], .engine = &world.engine, .arena = arena_new()};
  world.run.began_us = world.run.resumed_us = clock_now_us();
  for (int i = 0; i < STEPS; i++)
    book.statuses[i][0] = 200;
}

static void run(FiberFn *way) {
  loop_resume();
  CHECK(fiber_start("test", way, NULL) != NULL);
  loop_run();
}

static void answers(int step, int times, int status, int then) {
  for (int i = 0; i < times; i++)
    book.statuses[step][i] = status;
  book.statuses[step][times] = then;
}

TEST(all_say_yes) {
  begin();
  run(go_forward);
  CHECK_INT(world.rc, 0);
  for (int i = 0; i < STEPS; i++) {
    CHECK_INT(book.calls[i], 1);
    CHECK_INT(world.run.steps[i].state, STEP_DONE);
  }
  CHECK(!world.run.failed_step.p && !world.run.parked_step.p);
}

TEST(a_no_before_the_pivot_rolls_back) {
  begin();
  answers(FIRST, 1, 409, 200);
  run(go_forward);
  CHECK_INT(world.rc, E_REFUSED);
  CHECK_STR(world.run.failed_step, "first");
  CHECK(!world.run.parked_step.p);
  CHECK_INT(book.calls[FIRST], 1);
  CHECK_INT(book.calls[SECOND], 0);
}

TEST(silence_before_the_pivot_rolls_back_in_time) {
  begin();
  answers(FIRST, 1, 503, 503);
  run(go_forward);
  CHECK_INT(world.rc, E_REFUSED);
  CHECK_STR(world.run.failed_step, "first");
  CHECK(!world.run.parked_step.p);
  CHECK_INT(world.run.steps[FIRST].state, STEP_MAYBE);
}

TEST(a_no_of_the_pivot_rolls_back) {
  begin();
  answers(SECOND, 1, 422, 200);
  run(go_forward);
  CHECK_INT(world.rc, E_REFUSED);
  CHECK_STR(world.run.failed_step, "second");
  CHECK(!world.run.parked_step.p);
}

TEST(silence_of_the_pivot_is_waited_for) {
  begin();
  answers(SECOND, REFUSALS + 1, 503, 200); /* longer than its timeout, more often than refusals are borne */
  run(go_forward);
  CHECK_INT(world.rc, 0);
  CHECK_INT(book.calls[SECOND], REFUSALS + 2);
}

TEST(silence_of_the_pivot_parks_when_its_time_is_up) {
  begin();
  saga_config.park_after_us = 1;
  answers(SECOND, 1, 503, 503);
  run(go_forward);
  CHECK_INT(world.rc, E_REFUSED);
  CHECK_STR(world.run.parked_step, "second");
  CHECK(str_starts(world.run.parked_reason, STR("did not succeed in time")));
  CHECK(!world.run.failed_step.p);
  CHECK_INT(book.calls[SECOND], REFUSALS); /* asked some times however late it is */
  CHECK_INT(book.calls[THIRD], 0);
}

TEST(a_no_behind_the_pivot_is_asked_again) {
  begin();
  answers(THIRD, REFUSALS - 1, 409, 200);
  run(go_forward);
  CHECK_INT(world.rc, 0);
  CHECK_INT(book.calls[THIRD], REFUSALS);
}

TEST(refusals_behind_the_pivot_park) {
  begin();
  answers(THIRD, 1, 409, 409);
  run(go_forward);
  CHECK_INT(world.rc, E_REFUSED);
  CHECK_STR(world.run.parked_step, "third");
  CHECK(str_starts(world.run.parked_reason, STR("refused 4 times, at last with 409")));
  CHECK(!world.run.failed_step.p);
  CHECK_INT(book.calls[THIRD], REFUSALS);
}

TEST(a_skipped_step_counts_as_done) {
  begin();
  answers(SECOND, 1, 409, 409);
  world.run.steps[SECOND].skipped = true;
  run(go_forward);
  CHECK_INT(world.rc, 0);
  CHECK_INT(book.calls[SECOND], 0);
  CHECK_INT(book.calls[THIRD], 1);
}

TEST(all_is_undone) {
  begin();
  run(go_back);
  CHECK_INT(world.rc, 0);
  for (int i = 0; i < STEPS; i++) {
    CHECK_INT(world.run.steps[i].state, STEP_UNDONE);
    CHECK_STR(book.paths[i], "/undo");
  }
}

TEST(refused_undoing_parks_when_all_else_is_undone) {
  begin();
  answers(FIRST, 1, 409, 409);
  answers(THIRD, REFUSALS + 1, 503, 200);
  run(go_back);
  CHECK_INT(world.rc, E_REFUSED);
  CHECK_STR(world.run.parked_step, "first");
  CHECK_INT(book.calls[FIRST], REFUSALS);
  CHECK_INT(world.run.steps[SECOND].state, STEP_UNDONE);
  CHECK_INT(world.run.steps[THIRD].state, STEP_UNDONE);
  CHECK_INT(book.calls[THIRD], REFUSALS + 2);
}

TEST(refusals_must_be_in_a_row) {
  begin();
  answers(FIRST, REFUSALS - 1, 409, 503);
  book.statuses[FIRST][REFUSALS] = 409;
  book.statuses[FIRST][REFUSALS + 1] = 200;
  run(go_back);
  CHECK_INT(world.rc, 0);
  CHECK_INT(book.calls[FIRST], REFUSALS + 2);
}

TEST(the_first_step_that_is_given_up_is_named) {
  begin();
  answers(FIRST, 2, 503, 409);
  answers(SECOND, 1, 409, 409);
  run(go_back);
  CHECK_INT(world.rc, E_REFUSED);
  CHECK_STR(world.run.parked_step, "second");
  CHECK_INT(book.calls[FIRST], REFUSALS + 2);
  CHECK_INT(book.calls[SECOND], REFUSALS);
}

TEST(a_skipped_step_is_not_undone) {
  begin();
  answers(FIRST, 1, 409, 409);
  world.run.steps[FIRST].skipped = true;
  run(go_back);
  CHECK_INT(world.rc, 0);
  CHECK_INT(book.calls[FIRST], 0);
  CHECK_INT(book.calls[SECOND], 1);
}

TEST(whoever_was_fenced_asks_no_more) {
  begin();
  answers(FIRST, 1, 503, 503);
  world.run.fenced = true;
  run(go_back);
  CHECK_INT(world.rc, E_FENCED);
  CHECK(!world.run.parked_step.p);
  CHECK_INT(book.calls[FIRST], 1);
}

static int passes; /* of the loop */

static void count_pass(void *arg) {
  (void)arg;
  passes++;
}

static int first_replies_late(const char *service, HttpRequest *request, HttpReply *reply) {
  if (step_of(service) == FIRST)
    CHECK_INT(fiber_sleep(100 * MILLISECONDS), 0);
  return answer(service, request, reply);
}

static void cancels(void *arg) {
  fiber_cancel(*(Fiber **)arg);
}

static void goes_back_canceled(void *arg) {
  Fiber *self = fiber_current();
  CHECK(fiber_start("cancels", cancels, &self) != NULL);
  go_back(arg);
}

TEST(a_canceled_run_waits_idly_for_its_steps) {
  begin();
  loop_before_poll(count_pass, NULL);
  world.engine.transport = first_replies_late;
  passes = 0;
  run(goes_back_canceled);
  CHECK_INT(world.rc, 0);
  CHECK_INT(world.run.steps[FIRST].state, STEP_UNDONE);
  CHECK(passes < 20);
}

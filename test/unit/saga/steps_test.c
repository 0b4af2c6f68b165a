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
  int errors[STEPS];     /* the first calls that fail before there is a response */
  Str bodies[STEPS];     /* absent: {} */
  int64_t latest_us;     /* of all deadlines, from the moment of the call */
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
  int64_t left_us = request->deadline_us - clock_now_us();
  book.latest_us = left_us > book.latest_us ? left_us : book.latest_us;
  if (call < book.errors[step])
    return E_UNKNOWN;
  *reply = (HttpReply){.status = statuses[last], .body = book.bodies[step].p ? book.bodies[step] : STR("{}")};
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
    {.name = "first",
     .kind = SAGA_COMPENSATABLE,
     .timeout_us = 200 * MILLISECONDS,
     .forward = do_first,
     .compensate = undo_first},
    {.name = "second",
     .kind = SAGA_PIVOT,
     .after = 1u << FIRST,
     .timeout_us = 200 * MILLISECONDS,
     .forward = do_second,
     .compensate = undo_second},
    {.name = "third",
     .kind = SAGA_RETRIABLE,
     .after = 1u << SECOND,
     .timeout_us = 200 * MILLISECONDS,
     .forward = do_third,
     .compensate = undo_third},
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

static void go_back_from_there(void *arg) {
  (void)arg;
  world.rc = saga_backward(&world.run);
  loop_stop();
}

/* Forward, and back again if it did not succeed. */
static void go_forward_and_back(void *arg) {
  world.rc = saga_forward(&world.run);
  CHECK_INT(world.rc, E_REFUSED);
  go_back_from_there(arg);
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

TEST(a_status_that_may_pass_is_retried_and_no_refusal) {
  static const int statuses[] = {408, 425, 429, 500, 502, 503, 504, 599};
  for (size_t i = 0; i < sizeof(statuses) / sizeof(*statuses); i++) {
    begin();
    answers(FIRST, 1, statuses[i], 200);
    run(go_forward);
    CHECK_INT(world.rc, 0);
    CHECK_INT(book.calls[FIRST], 2);
    CHECK_INT(world.run.steps[FIRST].state, STEP_DONE);
  }
}

TEST(any_other_4xx_is_a_refusal) {
  static const int statuses[] = {400, 401, 403, 404, 409, 412, 422, 424, 428, 431};
  for (size_t i = 0; i < sizeof(statuses) / sizeof(*statuses); i++) {
    begin();
    answers(FIRST, 1, statuses[i], 200);
    run(go_forward);
    CHECK_INT(world.rc, E_REFUSED);
    CHECK_INT(book.calls[FIRST], 1);
    CHECK_INT(world.run.steps[FIRST].state, STEP_REFUSED);
    CHECK_INT(world.run.steps[FIRST].status, statuses[i]);
  }
}

TEST(a_compensation_is_retried_after_a_status_that_may_pass) {
  static const int statuses[] = {408, 425, 429, 503};
  for (size_t i = 0; i < sizeof(statuses) / sizeof(*statuses); i++) {
    begin();
    answers(FIRST, REFUSALS + 1, statuses[i], 200); /* more often than refusals would be borne */
    run(go_back);
    CHECK_INT(world.rc, 0);
    CHECK_INT(book.calls[FIRST], REFUSALS + 2);
    CHECK(!world.run.parked_step.p);
  }
}

TEST(a_call_that_failed_is_retried) {
  begin();
  book.errors[FIRST] = 2;
  run(go_forward);
  CHECK_INT(world.rc, 0);
  CHECK_INT(book.calls[FIRST], 3);
}

TEST(a_response_that_is_no_json_is_no_success) {
  begin();
  book.bodies[FIRST] = STR("{\"id\":");
  run(go_forward);
  CHECK_INT(world.rc, E_REFUSED);
  CHECK(book.calls[FIRST] > 2);
  CHECK_INT(book.calls[SECOND], 0);
}

TEST(a_step_of_unknown_outcome_is_compensated) {
  begin();
  book.errors[FIRST] = CALLS;
  run(go_forward);
  CHECK_INT(world.rc, E_REFUSED);
  CHECK_INT(world.run.steps[FIRST].state, STEP_MAYBE);
  CHECK_INT(world.run.steps[FIRST].status, 0);
  int calls = book.calls[FIRST];
  book.errors[FIRST] = 0;
  run(go_back_from_there);
  CHECK_INT(world.rc, 0);
  CHECK_INT(book.calls[FIRST], calls + 1);
  CHECK_STR(book.paths[FIRST], "/undo");
  CHECK_INT(world.run.steps[FIRST].state, STEP_UNDONE);
}

TEST(a_refused_step_is_compensated_and_one_that_was_never_sent_is_not) {
  begin();
  answers(SECOND, 1, 409, 200);
  run(go_forward_and_back);
  CHECK_INT(world.rc, 0);
  CHECK_STR(book.paths[FIRST], "/undo");
  CHECK_STR(book.paths[SECOND], "/undo");
  CHECK_INT(book.calls[THIRD], 0);
}

TEST(a_call_ends_with_its_attempt_and_with_its_step) {
  begin();
  run(go_forward);
  CHECK(book.latest_us <= saga_config.attempt_us && book.latest_us > 200 * MILLISECONDS); /* the pivot's */
  begin();
  answers(FIRST, 1, 409, 200);
  run(go_forward);
  CHECK(book.latest_us <= 200 * MILLISECONDS);
}

TEST(pauses_between_attempts_grow_up_to_a_maximum) {
  for (int i = 0; i < 100; i++) {
    int64_t first_us = saga_backoff_us(0), late_us = saga_backoff_us(40);
    CHECK(first_us >= 10 * MILLISECONDS && first_us <= 20 * MILLISECONDS);
    CHECK(late_us >= 2500 * MILLISECONDS && late_us <= 5 * SECONDS);
  }
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
  CHECK(str_starts(world.run.parked_reason, STR("refused 4 consecutive times, last with 409")));
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

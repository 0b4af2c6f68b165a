/* The event loop: libuv's, with fibers run between its passes. */
#include "rt/loop.h"

#include "base/err.h"
#include "rt/clock.h"
#include "rt/fiber.h"

#include <assert.h>
#include <uv.h>

#define HOOKS 16

static struct {
  uv_loop_t uv;
  uv_timer_t timer;
  uv_prepare_t before_poll;
  uv_idle_t no_sleep; /* active: the next poll only looks */
  bool expired;       /* a fiber's deadline has passed */
  uv_signal_t signals[2], hangup_signal;
  struct {
    void (*fn)(void *arg);
    void *arg;
  } hooks[HOOKS];
  int hook_count;
  void (*terminate)(void), (*hangup)(void);
  bool stopped;
  int64_t began_us;
} loop;

static void on_timer(uv_timer_t *timer) {
  (void)timer;
  loop.expired = true;
}

static void on_idle(uv_idle_t *idle) {
  (void)idle; /* it counts by being active */
}

/* A pass of libuv runs its timers before it polls. What fires there may make a fiber ready, and then the poll must not
 * sleep. */
static void on_prepare(uv_prepare_t *prepare) {
  (void)prepare;
  if (loop.expired || fiber_any_ready())
    uv_idle_start(&loop.no_sleep, on_idle);
}

static void on_signal(uv_signal_t *handle, int number) {
  (void)handle;
  (void)number;
  if (loop.terminate)
    loop.terminate();
}

static void on_hangup(uv_signal_t *handle, int number) {
  (void)handle;
  (void)number;
  loop.hangup();
}

static void must(int rc) {
  if (rc < 0)
    die("the event loop: %s", uv_strerror(rc));
}

void loop_init(void) {
  loop.hook_count = 0;
  loop.stopped = false;
  loop.hangup = NULL;
  must(uv_loop_init(&loop.uv));
  must(uv_loop_configure(&loop.uv, UV_METRICS_IDLE_TIME));
  loop.began_us = clock_now_us();
  must(uv_timer_init(&loop.uv, &loop.timer));
  must(uv_idle_init(&loop.uv, &loop.no_sleep));
  must(uv_prepare_init(&loop.uv, &loop.before_poll));
  must(uv_prepare_start(&loop.before_poll, on_prepare));
  static const int numbers[] = {SIGTERM, SIGINT};
  for (int i = 0; i < 2; i++) {
    must(uv_signal_init(&loop.uv, &loop.signals[i]));
    must(uv_signal_start(&loop.signals[i], on_signal, numbers[i]));
  }
}

struct uv_loop_s *loop_uv(void) {
  return &loop.uv;
}

static void arm_timer(int64_t next_us) {
  if (next_us == FIBER_FOREVER) {
    uv_timer_stop(&loop.timer);
    return;
  }
  int64_t wait_us = next_us - clock_now_us();
  uv_update_time(&loop.uv);
  must(uv_timer_start(&loop.timer, on_timer, wait_us <= 0 ? 0 : (uint64_t)(wait_us + 999) / 1000, 0));
}

void loop_run(void) {
  assert(!fiber_current()); /* fibers run in the loop, never the loop in a fiber */
  while (!loop.stopped) {
    int64_t next_us = fiber_run_ready();
    for (int i = 0; i < loop.hook_count; i++)
      loop.hooks[i].fn(loop.hooks[i].arg);
    if (loop.stopped)
      break;
    arm_timer(next_us);
    loop.expired = false;
    uv_run(&loop.uv, UV_RUN_ONCE);
    uv_idle_stop(&loop.no_sleep);
  }
}

void loop_stop(void) {
  loop.stopped = true;
  uv_stop(&loop.uv);
}

void loop_resume(void) {
  loop.stopped = false;
}

int64_t loop_busy_us(void) {
  return clock_now_us() - loop.began_us - (int64_t)(uv_metrics_idle_time(&loop.uv) / 1000);
}

void loop_before_poll(void (*fn)(void *arg), void *arg) {
  assert(fn && loop.hook_count < HOOKS);
  loop.hooks[loop.hook_count].fn = fn;
  loop.hooks[loop.hook_count++].arg = arg;
}

void loop_on_terminate(void (*fn)(void)) {
  loop.terminate = fn;
}

void loop_on_hangup(void (*fn)(void)) {
  assert(!loop.hangup && fn);
  loop.hangup = fn;
  must(uv_signal_init(&loop.uv, &loop.hangup_signal));
  must(uv_signal_start(&loop.hangup_signal, on_hangup, SIGHUP));
}

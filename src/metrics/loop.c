/* Brought up to date before each poll: a loop that does not come to it is busy, and is added up when it does. */
#include "metrics/loop.h"

#include "metrics/metrics.h"
#include "rt/fiber.h"
#include "rt/loop.h"

static struct {
  Metric *fibers, *busy;
  int64_t counted_us;
} state;

void loop_metrics_prepare(void) {
  state.fibers = metric_new(METRIC_GAUGE, "skald_fibers", "Fibers: requests, sagas and background work.", "");
  state.busy = metric_new(METRIC_COUNTER, "skald_loop_busy_seconds_total",
                          "Time the loops of the workers were not waiting.", "");
}

static void update(void *arg) {
  (void)arg;
  int64_t busy_us = loop_busy_us();
  metric_set(state.fibers, fiber_count());
  metric_add(state.busy, (double)(busy_us - state.counted_us) / 1e6);
  state.counted_us = busy_us;
}

void loop_metrics_start(void) {
  state.counted_us = loop_busy_us();
  loop_before_poll(update, NULL);
}

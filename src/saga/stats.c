/* Series made once for each type and step. */
#include "saga/stats.h"

#include "rt/clock.h"

#include <assert.h>
#include <stdio.h>

static const MetricBuckets seconds = {{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300}};

static const MetricFamily
    started = {.type = METRIC_COUNTER, .name = "skald_sagas_started_total", .help = "Sagas begun."},
    takeovers = {.type = METRIC_COUNTER,
                 .name = "skald_saga_takeovers_total",
                 .help = "Sagas taken over from a process that was gone."},
    oldest = {.type = METRIC_AGE,
              .name = "skald_saga_oldest_seconds",
              .help = "Age of the oldest saga that has not ended."},
    parked = {.type = METRIC_OPTIONAL,
              .name = "skald_sagas_parked",
              .help = "Sagas parked for an operator, of all processes together; counted in the database every 5 "
                      "seconds."},
    ended = {.type = METRIC_COUNTER, .name = "skald_sagas_total", .help = "Sagas that have ended."},
    duration = {.type = METRIC_HISTOGRAM,
                .name = "skald_saga_duration_seconds",
                .help = "Time from a saga's begin to its stored end.",
                .buckets = &seconds},
    running = {.type = METRIC_GAUGE, .name = "skald_sagas_running", .help = "Sagas that have not ended."},
    step_duration = {.type = METRIC_HISTOGRAM,
                     .name = "skald_saga_step_duration_seconds",
                     .help = "Duration of one step, with all retries and pauses.",
                     .buckets = &seconds,
                     .sparse = true},
    calls = {.type = METRIC_COUNTER,
             .name = "skald_saga_calls_total",
             .help = "Calls to participants, of actions and compensations."},
    retries = {.type = METRIC_COUNTER, .name = "skald_saga_retries_total", .help = "Calls that were retries."},
    compensations = {.type = METRIC_COUNTER,
                     .name = "skald_saga_compensations_total",
                     .help = "Sagas that decided to compensate, by the step that failed first."},
    parkings = {.type = METRIC_COUNTER,
                .name = "skald_saga_parkings_total",
                .help = "Sagas parked for an operator, by the step that did not succeed."};

static void init_step(struct SagaStepStats *s, const char *labels) {
  static const char *const ends[] = {[STEP_DONE] = "outcome=\"done\"",
                                     [STEP_REFUSED] = "outcome=\"refused\"",
                                     [STEP_MAYBE] = "outcome=\"maybe\"",
                                     [STEP_UNDONE] = "outcome=\"undone\""};
  static const char *const outcomes[SAGA_CALL_OUTCOMES] = {"outcome=\"done\"", "outcome=\"refused\"",
                                                           "outcome=\"unknown\""};
  for (int i = STEP_DONE; i <= STEP_UNDONE; i++)
    s->duration[i] = metric_in(&step_duration, labels, ends[i]);
  for (int i = 0; i < SAGA_CALL_OUTCOMES; i++)
    s->calls[i] = metric_in(&calls, labels, outcomes[i]);
  s->retries = metric_in(&retries, labels, "");
  s->failed = metric_in(&compensations, labels, "");
  s->parkings = metric_in(&parkings, labels, "");
}

void saga_stats_init(SagaStats *stats, const char *service, const SagaType *type) {
  static const char *const outcomes[2] = {"outcome=\"compensated\"", "outcome=\"succeeded\""};
  static const char *const states[2] = {"state=\"running\"", "state=\"compensating\""};
  char labels[256];
  int n = snprintf(labels, sizeof(labels), "service=\"%s\",type=\"%s\"", service, type->name);
  stats->started = metric_in(&started, labels, "");
  stats->takeovers = metric_in(&takeovers, labels, "");
  stats->oldest = metric_in(&oldest, labels, "");
  stats->parked = metric_in(&parked, labels, "");
  for (int i = 0; i < 2; i++) {
    stats->ended[i] = metric_in(&ended, labels, outcomes[i]);
    stats->duration[i] = metric_in(&duration, labels, outcomes[i]);
    stats->running[i] = metric_in(&running, labels, states[i]);
  }
  for (int i = 0; i < type->step_count; i++) {
    snprintf(labels + n, sizeof(labels) - (size_t)n, ",step=\"%s\"", type->steps[i].name);
    init_step(&stats->steps[i], labels);
  }
}

void saga_stats_ended(SagaStats *stats, const SagaRun *run) {
  bool success = run->state == SAGA_SUCCEEDED;
  metric_add(stats->ended[success], 1);
  metric_observe(stats->duration[success], (double)(clock_now_us() - run->began_us) / 1e6);
}

void saga_stats_state(SagaStats *stats, SagaState state, int by) {
  assert(state == SAGA_RUNNING || state == SAGA_COMPENSATING);
  metric_add(stats->running[state == SAGA_COMPENSATING], by);
}

static struct SagaStepStats *step_named(SagaStats *stats, const SagaType *type, Str name) {
  for (int i = 0; i < type->step_count; i++)
    if (str_eq(name, str_from(type->steps[i].name)))
      return &stats->steps[i];
  return NULL;
}

void saga_stats_failed(SagaStats *stats, const SagaRun *run) {
  struct SagaStepStats *step = step_named(stats, run->type, run->failed_step);
  if (step)
    metric_add(step->failed, 1);
}

void saga_stats_parked(SagaStats *stats, const SagaRun *run) {
  struct SagaStepStats *step = step_named(stats, run->type, run->parked_step);
  if (step)
    metric_add(step->parkings, 1);
}

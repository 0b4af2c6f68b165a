/* Metrics shared by a process group, and how they are written out. */
#include "metrics/metrics.h"
#include "metrics/process.h"

#include "rt/clock.h"
#include "unit/unit.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static Metric *requests, *failures, *level, *latency;
static Metric *fine, *unknown, *age;

static const MetricBuckets coarse = {{1, 4}}, finer = {{1, 2, 4, 8}};
static const MetricFamily sized = {.type = METRIC_HISTOGRAM,
                                   .name = "t_size",
                                   .help = "Sizes.",
                                   .buckets = &coarse,
                                   .counted = &finer,
                                   .sparse = true,
                                   .keeps_max = true};
static const MetricFamily viewed = {
    .type = METRIC_HISTOGRAM, .name = "t_viewed", .help = "The same.", .buckets = &finer, .sparse = true};
static const MetricFamily highest = {
    .type = METRIC_MAX, .name = "t_viewed_max", .help = "The highest.", .sparse = true};

static void register_others(void) {
  unknown = metric_new(METRIC_OPTIONAL, "t_unknown", "Known at times.", "");
  age = metric_new(METRIC_AGE, "t_age_seconds", "Age of the oldest.", "");
  fine = metric_in(&sized, "kind=\"a\"", "status=\"1\"");
  metric_view(fine, &viewed, "", "n=\"1\"");
  metric_view(fine, &highest, "", "n=\"1\"");
}

static void setup(void) {
  if (requests)
    return;
  metrics_init(2);
  process_metrics_init();
  register_others();
  requests = metric_new(METRIC_COUNTER, "t_requests_total", "Requests.", "route=\"/a/{id}\"");
  level = metric_new(METRIC_GAUGE, "t_level", "A level\nof \\ something.", "");
  latency = metric_new(METRIC_HISTOGRAM, "t_seconds", "Latency.", "route=\"/a\"");
  failures = metric_new(METRIC_COUNTER, "t_requests_total", "Requests.", "route=\"/b\"");
}

/* Runs fn as worker index in a process of its own; returns its wait status. */
static int run_worker(int index, void (*fn)(void)) {
  pid_t child = fork();
  if (child == 0) {
    if (index >= 0) {
      metrics_worker(index);
      process_metrics_worker(index);
    }
    fn();
    _exit(0);
  }
  int status = -1;
  CHECK_INT(waitpid(child, &status, 0), child);
  return status;
}

static Str rendered(void) {
  static Buf out;
  buf_clear(&out);
  metrics_render(&out);
  buf_char(&out, '\0');
  return (Str){out.p, out.n - 1};
}

static double number_after(const char *text, const char *name) {
  const char *at = strstr(text, name);
  return at ? strtod(at + strlen(name), NULL) : -1;
}

static void work(void) {
  metric_add(requests, 2);
  metric_add(level, 5);
  metric_add(level, -1.5);
  metric_observe(latency, 0.005);
  metric_observe(latency, 0.3);
  metric_observe(latency, 60);
}

TEST(a_series_registered_twice_is_the_same) {
  setup();
  CHECK(metric_new(METRIC_COUNTER, "t_requests_total", "Requests.", "route=\"/a/{id}\"") == requests);
  CHECK(requests != failures);
}

TEST(values_are_summed_over_the_workers) {
  setup();
  CHECK_INT(run_worker(0, work), 0);
  CHECK_INT(run_worker(1, work), 0);
  metric_add(requests, 1);
  CHECK(metric_value(requests) == 5);
  CHECK(metric_value(level) == 7);
  CHECK(metric_value(latency) == 6);
  CHECK(metric_value(failures) == 0);
}

TEST(the_text_groups_families) {
  setup();
  Str text = rendered();
  static const char want[] = "# HELP t_requests_total Requests.\n"
                             "# TYPE t_requests_total counter\n"
                             "t_requests_total{route=\"/a/{id}\"} 5\n"
                             "t_requests_total{route=\"/b\"} 0\n"
                             "# HELP t_level A level\\nof \\\\ something.\n"
                             "# TYPE t_level gauge\n"
                             "t_level 7\n"
                             "# HELP t_seconds Latency.\n"
                             "# TYPE t_seconds histogram\n"
                             "t_seconds_bucket{route=\"/a\",le=\"0.005\"} 2\n"
                             "t_seconds_bucket{route=\"/a\",le=\"0.01\"} 2\n"
                             "t_seconds_bucket{route=\"/a\",le=\"0.025\"} 2\n"
                             "t_seconds_bucket{route=\"/a\",le=\"0.05\"} 2\n"
                             "t_seconds_bucket{route=\"/a\",le=\"0.075\"} 2\n"
                             "t_seconds_bucket{route=\"/a\",le=\"0.1\"} 2\n"
                             "t_seconds_bucket{route=\"/a\",le=\"0.25\"} 2\n"
                             "t_seconds_bucket{route=\"/a\",le=\"0.5\"} 4\n"
                             "t_seconds_bucket{route=\"/a\",le=\"0.75\"} 4\n"
                             "t_seconds_bucket{route=\"/a\",le=\"1\"} 4\n"
                             "t_seconds_bucket{route=\"/a\",le=\"2.5\"} 4\n"
                             "t_seconds_bucket{route=\"/a\",le=\"5\"} 4\n"
                             "t_seconds_bucket{route=\"/a\",le=\"7.5\"} 4\n"
                             "t_seconds_bucket{route=\"/a\",le=\"10\"} 4\n"
                             "t_seconds_bucket{route=\"/a\",le=\"+Inf\"} 6\n"
                             "t_seconds_sum{route=\"/a\"} 120.61\n"
                             "t_seconds_count{route=\"/a\"} 6\n";
  const char *from = strstr(text.p, "# HELP t_requests_total");
  CHECK_STR(from, want);
}

static void come_and_go(void) {
  metric_add(requests, 1);
}

TEST(a_restarted_worker_keeps_counters_and_zeroes_gauges) {
  setup();
  CHECK_INT(run_worker(0, come_and_go), 0);
  CHECK(metric_value(requests) == 6);
  CHECK(metric_value(level) == 3.5);
  CHECK(metric_value(latency) == 6);
}

static void set_odd_values(void) {
  Metric *m = metric_new(METRIC_GAUGE, "t_level", "", "");
  metric_set(m, 0.1);
  if (!strstr(rendered().p, "\nt_level 0.1\n"))
    _exit(1);
  metric_set(m, -__builtin_inf());
  if (!strstr(rendered().p, "\nt_level -Inf\n"))
    _exit(2);
  metric_set(m, __builtin_nan(""));
  if (!strstr(rendered().p, "\nt_level NaN\n"))
    _exit(3);
  metric_set(m, 0);
}

TEST(fractions_and_special_numbers) {
  setup();
  CHECK_INT(run_worker(1, set_odd_values), 0);
}

static void register_late(void) {
  metric_new(METRIC_COUNTER, "t_late_total", "Too late.", "");
}

static void register_as_another_type(void) {
  metric_new(METRIC_GAUGE, "t_requests_total", "Requests.", "");
}

static void register_too_many(void) {
  char name[16], labels[16];
  for (int i = 0; i < 20000; i++) {
    snprintf(name, sizeof(name), "t_%d", i / 100);
    snprintf(labels, sizeof(labels), "n=\"%d\"", i);
    metric_new(METRIC_HISTOGRAM, name, "Many.", labels);
  }
}

static bool aborted(int status) {
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

TEST(defects_abort) {
  setup();
  CHECK(aborted(run_worker(0, register_late)));
  CHECK(aborted(run_worker(-1, register_as_another_type)));
  CHECK(aborted(run_worker(-1, register_too_many)));
}

static void collect(void *arg) {
  metric_set(level, *(double *)arg);
}

TEST(collectors_run_before_a_render) {
  setup();
  static double now = 42;
  metrics_collector(collect, &now);
  CHECK(strstr(rendered().p, "\nt_level 42\n") != NULL);
  now = 43;
  CHECK(strstr(rendered().p, "\nt_level 43\n") != NULL);
}

static void render_and_spin(void) {
  double before = number_after(rendered().p, "\nprocess_cpu_seconds_total "), now = before;
  volatile uint64_t spun = 0;
  while (now < before + 0.05) {
    for (int i = 0; i < 1000000; i++)
      spun++;
    now = number_after(rendered().p, "\nprocess_cpu_seconds_total ");
  }
}

TEST(process_metrics_count_the_group) {
  setup();
  double one = number_after(rendered().p, "\nprocess_resident_memory_bytes ");
  CHECK(one > 100 * 1024);
  CHECK(number_after(rendered().p, "\nprocess_open_fds ") >= 3);
  CHECK(number_after(rendered().p, "\nprocess_start_time_seconds ") > 1.7e9);
  CHECK_INT(run_worker(0, render_and_spin), 0);
  double used = number_after(rendered().p, "\nprocess_cpu_seconds_total ");
  CHECK(used >= 0.05);
  CHECK_INT(run_worker(0, come_and_go), 0);
  CHECK(number_after(rendered().p, "\nprocess_cpu_seconds_total ") >= used);
}

static void observe_sizes(void) {
  metric_observe(fine, 1.5);
  metric_observe(fine, 3);
  metric_observe(fine, 5);
}

static void observe_more(void) {
  metric_observe(fine, 9);
}

TEST(one_observation_serves_several_names) {
  setup();
  CHECK(!strstr(rendered().p, "t_size"));
  CHECK(!strstr(rendered().p, "t_viewed"));
  CHECK_INT(run_worker(0, observe_sizes), 0);
  CHECK_INT(run_worker(1, observe_more), 0);
  static const char want[] = "# HELP t_size Sizes.\n"
                             "# TYPE t_size histogram\n"
                             "t_size_bucket{kind=\"a\",status=\"1\",le=\"1\"} 0\n"
                             "t_size_bucket{kind=\"a\",status=\"1\",le=\"4\"} 2\n"
                             "t_size_bucket{kind=\"a\",status=\"1\",le=\"+Inf\"} 4\n"
                             "t_size_sum{kind=\"a\",status=\"1\"} 18.5\n"
                             "t_size_count{kind=\"a\",status=\"1\"} 4\n"
                             "# HELP t_viewed The same.\n"
                             "# TYPE t_viewed histogram\n"
                             "t_viewed_bucket{n=\"1\",le=\"1\"} 0\n"
                             "t_viewed_bucket{n=\"1\",le=\"2\"} 1\n"
                             "t_viewed_bucket{n=\"1\",le=\"4\"} 2\n"
                             "t_viewed_bucket{n=\"1\",le=\"8\"} 3\n"
                             "t_viewed_bucket{n=\"1\",le=\"+Inf\"} 4\n"
                             "t_viewed_sum{n=\"1\"} 18.5\n"
                             "t_viewed_count{n=\"1\"} 4\n"
                             "# HELP t_viewed_max The highest.\n"
                             "# TYPE t_viewed_max gauge\n"
                             "t_viewed_max{n=\"1\"} 9\n";
  const char *from = strstr(rendered().p, "# HELP t_size"), *until = strstr(from, "# HELP t_requests_total");
  CHECK_STR(((Str){from, (size_t)(until - from)}), want);
}

static void begin_long_ago(void) {
  metric_set(age, (double)clock_now_us() - 60e6);
}

static void begin_lately(void) {
  metric_set(age, (double)clock_now_us() - 10e6);
}

TEST(an_age_is_that_of_the_oldest) {
  setup();
  CHECK(metric_value(age) == 0);
  CHECK_INT(run_worker(0, begin_lately), 0);
  CHECK(metric_value(age) >= 10 && metric_value(age) < 50);
  CHECK_INT(run_worker(1, begin_long_ago), 0);
  CHECK(metric_value(age) >= 60);
  process_metrics_worker_ended(1);
  metrics_worker_ended(1);
  CHECK(metric_value(age) >= 10 && metric_value(age) < 50);
  process_metrics_worker_ended(0);
  metrics_worker_ended(0);
  CHECK(metric_value(age) == 0);
}

static void know(void) {
  metric_set(unknown, 0);
}

static void forget(void) {
  metric_set(unknown, 7);
  if (!strstr(rendered().p, "\nt_unknown 7\n"))
    _exit(1);
  metric_set(unknown, __builtin_nan(""));
}

TEST(what_is_not_known_is_not_shown) {
  setup();
  CHECK(!strstr(rendered().p, "t_unknown"));
  CHECK_INT(run_worker(0, know), 0);
  CHECK(strstr(rendered().p, "# TYPE t_unknown gauge\nt_unknown 0\n") != NULL);
  CHECK_INT(run_worker(0, forget), 0);
  CHECK(!strstr(rendered().p, "t_unknown"));
  CHECK_INT(run_worker(0, know), 0);
  process_metrics_worker_ended(0);
  metrics_worker_ended(0);
  CHECK(!strstr(rendered().p, "t_unknown"));
}

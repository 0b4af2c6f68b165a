/* The registry of series and their values. Each process group member writes only its own slab of the shared memory, so
 * relaxed loads and stores are enough and nothing is ever locked. What the registry says is the same in all of them,
 * because it is complete before the fork. */
#include "metrics/metrics.h"

#include "base/err.h"
#include "rt/clock.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define SERIES     8192
#define FAMILIES   256
#define COLLECTORS 16
#define SLOTS      65536 /* values of one slab; pages that are never written cost nothing */
#define WINDOW_US  (60 * SECONDS)
#define MAX_SLOTS  3 /* the highest value of a window, of the one before, and which window */
#define BOUNDS_MAX METRIC_BUCKETS

const MetricBuckets metric_http_buckets = {{0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}};

typedef struct Family {
  MetricFamily spec;
  Metric *first, *last;
} Family;

struct Metric {
  Family *family;
  char *labels;
  const char *more;
  const MetricBuckets *counted; /* of a histogram */
  int bounds;
  bool keeps_max;
  size_t slot; /* a histogram's are its buckets, not cumulated, behind them the sum, and behind that MAX_SLOTS */
  Metric *next;
};

static struct {
  double *slabs; /* one per worker, and a last one for the process that starts them */
  int slab_count;
  double *own;
  bool sealed; /* after the fork a new series would not be known to the others */
  size_t slots;
  Family families[FAMILIES];
  int family_count;
  Metric series[SERIES];
  int series_count;
  struct {
    void (*fn)(void *arg);
    void *arg;
  } collectors[COLLECTORS];
  int collector_count;
} reg;

static void require(bool ok) {
  if (!ok)
    die("a metric was registered wrongly, or there is no memory for it");
}

void metrics_init(int workers) {
  require(!reg.slabs && workers > 0);
  reg.slab_count = workers + 1;
  size_t bytes = (size_t)reg.slab_count * SLOTS * sizeof(double);
  reg.slabs = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  require(reg.slabs != MAP_FAILED);
  reg.own = reg.slabs + (size_t)workers * SLOTS;
}

int metrics_slabs(void) {
  return reg.slab_count;
}

static double load(const double *p) {
  double value;
  __atomic_load(p, &value, __ATOMIC_RELAXED);
  return value;
}

static void store(double *p, double value) {
  __atomic_store(p, &value, __ATOMIC_RELAXED);
}

static bool is_gauge(MetricType type) {
  return type == METRIC_GAUGE || type == METRIC_AGE || type == METRIC_OPTIONAL;
}

static void reset_gauges(double *slab) {
  for (int i = 0; i < reg.series_count; i++) {
    MetricType type = reg.series[i].family->spec.type;
    if (is_gauge(type))
      store(slab + reg.series[i].slot, type == METRIC_OPTIONAL ? NAN : 0);
  }
}

void metrics_worker(int index) {
  require(index >= 0 && index < reg.slab_count - 1);
  reg.own = reg.slabs + (size_t)index * SLOTS;
  reg.sealed = true;
  reset_gauges(reg.own);
}

void metrics_worker_ended(int index) {
  require(index >= 0 && index < reg.slab_count - 1);
  reset_gauges(reg.slabs + (size_t)index * SLOTS);
}

static char *keep(const char *text) {
  char *copy = strdup(text);
  require(copy != NULL);
  return copy;
}

static int count_bounds(const MetricBuckets *b) {
  int n = 0;
  while (n < BOUNDS_MAX && b->bounds[n] != 0)
    n++;
  return n;
}

static Family *find_family(const MetricFamily *spec) {
  for (int i = 0; i < reg.family_count; i++) {
    Family *f = &reg.families[i];
    if (strcmp(f->spec.name, spec->name) == 0) {
      require(f->spec.type == spec->type);
      return f;
    }
  }
  require(reg.family_count < FAMILIES);
  Family *f = &reg.families[reg.family_count++];
  f->spec = *spec;
  f->spec.name = keep(spec->name);
  f->spec.help = keep(spec->help);
  if (!f->spec.buckets)
    f->spec.buckets = &metric_http_buckets;
  return f;
}

/* Series of many statuses share the text of their labels. */
static char *keep_labels(const Family *f, const char *labels) {
  return f->last && strcmp(f->last->labels, labels) == 0 ? f->last->labels : keep(labels);
}

static Metric *add_series(Family *f, const char *labels, const char *more) {
  require(!reg.sealed && reg.series_count < SERIES);
  Metric *m = &reg.series[reg.series_count++];
  *m = (Metric){.family = f, .labels = keep_labels(f, labels), .more = more};
  if (f->last)
    f->last->next = m;
  else
    f->first = m;
  f->last = m;
  return m;
}

static Metric *find_series(const Family *f, const char *labels, const char *more) {
  for (Metric *m = f->first; m; m = m->next)
    if (strcmp(m->more, more) == 0 && strcmp(m->labels, labels) == 0)
      return m;
  return NULL;
}

Metric *metric_in(const MetricFamily *family, const char *labels, const char *more) {
  require(reg.slabs != NULL && family->type != METRIC_MAX);
  Family *f = find_family(family);
  Metric *m = find_series(f, labels, more);
  if (m)
    return m;
  m = add_series(f, labels, more);
  m->slot = reg.slots++;
  if (family->type == METRIC_HISTOGRAM) {
    m->counted = f->spec.counted ? f->spec.counted : f->spec.buckets;
    m->bounds = count_bounds(m->counted);
    m->keeps_max = f->spec.keeps_max;
    reg.slots += (size_t)m->bounds + 1 + (m->keeps_max ? MAX_SLOTS : 0);
  }
  require(reg.slots <= SLOTS);
  if (family->type == METRIC_OPTIONAL)
    for (int i = 0; i < reg.slab_count; i++)
      metric_slab_set(m, i, NAN);
  return m;
}

void metric_view(const Metric *of, const MetricFamily *family, const char *labels, const char *more) {
  require(of->counted && (family->type != METRIC_MAX || of->keeps_max));
  Metric *m = add_series(find_family(family), labels, more);
  m->slot = of->slot;
  m->counted = of->counted;
  m->bounds = of->bounds;
}

Metric *metric_new(MetricType type, const char *name, const char *help, const char *labels) {
  return metric_in(&(MetricFamily){.type = type, .name = name, .help = help}, labels, "");
}

/* Not an atomic addition: nobody else writes here. */
static void bump(double *p, double by) {
  store(p, load(p) + by);
}

void metric_add(Metric *m, double value) {
  bump(reg.own + m->slot, value);
}

void metric_set(Metric *m, double value) {
  store(reg.own + m->slot, value);
}

static int64_t now_us(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static double window_now(void) {
  return (double)(now_us(CLOCK_MONOTONIC_COARSE) / WINDOW_US);
}

static size_t max_slot(const Metric *m) {
  return m->slot + (size_t)m->bounds + 2;
}

static void note_max(double *slots, double value) {
  double window = window_now();
  if (load(slots + 2) != window) {
    store(slots + 1, load(slots + 2) == window - 1 ? load(slots) : 0);
    store(slots, 0);
    store(slots + 2, window);
  }
  if (value > load(slots))
    store(slots, value);
}

void metric_observe(Metric *m, double value) {
  int bucket = 0;
  while (bucket < m->bounds && value > m->counted->bounds[bucket])
    bucket++;
  double *slots = reg.own + m->slot;
  bump(slots + bucket, 1);
  bump(slots + m->bounds + 1, value);
  if (m->keeps_max)
    note_max(reg.own + max_slot(m), value);
}

double metric_slab_value(const Metric *m, int slab) {
  return load(reg.slabs + (size_t)slab * SLOTS + m->slot);
}

void metric_slab_set(Metric *m, int slab, double value) {
  store(reg.slabs + (size_t)slab * SLOTS + m->slot, value);
}

static double slot_sum(size_t slot) {
  double sum = 0;
  for (int i = 0; i < reg.slab_count; i++)
    sum += load(reg.slabs + (size_t)i * SLOTS + slot);
  return sum;
}

static double histogram_count(const Metric *m) {
  double sum = 0;
  for (int i = 0; i <= m->bounds; i++)
    sum += slot_sum(m->slot + (size_t)i);
  return sum;
}

static double oldest_age(const Metric *m) {
  double oldest_us = 0;
  for (int i = 0; i < reg.slab_count; i++) {
    double began_us = metric_slab_value(m, i);
    if (began_us != 0 && (oldest_us == 0 || began_us < oldest_us))
      oldest_us = began_us;
  }
  double age_us = oldest_us != 0 ? (double)now_us(CLOCK_MONOTONIC) - oldest_us : 0;
  return age_us > 0 ? age_us / 1e6 : 0;
}

static double optional_sum(const Metric *m) {
  double sum = NAN;
  for (int i = 0; i < reg.slab_count; i++) {
    double value = metric_slab_value(m, i);
    if (!isnan(value))
      sum = isnan(sum) ? value : sum + value;
  }
  return sum;
}

static double recent_max(const Metric *m) {
  double max = 0, window = window_now();
  for (int i = 0; i < reg.slab_count; i++) {
    const double *slots = reg.slabs + (size_t)i * SLOTS + max_slot(m);
    double last = load(slots + 2);
    double now = last >= window - 1 ? load(slots) : 0, before = last >= window ? load(slots + 1) : 0;
    if (now > max)
      max = now;
    if (before > max)
      max = before;
  }
  return max;
}

double metric_value(const Metric *m) {
  switch (m->family->spec.type) {
  case METRIC_HISTOGRAM:
    return histogram_count(m);
  case METRIC_AGE:
    return oldest_age(m);
  case METRIC_OPTIONAL:
    return optional_sum(m);
  case METRIC_MAX:
    return recent_max(m);
  default:
    return slot_sum(m->slot);
  }
}

void metrics_collector(void (*fn)(void *arg), void *arg) {
  require(reg.collector_count < COLLECTORS);
  reg.collectors[reg.collector_count].fn = fn;
  reg.collectors[reg.collector_count++].arg = arg;
}

/* The shorter of two forms that reads back as the same number. */
static void render_fraction(Buf *out, double value) {
  char text[32];
  snprintf(text, sizeof(text), "%.15g", value);
  if (strtod(text, NULL) != value)
    snprintf(text, sizeof(text), "%.17g", value);
  buf_cstr(out, text);
}

static void render_value(Buf *out, double value) {
  if (isnan(value))
    buf_cstr(out, "NaN");
  else if (isinf(value))
    buf_cstr(out, value > 0 ? "+Inf" : "-Inf");
  else if (fabs(value) < 9e15 && value == (double)(int64_t)value)
    buf_int(out, (int64_t)value);
  else
    render_fraction(out, value);
  buf_char(out, '\n');
}

/* name+suffix{labels,more,le="bound"} and a space; le: a bound, 0 for none. */
static void render_name(Buf *out, const Metric *m, const char *suffix, double le) {
  const char *separator = "";
  buf_cstr(out, m->family->spec.name);
  buf_cstr(out, suffix);
  if (m->labels[0] || m->more[0] || le != 0) {
    buf_char(out, '{');
    buf_cstr(out, m->labels);
    if (m->labels[0])
      separator = ",";
    if (m->more[0]) {
      buf_printf(out, "%s%s", separator, m->more);
      separator = ",";
    }
    if (isinf(le))
      buf_printf(out, "%sle=\"+Inf\"", separator);
    else if (le != 0)
      buf_printf(out, "%sle=\"%g\"", separator, le);
    buf_char(out, '}');
  }
  buf_char(out, ' ');
}

static void render_histogram(Buf *out, const Metric *m) {
  const double *shown = m->family->spec.buckets->bounds;
  double count = 0;
  for (int i = 0; i < m->bounds; i++) {
    count += slot_sum(m->slot + (size_t)i);
    if (m->counted->bounds[i] != *shown)
      continue;
    render_name(out, m, "_bucket", *shown++);
    render_value(out, count);
  }
  count += slot_sum(m->slot + (size_t)m->bounds);
  render_name(out, m, "_bucket", INFINITY);
  render_value(out, count);
  render_name(out, m, "_sum", 0);
  render_value(out, slot_sum(m->slot + (size_t)m->bounds + 1));
  render_name(out, m, "_count", 0);
  render_value(out, count);
}

/* A backslash or a line end in a help text would end its line early (text exposition format, "Comments, help text"). */
static void render_help(Buf *out, const Family *f) {
  buf_printf(out, "# HELP %s ", f->spec.name);
  for (const char *p = f->spec.help; *p; p++) {
    if (*p == '\n')
      buf_cstr(out, "\\n");
    else if (*p == '\\')
      buf_cstr(out, "\\\\");
    else
      buf_char(out, *p);
  }
  buf_char(out, '\n');
}

static bool is_shown(const Metric *m) {
  const MetricFamily *spec = &m->family->spec;
  if (spec->type == METRIC_OPTIONAL)
    return !isnan(optional_sum(m));
  return !spec->sparse || histogram_count(m) > 0;
}

static void render_series(Buf *out, const Metric *m) {
  if (m->family->spec.type == METRIC_HISTOGRAM) {
    render_histogram(out, m);
    return;
  }
  render_name(out, m, "", 0);
  render_value(out, metric_value(m));
}

static void render_family(Buf *out, const Family *f) {
  bool named = false;
  for (const Metric *m = f->first; m; m = m->next) {
    if (!is_shown(m))
      continue;
    if (!named) {
      render_help(out, f);
      const char *type = f->spec.type == METRIC_HISTOGRAM ? "histogram" : "gauge";
      buf_printf(out, "# TYPE %s %s\n", f->spec.name, f->spec.type == METRIC_COUNTER ? "counter" : type);
      named = true;
    }
    render_series(out, m);
  }
}

void metrics_render(Buf *out) {
  for (int i = 0; i < reg.collector_count; i++)
    reg.collectors[i].fn(reg.collectors[i].arg);
  for (int i = 0; i < reg.family_count; i++)
    render_family(out, &reg.families[i]);
}

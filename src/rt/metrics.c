/* The registry of series and their values. Each process group member writes only its own slab of the shared memory, so
 * relaxed loads and stores are enough and nothing is ever locked. What the registry says is the same in all of them,
 * because it is complete before the fork. */
#include "rt/metrics.h"

#include "rt/process_metrics.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define SERIES     4096
#define FAMILIES   256
#define COLLECTORS 16
#define SLOTS      16384 /* values of one slab */

static const double bounds[] = {0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10};
static const char *const bound_names[] = {"0.005", "0.01", "0.025", "0.05", "0.075", "0.1", "0.25", "0.5",
                                          "0.75",  "1",    "2.5",   "5",    "7.5",   "10",  "+Inf"};
enum { BOUNDS = sizeof(bounds) / sizeof(bounds[0]), BUCKETS = BOUNDS + 1, HISTOGRAM_SLOTS = BUCKETS + 1 };

typedef struct Family {
  char *name, *help;
  MetricType type;
  Metric *first, *last;
} Family;

struct Metric {
  Family *family;
  char *labels;
  size_t slot; /* a histogram's are its buckets, not cumulated, and behind them the sum */
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
    abort();
}

void metrics_init(int workers) {
  require(!reg.slabs && workers > 0);
  reg.slab_count = workers + 1;
  size_t bytes = (size_t)reg.slab_count * SLOTS * sizeof(double);
  reg.slabs = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  require(reg.slabs != MAP_FAILED);
  reg.own = reg.slabs + (size_t)workers * SLOTS;
  process_metrics_init(reg.slab_count);
}

void metrics_worker(int index) {
  require(index >= 0 && index < reg.slab_count - 1);
  reg.own = reg.slabs + (size_t)index * SLOTS;
  reg.sealed = true;
  for (int i = 0; i < reg.series_count; i++)
    if (reg.series[i].family->type == METRIC_GAUGE)
      metric_set(&reg.series[i], 0);
  process_metrics_worker(index);
}

static char *keep(const char *text) {
  char *copy = strdup(text);
  require(copy != NULL);
  return copy;
}

static Family *find_family(MetricType type, const char *name, const char *help) {
  for (int i = 0; i < reg.family_count; i++) {
    Family *f = &reg.families[i];
    if (strcmp(f->name, name) == 0) {
      require(f->type == type);
      return f;
    }
  }
  require(reg.family_count < FAMILIES);
  Family *f = &reg.families[reg.family_count++];
  *f = (Family){.name = keep(name), .help = keep(help), .type = type};
  return f;
}

Metric *metric_new(MetricType type, const char *name, const char *help, const char *labels) {
  require(reg.slabs != NULL);
  Family *f = find_family(type, name, help);
  for (Metric *m = f->first; m; m = m->next)
    if (strcmp(m->labels, labels) == 0)
      return m;
  size_t slots = type == METRIC_HISTOGRAM ? HISTOGRAM_SLOTS : 1;
  require(!reg.sealed && reg.series_count < SERIES && reg.slots + slots <= SLOTS);
  Metric *m = &reg.series[reg.series_count++];
  *m = (Metric){.family = f, .labels = keep(labels), .slot = reg.slots};
  reg.slots += slots;
  if (f->last)
    f->last->next = m;
  else
    f->first = m;
  f->last = m;
  return m;
}

static double load(const double *p) {
  double value;
  __atomic_load(p, &value, __ATOMIC_RELAXED);
  return value;
}

static void store(double *p, double value) {
  __atomic_store(p, &value, __ATOMIC_RELAXED);
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

void metric_observe(Metric *m, double seconds) {
  int bucket = 0;
  while (bucket < BOUNDS && seconds > bounds[bucket])
    bucket++;
  bump(reg.own + m->slot + bucket, 1);
  bump(reg.own + m->slot + BUCKETS, seconds);
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

double metric_value(const Metric *m) {
  size_t slots = m->family->type == METRIC_HISTOGRAM ? BUCKETS : 1;
  double sum = 0;
  for (size_t i = 0; i < slots; i++)
    sum += slot_sum(m->slot + i);
  return sum;
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

/* name+suffix{labels,le="bound"} and a space; le may be NULL. */
static void render_name(Buf *out, const Metric *m, const char *suffix, const char *le) {
  buf_cstr(out, m->family->name);
  buf_cstr(out, suffix);
  if (m->labels[0] || le) {
    buf_char(out, '{');
    buf_cstr(out, m->labels);
    if (le)
      buf_printf(out, "%sle=\"%s\"", m->labels[0] ? "," : "", le);
    buf_char(out, '}');
  }
  buf_char(out, ' ');
}

static void render_histogram(Buf *out, const Metric *m) {
  double count = 0;
  for (int i = 0; i < BUCKETS; i++) {
    count += slot_sum(m->slot + i);
    render_name(out, m, "_bucket", bound_names[i]);
    render_value(out, count);
  }
  render_name(out, m, "_sum", NULL);
  render_value(out, slot_sum(m->slot + BUCKETS));
  render_name(out, m, "_count", NULL);
  render_value(out, count);
}

/* A backslash or a line end in a help text would end its line early (text exposition format, "Comments, help text"). */
static void render_help(Buf *out, const Family *f) {
  buf_printf(out, "# HELP %s ", f->name);
  for (const char *p = f->help; *p; p++) {
    if (*p == '\n')
      buf_cstr(out, "\\n");
    else if (*p == '\\')
      buf_cstr(out, "\\\\");
    else
      buf_char(out, *p);
  }
  buf_char(out, '\n');
}

static void render_family(Buf *out, const Family *f) {
  static const char *const types[] = {
      [METRIC_COUNTER] = "counter", [METRIC_GAUGE] = "gauge", [METRIC_HISTOGRAM] = "histogram"};
  render_help(out, f);
  buf_printf(out, "# TYPE %s %s\n", f->name, types[f->type]);
  for (const Metric *m = f->first; m; m = m->next) {
    if (f->type == METRIC_HISTOGRAM) {
      render_histogram(out, m);
    } else {
      render_name(out, m, "", NULL);
      render_value(out, slot_sum(m->slot));
    }
  }
}

void metrics_render(Buf *out) {
  for (int i = 0; i < reg.collector_count; i++)
    reg.collectors[i].fn(reg.collectors[i].arg);
  for (int i = 0; i < reg.family_count; i++)
    render_family(out, &reg.families[i]);
}

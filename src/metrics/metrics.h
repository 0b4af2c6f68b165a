/* Prometheus metrics. Values stand in memory shared by the process group, one slab per worker, so that one scrape of
 * any worker shows them all: register everything before the fork. A family's label sets are made once, from route
 * templates and other bounded values, never from input: cardinality is bounded by construction. */
#ifndef SKALD_METRICS_METRICS_H
#define SKALD_METRICS_METRICS_H

#include "base/buf.h"

typedef struct Metric Metric; /* one series: a counter, a gauge or a histogram */

typedef enum MetricType {
  METRIC_COUNTER,
  METRIC_GAUGE, /* the sum of the workers' */
  METRIC_HISTOGRAM,
  METRIC_AGE, /* a gauge: set to when something began (clock_now_us, 0: nothing), shown as seconds since; the oldest
                 of the workers' */
  METRIC_OPTIONAL, /* a gauge shown only while one of the workers has set it to a number; NaN takes that back */
  METRIC_MAX,      /* a gauge, as a view only: the highest that a histogram has seen in the last one to two minutes */
} MetricType;

#define METRIC_BUCKETS 20
typedef struct MetricBuckets { /* upper bounds, rising, the last one before the first 0 */
  double bounds[METRIC_BUCKETS];
} MetricBuckets;
extern const MetricBuckets metric_http_buckets; /* those that OpenTelemetry's HTTP conventions name */

typedef struct MetricFamily {
  MetricType type;
  const char *name, *help;
  const MetricBuckets *buckets; /* of a histogram as it is shown; NULL: metric_http_buckets */
  const MetricBuckets *counted; /* finer ones, with views that show others of them; NULL: those shown */
  bool sparse;                  /* a series is shown from its first observation on */
  bool keeps_max;               /* there is a view of type METRIC_MAX */
} MetricFamily;

void metrics_init(int workers);       /* before any metric */
void metrics_worker(int index);       /* after fork: which slab is ours; its gauges start at zero, counters go on */
void metrics_worker_ended(int index); /* by the process that forked it: what it was at is no more */

/* The series name{labels,more}; both are ready-made text such as route="/a/{id}",method="GET", or "". Registered twice
 * it is the same one. family and labels are copied, more must stay. */
Metric *metric_in(const MetricFamily *family, const char *labels, const char *more);
/* Another series with the values of a histogram, in other buckets of those counted, or as METRIC_MAX. */
void metric_view(const Metric *of, const MetricFamily *family, const char *labels, const char *more);
Metric *metric_new(MetricType type, const char *name, const char *help, const char *labels);
void metric_add(Metric *m, double value);
void metric_set(Metric *m, double value);     /* gauges */
void metric_observe(Metric *m, double value); /* histograms */
double metric_value(const Metric *m);         /* of counters and gauges as shown; a histogram's count */

/* One slab's value. Another's may be set only for what that process cannot keep up to date itself. */
int metrics_slabs(void); /* the workers' and, as the last one, that of the process which called metrics_init */
double metric_slab_value(const Metric *m, int slab);
void metric_slab_set(Metric *m, int slab, double value);

/* Called before each render, to fill gauges from what only the moment knows. At most 16. */
void metrics_collector(void (*fn)(void *arg), void *arg);
void metrics_render(Buf *out); /* text exposition format 0.0.4 */

#endif

/* Prometheus metrics. Values stand in memory shared by the process group, one slab per worker, so that one scrape of
 * any worker shows them all: register everything before the fork. A family's label sets are made once, from route
 * templates and other bounded values, never from input: cardinality is bounded by construction. */
#ifndef SKALD_RT_METRICS_H
#define SKALD_RT_METRICS_H

#include "base/buf.h"

typedef struct Metric Metric; /* one series: a counter, a gauge or a histogram */

typedef enum MetricType { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM } MetricType;

void metrics_init(int workers); /* before any metric */
void metrics_worker(int index); /* after fork: which slab is ours; its gauges start at zero, counters go on */
/* The series name{labels}; labels is ready-made text such as route="/a/{id}",method="GET", or "". Registered twice it
 * is the same one. Strings are copied. Histograms count seconds, in the buckets that OpenTelemetry's HTTP conventions
 * name. */
Metric *metric_new(MetricType type, const char *name, const char *help, const char *labels);
void metric_add(Metric *m, double value);
void metric_set(Metric *m, double value);       /* gauges */
void metric_observe(Metric *m, double seconds); /* histograms */
double metric_value(const Metric *m);           /* summed over the workers; a histogram's count */

/* Called before each render, to fill gauges from what only the moment knows. At most 16. */
void metrics_collector(void (*fn)(void *arg), void *arg);
void metrics_render(Buf *out); /* text exposition format 0.0.4 */

#endif

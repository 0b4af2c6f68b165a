/* The process_* metrics of the whole process group. Private to rt/metrics.c, which offers it the values of single
 * slabs: whoever is scraped fills in all members' values, as the others do not know that somebody asks. */
#ifndef SKALD_RT_PROCESS_METRICS_H
#define SKALD_RT_PROCESS_METRICS_H

#include "rt/metrics.h"

void process_metrics_init(int slabs); /* the calling process has the last slab */
void process_metrics_worker(int slab);
void process_metrics_worker_ended(int slab);

/* Implemented by metrics.c. */
double metric_slab_value(const Metric *m, int slab);
void metric_slab_set(Metric *m, int slab, double value);

#endif

/* How busy the workers are, as metrics. */
#ifndef SKALD_METRICS_LOOP_H
#define SKALD_METRICS_LOOP_H

void loop_metrics_prepare(void); /* before the fork */
void loop_metrics_start(void);   /* in each worker, after loop_init */

#endif

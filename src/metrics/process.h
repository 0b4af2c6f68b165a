/* The process_* metrics of the whole process group, read from /proc at each scrape. The process that is scraped fills
 * in the values of all members, as the others do not know of the scrape. */
#ifndef SKALD_METRICS_PROCESS_H
#define SKALD_METRICS_PROCESS_H

void process_metrics_init(void);              /* after metrics_init, in the same process */
void process_metrics_worker(int index);       /* after metrics_worker */
void process_metrics_worker_ended(int index); /* before metrics_worker_ended */

#endif

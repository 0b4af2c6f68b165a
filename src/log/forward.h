/* Log lines sent to a Fluent Bit or Fluentd. They wait in a bounded queue; a fiber of each worker connects, sends chunk
 * after chunk, each until it is acknowledged, and reconnects after every loss. With the queue full new lines are lost
 * and counted. No caller ever waits for it. */
#ifndef SKALD_LOG_FORWARD_H
#define SKALD_LOG_FORWARD_H

#include "log/record.h"

typedef void LogForwardReport(LogLevel level, const char *text);
/* Before the fork, after metrics_init. address: host:port, checked; NULL: nobody. report gets what the forwarder itself
 * has to log: connections lost and regained, lines lost. */
void log_forward_to(const char *address, const char *tag, LogForwardReport *report);
bool log_forward_on(void);
/* Queues a line. What a process without a loop queues goes to the next child it forks. */
void log_forward_add(const LogRecord *record, Str json);
void log_forward_given(void); /* in the parent, after a fork: the queue is the child's now */
void log_forward_run(void);   /* in each worker's loop */
/* In a fiber: waits until all is acknowledged, or the deadline. */
void log_forward_drain(int64_t deadline_us);

#endif

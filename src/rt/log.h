/* Structured logs: one JSON line per event on stdout, in logstash-logback-encoder's field names; plain coloured text
 * when stdout is a terminal. Never blocks the loop for long: lines are gathered and written once per pass. Libraries
 * return errors; who handles a request, a saga or an event logs, once. Never a secret, an e-mail address or a wallet at
 * info. */
#ifndef SKALD_RT_LOG_H
#define SKALD_RT_LOG_H

#include "base/buf.h"
#include "base/err.h"

typedef enum LogLevel { LOG_TRACE, LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR } LogLevel;
typedef enum LogFormat { LOG_AUTO, LOG_LOGSTASH, LOG_TEXT } LogFormat;

/* component: the process's role. Before it is called info and worse goes to stderr as text. A reader of stdout that
 * goes away must not end the process, so SIGPIPE is ignored from here on. */
void log_init(LogFormat format, LogLevel level, const char *component);
void log_worker(int index); /* after a fork: names this process's lines; what was gathered is the parent's to write */
bool log_on(LogLevel level);
/* logger: the module, e.g. "saga". Adds time, trace_id, saga_id of the current fiber. A line is at most 4 KiB: a longer
 * message is cut. */
void log_write(LogLevel level, const char *logger, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Writes what was gathered, as far as stdout takes it; errors are written at once. What stdout does not take waits in
 * 256 KiB; beyond it, or when writing fails, lines are lost, counted, and their number is logged later. */
void log_flush(void);
uint64_t log_dropped(void); /* lines this process has lost so far */

#define LOG(level, logger, ...)                                                                                        \
  do {                                                                                                                 \
    if (log_on(LOG_##level))                                                                                           \
      log_write(LOG_##level, logger, __VA_ARGS__);                                                                     \
  } while (0)

#endif

/* Structured logs: one line per event on stdout, JSON or text, and to a Fluent Bit or Fluentd besides where one is
 * named. Never blocks the loop: lines are gathered and written once per pass, and what is not taken is lost and
 * counted. Libraries return errors; who handles a request, a saga or an event logs, once. Never a secret, an e-mail
 * address or a wallet at info. docs/logs.md has the fields, and how levels change while the process runs. */
#ifndef SKALD_LOG_LOG_H
#define SKALD_LOG_LOG_H

#include "log/record.h"
#include "rt/clock.h"
#include "rt/config.h"

extern const Option log_options[];

/* After log_options were loaded and metrics_init. component: the process's role. Before it is called info and worse
 * goes to stderr as text. A reader of stdout that goes away must not end the process, so SIGPIPE is ignored from here
 * on. */
void log_start(const char *component);
/* After a fork: names this process's lines. What was gathered is the parent's to write. */
void log_worker(int index);
void log_given(void); /* in the parent, after each fork: what waits to be forwarded is the child's to send */
/* In each worker's loop: follows LOG_LEVEL_FILE and SIGHUP, forwards. */
void log_run(void);
#define LOG_DRAIN_US (2 * SECONDS)
/* In a fiber, at the end: what was to be forwarded goes out, within LOG_DRAIN_US. */
void log_drain(void);
bool log_follows_file(void);
void log_reload(void); /* LOG_LEVEL_FILE */

bool log_on(LogLevel level, const char *logger);
/* logger: the module, e.g. "saga". What the current fiber is about is added. A line is at most 4 KiB: a longer message
 * is cut, and so are fields of more than 256 bytes. */
void log_write(LogLevel level, const char *logger, const LogField *fields, int count, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
/* Writes what was gathered, as far as stdout takes it; errors are written at once. What stdout does not take waits in
 * 256 KiB; beyond it, or when writing fails, lines are lost, counted, and their number is logged later. */
void log_flush(void);
uint64_t log_dropped(void); /* lines for stdout that this process has lost so far */

#define LOG(level, logger, ...)                                                                                        \
  do {                                                                                                                 \
    if (log_on(LOG_##level, logger))                                                                                   \
      log_write(LOG_##level, logger, NULL, 0, __VA_ARGS__);                                                            \
  } while (0)

/* fields: an array of LogField. */
#define LOG_WITH(level, logger, fields, ...)                                                                           \
  do {                                                                                                                 \
    if (log_on(LOG_##level, logger))                                                                                   \
      log_write(LOG_##level, logger, fields, (int)(sizeof(fields) / sizeof(fields[0])), __VA_ARGS__);                  \
  } while (0)

#endif

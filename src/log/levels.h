/* Levels of the log: one for all, others for single loggers, written as "info,saga=debug,http=warn". */
#ifndef SKALD_LOG_LEVELS_H
#define SKALD_LOG_LEVELS_H

#include "base/err.h"
#include "base/str.h"

typedef enum LogLevel { LOG_TRACE, LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_OFF } LogLevel;

#define LOG_LOGGERS    32
#define LOG_LOGGER_MAX 32 /* bytes of a logger's name */

typedef struct LogLevels {
  LogLevel level, lowest; /* for loggers that are not named; of all in here */
  struct {
    char logger[LOG_LOGGER_MAX + 1];
    LogLevel level;
  } named[LOG_LOGGERS];
  int count;
} LogLevels;

/* Levels in any case, spaces around them; a level for all may stand anywhere, once, and is info when there is none.
 * E_FIELD: no such level, a logger twice, or too many; *ret is untouched. */
MUST_CHECK int log_levels_parse(Str text, LogLevels *ret);
bool log_levels_on(const LogLevels *levels, LogLevel level, const char *logger);

#endif

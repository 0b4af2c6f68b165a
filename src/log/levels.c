/* Levels by logger: read from their text, asked for each line. */
#include "log/levels.h"

#include <string.h>

static const char *const names[] = {"trace", "debug", "info", "warn", "error", "off"};

static int read_level(Str name, LogLevel *ret) {
  for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
    if (str_eq_nocase(name, str_from(names[i]))) {
      *ret = (LogLevel)i;
      return E_OK;
    }
  return E_FIELD;
}

static bool is_named(const LogLevels *l, Str logger) {
  for (int i = 0; i < l->count; i++)
    if (str_eq(logger, str_from(l->named[i].logger)))
      return true;
  return false;
}

static bool is_logger(Str name) {
  for (size_t i = 0; i < name.n; i++)
    if (!strchr("abcdefghijklmnopqrstuvwxyz0123456789_-.", name.p[i]) || !name.p[i])
      return false;
  return name.n > 0 && name.n <= LOG_LOGGER_MAX;
}

static int add_named(LogLevels *l, Str logger, Str level) {
  if (!is_logger(logger) || l->count == LOG_LOGGERS || is_named(l, logger))
    return E_FIELD;
  memcpy(l->named[l->count].logger, logger.p, logger.n);
  return read_level(level, &l->named[l->count++].level);
}

int log_levels_parse(Str text, LogLevels *ret) {
  LogLevels l = {.level = LOG_INFO};
  bool has_level = false;
  while (text.p) {
    Str level = str_cut(&text, ',');
    Str logger = str_trim(str_cut(&level, '='));
    if (level.p) {
      TRY(add_named(&l, logger, str_trim(level)));
      continue;
    }
    if (has_level)
      return E_FIELD;
    has_level = true;
    TRY(read_level(logger, &l.level));
  }
  l.lowest = l.level;
  for (int i = 0; i < l.count; i++)
    if (l.named[i].level < l.lowest)
      l.lowest = l.named[i].level;
  *ret = l;
  return E_OK;
}

bool log_levels_on(const LogLevels *l, LogLevel level, const char *logger) {
  if (level < l->lowest)
    return false;
  for (int i = 0; i < l->count; i++)
    if (!strcmp(l->named[i].logger, logger))
      return level >= l->named[i].level;
  return level >= l->level;
}

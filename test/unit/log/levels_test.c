/* Levels by logger: their text, and whom they let through. */
#include "log/levels.h"

#include "unit/unit.h"

#include <stdio.h>

static LogLevels levels_of(const char *text) {
  LogLevels levels = {.level = LOG_OFF, .lowest = LOG_OFF};
  if (!CHECK_INT(log_levels_parse(str_from(text), &levels), E_OK))
    fprintf(stderr, "# refused: %s\n", text);
  return levels;
}

TEST(one_for_all) {
  LogLevels levels = levels_of("warn");
  CHECK(log_levels_on(&levels, LOG_WARN, "a") && log_levels_on(&levels, LOG_ERROR, "b"));
  CHECK(!log_levels_on(&levels, LOG_INFO, "a"));
  levels = levels_of(" Debug ");
  CHECK(log_levels_on(&levels, LOG_DEBUG, "a") && !log_levels_on(&levels, LOG_TRACE, "a"));
  levels = levels_of("off");
  CHECK(!log_levels_on(&levels, LOG_ERROR, "a"));
}

TEST(single_loggers_differ_both_ways) {
  LogLevels levels = levels_of("info, saga = debug ,http=warn,db=off");
  CHECK(log_levels_on(&levels, LOG_DEBUG, "saga") && !log_levels_on(&levels, LOG_TRACE, "saga"));
  CHECK(log_levels_on(&levels, LOG_WARN, "http") && !log_levels_on(&levels, LOG_INFO, "http"));
  CHECK(!log_levels_on(&levels, LOG_ERROR, "db"));
  CHECK(log_levels_on(&levels, LOG_INFO, "other") && !log_levels_on(&levels, LOG_DEBUG, "other"));
  CHECK(!log_levels_on(&levels, LOG_DEBUG, "sag") && !log_levels_on(&levels, LOG_DEBUG, "saga2"));
}

TEST(without_one_for_all_it_is_info) {
  LogLevels levels = levels_of("saga=trace");
  CHECK(log_levels_on(&levels, LOG_INFO, "a") && !log_levels_on(&levels, LOG_DEBUG, "a"));
  CHECK(log_levels_on(&levels, LOG_TRACE, "saga"));
  levels = levels_of("saga=trace,error");
  CHECK(!log_levels_on(&levels, LOG_WARN, "a") && log_levels_on(&levels, LOG_TRACE, "saga"));
}

TEST(what_is_refused) {
  static const char *const bad[] = {"",
                                    "loud",
                                    "info,",
                                    ",info",
                                    "info,debug",
                                    "info,saga",
                                    "saga=",
                                    "=debug",
                                    "saga=loud",
                                    "saga=debug,saga=info",
                                    "info;saga=debug",
                                    "info saga",
                                    "saga==debug",
                                    "a=info=debug",
                                    "info,,saga=debug",
                                    "a-name-of-more-than-32-characters=info"};
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    LogLevels levels = {.level = LOG_ERROR, .lowest = LOG_ERROR};
    if (!CHECK_INT(log_levels_parse(str_from(bad[i]), &levels), E_FIELD))
      fprintf(stderr, "# taken: %s\n", bad[i]);
    CHECK_INT(levels.level, LOG_ERROR);
  }
}

TEST(as_many_as_there_is_room_for) {
  char text[LOG_LOGGERS * 16] = "error";
  size_t n = 5;
  for (int i = 0; i < LOG_LOGGERS; i++)
    n += (size_t)snprintf(text + n, sizeof(text) - n, ",l%d=debug", i);
  LogLevels levels = levels_of(text);
  CHECK(log_levels_on(&levels, LOG_DEBUG, "l0") && log_levels_on(&levels, LOG_DEBUG, "l31"));
  snprintf(text + n, sizeof(text) - n, ",x=info");
  CHECK_INT(log_levels_parse(str_from(text), &levels), E_FIELD);
}

/* A log record as text: in logstash-logback-encoder's field names, in those of the Elastic Common Schema, or for
 * people. docs/logs.md is the list of fields; there are no others, so that an index can have a strict mapping. */
#ifndef SKALD_LOG_RECORD_H
#define SKALD_LOG_RECORD_H

#include "base/buf.h"
#include "log/levels.h"
#include "rt/context.h"

#include <time.h>

typedef enum LogFormat { LOG_AUTO, LOG_LOGSTASH, LOG_ECS, LOG_TEXT } LogFormat;

typedef struct LogField {
  LogKey key;
  Str text;       /* UTF-8, of which 256 bytes are kept; absent: the number counts */
  int64_t number; /* a status, or a duration in microseconds */
} LogField;

typedef struct LogRecord {
  struct timespec time;
  LogLevel level;
  const char *logger, *thread, *component, *host;
  const FiberContext *context;
  const LogField *fields;
  int field_count;
  Str message;
} LogRecord;

const char *log_level_name(LogLevel level); /* "INFO" */
/* One line, without its end. coloured: only in text. */
void log_record_write(Buf *out, const LogRecord *record, LogFormat format, bool coloured);

#endif

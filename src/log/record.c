/* One record, three forms. */
#include "log/record.h"

#include <string.h>

#define ECS_VERSION "8.11.0"
#define FIELD_MAX   256 /* bytes of a field's text */

static const struct {
  const char *name, *small, *colour;
  int value; /* logback's */
} levels[] = {
    [LOG_TRACE] = {"TRACE", "trace", "\033[2m", 5000},   [LOG_DEBUG] = {"DEBUG", "debug", "\033[36m", 10000},
    [LOG_INFO] = {"INFO", "info", "\033[32m", 20000},    [LOG_WARN] = {"WARN", "warn", "\033[33m", 30000},
    [LOG_ERROR] = {"ERROR", "error", "\033[31m", 40000},
};

static const struct {
  const char *logstash, *ecs;
} keys[] = {
    [LOG_TRACE_ID] = {"trace_id", "trace.id"},
    [LOG_SPAN_ID] = {"span_id", "span.id"},
    [LOG_SAGA_ID] = {"saga_id", "labels.saga_id"},
    [LOG_SAGA_TYPE] = {"saga_type", "labels.saga_type"},
    [LOG_SAGA_STATE] = {"saga_state", "labels.saga_state"},
    [LOG_ORDER_ID] = {"order_id", "labels.order_id"},
    [LOG_USER_ID] = {"user_id", "labels.user_id"},
    [LOG_STEP] = {"step", "labels.step"},
    [LOG_REASON] = {"reason", "labels.reason"},
    [LOG_EVENT_ID] = {"event_id", "labels.event_id"},
    [LOG_HTTP_METHOD] = {"http_method", "http.request.method"},
    [LOG_HTTP_ROUTE] = {"http_route", "labels.http_route"},
    [LOG_HTTP_STATUS] = {"http_status", "http.response.status_code"},
    [LOG_ERROR_CODE] = {"error_code", "error.code"},
    [LOG_DURATION] = {"duration_ms", "event.duration"},
};

const char *log_level_name(LogLevel level) {
  return levels[level].name;
}

static void add_member(Buf *b, const char *name, Str value) {
  buf_printf(b, ",\"%s\":", name);
  buf_json_string(b, value);
}

typedef void FieldWriter(Buf *b, const LogField *field);

/* What the fiber is about, then what this line says besides. */
static void each_field(Buf *b, const LogRecord *r, FieldWriter *write) {
  const FiberContext *c = r->context;
  const LogField about[] = {
      {LOG_TRACE_ID, str_from(c->trace.trace_id), 0}, {LOG_SPAN_ID, str_from(c->trace.span_id), 0},
      {LOG_SAGA_ID, str_from(c->saga_id), 0},         {LOG_SAGA_TYPE, str_from(c->saga_type), 0},
      {c->saga_subject, str_from(c->saga_id), 0},     {LOG_EVENT_ID, str_from(c->event_id), 0},
  };
  for (size_t i = 0; i < sizeof(about) / sizeof(about[0]); i++)
    if (about[i].text.n && about[i].key != LOG_NO_KEY)
      write(b, &about[i]);
  for (int i = 0; i < r->field_count; i++) {
    LogField field = r->fields[i];
    field.text = str_utf8_cut(field.text, FIELD_MAX);
    if (field.key != LOG_NO_KEY)
      write(b, &field);
  }
}

static void add_logstash(Buf *b, const LogField *f) {
  if (f->text.p)
    add_member(b, keys[f->key].logstash, f->text);
  else if (f->key == LOG_DURATION)
    buf_printf(b, ",\"duration_ms\":%lld.%03d", (long long)(f->number / 1000), (int)(f->number % 1000));
  else
    buf_printf(b, ",\"%s\":%lld", keys[f->key].logstash, (long long)f->number);
}

static void add_ecs(Buf *b, const LogField *f) {
  if (f->text.p)
    add_member(b, keys[f->key].ecs, f->text);
  else
    buf_printf(b, ",\"%s\":%lld", keys[f->key].ecs, (long long)(f->key == LOG_DURATION ? f->number * 1000 : f->number));
}

/* Control characters could forge lines or drive the reader's terminal. */
static void add_printable(Buf *b, Str text) {
  for (size_t i = 0; i < text.n; i++)
    buf_char(b, (unsigned char)text.p[i] < 0x20 || text.p[i] == 0x7f ? ' ' : text.p[i]);
}

/* People get the ids that tell lines apart, not those that repeat or refine them. */
static void add_text(Buf *b, const LogField *f) {
  if (f->key == LOG_SPAN_ID || f->key == LOG_ORDER_ID || f->key == LOG_USER_ID)
    return;
  buf_printf(b, " %s=", keys[f->key].logstash);
  if (f->text.p)
    add_printable(b, f->text);
  else if (f->key == LOG_DURATION)
    buf_printf(b, "%lld.%03d", (long long)(f->number / 1000), (int)(f->number % 1000));
  else
    buf_int(b, f->number);
}

static void add_time(Buf *b, const LogRecord *r, const struct tm *utc) {
  char date[32];
  strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", utc);
  buf_printf(b, "{\"@timestamp\":\"%s.%03ldZ\"", date, r->time.tv_nsec / 1000000);
}

static void write_logstash(Buf *b, const LogRecord *r, const struct tm *utc) {
  add_time(b, r, utc);
  buf_cstr(b, ",\"@version\":\"1\"");
  add_member(b, "message", r->message);
  add_member(b, "logger_name", str_from(r->logger));
  add_member(b, "thread_name", str_from(r->thread));
  buf_printf(b, ",\"level\":\"%s\",\"level_value\":%d", levels[r->level].name, levels[r->level].value);
  add_member(b, "component", str_from(r->component));
  add_member(b, "container-id", str_from(r->host));
  each_field(b, r, add_logstash);
  buf_char(b, '}');
}

static void write_ecs(Buf *b, const LogRecord *r, const struct tm *utc) {
  add_time(b, r, utc);
  add_member(b, "log.level", str_from(levels[r->level].small));
  add_member(b, "message", r->message);
  buf_cstr(b, ",\"ecs.version\":\"" ECS_VERSION "\"");
  add_member(b, "log.logger", str_from(r->logger));
  add_member(b, "process.thread.name", str_from(r->thread));
  add_member(b, "service.name", str_from(r->component));
  add_member(b, "host.hostname", str_from(r->host));
  each_field(b, r, add_ecs);
  buf_char(b, '}');
}

static void write_text(Buf *b, const LogRecord *r, const struct tm *utc, bool coloured) {
  char clock[16];
  strftime(clock, sizeof(clock), "%H:%M:%S", utc);
  const char *on = coloured ? levels[r->level].colour : "", *off = coloured ? "\033[0m" : "";
  buf_printf(b, "%s.%03ldZ %s%-5s%s %-8s %-12s %-12s ", clock, r->time.tv_nsec / 1000000, on, levels[r->level].name,
             off, r->thread, r->component, r->logger);
  add_printable(b, r->message);
  each_field(b, r, add_text);
}

void log_record_write(Buf *out, const LogRecord *r, LogFormat format, bool coloured) {
  struct tm utc;
  gmtime_r(&r->time.tv_sec, &utc);
  if (format == LOG_LOGSTASH)
    write_logstash(out, r, &utc);
  else if (format == LOG_ECS)
    write_ecs(out, r, &utc);
  else
    write_text(out, r, &utc, coloured);
}

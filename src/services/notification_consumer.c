/* A batch of events becomes rows and dead letters, their recipients are looked up, and all is stored in one
 * transaction, which is retried until it succeeds. Only then is the batch done. */
#include "services/notification_consumer.h"

#include "base/backoff.h"
#include "cdc/envelope.h"
#include "http/span.h"
#include "log/log.h"
#include "metrics/metrics.h"
#include "rt/clock.h"
#include "rt/fiber.h"
#include "rt/random.h"
#include "services/notification_message.h"

#include <stdlib.h>
#include <string.h>

#define STORE_US       (5 * SECONDS)
#define RETRY_FIRST_US (50 * MILLISECONDS)
#define RETRY_MAX_US   (2 * SECONDS)

struct NotificationConsumer {
  Service *service;
  Source *source;
  NotificationResolver *resolver;
  Fiber *fiber, *stopper; /* NULL: ended; no fiber waits for the end */
  Buf schema;             /* of the last event */
};

static struct { Metric *stored, *ignored, *dead, *seconds, *rows; } metrics;

void notification_consumer_prepare(void) {
  static const MetricBuckets seconds = {
      {0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60, 300}};
  static const MetricFamily delay = {.type = METRIC_HISTOGRAM,
                                     .name = "notification_delay_seconds",
                                     .help = "Time from an operation's commit to its stored notification.",
                                     .buckets = &seconds};
  const char *name = "notification_events_total", *help = "Change events handled, by what became of them.";
  metrics.stored = metric_new(METRIC_COUNTER, name, help, "result=\"stored\"");
  metrics.ignored = metric_new(METRIC_COUNTER, name, help, "result=\"ignored\"");
  metrics.dead = metric_new(METRIC_COUNTER, name, help, "result=\"dead\"");
  metrics.rows = metric_new(METRIC_COUNTER, "skald_notifications_total", "Notifications stored.", "");
  metrics.seconds = metric_in(&delay, "", "");
}

typedef struct Row { /* a notification to be stored */
  Uuid id, historyId, billingId, userId;
  Str email, message;
  int64_t lsn;
  int recipient; /* its place in Work's recipients, -1 without a billing id */
  Str traceparent;
  int64_t commit_us;
} Row;

typedef struct DeadLetter {
  Str position, reason, payload;
} DeadLetter;

static const Field row_fields[] = {
    FIELD(Row, id, F_UUID),    FIELD(Row, historyId, F_UUID), FIELD(Row, billingId, F_UUID), FIELD(Row, userId, F_UUID),
    FIELD(Row, email, F_TEXT), FIELD(Row, message, F_TEXT),   FIELD(Row, lsn, F_INT),        {0},
};

static const Field dead_letter_fields[] = {
    FIELD(DeadLetter, position, F_TEXT),
    FIELD(DeadLetter, reason, F_TEXT),
    FIELD(DeadLetter, payload, F_TEXT),
    {0},
};

/* $1: a list of row_fields. The order of the list becomes the order of seq. */
static const Sql insert_rows = {
    "INSERT INTO notification.notifications (id, history_id, billing_id, user_id, email, message, lsn, address_at) "
    "SELECT r.id, r.\"historyId\", r.\"billingId\", r.\"userId\", r.email, r.message, r.lsn, "
    "CASE WHEN r.\"userId\" IS NULL AND r.\"billingId\" IS NOT NULL THEN now() + interval '20 ms' END "
    "FROM ROWS FROM (json_to_recordset($1::json) AS (id uuid, \"historyId\" uuid, \"billingId\" uuid, \"userId\" uuid, "
    "email text, message text, lsn bigint)) WITH ORDINALITY AS r ORDER BY r.ordinality ON CONFLICT (history_id) DO "
    "NOTHING"};
/* $1: a list of dead_letter_fields. If a topic or a cluster was recreated, another event may have the same position;
 * then the payload's digest distinguishes them. */
static const Sql insert_dead_letters = {
    "INSERT INTO notification.dead_letters (position, reason, payload) SELECT CASE WHEN old.position IS NULL OR "
    "old.payload IS NOT DISTINCT FROM d.payload THEN d.position ELSE d.position || ' ' || "
    "encode(sha256(convert_to(coalesce(d.payload, ''), 'UTF8')), 'hex') END, d.reason, d.payload "
    "FROM json_to_recordset($1::json) AS d(position text, reason text, payload text) "
    "LEFT JOIN notification.dead_letters old ON old.position = d.position ON CONFLICT DO NOTHING"};

/* What a batch of events becomes. */
typedef struct Work {
  Arena *arena;
  Buf *schema; /* of the last event */
  Row *rows;
  DeadLetter *dead;
  Recipient *recipients;
  int row_count, dead_count, recipient_count;
  int ignored;
  int64_t inserted; /* of the rows, those that did not exist before */
} Work;

static int find_recipient(Work *w, Uuid billing_id, Str traceparent) {
  if (uuid_is_nil(billing_id))
    return -1;
  int i = 0;
  while (i < w->recipient_count && !uuid_eq(w->recipients[i].billingId, billing_id))
    i++;
  if (i == w->recipient_count)
    w->recipients[w->recipient_count++] = (Recipient){.billingId = billing_id, .traceparent = traceparent};
  return i;
}

static Str printable(Arena *arena, Str payload) {
  if (!payload.p || (str_is_utf8(payload) && !memchr(payload.p, 0, payload.n)))
    return payload;
  Buf hex = {.arena = arena};
  buf_cstr(&hex, "\\x");
  for (size_t i = 0; i < payload.n; i++)
    buf_printf(&hex, "%02x", (unsigned)(unsigned char)payload.p[i]);
  return buf_view(&hex);
}

/* The fiber continues the trace of the event's operation. */
static void work_for(Uuid history_id, Str traceparent) {
  FiberContext *context = fiber_context();
  span_receive(traceparent);
  context->event_id[0] = '\0';
  if (!uuid_is_nil(history_id))
    uuid_format(history_id, context->event_id);
}

static void add_dead_letter(Work *w, const ChangeEvent *event, Str traceparent, const char *reason) {
  FiberContext own = *fiber_context();
  work_for((Uuid){0}, traceparent);
  LOG(WARN, "notification", "dead letter at %.*s: %s", STR_FMT(event->position), reason);
  *fiber_context() = own;
  w->dead[w->dead_count++] = (DeadLetter){event->position, str_from(reason), printable(w->arena, event->value)};
}

static void add_row(Work *w, const Operation *o, const Envelope *envelope, Str traceparent) {
  w->rows[w->row_count++] = (Row){.id = uuid_new(),
                                  .historyId = o->id,
                                  .billingId = o->billing_id,
                                  .message = notification_message(w->arena, o),
                                  .recipient = find_recipient(w, o->billing_id, traceparent),
                                  .traceparent = traceparent,
                                  .lsn = envelope->lsn,
                                  .commit_us = envelope->commit_us};
}

/* The row's column of that name; absent if the publication does not have it. */
static Str column_traceparent(const JsonValue *row) {
  const JsonValue *value = json_get(row, STR("traceparent"));
  return value && value->type == JSON_STRING ? value->text : (Str){0};
}

static void read_event(Work *w, const ChangeEvent *event) {
  Envelope envelope;
  if (envelope_parse(w->arena, event->value, w->schema, &envelope) < 0) {
    add_dead_letter(w, event, event->traceparent, "not a change event");
    return;
  }
  if (envelope.op != 'c') {
    w->ignored++;
    return;
  }
  Operation operation;
  const char *problem = notification_operation_read(w->arena, envelope.after, &operation);
  Str traceparent = event->traceparent;
  if (!traceparent.p)
    traceparent = column_traceparent(envelope.after);
  if (problem)
    add_dead_letter(w, event, traceparent, problem);
  else
    add_row(w, &operation, &envelope, traceparent);
}

static void read_batch(Work *w, const ChangeBatch *batch) {
  size_t max = (size_t)batch->count;
  w->rows = ARENA_ARRAY(w->arena, Row, max);
  w->dead = ARENA_ARRAY(w->arena, DeadLetter, max);
  w->recipients = ARENA_ARRAY(w->arena, Recipient, max);
  for (int i = 0; i < batch->count; i++)
    read_event(w, &batch->events[i]);
}

static DbStmt list_statement(Arena *arena, const Sql *sql, const Field *fields, size_t size, void *items, int count) {
  Buf json = {.arena = arena};
  json_write_list(&json, fields, size, (List){items, (size_t)count});
  DbValue *value = ARENA_NEW(arena, DbValue);
  *value = V_TEXT(buf_view(&json));
  return (DbStmt){.sql = sql, .values = value, .count = 1};
}

static int fill_recipients(Work *w) {
  TRY(notification_recipients_look_up(w->arena, w->recipients, w->recipient_count));
  for (int i = 0; i < w->row_count; i++)
    if (w->rows[i].recipient >= 0) {
      w->rows[i].userId = w->recipients[w->rows[i].recipient].userId;
      w->rows[i].email = w->recipients[w->rows[i].recipient].email;
    }
  return E_OK;
}

/* Notifications and dead letters in one transaction. After it the events are done. */
static int store(NotificationConsumer *c, Work *w) {
  SCOPED_ARENA arena = arena_new();
  DbStmt statements[2];
  DbResult results[2];
  int count = 0;
  if (w->row_count > 0)
    statements[count++] = list_statement(arena, &insert_rows, row_fields, sizeof(Row), w->rows, w->row_count);
  if (w->dead_count > 0)
    statements[count++] =
        list_statement(arena, &insert_dead_letters, dead_letter_fields, sizeof(DeadLetter), w->dead, w->dead_count);
  if (count == 0)
    return E_OK;
  TRY(db_group(c->service->db, arena, statements, count, results, clock_now_us() + STORE_US));
  w->inserted = w->row_count > 0 ? results[0].affected : 0;
  return E_OK;
}

static int handle(NotificationConsumer *c, Work *w) {
  TRY(fill_recipients(w));
  return store(c, w);
}

static void count_events(NotificationConsumer *c, const Work *w) {
  metric_add(metrics.stored, w->row_count);
  metric_add(metrics.ignored, w->ignored);
  metric_add(metrics.dead, w->dead_count);
  metric_add(metrics.rows, (double)w->inserted);
  bool pending = false;
  int64_t now_us = clock_unix_us();
  for (int i = 0; i < w->row_count; i++) {
    int64_t commit_us = w->rows[i].commit_us;
    if (commit_us > 0)
      metric_observe(metrics.seconds, now_us > commit_us ? (double)(now_us - commit_us) / 1e6 : 0);
    if (uuid_is_nil(w->rows[i].userId) && w->rows[i].recipient >= 0)
      pending = true;
  }
  if (pending)
    notification_resolver_wake(c->resolver);
}

static void log_rows(const Work *w) {
  if (!log_on(LOG_DEBUG, "notification"))
    return;
  FiberContext own = *fiber_context();
  for (int i = 0; i < w->row_count; i++) {
    work_for(w->rows[i].historyId, w->rows[i].traceparent);
    LOG(DEBUG, "notification", "stored notification");
  }
  *fiber_context() = own;
}

/* Retries until the batch is stored. The rows were validated before, so only the user service or the database can fail.
 */
static int handle_batch(NotificationConsumer *c, const ChangeBatch *batch) {
  SCOPED_ARENA arena = arena_new();
  Work work = {.arena = arena, .schema = &c->schema};
  read_batch(&work, batch);
  int attempts = 0;
  int rc = E_OK;
  while ((rc = handle(c, &work)) < 0) {
    if (rc == E_CANCELED)
      return rc;
    if (attempts == 0)
      LOG(WARN, "notification", "%d events not stored yet, retrying: %s", batch->count, err_info(rc)->title);
    TRY(fiber_sleep(backoff_us(attempts++, RETRY_FIRST_US, RETRY_MAX_US, random_u64())));
  }
  count_events(c, &work);
  log_rows(&work);
  return E_OK;
}

static void consume(void *arg) {
  NotificationConsumer *c = arg;
  ChangeBatch batch;
  while (c->source->next(c->source, &batch) == E_OK && handle_batch(c, &batch) == E_OK)
    c->source->done(c->source);
  c->fiber = NULL;
  fiber_wake(c->stopper);
}

NotificationConsumer *notification_consumer_start(Service *s, Source *source, NotificationResolver *resolver) {
  NotificationConsumer *c = calloc(1, sizeof(*c));
  if (!c)
    die("out of memory");
  c->service = s;
  c->source = source;
  c->resolver = resolver;
  c->fiber = fiber_start("notification events", consume, c);
  if (!c->fiber)
    die("no fiber can be started");
  return c;
}

int notification_consumer_stop(NotificationConsumer *c, int64_t deadline_us) {
  c->stopper = fiber_current();
  if (c->fiber)
    fiber_cancel(c->fiber);
  while (c->fiber)
    TRY(fiber_wait("notification: stop", deadline_us));
  buf_free(&c->schema);
  free(c);
  return E_OK;
}

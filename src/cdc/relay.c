/* The relay. The stream's fiber turns each change into records and hands them to the producer, waiting while too much
 * is in flight. Each transaction's end is remembered with the number of its last record, and confirmed when that record
 * is. */
#include "cdc/relay.h"

#include "cdc/catalog.h"
#include "cdc/kafka_producer.h"
#include "cdc/stream.h"
#include "log/log.h"
#include "metrics/metrics.h"
#include "rt/clock.h"
#include "rt/fiber.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RECORDS     16384 /* in flight */
#define ENDS        1024  /* of transactions in flight, remembered one by one */
#define KEPT_BUFFER (1024 * 1024)
#define RETRY_US    (1 * SECONDS)
#define REPLACE_US  (2 * SECONDS) /* for the end of a producer that has failed */
#define REFUSE_US   (5 * SECONDS) /* for what stands before a change that is refused */
#define OLD_KEY     STR("__debezium.oldkey")
#define NEW_KEY     STR("__debezium.newkey")
#define TRACE       STR("traceparent")

typedef struct End { /* up to lsn all is stored once the record is */
  int64_t record;
  uint64_t lsn;
  int64_t commit_us; /* 0: no transaction's, the server's own progress */
} End;

typedef struct Sent {
  uint64_t lsn; /* of its change; 0: a heartbeat */
  uint32_t size;
} Sent;

struct Relay {
  RelayConfig config;
  Stream *stream;
  KafkaProducer *producer;
  int64_t produced, confirmed;   /* of this producer */
  int64_t bytes;                 /* in flight */
  Sent sent[RECORDS];            /* by the record's number */
  uint64_t alone_from, alone_to; /* changes that stand here are sent one by one; 0: none */
  bool alone;                    /* the last record is such a one */
  End ends[ENDS];
  int first_end, end_count;
  int64_t transaction_us;               /* commit time of the transaction in work; 0: none */
  int64_t left_us;                      /* of the oldest that the last connection left unconfirmed; 0: none */
  int64_t kafka_errors, counted_errors; /* counted: PostgreSQL's, in the metrics */
  Buf key, other_key, value;
  const RecordTable *value_of; /* whose the last value is, or NULL */
  char refusal[512];
  bool stopping;
  Fiber *starter, *heart; /* NULL once they have ended */
  Fiber *closer;
};

static struct {
  Metric *records, *bytes, *transactions, *refused, *postgres_errors, *kafka_errors;
  Metric *postgres, *kafka, *in_flight, *in_flight_bytes, *lag_bytes, *lag_seconds;
} metrics;

void relay_prepare(void) {
  static const char errors[] = "skald_relay_errors_total", errors_help[] = "Connections lost and changes refused";
  metrics.records = metric_new(METRIC_COUNTER, "skald_relay_records_total", "Records handed to Kafka", "");
  metrics.bytes = metric_new(METRIC_COUNTER, "skald_relay_bytes_total", "Bytes of keys and values in them", "");
  metrics.transactions = metric_new(METRIC_COUNTER, "skald_relay_transactions_total", "Transactions published", "");
  metrics.refused = metric_new(METRIC_COUNTER, errors, errors_help, "at=\"change\"");
  metrics.postgres_errors = metric_new(METRIC_COUNTER, errors, errors_help, "at=\"postgres\"");
  metrics.kafka_errors = metric_new(METRIC_COUNTER, errors, errors_help, "at=\"kafka\"");
  metrics.postgres = metric_new(METRIC_GAUGE, "skald_relay_postgres_connected", "Whether the slot is read", "");
  metrics.kafka = metric_new(METRIC_GAUGE, "skald_relay_kafka_connected", "Whether a broker is connected", "");
  metrics.in_flight =
      metric_new(METRIC_GAUGE, "skald_relay_in_flight_records", "Records not confirmed by the broker yet", "");
  metrics.in_flight_bytes = metric_new(METRIC_GAUGE, "skald_relay_in_flight_bytes", "Bytes in those records", "");
  metrics.lag_bytes = metric_new(METRIC_GAUGE, "skald_relay_lag_bytes", "WAL received and not confirmed", "");
  metrics.lag_seconds =
      metric_new(METRIC_GAUGE, "skald_relay_lag_seconds", "Age of the oldest transaction that is not confirmed", "");
}

/* Ends the relay: to continue would lose or falsify a change. The transactions before it are confirmed first, or each
 * new start would publish them again. */
static int refuse(Relay *r, Str reason) {
  snprintf(r->refusal, sizeof(r->refusal), "%.*s", STR_FMT(reason));
  LOG(ERROR, "relay", "stopped: %s", r->refusal);
  metric_add(metrics.refused, 1);
  int64_t until_us = clock_now_us() + REFUSE_US;
  for (int rc = E_OK; rc == E_OK && r->end_count > 0 && clock_now_us() < until_us;)
    rc = stream_pause(r->stream, "relay: the last confirmations");
  return E_REFUSED;
}

static const End *first_end(const Relay *r) {
  return r->end_count > 0 ? &r->ends[r->first_end] : NULL;
}

static int64_t oldest_us(const Relay *r) {
  for (int i = 0; i < r->end_count; i++)
    if (r->ends[(r->first_end + i) % ENDS].commit_us)
      return r->ends[(r->first_end + i) % ENDS].commit_us;
  return r->transaction_us;
}

static void confirm(Relay *r, uint64_t lsn) {
  stream_confirm(r->stream, lsn);
  r->left_us = 0;
}

static void confirm_ends(Relay *r) {
  for (const End *end = first_end(r); end && end->record <= r->confirmed; end = first_end(r)) {
    confirm(r, end->lsn);
    r->first_end = (r->first_end + 1) % ENDS;
    r->end_count--;
  }
}

/* In the loop: the broker has confirmed records, or one has failed. */
static void on_progress(void *arg) {
  Relay *r = arg;
  KafkaProgress progress;
  kafka_producer_progress(r->producer, &progress);
  assert(progress.confirmed <= r->produced);
  while (r->confirmed < progress.confirmed)
    r->bytes -= r->sent[++r->confirmed % RECORDS].size;
  if (!r->stream)
    return;
  confirm_ends(r);
  if (progress.failed)
    stream_fail(r->stream);
  else
    stream_wake(r->stream);
}

static void open_producer(Relay *r) {
  r->produced = r->confirmed = r->bytes = 0;
  r->alone = false;
  r->producer =
      kafka_producer_new(&(KafkaProducerConfig){.brokers = r->config.brokers, .on_progress = on_progress, .arg = r});
}

/* A broker refuses a whole batch, for being larger than the topic takes as well as for one record in it. The client
 * library does not split it, so its records are sent one by one when they come again: then each is written that can be,
 * and what follows one that cannot is not written over and over. */
static void send_alone(Relay *r, int64_t from) {
  r->alone_from = r->alone_to = 0;
  for (int64_t n = from; n <= r->produced; n++) {
    uint64_t lsn = r->sent[n % RECORDS].lsn;
    if (lsn && (!r->alone_from || lsn < r->alone_from))
      r->alone_from = lsn;
    if (lsn > r->alone_to)
      r->alone_to = lsn;
  }
}

/* After the connection to PostgreSQL: all that is not confirmed comes again anyway. */
static void replace_failed_producer(Relay *r) {
  KafkaProgress progress;
  kafka_producer_progress(r->producer, &progress);
  if (!progress.failed)
    return;
  LOG(WARN, "relay", "Kafka refused a record, restarting behind the last confirmed transaction: %.*s",
      STR_FMT(kafka_producer_error(r->producer)));
  r->kafka_errors++;
  metric_add(metrics.kafka_errors, 1);
  send_alone(r, progress.failed);
  KafkaProducer *failed = r->producer;
  open_producer(r);
  kafka_producer_close(failed, clock_now_us() + REPLACE_US);
}

/* lsn: of the change; 0: it is none. */
static int try_produce(Relay *r, const KafkaRecord *record, uint64_t lsn) {
  int64_t size = (int64_t)(record->key.n + record->value.n), in_flight = r->produced - r->confirmed;
  bool alone = lsn && lsn >= r->alone_from && lsn <= r->alone_to;
  bool room = r->bytes == 0 || r->bytes + size <= r->config.in_flight_bytes;
  if (!room || in_flight >= RECORDS || (in_flight > 0 && (alone || r->alone)))
    return E_BUSY;
  TRY(kafka_produce(r->producer, record));
  r->sent[++r->produced % RECORDS] = (Sent){lsn, (uint32_t)size};
  r->alone = alone;
  r->bytes += size;
  metric_add(metrics.records, 1);
  metric_add(metrics.bytes, (double)size);
  return E_OK;
}

typedef struct Change {
  const RecordTable *table;
  const RecordSource *at;
  const PgoTuple *before, *after;
} Change;

static int produce(Relay *r, const Change *c, Str key, Str value, const KafkaHeader *header) {
  KafkaRecord record = {.topic = record_topic(c->table).p,
                        .partition = KAFKA_BY_KEY,
                        .key = key,
                        .value = value,
                        .headers = header,
                        .header_count = header ? 1 : 0};
  int rc = E_OK;
  while ((rc = try_produce(r, &record, c->at->lsn)) == E_BUSY)
    TRY(stream_pause(r->stream, "relay: room in flight"));
  if (rc == E_UNAVAILABLE)
    stream_fail(r->stream);
  if (rc != E_TOO_LARGE)
    return rc;
  SCOPED_ARENA arena = arena_new();
  return refuse(
      r, arena_printf(arena, "a record of %zu bytes for topic %s is larger than Kafka takes", value.n, record.topic));
}

static int refuse_value(Relay *r, const Change *c, Str column) {
  SCOPED_ARENA arena = arena_new();
  return refuse(r, arena_printf(arena, "topic %s, column %.*s: the change at %X/%X holds a value that cannot be sent",
                                record_topic(c->table).p, STR_FMT(column), (unsigned)(c->at->lsn >> 32),
                                (unsigned)c->at->lsn));
}

/* The absent Str without a key. */
static int build_key(Relay *r, Buf *out, const Change *c, const PgoTuple *row, Str *ret) {
  *ret = (Str){0};
  if (!row || !record_has_key(c->table))
    return E_OK;
  buf_clear(out);
  if (record_key(out, c->table, row) < 0)
    return refuse_value(r, c, STR("of the key"));
  *ret = buf_view(out);
  return E_OK;
}

static int publish(Relay *r, const Change *c, char op, Str key, const KafkaHeader *header) {
  Str column = {0};
  if (r->value.cap > KEPT_BUFFER)
    buf_free(&r->value);
  if (r->value_of != c->table)
    buf_clear(&r->value);
  r->value_of = c->table;
  if (record_value(&r->value, c->table, c->at, op, c->before, c->after, clock_unix_ns(), &column) < 0)
    return refuse_value(r, c, column);
  TRY(produce(r, c, key, buf_view(&r->value), header));
  return op == 'd' && r->config.tombstones ? produce(r, c, key, (Str){0}, header) : E_OK;
}

/* A changed key is a delete under the old one and a create under the new one, each naming the other. */
static int publish_moved(Relay *r, const Change *c, Str old_key, Str new_key) {
  SCOPED_ARENA arena = arena_new();
  Buf old_payload = {.arena = arena}, new_payload = {.arena = arena};
  TRY(record_key_header(&old_payload, c->table, c->before));
  TRY(record_key_header(&new_payload, c->table, c->after));
  TRY(publish(r, c, 'd', old_key, &(KafkaHeader){NEW_KEY, buf_view(&new_payload)}));
  return publish(r, c, 'c', new_key, &(KafkaHeader){OLD_KEY, buf_view(&old_payload)});
}

static int take_change(void *arg, const StreamTable *table, char op, const RecordSource *at, const PgoTuple *before,
                       const PgoTuple *after) {
  Relay *r = arg;
  Change c = {table->prepared, at, before, after};
  Str old_key = {0}, new_key = {0};
  r->transaction_us = at->commit_us;
  if (op == 't')
    return r->config.truncates ? publish(r, &c, op, (Str){0}, NULL) : E_OK;
  TRY(build_key(r, &r->other_key, &c, before, &old_key));
  TRY(build_key(r, &r->key, &c, after, &new_key));
  if (op == 'u' && old_key.p && !str_eq(old_key, new_key))
    return publish_moved(r, &c, old_key, new_key);
  KafkaHeader trace = {TRACE, record_trace(c.table, op == 'c' ? after : NULL)};
  return publish(r, &c, op, op == 'd' ? old_key : new_key, trace.value.p ? &trace : NULL);
}

static int begin_transaction(void *arg, uint64_t commit_lsn) {
  Relay *r = arg;
  (void)commit_lsn;
  while (r->stopping)
    TRY(stream_pause(r->stream, "relay: stopping"));
  return E_OK;
}

static int prepare_table(void *arg, StreamTable *table) {
  Relay *r = arg;
  RecordFacts facts;
  RecordTable *prepared = NULL;
  Str error = {0};
  r->value_of = NULL; /* a new table may stand where an earlier one stood */
  TRY(catalog_read(r->config.catalog, table->arena, &table->relation, &facts));
  if (record_table_new(table->arena, &r->config.style, &table->relation, &facts, &prepared, &error) < 0)
    return refuse(r, error);
  table->prepared = prepared;
  return E_OK;
}

static int refuse_malformed(void *arg, Str payload, int code) {
  SCOPED_ARENA arena = arena_new();
  return refuse(arg, arena_printf(arena, "a message of type 0x%02x cannot be decoded: %s",
                                  payload.n ? (unsigned char)payload.p[0] : 0U, err_info(code)->name));
}

/* With the ring full the newest end takes the place of the one before it: it is confirmed later, and never too soon. */
static void add_end(Relay *r, uint64_t lsn, int64_t commit_us) {
  End *last = &r->ends[(r->first_end + r->end_count + ENDS - 1) % ENDS];
  if (r->end_count > 0 && (last->record == r->produced || r->end_count == ENDS)) {
    last->record = r->produced;
    last->lsn = lsn;
    return;
  }
  r->ends[(r->first_end + r->end_count++) % ENDS] = (End){r->produced, lsn, commit_us};
}

static void take_settled(void *arg, uint64_t lsn, int64_t commit_us) {
  Relay *r = arg;
  r->transaction_us = 0;
  if (commit_us)
    metric_add(metrics.transactions, 1);
  if (r->end_count == 0 && r->confirmed == r->produced)
    confirm(r, lsn);
  else
    add_end(r, lsn, commit_us);
  fiber_wake(r->closer);
}

/* The records in flight are still the producer's, but they confirm no position any more. */
static void forget_ends(void *arg) {
  Relay *r = arg;
  if (!r->left_us)
    r->left_us = oldest_us(r);
  r->end_count = 0;
  r->transaction_us = 0;
  fiber_wake(r->closer);
  replace_failed_producer(r);
}

static void end_refused(void *arg) {
  Relay *r = arg;
  r->config.refused(r->config.arg);
}

static const StreamHandler handler = {.forget = forget_ends,
                                      .begin = begin_transaction,
                                      .table = prepare_table,
                                      .change = take_change,
                                      .malformed = refuse_malformed,
                                      .settled = take_settled,
                                      .ended = end_refused};

/* Retries until the catalog has responded, and where tables are wanted until there are some. */
static int check_tables(Relay *r, const char *publication, bool wanted) {
  for (bool logged = false;; logged = true) {
    SCOPED_ARENA arena = arena_new();
    Str error = {0};
    int rc = catalog_check(r->config.catalog, arena, publication, &r->config.style, &error);
    if (rc == E_FIELD)
      return refuse(r, error);
    if (rc == E_OK || rc == E_CANCELED || (rc == E_NOT_FOUND && !wanted))
      return rc == E_NOT_FOUND ? E_OK : rc;
    if (!logged && rc == E_NOT_FOUND)
      LOG(WARN, "relay", "publication %s has no tables; waiting for them", publication);
    else if (!logged)
      LOG(WARN, "relay", "the publication's tables cannot be checked, retrying: %s", err_info(rc)->title);
    TRY(fiber_sleep(RETRY_US));
  }
}

/* Checked before anything is read, so that a type that cannot be sent is not first met amid a transaction. */
static void start_stream(void *arg) {
  Relay *r = arg;
  const RelayConfig *c = &r->config;
  int rc = check_tables(r, c->publication, true);
  if (rc == E_OK && c->fallback)
    rc = check_tables(r, c->fallback, false);
  if (rc == E_OK)
    r->stream = stream_new(
        &(StreamConfig){
            .dsn = c->dsn, .slot = c->slot, .publication = c->publication, .fallback = c->fallback, .logger = "relay"},
        &handler, r);
  else if (rc == E_REFUSED)
    end_refused(r);
  r->starter = NULL;
  fiber_wake(r->closer);
}

/* Skipped where there is no room: what waits already shows readers that the relay is alive. */
static void beat(void *arg) {
  Relay *r = arg;
  SCOPED_ARENA arena = arena_new();
  Str topic = record_heartbeat_topic(arena, &r->config.style);
  while (fiber_sleep(r->config.heartbeat_us) != E_CANCELED) {
    Buf key = {0}, value = {0};
    record_heartbeat(&key, &value, &r->config.style, clock_unix_ms());
    KafkaRecord record = {.topic = topic.p, .partition = 0, .key = buf_view(&key), .value = buf_view(&value)};
    int rc = try_produce(r, &record, 0);
    if (rc < 0 && rc != E_BUSY)
      LOG(DEBUG, "relay", "no heartbeat: %s", err_info(rc)->name);
    buf_free(&key);
    buf_free(&value);
  }
  r->heart = NULL;
  fiber_wake(r->closer);
}

static void show_gauges(void *arg) {
  Relay *r = arg;
  RelayStatus status;
  relay_status(r, &status);
  metric_add(metrics.postgres_errors, (double)(status.postgres_errors - r->counted_errors));
  r->counted_errors = status.postgres_errors;
  metric_set(metrics.postgres, status.postgres);
  metric_set(metrics.kafka, status.kafka);
  metric_set(metrics.in_flight, (double)status.in_flight);
  metric_set(metrics.in_flight_bytes, (double)status.in_flight_bytes);
  metric_set(metrics.lag_bytes, (double)status.lag_bytes);
  metric_set(metrics.lag_seconds, (double)status.lag_us / 1e6);
}

Relay *relay_new(const RelayConfig *config) {
  Relay *r = calloc(1, sizeof(*r));
  if (!r)
    die("out of memory");
  r->config = *config;
  open_producer(r);
  r->starter = fiber_start("relay: start", start_stream, r);
  r->heart = config->heartbeat_us > 0 ? fiber_start("relay: heartbeat", beat, r) : NULL;
  if (!r->starter || (config->heartbeat_us > 0 && !r->heart))
    die("no fibers for the relay"); /* at start there is room for them, or the limit is a defect */
  metrics_collector(show_gauges, r);
  return r;
}

void relay_status(const Relay *r, RelayStatus *ret) {
  *ret = (RelayStatus){
      .in_flight = r->produced - r->confirmed, .in_flight_bytes = r->bytes, .kafka_errors = r->kafka_errors};
  KafkaProgress progress;
  kafka_producer_progress(r->producer, &progress);
  ret->kafka = progress.connected;
  if (!r->stream)
    return;
  StreamStatus stream;
  stream_status(r->stream, &stream);
  ret->postgres = stream.connected;
  ret->waiting = stream.waiting;
  ret->postgres_errors = stream.failures;
  ret->lag_bytes = stream.lag_bytes;
  int64_t since_us = r->left_us ? r->left_us : oldest_us(r);
  if (since_us > 0 && !stream.waiting) /* else it is the other process's */
    ret->lag_us = clock_unix_us() - since_us;
}

Str relay_refusal(const Relay *r) {
  return r->refusal[0] ? str_from(r->refusal) : (Str){0};
}

static void end_fiber(Fiber **fiber) {
  if (*fiber)
    fiber_cancel(*fiber);
  while (*fiber) /* it must be gone before its memory is */
    fiber_wait_uncancelable("relay: close", FIBER_FOREVER);
}

void relay_close(Relay *r, int64_t deadline_us, int64_t end_us) {
  r->closer = fiber_current();
  r->stopping = true;
  end_fiber(&r->starter);
  end_fiber(&r->heart);
  int rc = E_OK;
  while (rc == E_OK && r->transaction_us)
    rc = fiber_wait("relay: end of the transaction", deadline_us);
  if (kafka_producer_flush(r->producer, deadline_us) < 0)
    LOG(WARN, "relay", "%lld records were not confirmed and will be sent again",
        (long long)(r->produced - r->confirmed));
  if (r->stream)
    stream_close(r->stream);
  kafka_producer_close(r->producer, end_us);
  buf_free(&r->key);
  buf_free(&r->other_key);
  buf_free(&r->value);
  free(r);
}

/* The producer: records numbered as they are taken, confirmations put in that order. */
#include "cdc/kafka_producer.h"

#include "cdc/kafka_client.h"

#include <assert.h>
#include <stddef.h>
#include <stdlib.h>

#define UNCONFIRMED 65536 /* records of a producer, a power of two */

typedef struct Waiter {
  Fiber *fiber;
  struct Waiter *next;
} Waiter;

struct KafkaProducer {
  KafkaClient client;
  KafkaProducerConfig config;
  Waiter *waiters;
  KafkaProgress progress;
  bool moved;                     /* progress not reported yet */
  bool is_confirmed[UNCONFIRMED]; /* of the records behind progress.confirmed, by their number modulo its size */
};

static KafkaProducer *producer_of(KafkaClient *c) {
  return (KafkaProducer *)((char *)c - offsetof(KafkaProducer, client));
}

static void fail_from(KafkaProducer *p, int64_t number) {
  if (!p->progress.failed || number < p->progress.failed)
    p->progress.failed = number;
}

static void take_report(KafkaProducer *p, const rd_kafka_message_t *m) {
  int64_t number = (int64_t)(intptr_t)m->_private;
  assert(number > p->progress.confirmed && number <= p->progress.produced);
  if (m->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
    p->is_confirmed[number % UNCONFIRMED] = true;
    return;
  }
  kafka_client_set_problem(&p->client, m->err, rd_kafka_err2str(m->err));
  fail_from(p, number);
}

static void confirm_in_order(KafkaProducer *p) {
  for (int64_t n; (n = p->progress.confirmed + 1) != p->progress.failed && p->is_confirmed[n % UNCONFIRMED];
       p->progress.confirmed = n)
    p->is_confirmed[n % UNCONFIRMED] = false;
}

/* After a fatal error the library sends nothing any more, and some records never get a report. */
static void take_producer_event(KafkaClient *c, rd_kafka_event_t *event) {
  KafkaProducer *p = producer_of(c);
  if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_DR)
    for (const rd_kafka_message_t *m; (m = rd_kafka_event_message_next(event));)
      take_report(p, m);
  else if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_ERROR && rd_kafka_event_error_is_fatal(event))
    fail_from(p, p->progress.confirmed + 1);
  else
    return;
  confirm_in_order(p);
  p->moved = true;
}

static int64_t report_progress(KafkaClient *c) {
  KafkaProducer *p = producer_of(c);
  if (p->moved) {
    p->moved = false;
    for (const Waiter *w = p->waiters; w; w = w->next)
      fiber_wake(w->fiber);
    if (p->config.on_progress)
      p->config.on_progress(p->config.arg);
  }
  return FIBER_FOREVER;
}

static void ignore_statistics(KafkaClient *c, const JsonValue *all) {
  (void)c;
  (void)all;
}

static const KafkaSetting producer_settings[] = {
    {"enable.idempotence", "true"}, /* brings acks=all */
    {"partitioner", "murmur2_random"},
    {"message.timeout.ms", "0"}, /* never */
    {"message.max.bytes", "1048576"},
    {"queue.buffering.max.messages", "65536"},
    {"queue.buffering.max.kbytes", "16384"},
    {"linger.ms", "5"},                             /* with 2 a busy machine published a third less */
    {"compression.codec", "lz4"},                   /* a record is mostly its schema */
    {"max.in.flight.requests.per.connection", "2"}, /* what comes meanwhile makes one large batch */
    {0},
};

KafkaProducer *kafka_producer_new(const KafkaProducerConfig *config) {
  KafkaProducer *p = calloc(1, sizeof(*p));
  if (!p)
    die("out of memory");
  p->config = *config;
  p->client = (KafkaClient){.take = take_producer_event,
                            .statistics = ignore_statistics,
                            .advance = report_progress,
                            .brokers = config->brokers};
  kafka_client_open(&p->client, RD_KAFKA_PRODUCER, producer_settings, RD_KAFKA_EVENT_DR);
  p->client.events = rd_kafka_queue_get_main(p->client.rk);
  kafka_client_start(&p->client);
  return p;
}

static rd_kafka_headers_t *make_headers(const KafkaRecord *record) {
  if (record->header_count == 0)
    return NULL;
  rd_kafka_headers_t *headers = rd_kafka_headers_new((size_t)record->header_count);
  for (int i = 0; i < record->header_count; i++) {
    const KafkaHeader *h = &record->headers[i];
    rd_kafka_header_add(headers, h->name.p, (ssize_t)h->name.n, h->value.p, (ssize_t)h->value.n);
  }
  return headers;
}

static int produce_error(KafkaProducer *p, rd_kafka_resp_err_t code) {
  switch (code) {
  case RD_KAFKA_RESP_ERR__QUEUE_FULL:
    return E_BUSY;
  case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
    return E_TOO_LARGE;
  case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
    return E_NOT_FOUND;
  case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC: /* the library looks for it again after minutes, a new producer at once */
    kafka_client_set_problem(&p->client, code, rd_kafka_err2str(code));
    fail_from(p, p->progress.produced + 1);
    return E_UNAVAILABLE;
  default:
    kafka_client_set_problem(&p->client, code, rd_kafka_err2str(code));
    return E_UNAVAILABLE;
  }
}

int kafka_produce(KafkaProducer *p, const KafkaRecord *record) {
  if (p->progress.failed)
    return E_UNAVAILABLE;
  if (p->progress.produced - p->progress.confirmed >= UNCONFIRMED)
    return E_BUSY;
  rd_kafka_headers_t *headers = make_headers(record);
  rd_kafka_vu_t parts[] = {
      {.vtype = RD_KAFKA_VTYPE_TOPIC, .u.cstr = record->topic},
      {.vtype = RD_KAFKA_VTYPE_PARTITION, .u.i32 = record->partition},
      {.vtype = RD_KAFKA_VTYPE_KEY, .u.mem = {(void *)(uintptr_t)record->key.p, record->key.n}},
      {.vtype = RD_KAFKA_VTYPE_VALUE, .u.mem = {(void *)(uintptr_t)record->value.p, record->value.n}},
      {.vtype = RD_KAFKA_VTYPE_MSGFLAGS, .u.i = RD_KAFKA_MSG_F_COPY},
      {.vtype = RD_KAFKA_VTYPE_OPAQUE, .u.ptr = (void *)(intptr_t)(p->progress.produced + 1)},
      {.vtype = RD_KAFKA_VTYPE_HEADERS, .u.headers = headers},
  };
  rd_kafka_error_t *error =
      rd_kafka_produceva(p->client.rk, parts, sizeof(parts) / sizeof(parts[0]) - (headers ? 0 : 1));
  if (!error) {
    p->progress.produced++;
    return E_OK;
  }
  int rc = produce_error(p, rd_kafka_error_code(error));
  rd_kafka_error_destroy(error);
  if (headers)
    rd_kafka_headers_destroy(headers); /* taken over only when the record is */
  return rc;
}

void kafka_producer_progress(const KafkaProducer *p, KafkaProgress *ret) {
  *ret = p->progress;
  ret->connected = p->client.connected;
}

Str kafka_producer_error(const KafkaProducer *p) {
  return str_from(p->client.problem);
}

int kafka_producer_wait(KafkaProducer *p, int64_t n, int64_t deadline_us) {
  Waiter self = {fiber_current(), p->waiters};
  p->waiters = &self;
  int rc = E_OK;
  while (rc == E_OK && p->progress.confirmed < n) {
    if (p->progress.failed && p->progress.failed <= n)
      rc = E_UNAVAILABLE;
    else
      rc = fiber_wait("kafka: confirmation", deadline_us);
  }
  Waiter **link = &p->waiters;
  while (*link != &self)
    link = &(*link)->next;
  *link = self.next;
  return rc;
}

int kafka_producer_flush(KafkaProducer *p, int64_t deadline_us) {
  return kafka_producer_wait(p, p->progress.produced, deadline_us);
}

void kafka_producer_close(KafkaProducer *p, int64_t deadline_us) {
  if (!p)
    return;
  kafka_client_close(&p->client, deadline_us);
  free(p);
}

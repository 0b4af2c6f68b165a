/* The consumer group: what it is assigned, what is in hand, what is committed. */
#include "cdc/kafka_consumer.h"

#include "cdc/kafka_client.h"
#include "log/log.h"
#include "rt/clock.h"

#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define BATCH_EVENTS 512
#define BATCH_BYTES  (2 * 1024 * 1024)
#define COMMIT_US    (100 * MILLISECONDS) /* between two commits of offsets */
#define RETRY_US     (1 * SECONDS)        /* after a commit that failed */
#define REVOKE_US    (10 * SECONDS)       /* what a batch in hand may take before its partitions are given up anyway */

typedef struct Partition {
  int64_t since;     /* the assignment it came with, or 0: it is not ours */
  int64_t done;      /* offset behind the last record that is done; RD_KAFKA_OFFSET_INVALID: none yet */
  int64_t committed; /* offset the group remembers, as far as this process did it */
} Partition;

typedef struct Held {
  rd_kafka_event_t *event; /* owns the record's bytes */
  int partition;
  int64_t offset;
} Held;

typedef struct KafkaSource {
  Source source;
  KafkaClient client;
  KafkaConfig config;
  rd_kafka_queue_t *records;
  Fiber *consumer;       /* waits for events, or NULL */
  Partition *partitions; /* by their number */
  int partition_count;
  int64_t assignments; /* counts them */
  bool assigned;
  int64_t leave_us;               /* when the partitions are given up at the latest; 0: nobody asks for them */
  bool committing, commit_failed; /* one is on its way; the last one failed */
  int64_t commit_us;              /* not to commit again before */
  Held held[BATCH_EVENTS];
  ChangeEvent events[BATCH_EVENTS];
  int count;             /* with the consumer; 0: nothing is */
  int64_t at_assignment; /* the one it came in */
  int64_t oldest_us;     /* when its first record was written */
  Arena *arena;          /* the batch's positions */
  int64_t lag_records;
} KafkaSource;

static KafkaSource *source_of(KafkaClient *c) {
  return (KafkaSource *)((char *)c - offsetof(KafkaSource, client));
}

static Partition *partition_at(KafkaSource *s, int number) {
  if (number >= s->partition_count) {
    s->partitions = realloc(s->partitions, sizeof(*s->partitions) * (size_t)(number + 1));
    if (!s->partitions)
      die("out of memory");
    memset(s->partitions + s->partition_count, 0, sizeof(*s->partitions) * (size_t)(number + 1 - s->partition_count));
    s->partition_count = number + 1;
  }
  return &s->partitions[number];
}

static bool is_ours(const KafkaSource *s, int number) {
  return number >= 0 && number < s->partition_count && s->partitions[number].since > 0;
}

/* Records get a queue of their own: it is polled only when the consumer wants some, the other one always. */
static void assign(KafkaSource *s, rd_kafka_topic_partition_list_t *list) {
  s->assignments++;
  for (int i = 0; i < list->cnt; i++) {
    const int64_t none = RD_KAFKA_OFFSET_INVALID;
    const rd_kafka_topic_partition_t *p = &list->elems[i];
    *partition_at(s, p->partition) = (Partition){.since = s->assignments, .done = none, .committed = none};
    rd_kafka_queue_t *queue = rd_kafka_queue_get_partition(s->client.rk, p->topic, p->partition);
    rd_kafka_queue_forward(queue, s->records);
    rd_kafka_queue_destroy(queue);
  }
  rd_kafka_assign(s->client.rk, list);
  s->assigned = true;
  s->client.reported = RD_KAFKA_RESP_ERR_NO_ERROR;
  LOG(INFO, "kafka", "group %s: %d partitions of %s", s->config.group, list->cnt, s->config.topic);
}

static void let_go(KafkaSource *s) {
  for (int i = 0; i < s->partition_count; i++)
    s->partitions[i].since = 0;
  s->assigned = false;
  s->leave_us = 0;
  s->lag_records = 0;
  rd_kafka_assign(s->client.rk, NULL);
}

/* All partitions go, then the new share comes: what is in hand is finished and committed first, within bounds, so that
 * the next owner repeats none of it. Partitions that are already lost belong to another. */
static void take_rebalance(KafkaSource *s, rd_kafka_event_t *event) {
  if (rd_kafka_event_error(event) == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS)
    assign(s, rd_kafka_event_topic_partition_list(event));
  else if (!s->assigned || rd_kafka_assignment_lost(s->client.rk))
    let_go(s);
  else
    s->leave_us = clock_now_us() + REVOKE_US;
  s->commit_failed = false;
}

static void take_commit(KafkaSource *s, rd_kafka_event_t *event) {
  rd_kafka_resp_err_t code = rd_kafka_event_error(event);
  const rd_kafka_topic_partition_list_t *list = rd_kafka_event_topic_partition_list(event);
  for (int i = 0; list && i < list->cnt && code == RD_KAFKA_RESP_ERR_NO_ERROR; i++) {
    const rd_kafka_topic_partition_t *p = &list->elems[i];
    code = p->err;
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
      s->partitions[p->partition].committed = p->offset;
  }
  s->committing = false;
  s->commit_failed = code != RD_KAFKA_RESP_ERR_NO_ERROR;
  if (s->commit_failed) {
    LOG(DEBUG, "kafka", "group %s: commit: %s", s->config.group, rd_kafka_err2str(code));
    s->commit_us = clock_now_us() + RETRY_US;
  }
}

static void take_consumer_event(KafkaClient *c, rd_kafka_event_t *event) {
  KafkaSource *s = source_of(c);
  if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_REBALANCE)
    take_rebalance(s, event);
  else if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_OFFSET_COMMIT)
    take_commit(s, event);
}

/* An offset may also go back: to the beginning of a topic that was made anew. */
static bool is_uncommitted(const Partition *p) {
  return p->since && p->done >= 0 && p->done != p->committed;
}

static bool has_uncommitted(const KafkaSource *s) {
  for (int i = 0; i < s->partition_count; i++)
    if (is_uncommitted(&s->partitions[i]))
      return true;
  return false;
}

static void commit(KafkaSource *s) {
  rd_kafka_topic_partition_list_t *offsets = rd_kafka_topic_partition_list_new(s->partition_count);
  for (int i = 0; i < s->partition_count; i++)
    if (is_uncommitted(&s->partitions[i]))
      rd_kafka_topic_partition_list_add(offsets, s->config.topic, i)->offset = s->partitions[i].done;
  s->committing = rd_kafka_commit_queue(s->client.rk, offsets, s->client.events, NULL, NULL) == 0;
  s->commit_us = clock_now_us() + (s->committing ? COMMIT_US : RETRY_US);
  rd_kafka_topic_partition_list_destroy(offsets);
}

/* The last commit before partitions go does not wait for the interval, nor is it retried. */
static bool is_commit_due(const KafkaSource *s, int64_t now_us) {
  bool last = s->leave_us && s->count == 0 && !s->commit_failed;
  return has_uncommitted(s) && !s->committing && (last || now_us >= s->commit_us);
}

static int64_t advance_consumer(KafkaClient *c) {
  KafkaSource *s = source_of(c);
  int64_t now_us = clock_now_us(), until_us = FIBER_FOREVER;
  if (is_commit_due(s, now_us))
    commit(s);
  if (s->leave_us && (now_us >= s->leave_us || (s->count == 0 && !s->committing)))
    let_go(s);
  if (has_uncommitted(s) && !s->committing)
    until_us = s->commit_us;
  if (s->leave_us && s->leave_us < until_us)
    until_us = s->leave_us;
  fiber_wake(s->consumer);
  return until_us;
}

static int64_t number_of(const JsonValue *object, Str name) {
  const JsonValue *value = json_get(object, name);
  int64_t number = RD_KAFKA_OFFSET_INVALID;
  if (value && str_to_int(value->text, &number) < 0)
    return RD_KAFKA_OFFSET_INVALID;
  return number;
}

/* Without a position of ours the group's counts, and for a group that has none yet all there is. */
static int64_t lag_of(const KafkaSource *s, const JsonValue *shown) {
  int64_t number = number_of(shown, STR("partition")), high = number_of(shown, STR("hi_offset"));
  if (high < 0 || number > INT32_MAX || !is_ours(s, (int)number))
    return 0;
  int64_t at = s->partitions[number].done;
  if (at < 0)
    at = number_of(shown, STR("committed_offset"));
  if (at < 0)
    at = number_of(shown, STR("lo_offset"));
  return at >= 0 && at < high ? high - at : 0;
}

static void take_lag(KafkaClient *c, const JsonValue *all) {
  KafkaSource *s = source_of(c);
  const JsonValue *topic = json_get(json_get(all, STR("topics")), str_from(s->config.topic));
  const JsonValue *partitions = json_get(topic, STR("partitions"));
  s->lag_records = 0;
  for (const JsonValue *p = partitions ? partitions->first : NULL; p; p = p->next)
    s->lag_records += lag_of(s, p);
}

/* Where it stands in the message; absent: no such header. */
static Str header_of(const rd_kafka_message_t *m, const char *name) {
  rd_kafka_headers_t *headers;
  const void *value;
  size_t n;
  if (rd_kafka_message_headers(m, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR ||
      rd_kafka_header_get_last(headers, name, &value, &n) != RD_KAFKA_RESP_ERR_NO_ERROR)
    return (Str){0};
  return (Str){value, n};
}

static void add_record(KafkaSource *s, rd_kafka_event_t *event, const rd_kafka_message_t *m) {
  if (s->count == 0) {
    int64_t written_ms = rd_kafka_message_timestamp(m, NULL);
    s->oldest_us = written_ms > 0 ? written_ms * 1000 : clock_unix_us();
  }
  s->held[s->count] = (Held){event, m->partition, m->offset};
  s->events[s->count++] = (ChangeEvent){
      .value = {m->payload, m->len},
      .traceparent = header_of(m, "traceparent"),
      .position = arena_printf(s->arena, "%s/%d/%lld", s->config.topic, (int)m->partition, (long long)m->offset)};
}

/* Takes what has arrived, without a copy: the library's buffers stay until the batch is done. */
static void fill(KafkaSource *s) {
  size_t bytes = 0;
  while (s->count < BATCH_EVENTS && bytes < BATCH_BYTES) {
    rd_kafka_event_t *event = rd_kafka_queue_poll(s->records, 0);
    if (!event)
      return;
    const rd_kafka_message_t *m =
        rd_kafka_event_type(event) == RD_KAFKA_EVENT_FETCH ? rd_kafka_event_message_next(event) : NULL;
    if (m && !m->err && is_ours(s, m->partition)) {
      add_record(s, event, m);
      bytes += m->len;
    } else {
      kafka_client_take(&s->client, event);
    }
  }
}

static int kafka_next(Source *source, ChangeBatch *ret) {
  KafkaSource *s = (KafkaSource *)source;
  assert(s->count == 0 && !s->consumer);
  s->consumer = fiber_current();
  int rc = E_OK;
  for (;;) {
    if (s->assigned && !s->leave_us)
      fill(s);
    if (s->count > 0 || rc < 0)
      break;
    rc = fiber_wait("change events", FIBER_FOREVER);
  }
  s->consumer = NULL;
  TRY(rc);
  s->at_assignment = s->assignments;
  *ret = (ChangeBatch){s->events, s->count};
  return E_OK;
}

static void release_batch(KafkaSource *s) {
  for (int i = 0; i < s->count; i++)
    rd_kafka_event_destroy(s->held[i].event);
  s->count = 0;
  arena_reset(s->arena);
}

/* Counts for a partition only while it is held as it was when the batch came: after that it is another's to count. */
static void kafka_done(Source *source) {
  KafkaSource *s = (KafkaSource *)source;
  for (int i = 0; i < s->count; i++) {
    Partition *p = &s->partitions[s->held[i].partition];
    if (p->since == s->at_assignment)
      p->done = s->held[i].offset + 1;
  }
  release_batch(s);
  fiber_wake(s->client.pump);
}

static void kafka_status(const Source *source, SourceStatus *ret) {
  const KafkaSource *s = (const KafkaSource *)source;
  *ret = (SourceStatus){.connected = s->client.connected, .lag_records = s->lag_records, .rebalances = s->assignments};
  if (s->count > 0)
    ret->lag_us = clock_unix_us() - s->oldest_us;
}

/* Leaves the group, so that others take over at once. The pump serves what that asks for. Half of the time is left for
 * the library's threads to end. */
static void kafka_close(Source *source, int64_t deadline_us) {
  KafkaSource *s = (KafkaSource *)source;
  release_batch(s);
  s->consumer = fiber_current();
  int64_t now_us = clock_now_us(), leave_us = now_us + (deadline_us - now_us) / 2;
  rd_kafka_error_t *error = rd_kafka_consumer_close_queue(s->client.rk, s->client.events);
  while (!error && !rd_kafka_consumer_closed(s->client.rk) && clock_now_us() < leave_us)
    fiber_wait_uncancelable("kafka: leave the group", leave_us);
  rd_kafka_error_destroy(error);
  s->consumer = NULL;
  rd_kafka_queue_destroy(s->records);
  kafka_client_close(&s->client, deadline_us);
  arena_free(s->arena);
  free(s->partitions);
  free(s);
}

/* The range assignor is an eager one: each rebalance takes all partitions before it gives any, which leaves no moment
 * at which two members hold one. Memory: what is fetched ahead and one response on top of it. Once that much is there
 * the library looks for room again after a whole second. Before version 2.2 that cannot be set, but whatever else wakes
 * its thread for the broker makes it look: here the responses with metadata (librdkafka's issue 2879). */
static const KafkaSetting consumer_settings[] = {
    {"enable.auto.commit", "false"},
    {"enable.auto.offset.store", "false"},
    {"auto.offset.reset", "earliest"},
    {"partition.assignment.strategy", "range"},
    {"session.timeout.ms", "6000"}, /* how long the records of a process that died wait */
    {"heartbeat.interval.ms", "2000"},
    {"queued.min.messages", "20000"},
    {"queued.max.messages.kbytes", "8192"},
    {"fetch.max.bytes", "2097152"}, /* compressed: it may become more than ten times as much */
#if RD_KAFKA_VERSION >= 0x020200ff
    {"fetch.queue.backoff.ms", "10"},
#else
    {"topic.metadata.refresh.interval.ms", "100"},
#endif
    {0},
};

static void subscribe(KafkaSource *s) {
  rd_kafka_topic_partition_list_t *topics = rd_kafka_topic_partition_list_new(1);
  rd_kafka_topic_partition_list_add(topics, s->config.topic, RD_KAFKA_PARTITION_UA);
  rd_kafka_resp_err_t code = rd_kafka_subscribe(s->client.rk, topics);
  rd_kafka_topic_partition_list_destroy(topics);
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
    kafka_client_set_problem(&s->client, code, "the topic cannot be subscribed to");
}

Source *kafka_source_new(const KafkaConfig *config) {
  KafkaSource *s = calloc(1, sizeof(*s));
  if (!s)
    die("out of memory");
  s->source = (Source){.next = kafka_next, .done = kafka_done, .status = kafka_status, .close = kafka_close};
  s->config = *config;
  s->arena = arena_new();
  s->client = (KafkaClient){
      .take = take_consumer_event, .statistics = take_lag, .advance = advance_consumer, .brokers = config->brokers};
  KafkaSetting settings[sizeof(consumer_settings) / sizeof(KafkaSetting) + 1] = {{"group.id", config->group}};
  memcpy(settings + 1, consumer_settings, sizeof(consumer_settings));
  kafka_client_open(&s->client, RD_KAFKA_CONSUMER, settings,
                    RD_KAFKA_EVENT_REBALANCE | RD_KAFKA_EVENT_OFFSET_COMMIT | RD_KAFKA_EVENT_FETCH);
  rd_kafka_poll_set_consumer(s->client.rk);
  s->client.events = rd_kafka_queue_get_consumer(s->client.rk);
  s->records = rd_kafka_queue_new(s->client.rk);
  kafka_client_watch(&s->client, s->records);
  kafka_client_start(&s->client);
  subscribe(s);
  return &s->source;
}

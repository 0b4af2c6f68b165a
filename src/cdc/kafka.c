/* Kafka by librdkafka. Its threads queue events and write to an eventfd; a fiber per client, the pump, waits for that
 * descriptor and takes the events. All calls made from the loop are ones that only queue; the one that joins threads is
 * made in a thread of its own. */
#include "cdc/kafka.h"

#include "rt/fd.h"
#include "rt/fiber.h"
#include "rt/json.h"
#include "rt/log.h"
#include "rt/loop.h"

#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define BATCH_EVENTS 512
#define BATCH_BYTES  (2 * 1024 * 1024)
#define COMMIT_US    100000   /* between two commits of offsets */
#define RETRY_US     1000000  /* after a commit that failed */
#define REVOKE_US    10000000 /* what a batch in hand may take before its partitions are given up all the same */
#define UNCONFIRMED  65536    /* records of a producer, a power of two */

/* ---- what consumer and producer share: a handle of the library, and its pump ---- */

typedef struct Client Client;

struct Client {
  rd_kafka_t *rk;
  rd_kafka_queue_t *events;
  int fd;
  Fd *watch;
  Fiber *pump, *closer;                             /* closer: waits for the pump's end, or NULL */
  void (*take)(Client *c, rd_kafka_event_t *event); /* what is not the same for both */
  void (*statistics)(Client *c, const JsonValue *all);
  int64_t (*advance)(Client *c); /* after each round of events; returns when it wants to be called at the latest */
  const char *brokers;
  bool connected;
  bool complained;              /* in the log, that it is not connected */
  rd_kafka_resp_err_t reported; /* the last error in the log */
  char problem[256];
};

static int64_t unix_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static bool is_connectivity(rd_kafka_resp_err_t code) {
  return code == RD_KAFKA_RESP_ERR__TRANSPORT || code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN ||
         code == RD_KAFKA_RESP_ERR__RESOLVE || code == RD_KAFKA_RESP_ERR__TIMED_OUT;
}

static void note_problem(Client *c, rd_kafka_resp_err_t code, const char *text) {
  snprintf(c->problem, sizeof(c->problem), "%s", text);
  if (is_connectivity(code) || code == c->reported) /* the first has a log line of its own */
    return;
  c->reported = code;
  LOG(WARN, "kafka", "%s: %s", rd_kafka_err2name(code), c->problem);
}

static void set_connected(Client *c, bool connected) {
  if (connected && !c->connected)
    LOG(INFO, "kafka", "connected to %s", c->brokers);
  else if (!connected && !c->complained && c->problem[0])
    LOG(WARN, "kafka", "no broker of %s can be reached, trying on: %s", c->brokers, c->problem);
  if (connected)
    c->problem[0] = 0;
  c->complained = !connected && c->problem[0];
  c->connected = connected;
}

static bool is_up(const JsonValue *brokers) {
  for (const JsonValue *b = brokers ? brokers->first : NULL; b; b = b->next) {
    const JsonValue *state = json_get(b, STR("state"));
    if (state && str_eq(state->text, STR("UP")))
      return true;
  }
  return false;
}

/* The library tells its state once a second as JSON, and in no other way that does not block. */
static void take_statistics(Client *c, const char *text) {
  SCOPED_ARENA arena = arena_new();
  JsonValue *all = NULL;
  int rc = json_parse(arena, str_from(text), &all, NULL);
  if (rc < 0) {
    LOG(WARN, "kafka", "the client's statistics cannot be read: %s", err_info(rc)->name);
    return;
  }
  set_connected(c, is_up(json_get(all, STR("brokers"))));
  c->statistics(c, all);
}

static void take_log(const rd_kafka_event_t *event) {
  const char *facility = "", *text = "";
  int level = 0;
  if (rd_kafka_event_log((rd_kafka_event_t *)event, &facility, &text, &level) == 0)
    LOG(DEBUG, "kafka", "%s: %s", facility, text);
}

static void take_event(Client *c, rd_kafka_event_t *event) {
  switch (rd_kafka_event_type(event)) {
  case RD_KAFKA_EVENT_STATS:
    take_statistics(c, rd_kafka_event_stats(event));
    break;
  case RD_KAFKA_EVENT_LOG:
    take_log(event);
    break;
  case RD_KAFKA_EVENT_ERROR:
    note_problem(c, rd_kafka_event_error(event), rd_kafka_event_error_string(event));
    c->take(c, event);
    break;
  default:
    c->take(c, event);
  }
  rd_kafka_event_destroy(event);
}

/* The library writes to the descriptor when a queue it found empty gets an event, so each is emptied before a wait. */
static void pump(void *arg) {
  Client *c = arg;
  int64_t until_us = 0;
  while (fd_wait(c->watch, FD_READABLE, "kafka", until_us) != E_CANCELED) {
    uint64_t count;
    ssize_t n = read(c->fd, &count, sizeof(count));
    (void)n; /* it is empty when only the time was up */
    for (rd_kafka_event_t *event; (event = rd_kafka_queue_poll(c->events, 0));)
      take_event(c, event);
    until_us = c->advance(c);
  }
  c->pump = NULL;
  fiber_wake(c->closer);
}

static void watch_queue(Client *c, rd_kafka_queue_t *queue) {
  static const uint64_t one = 1;
  rd_kafka_queue_io_event_enable(queue, c->fd, &one, sizeof(one));
}

typedef struct Setting {
  const char *name, *value;
} Setting;

static void configure(rd_kafka_conf_t *conf, const Setting *settings) {
  for (const Setting *s = settings; s->name; s++) {
    char error[256];
    if (rd_kafka_conf_set(conf, s->name, s->value, error, sizeof(error)) != RD_KAFKA_CONF_OK) {
      LOG(ERROR, "kafka", "%s=%s: %s", s->name, s->value, error);
      abort(); /* all of them are ours: the library is too old, or a table is wrong */
    }
  }
}

static const Setting common_settings[] = {
    {"client.id", "skald"},
    {"log.queue", "true"},
    {"statistics.interval.ms", "1000"},
    {"reconnect.backoff.max.ms", "1000"},
    {"socket.keepalive.enable", "true"},
    {"topic.metadata.refresh.interval.ms", "5000"}, /* finds a topic or a partition made later */
    {0},
};

/* The handle without its pump: events may be forwarded elsewhere before it starts. */
static void client_open(Client *c, rd_kafka_type_t type, const Setting *settings, int event_types) {
  rd_kafka_conf_t *conf = rd_kafka_conf_new();
  configure(conf, common_settings);
  configure(conf, (const Setting[]){{"bootstrap.servers", c->brokers}, {0}});
  configure(conf, settings);
  rd_kafka_conf_set_events(conf, event_types | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_STATS | RD_KAFKA_EVENT_LOG);
  char error[256];
  c->rk = rd_kafka_new(type, conf, error, sizeof(error));
  c->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (!c->rk || c->fd < 0) {
    LOG(ERROR, "kafka", "no client can be made: %s", c->rk ? "no descriptor" : error);
    abort(); /* with these settings only for want of threads or descriptors */
  }
  rd_kafka_set_log_queue(c->rk, NULL);
}

static void client_start(Client *c) {
  c->watch = fd_watch(c->fd);
  watch_queue(c, c->events);
  c->pump = fiber_start("kafka", pump, c);
  if (!c->watch || !c->pump)
    abort(); /* started with the process, before any load */
}

/* Waits in a fiber that may have been canceled already. */
static void wait_on(const char *why, int64_t deadline_us) {
  if (fiber_wait(why, deadline_us) == E_CANCELED)
    fiber_yield();
}

typedef struct Teardown {
  rd_kafka_t *rk;
  int fd;
  atomic_bool done;
} Teardown;

static void *destroy(void *arg) {
  static const uint64_t one = 1;
  Teardown *t = arg;
  rd_kafka_destroy_flags(t->rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
  atomic_store(&t->done, true);
  ssize_t n = write(t->fd, &one, sizeof(one));
  (void)n; /* a counter of one cannot overflow */
  return NULL;
}

/* The library's threads may hang in a name look-up; then they are left behind, with what they use. */
static void client_close(Client *c, int64_t deadline_us) {
  c->closer = fiber_current();
  fiber_cancel(c->pump);
  while (c->pump)
    wait_on("kafka: close", FIBER_FOREVER);
  rd_kafka_queue_destroy(c->events);
  Teardown *t = calloc(1, sizeof(*t));
  pthread_t thread;
  if (!t)
    abort();
  *t = (Teardown){.rk = c->rk, .fd = c->fd};
  if (pthread_create(&thread, NULL, destroy, t) != 0)
    abort();
  while (!atomic_load(&t->done) && loop_now_us() < deadline_us)
    if (fd_wait(c->watch, FD_READABLE, "kafka: close", deadline_us) == E_CANCELED)
      fiber_yield();
  fd_unwatch(c->watch);
  if (atomic_load(&t->done)) {
    pthread_join(thread, NULL);
    close(c->fd);
    free(t);
  } else {
    pthread_detach(thread);
    LOG(WARN, "kafka", "the client did not end in time");
  }
}

/* ---- the consumer ---- */

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
  Client client;
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

static KafkaSource *source_of(Client *c) {
  return (KafkaSource *)((char *)c - offsetof(KafkaSource, client));
}

static Partition *partition_at(KafkaSource *s, int number) {
  if (number >= s->partition_count) {
    s->partitions = realloc(s->partitions, sizeof(*s->partitions) * (size_t)(number + 1));
    if (!s->partitions)
      abort();
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
    *partition_at(s, p->partition) = (Partition){s->assignments, none, none};
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
    s->leave_us = loop_now_us() + REVOKE_US;
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
    s->commit_us = loop_now_us() + RETRY_US;
  }
}

static void take_consumer_event(Client *c, rd_kafka_event_t *event) {
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
  s->commit_us = loop_now_us() + (s->committing ? COMMIT_US : RETRY_US);
  rd_kafka_topic_partition_list_destroy(offsets);
}

/* The last commit before partitions go does not wait for the pace of the others, nor is it tried again. */
static bool is_commit_due(const KafkaSource *s, int64_t now_us) {
  bool last = s->leave_us && s->count == 0 && !s->commit_failed;
  return has_uncommitted(s) && !s->committing && (last || now_us >= s->commit_us);
}

static int64_t advance_consumer(Client *c) {
  KafkaSource *s = source_of(c);
  int64_t now_us = loop_now_us(), until_us = FIBER_FOREVER;
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

static void take_lag(Client *c, const JsonValue *all) {
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
    s->oldest_us = written_ms > 0 ? written_ms * 1000 : unix_us();
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
      take_event(&s->client, event);
    }
  }
}

static int kafka_next(Source *source, ChangeBatch *ret) {
  KafkaSource *s = (KafkaSource *)source;
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
    ret->lag_us = unix_us() - s->oldest_us;
}

/* Leaves the group, so that others take over at once. The pump serves what that asks for. The half of the time is the
 * library's threads', to end in. */
static void kafka_close(Source *source, int64_t deadline_us) {
  KafkaSource *s = (KafkaSource *)source;
  release_batch(s);
  s->consumer = fiber_current();
  int64_t now_us = loop_now_us(), leave_us = now_us + (deadline_us - now_us) / 2;
  rd_kafka_error_t *error = rd_kafka_consumer_close_queue(s->client.rk, s->client.events);
  while (!error && !rd_kafka_consumer_closed(s->client.rk) && loop_now_us() < leave_us)
    wait_on("kafka: leave the group", leave_us);
  rd_kafka_error_destroy(error);
  s->consumer = NULL;
  rd_kafka_queue_destroy(s->records);
  client_close(&s->client, deadline_us);
  arena_free(s->arena);
  free(s->partitions);
  free(s);
}

/* The range assignor is an eager one: each rebalance takes all partitions before it gives any, which leaves no moment
 * at which two members hold one. Memory: what is fetched ahead and one response on top of it. Once that much is there
 * the library looks for room again after a whole second. Before version 2.2 that cannot be set, but whatever else wakes
 * its thread for the broker makes it look: here the answers with metadata (librdkafka's issue 2879). */
static const Setting consumer_settings[] = {
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
    note_problem(&s->client, code, "the topic cannot be subscribed to");
}

Source *kafka_source_new(const KafkaConfig *config) {
  KafkaSource *s = calloc(1, sizeof(*s));
  if (!s)
    abort();
  s->source = (Source){kafka_next, kafka_done, kafka_status, kafka_close};
  s->config = *config;
  s->arena = arena_new();
  s->client = (Client){
      .take = take_consumer_event, .statistics = take_lag, .advance = advance_consumer, .brokers = config->brokers};
  Setting settings[sizeof(consumer_settings) / sizeof(Setting) + 1] = {{"group.id", config->group}};
  memcpy(settings + 1, consumer_settings, sizeof(consumer_settings));
  client_open(&s->client, RD_KAFKA_CONSUMER, settings,
              RD_KAFKA_EVENT_REBALANCE | RD_KAFKA_EVENT_OFFSET_COMMIT | RD_KAFKA_EVENT_FETCH);
  rd_kafka_poll_set_consumer(s->client.rk);
  s->client.events = rd_kafka_queue_get_consumer(s->client.rk);
  s->records = rd_kafka_queue_new(s->client.rk);
  watch_queue(&s->client, s->records);
  client_start(&s->client);
  subscribe(s);
  return &s->source;
}

/* ---- the producer ---- */

typedef struct Waiter {
  Fiber *fiber;
  struct Waiter *next;
} Waiter;

struct KafkaProducer {
  Client client;
  KafkaProducerConfig config;
  Waiter *waiters;
  KafkaProgress progress;
  bool moved;                     /* progress to be told of */
  bool is_confirmed[UNCONFIRMED]; /* of the records behind progress.confirmed, by their number modulo its size */
};

static KafkaProducer *producer_of(Client *c) {
  return (KafkaProducer *)((char *)c - offsetof(KafkaProducer, client));
}

static void fail_from(KafkaProducer *p, int64_t number) {
  if (!p->progress.failed || number < p->progress.failed)
    p->progress.failed = number;
}

static void take_report(KafkaProducer *p, const rd_kafka_message_t *m) {
  int64_t number = (int64_t)(intptr_t)m->_private;
  if (m->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
    p->is_confirmed[number % UNCONFIRMED] = true;
    return;
  }
  note_problem(&p->client, m->err, rd_kafka_err2str(m->err));
  fail_from(p, number);
}

static void confirm_in_order(KafkaProducer *p) {
  for (int64_t n; (n = p->progress.confirmed + 1) != p->progress.failed && p->is_confirmed[n % UNCONFIRMED];
       p->progress.confirmed = n)
    p->is_confirmed[n % UNCONFIRMED] = false;
}

/* After a fatal error the library sends nothing any more, and of some records it never says what became of them. */
static void take_producer_event(Client *c, rd_kafka_event_t *event) {
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

static int64_t tell_progress(Client *c) {
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

static void ignore_statistics(Client *c, const JsonValue *all) {
  (void)c;
  (void)all;
}

static const Setting producer_settings[] = {
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
    abort();
  p->config = *config;
  p->client = (Client){.take = take_producer_event,
                       .statistics = ignore_statistics,
                       .advance = tell_progress,
                       .brokers = config->brokers};
  client_open(&p->client, RD_KAFKA_PRODUCER, producer_settings, RD_KAFKA_EVENT_DR);
  p->client.events = rd_kafka_queue_get_main(p->client.rk);
  client_start(&p->client);
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
    note_problem(&p->client, code, rd_kafka_err2str(code));
    fail_from(p, p->progress.produced + 1);
    return E_UNAVAILABLE;
  default:
    note_problem(&p->client, code, rd_kafka_err2str(code));
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
  client_close(&p->client, deadline_us);
  free(p);
}

/* What consumer and producer share: a handle of librdkafka, its pump, and its end. */
#include "cdc/kafka_client.h"

#include "log/log.h"
#include "rt/clock.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

static bool is_connectivity(rd_kafka_resp_err_t code) {
  return code == RD_KAFKA_RESP_ERR__TRANSPORT || code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN ||
         code == RD_KAFKA_RESP_ERR__RESOLVE || code == RD_KAFKA_RESP_ERR__TIMED_OUT;
}

void kafka_client_set_problem(KafkaClient *c, rd_kafka_resp_err_t code, const char *text) {
  snprintf(c->problem, sizeof(c->problem), "%s", text);
  if (is_connectivity(code) || code == c->reported) /* the first has a log line of its own */
    return;
  c->reported = code;
  LOG(WARN, "kafka", "%s: %s", rd_kafka_err2name(code), c->problem);
}

static void set_connected(KafkaClient *c, bool connected) {
  if (connected && !c->connected)
    LOG(INFO, "kafka", "connected to %s", c->brokers);
  else if (!connected && !c->complained && c->problem[0])
    LOG(WARN, "kafka", "no broker of %s can be reached, retrying: %s", c->brokers, c->problem);
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

/* The library reports its state once a second as JSON, and in no other way that does not block. */
static void take_statistics(KafkaClient *c, const char *text) {
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

void kafka_client_take(KafkaClient *c, rd_kafka_event_t *event) {
  switch (rd_kafka_event_type(event)) {
  case RD_KAFKA_EVENT_STATS:
    take_statistics(c, rd_kafka_event_stats(event));
    break;
  case RD_KAFKA_EVENT_LOG:
    take_log(event);
    break;
  case RD_KAFKA_EVENT_ERROR:
    kafka_client_set_problem(c, rd_kafka_event_error(event), rd_kafka_event_error_string(event));
    c->take(c, event);
    break;
  default:
    c->take(c, event);
  }
  rd_kafka_event_destroy(event);
}

/* The library writes to the descriptor when a queue it found empty gets an event, so each is emptied before a wait. */
static void pump(void *arg) {
  KafkaClient *c = arg;
  int64_t until_us = 0;
  while (fd_wait(c->watch, FD_READABLE, "kafka", until_us) != E_CANCELED) {
    uint64_t count;
    ssize_t n = read(c->fd, &count, sizeof(count));
    (void)n; /* it is empty when only the time was up */
    for (rd_kafka_event_t *event; (event = rd_kafka_queue_poll(c->events, 0));)
      kafka_client_take(c, event);
    until_us = c->advance(c);
  }
  c->pump = NULL;
  fiber_wake(c->closer);
}

void kafka_client_watch(KafkaClient *c, rd_kafka_queue_t *queue) {
  static const uint64_t one = 1;
  rd_kafka_queue_io_event_enable(queue, c->fd, &one, sizeof(one));
}

static void configure(rd_kafka_conf_t *conf, const KafkaSetting *settings) {
  for (const KafkaSetting *s = settings; s->name; s++) {
    char error[256];
    if (rd_kafka_conf_set(conf, s->name, s->value, error, sizeof(error)) != RD_KAFKA_CONF_OK) {
      /* All of them are ours: the library is too old, or a table is wrong. */
      die("librdkafka %s: %s=%s: %s", rd_kafka_version_str(), s->name, s->value, error);
    }
  }
}

static const KafkaSetting common_settings[] = {
    {"client.id", "skald"},
    {"log.queue", "true"},
    {"statistics.interval.ms", "1000"},
    {"reconnect.backoff.max.ms", "1000"},
    {"socket.keepalive.enable", "true"},
    {"topic.metadata.refresh.interval.ms", "5000"}, /* finds a topic or a partition made later */
    {0},
};

void kafka_client_open(KafkaClient *c, rd_kafka_type_t type, const KafkaSetting *settings, int event_types) {
  rd_kafka_conf_t *conf = rd_kafka_conf_new();
  configure(conf, common_settings);
  configure(conf, (const KafkaSetting[]){{"bootstrap.servers", c->brokers}, {0}});
  configure(conf, settings);
  rd_kafka_conf_set_events(conf, event_types | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_STATS | RD_KAFKA_EVENT_LOG);
  char error[256];
  c->rk = rd_kafka_new(type, conf, error, sizeof(error));
  c->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (!c->rk || c->fd < 0) /* with these settings only for want of threads or descriptors */
    die("no Kafka client can be made: %s", c->rk ? "no descriptor left" : error);
  rd_kafka_set_log_queue(c->rk, NULL);
}

void kafka_client_start(KafkaClient *c) {
  c->watch = fd_watch(c->fd);
  kafka_client_watch(c, c->events);
  c->pump = fiber_start("kafka", pump, c);
  if (!c->watch || !c->pump)
    die("no fiber for a Kafka client"); /* started with the process, before any load */
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

void kafka_client_close(KafkaClient *c, int64_t deadline_us) {
  c->closer = fiber_current();
  fiber_cancel(c->pump);
  while (c->pump)
    fiber_wait_uncancelable("kafka: close", FIBER_FOREVER);
  rd_kafka_queue_destroy(c->events);
  Teardown *t = calloc(1, sizeof(*t));
  pthread_t thread;
  if (!t)
    die("out of memory");
  *t = (Teardown){.rk = c->rk, .fd = c->fd};
  if (pthread_create(&thread, NULL, destroy, t) != 0)
    die("no thread to end a Kafka client");
  while (!atomic_load(&t->done) && clock_now_us() < deadline_us)
    fd_wait_uncancelable(c->watch, FD_READABLE, "kafka: close", deadline_us);
  fd_unwatch(c->watch);
  if (atomic_load(&t->done)) {
    pthread_join(thread, NULL);
    close(c->fd);
    free(t);
  } else {
    pthread_detach(thread);
    LOG(WARN, "kafka", "the client did not stop before the deadline");
  }
}

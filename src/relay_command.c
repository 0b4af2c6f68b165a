/* The process around the relay: configuration, health and metrics over HTTP, the end on SIGTERM. */
#include "relay_command.h"

#include "cdc/relay.h"
#include "rt/fiber.h"
#include "rt/http_metrics.h"
#include "rt/http_server.h"
#include "rt/log.h"
#include "rt/loop.h"
#include "rt/loop_metrics.h"
#include "rt/metrics.h"
#include "rt/problem.h"
#include "rt/random.h"
#include "rt/service.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#define PUBLICATION       "billing_pub_traced"
#define PUBLICATION_PLAIN "billing_pub" /* for what was written before there was the other */
#define HTTP_CONNECTIONS  64
#define HTTP_REQUESTS     64
#define HTTP_US           5000000

static struct {
  const char *brokers, *prefix, *key_columns, *slot, *publication, *trace_column;
  int64_t schemas, tombstones, truncates, heartbeat_us, decimals, in_flight_bytes, refused_us;
} conf;

static struct {
  const RelayProcess *process;
  int listen_fd;
  Db *db;
  Relay *relay;
  bool ending;
  int status;
} state;

static const char *const switches[] = {"off", "on", NULL};
static const char *const decimal_modes[] = {"double", "string", "precise", NULL}; /* as Decimals numbers them */

const Option relay_options[] = {
    {"KAFKA_BROKERS", OPTION_TEXT, &conf.brokers, "127.0.0.1:9092", 1, 4096, NULL, "brokers to begin with, host:port,…",
     false},
    {"KAFKA_TOPIC_PREFIX", OPTION_TEXT, &conf.prefix, "postgres", 1, 128, NULL,
     "the topics are PREFIX.SCHEMA.TABLE; Debezium's topic.prefix", false},
    {"RELAY_SLOT", OPTION_TEXT, &conf.slot, "billing_cdc", 1, 63, NULL, "replication slot to read", false},
    {"RELAY_PUBLICATION", OPTION_TEXT, &conf.publication, PUBLICATION, 1, 63, NULL, "publication to read", false},
    {"RELAY_TRACE_COLUMN", OPTION_TEXT, &conf.trace_column, "traceparent", 1, 63, NULL,
     "column that becomes a created row's header traceparent, and is in no value; 'none': all are", false},
    {"RELAY_SCHEMAS", OPTION_CHOICE, &conf.schemas, "on", 0, 0, switches,
     "whether keys and values carry their schema; Connect's schemas.enable", false},
    {"RELAY_TOMBSTONES", OPTION_CHOICE, &conf.tombstones, "on", 0, 0, switches,
     "whether a delete is followed by a record without value", false},
    {"RELAY_TRUNCATES", OPTION_CHOICE, &conf.truncates, "off", 0, 0, switches, "whether TRUNCATE is published", false},
    {"RELAY_HEARTBEAT", OPTION_MILLIS, &conf.heartbeat_us, "0s", 0, 3600000, NULL,
     "interval of records in topic __debezium-heartbeat.PREFIX; 0s: none", false},
    {"RELAY_KEY_COLUMNS", OPTION_TEXT, &conf.key_columns, "billing.history_billings:billing_id", 0, 0, NULL,
     "SCHEMA.TABLE:COLUMN,…;… make the key, so that a partition keeps their order; 'none': primary keys", false},
    {"RELAY_DECIMALS", OPTION_CHOICE, &conf.decimals, "double", 0, 0, decimal_modes,
     "how numeric is sent; Debezium's decimal.handling.mode", false},
    {"RELAY_IN_FLIGHT", OPTION_INT, &conf.in_flight_bytes, "16777216", 65536, 1073741824, NULL,
     "bytes that may wait for the broker; the rest stays in the WAL", false},
    {"RELAY_REFUSED_DELAY", OPTION_MILLIS, &conf.refused_us, "60s", 0, 86400000, NULL,
     "how long its metrics go on telling that it met what it cannot publish, before it ends with status 1", false},
    {0},
};

static const char *problem_of(const RelayStatus *s) {
  if (relay_refusal(state.relay).p)
    return "it has stopped; the log tells why";
  if (!s->kafka)
    return "no Kafka broker is connected";
  if (!s->postgres && !s->waiting)
    return "the replication slot is not read";
  return NULL;
}

static bool is_health(const HttpRequest *request) {
  return str_eq(request->path, STR("/health")) || str_eq(request->path, STR("/readyz"));
}

/* A relay that waits for the slot is well: it stands by. */
static void handle(HttpRequest *request, HttpReply *reply) {
  const char *problem = state.relay ? NULL : "it is ending";
  if (!problem && is_health(request)) {
    RelayStatus status;
    relay_status(state.relay, &status);
    problem = problem_of(&status);
  }
  if (!problem) {
    service_handle(request, reply);
    return;
  }
  problem_reply(request->arena, &(Problem){.code = E_UNAVAILABLE, .detail = str_from(problem)}, reply);
  http_metrics_refused(request->method, reply->status);
}

static void end(void *arg) {
  (void)arg;
  LOG(INFO, "relay", "ending");
  int64_t now_us = loop_now_us(), deadline_us = now_us + state.process->drain_us;
  http_server_drain(now_us, deadline_us);
  Relay *relay = state.relay;
  state.relay = NULL; /* what the drain had no time for still asks */
  relay_close(relay, deadline_us, deadline_us + SERVICE_RELEASE_US);
  log_drain();
  loop_stop();
}

static void on_terminate(void) {
  if (state.ending || !state.relay)
    return;
  state.ending = true;
  if (!fiber_start("end", end, NULL))
    loop_stop();
}

/* Nobody could see a metric of a process that is gone. */
static void end_refused(void *arg) {
  (void)arg;
  if (fiber_sleep(conf.refused_us) == E_OK)
    on_terminate();
}

static void on_refused(void *arg) {
  (void)arg;
  state.status = 1;
  if (!fiber_start("refused", end_refused, NULL))
    on_terminate();
}

static void flush_log(void *arg) {
  (void)arg;
  log_flush();
}

static void start(void *arg) {
  (void)arg;
  const RelayProcess *p = state.process;
  log_run();
  db_start(state.db, 1, 1);
  state.relay = relay_new(&(RelayConfig){
      .dsn = p->dsn,
      .slot = conf.slot,
      .publication = conf.publication,
      .fallback = !strcmp(conf.publication, PUBLICATION) ? PUBLICATION_PLAIN : NULL,
      .brokers = conf.brokers,
      .catalog = state.db,
      .style = {.prefix = str_from(conf.prefix),
                .decimals = (Decimals)conf.decimals,
                .schemas = conf.schemas,
                .trace_column = strcmp(conf.trace_column, "none") != 0 ? str_from(conf.trace_column) : (Str){0},
                .key_columns = strcmp(conf.key_columns, "none") != 0 ? str_from(conf.key_columns) : (Str){0}},
      .tombstones = conf.tombstones,
      .truncates = conf.truncates,
      .heartbeat_us = conf.heartbeat_us,
      .in_flight_bytes = conf.in_flight_bytes,
      .refused = on_refused});
  HttpServerConfig http = {.listen_fd = state.listen_fd,
                           .handler = handle,
                           .refused = http_metrics_refused,
                           .max_connections = HTTP_CONNECTIONS,
                           .max_in_flight = HTTP_REQUESTS,
                           .request_us = HTTP_US,
                           .idle_us = HTTP_US};
  if (http_server_start(&http) < 0) {
    LOG(ERROR, "relay", "cannot listen: %s", strerror(errno));
    state.status = 1;
    on_terminate();
    return;
  }
  LOG(INFO, "relay", "health and metrics on %s:%lld", p->host, (long long)p->port);
}

/* PostgreSQL sends each change by itself, and whoever takes its processor for each one slows down what he waits for.
 * With this policy a thread runs at once on a free processor, and takes none away. Later threads inherit it. */
static void leave_processor_to_sender(void) {
  if (sched_getscheduler(0) == SCHED_OTHER && sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){0}) < 0)
    LOG(WARN, "relay", "no SCHED_BATCH: %s", strerror(errno));
}

int relay_run(const RelayProcess *process) {
  state.process = process;
  if (http_listen(process->host, (int)process->port, &state.listen_fd) < 0) {
    fprintf(stderr,
            "skald: cannot listen on %s port %lld: %s. Another program may hold it; PORT and HOST choose others\n",
            process->host, (long long)process->port, strerror(errno));
    return 1;
  }
  metrics_init(1);
  service_init(process->ktor_address);
  loop_metrics_prepare();
  log_start("relay");
  leave_processor_to_sender();
  relay_prepare();
  state.db = db_new(process->dsn, "billing");
  metrics_worker(0);
  loop_init();
  loop_metrics_start();
  loop_before_poll(flush_log, NULL);
  loop_on_terminate(on_terminate);
  if (!fiber_start("start", start, NULL))
    abort();
  loop_run();
  log_flush();
  return state.status;
}

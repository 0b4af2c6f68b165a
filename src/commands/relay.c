/* The process around the relay: configuration, health and metrics over HTTP, the end on SIGTERM. */
#include "commands/relay.h"

#include "cdc/relay.h"
#include "commands/process.h"
#include "commands/shop.h"
#include "http/metrics.h"
#include "http/problem.h"
#include "http/server.h"
#include "log/log.h"
#include "metrics/loop.h"
#include "metrics/metrics.h"
#include "metrics/process.h"
#include "rt/clock.h"
#include "rt/fiber.h"
#include "rt/loop.h"
#include "rt/random.h"
#include "service/service.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#define PUBLICATION       "billing_pub_traced"
#define PUBLICATION_PLAIN "billing_pub" /* for changes that are older than the other publication */
#define HTTP_CONNECTIONS  64
#define HTTP_REQUESTS     64
#define HTTP_US           (5 * SECONDS)

static struct {
  const char *brokers, *prefix, *key_columns, *slot, *publication, *trace_column;
  int64_t schemas, tombstones, truncates, heartbeat_us, decimals, in_flight_bytes, refused_us;
} conf;

static struct {
  int listen_fd;
  Db *db;
  Relay *relay;
  bool ending;
  int status;
} state;

static const char *const switches[] = {"off", "on", NULL};
static const char *const decimal_modes[] = {"double", "string", "precise", NULL}; /* as Decimals numbers them */

static const Option options[] = {
    {.env = "KAFKA_BROKERS",
     .type = OPTION_TEXT,
     .target = &conf.brokers,
     .def = "127.0.0.1:9092",
     .min = 1,
     .max = 4096,
     .help = "bootstrap brokers, host:port,…"},
    {.env = "KAFKA_TOPIC_PREFIX",
     .type = OPTION_TEXT,
     .target = &conf.prefix,
     .def = "postgres",
     .min = 1,
     .max = 128,
     .help = "the topics are PREFIX.SCHEMA.TABLE; Debezium's topic.prefix"},
    {.env = "RELAY_SLOT",
     .type = OPTION_TEXT,
     .target = &conf.slot,
     .def = "billing_cdc",
     .min = 1,
     .max = 63,
     .help = "replication slot to read"},
    {.env = "RELAY_PUBLICATION",
     .type = OPTION_TEXT,
     .target = &conf.publication,
     .def = PUBLICATION,
     .min = 1,
     .max = 63,
     .help = "publication to read"},
    {.env = "RELAY_TRACE_COLUMN",
     .type = OPTION_TEXT,
     .target = &conf.trace_column,
     .def = "traceparent",
     .min = 1,
     .max = 63,
     .help = "column that becomes the header traceparent of a created row and is omitted from values; 'none': no such "
             "column"},
    {.env = "RELAY_SCHEMAS",
     .type = OPTION_CHOICE,
     .target = &conf.schemas,
     .def = "on",
     .choices = switches,
     .help = "whether keys and values carry their schema; Connect's schemas.enable"},
    {.env = "RELAY_TOMBSTONES",
     .type = OPTION_CHOICE,
     .target = &conf.tombstones,
     .def = "on",
     .choices = switches,
     .help = "whether a delete is followed by a record without value"},
    {.env = "RELAY_TRUNCATES",
     .type = OPTION_CHOICE,
     .target = &conf.truncates,
     .def = "off",
     .choices = switches,
     .help = "whether TRUNCATE is published"},
    {.env = "RELAY_HEARTBEAT",
     .type = OPTION_MILLIS,
     .target = &conf.heartbeat_us,
     .def = "0s",
     .max = 3600000,
     .help = "interval of records in topic __debezium-heartbeat.PREFIX; 0s: none"},
    {.env = "RELAY_KEY_COLUMNS",
     .type = OPTION_TEXT,
     .target = &conf.key_columns,
     .def = "billing.history_billings:billing_id",
     .help = "key columns, SCHEMA.TABLE:COLUMN,…;…, so that a partition keeps their order; 'none': primary keys"},
    {.env = "RELAY_DECIMALS",
     .type = OPTION_CHOICE,
     .target = &conf.decimals,
     .def = "double",
     .choices = decimal_modes,
     .help = "how numeric is sent; Debezium's decimal.handling.mode"},
    {.env = "RELAY_IN_FLIGHT",
     .type = OPTION_INT,
     .target = &conf.in_flight_bytes,
     .def = "16777216",
     .min = 65536,
     .max = 1073741824,
     .help = "bytes that may wait for the broker; the rest stays in the WAL"},
    {.env = "RELAY_REFUSED_DELAY",
     .type = OPTION_MILLIS,
     .target = &conf.refused_us,
     .def = "60s",
     .max = 86400000,
     .help = "after a change it cannot publish: how long its metrics stay up before it exits with status 1"},
    {0},
};

static const char *problem_of(const RelayStatus *s) {
  if (relay_refusal(state.relay).p)
    return "it has stopped; see its log";
  if (!s->kafka)
    return "no Kafka broker is connected";
  if (!s->postgres && !s->waiting)
    return "the replication slot is not read";
  return NULL;
}

static bool is_health(const HttpRequest *request) {
  return str_eq(request->path, STR("/health")) || str_eq(request->path, STR("/readyz"));
}

/* A relay that waits for the slot is healthy: it stands by. */
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
  int64_t now_us = clock_now_us(), deadline_us = now_us + process_config.drain_us;
  http_server_drain(now_us, deadline_us);
  Relay *relay = state.relay;
  state.relay = NULL; /* requests that outlive the drain still look here */
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

/* The metrics must stay up until they have been scraped. */
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
  log_run();
  db_start(state.db, 1, 1);
  state.relay = relay_new(&(RelayConfig){
      .dsn = shop_dsn(BILLING),
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
  LOG(INFO, "relay", "health and metrics on %s:%lld", process_config.host, (long long)process_config.port);
}

/* PostgreSQL sends changes one by one, and a reader that preempts it for each one slows the sender down. With this
 * policy a thread runs at once on a free processor and preempts no other. Later threads inherit it. */
static void leave_processor_to_sender(void) {
  if (sched_getscheduler(0) == SCHED_OTHER && sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){0}) < 0)
    LOG(WARN, "relay", "no SCHED_BATCH: %s", strerror(errno));
}

static int run(int argc, char **argv) {
  (void)argc;
  (void)argv;
  state.listen_fd = process_listen();
  if (state.listen_fd < 0)
    return 1;
  metrics_init(1);
  process_metrics_init();
  service_init(process_ktor_address());
  loop_metrics_prepare();
  log_start("relay");
  leave_processor_to_sender();
  relay_prepare();
  state.db = db_new(shop_dsn(BILLING), "billing");
  metrics_worker(0);
  process_metrics_worker(0);
  loop_init();
  loop_metrics_start();
  loop_before_poll(flush_log, NULL);
  loop_on_terminate(on_terminate);
  if (!fiber_start("start", start, NULL))
    die("no fiber to start in");
  loop_run();
  log_flush();
  return state.status;
}

static const Option *const tables[] = {shop_billing_options, process_options, log_options, options, NULL};

const Command relay_command = {.name = "relay",
                               .arguments = "",
                               .help = "publishes Billing's operations to Kafka as Debezium would",
                               .run = run,
                               .tables = tables};

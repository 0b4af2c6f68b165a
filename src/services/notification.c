/* Notification: notifies users of each operation on their account. Events of Billing's history come from a source. Each
 * becomes exactly one row, listed in the order of Billing's WAL, regardless of the order of arrival. A notification
 * whose user is not known yet is stored with a pending recipient, so that the stream never waits. */
#include "services/notification.h"

#include "cdc/kafka_consumer.h"
#include "cdc/wal.h"
#include "metrics/metrics.h"
#include "rt/clock.h"
#include "rt/fiber.h"
#include "service/req.h"
#include "services/notification_consumer.h"
#include "services/services.h"
#include "sql.h"

#include <stdlib.h>

#define LIST_MAX  10000 /* notifications in one response */
#define GAUGES_US (1 * SECONDS)

enum { EVENTS_WAL, EVENTS_KAFKA, EVENTS_OFF };

static struct {
  int64_t events;
  const char *billing_dsn;
  KafkaConfig kafka;
} config;

static const char *const event_sources[] = {"wal", "kafka", "off", NULL};

const Option notification_options[] = {
    {.env = "EVENTS",
     .type = OPTION_CHOICE,
     .target = &config.events,
     .def = "wal",
     .choices = event_sources,
     .help = "where Notification reads Billing's operations: wal, its database's replication slot; kafka; or off"},
    {.env = "KAFKA_BROKERS",
     .type = OPTION_TEXT,
     .target = &config.kafka.brokers,
     .def = "127.0.0.1:9092",
     .min = 1,
     .max = 4096,
     .help = "for EVENTS=kafka: bootstrap brokers, host:port,…"},
    {.env = "KAFKA_TOPIC",
     .type = OPTION_TEXT,
     .target = &config.kafka.topic,
     .def = "postgres.billing.history_billings",
     .min = 1,
     .max = 249,
     .help = "for EVENTS=kafka: the topic of Billing's history"},
    {.env = "KAFKA_GROUP",
     .type = OPTION_TEXT,
     .target = &config.kafka.group,
     .def = "notification",
     .min = 1,
     .max = 255,
     .help = "for EVENTS=kafka: the consumer group; processes of one group share the topic"},
    {0},
};

void notification_use_wal(const char *billing_dsn) {
  config.billing_dsn = billing_dsn;
}

static struct { Metric *connected, *lag_seconds, *lag, *rebalances; } metrics;

/* The lag has the unit of the source: bytes or records. */
static void prepare_source(void) {
  bool kafka = config.events == EVENTS_KAFKA;
  const char *labels = kafka ? "source=\"kafka\"" : "source=\"wal\"";
  metrics.connected = metric_new(METRIC_GAUGE, "notification_source_connected", "Whether the source is read.", labels);
  metrics.lag_seconds = metric_new(METRIC_GAUGE, "notification_lag_seconds",
                                   "Age of the oldest operation received and not stored.", labels);
  if (!kafka) {
    metrics.lag = metric_new(METRIC_GAUGE, "notification_lag_bytes", "WAL received and not confirmed.", labels);
    return;
  }
  metrics.lag = metric_new(METRIC_GAUGE, "notification_lag_records",
                           "Records up to the end of this process's partitions that are not stored.", labels);
  metrics.rebalances = metric_new(METRIC_COUNTER, "notification_rebalances_total",
                                  "How often this process was given a share of the partitions.", labels);
}

static void prepare(Service *s) {
  (void)s;
  if (config.events == EVENTS_OFF)
    return;
  notification_consumer_prepare();
  notification_recipients_prepare();
  prepare_source();
}

typedef struct Notification {
  Uuid id, userId;
  Str message, email;
} Notification;

static const Field notification_fields[] = {
    FIELD(Notification, id, F_UUID, .flags = FIELD_OUT),
    FIELD(Notification, userId, F_UUID, .flags = FIELD_OUT),
    FIELD(Notification, message, F_TEXT, .flags = FIELD_OUT),
    FIELD(Notification, email, F_TEXT, .flags = FIELD_OUT),
    {0},
};

/* $2: the last notification of the previous page. Nil, or one that no longer exists: from the beginning. */
static const Sql select_of_user = {
    "SELECT id, user_id, message, email, id FROM notification.notifications WHERE user_id = $1 AND (lsn, seq) > "
    "(coalesce((SELECT lsn FROM notification.notifications WHERE id = $2), -9223372036854775807), "
    "coalesce((SELECT seq FROM notification.notifications WHERE id = $2), 0)) ORDER BY lsn, seq LIMIT $3"};
static const Sql select_all = {"SELECT id, user_id, message, email, id FROM notification.notifications "
                               "WHERE id > $1 ORDER BY id LIMIT $2"};

static int list_all(Req *req, void *in) {
  (void)in;
  return req_page(req, &select_all, NULL, 0, notification_fields, sizeof(Notification), F_UUID);
}

/* The whole list, as clients expect it, unless they request pages or it is too long. */
static int list_of_user(Req *req, void *in) {
  (void)in;
  Uuid user;
  TRY(req_uuid(req, 0, &user));
  if (http_query(req->http, STR("page_size")).p || http_query(req->http, STR("page_token")).p)
    return req_page(req, &select_of_user, &V_UUID(user), 1, notification_fields, sizeof(Notification), F_UUID);
  DbResult found;
  List list;
  const Uuid from_the_first = {0};
  TRY(req_query(req, DB_STMT(&select_of_user, V_UUID(user), V_UUID(from_the_first), V_INT(LIST_MAX)), &found));
  TRY(db_read_rows(req->arena, &found, notification_fields, sizeof(Notification), &list));
  reply_list(req, 200, notification_fields, sizeof(Notification), list);
  if (found.rows == LIST_MAX)
    http_reply_header(req->reply, STR("link"),
                      arena_printf(req->arena, "<%.*s?page_token=%.*s>; rel=\"next\"", STR_FMT(req->http->path),
                                   STR_FMT(db_cell(&found, found.rows - 1, 4))));
  return E_OK;
}

static const Route routes[] = {
    {.method = "GET", .path = "/notification/notification", .handler = list_all},
    {.method = "GET", .path = "/notification/notification/{userId}", .handler = list_of_user},
    {0},
};

typedef struct Reading { /* what reads the events in this process */
  Source *source;        /* NULL: closed */
  NotificationConsumer *consumer;
} Reading;

static void show_gauges(void *arg) {
  const Reading *r = arg;
  int64_t rebalances = 0;
  while (r->source) {
    SourceStatus status;
    r->source->status(r->source, &status);
    metric_set(metrics.connected, status.connected);
    metric_set(metrics.lag_seconds, (double)status.lag_us / 1e6);
    metric_set(metrics.lag, (double)(status.lag_bytes + status.lag_records)); /* a source counts one of them */
    if (metrics.rebalances)
      metric_add(metrics.rebalances, (double)(status.rebalances - rebalances));
    rebalances = status.rebalances;
    if (fiber_sleep(GAUGES_US) == E_CANCELED)
      return;
  }
}

static Source *new_source(void) {
  if (config.events == EVENTS_KAFKA)
    return kafka_source_new(&config.kafka);
  return wal_source_new(&(WalConfig){.dsn = config.billing_dsn,
                                     .slot = NOTIFICATION_SLOT,
                                     .publication = NOTIFICATION_PUBLICATION,
                                     .fallback = NOTIFICATION_PUBLICATION_PLAIN,
                                     .name = "postgres"});
}

/* One consumer in a process group: the first worker. */
static void start(Service *s, int worker) {
  if (worker != 0 || config.events == EVENTS_OFF || (config.events == EVENTS_WAL && !config.billing_dsn))
    return;
  Reading *r = calloc(1, sizeof(*r));
  if (!r)
    die("out of memory");
  s->state = r;
  r->source = new_source();
  r->consumer = notification_consumer_start(s, r->source, notification_resolver_start(s));
  if (!fiber_start("notification gauges", show_gauges, r))
    die("no fiber can be started");
}

/* So that the next reader need not wait until this process is considered dead. A batch in hand is delivered again. */
static void stop(Service *s, int64_t deadline_us) {
  (void)deadline_us; /* no work is finished; this only waits for its own fibers to end after they are canceled */
  int64_t end_us = clock_now_us() + SERVICE_RELEASE_US;
  Reading *r = s->state;
  if (!r || notification_consumer_stop(r->consumer, end_us) < 0)
    return;
  Source *source = r->source;
  r->source = NULL;
  source->close(source, end_us);
}

const ServiceDef notification_service = {.name = "notification",
                                         .schema = "notification",
                                         .migrations = sql_notification,
                                         .routes = routes,
                                         .prepare = prepare,
                                         .start = start,
                                         .stop = stop};

/* Notification: tells users of each operation on their account. Events of Billing's history come from a source; each
 * becomes exactly one row, shown in the order of Billing's log, whatever the order it came in. One whose user is not
 * known yet is stored at once and addressed later, so that the stream never waits for it. */
#include "services/notification.h"

#include "cdc/envelope.h"
#include "cdc/kafka.h"
#include "cdc/wal.h"
#include "rt/fiber.h"
#include "rt/log.h"
#include "rt/loop.h"
#include "rt/metrics.h"
#include "rt/random.h"
#include "rt/req.h"
#include "rt/span.h"
#include "services/services.h"
#include "sql.h"

#include <stdlib.h>
#include <string.h>

#define LIST_MOST      10000   /* notifications in one answer */
#define CALL_US        5000000 /* for one call of the user service, or one statement */
#define CALLS_AT_ONCE  16
#define RETRY_FIRST_US 50000
#define RETRY_MOST_US  2000000
#define PACE_US        20000    /* between two rounds of addressing: a long backlog leaves room for others */
#define IDLE_US        60000000 /* rows stored by another process are found this late at worst */
#define GAUGES_US      1000000

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
     .help = "for EVENTS=kafka: brokers to begin with, host:port,…"},
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

static struct {
  Metric *stored, *ignored, *dead, *seconds, *rows, *connected, *lag_seconds, *lag, *rebalances, *unaddressed;
} metrics;

static void prepare_events(void) {
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
  metrics.unaddressed = metric_new(METRIC_GAUGE, "notification_unaddressed",
                                   "Notifications waiting for their user to be known, counted up to 1000.", "");
}

/* Lag is counted in what the source counts in. */
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
  prepare_events();
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

/* $2: the last one of the page before; none, or one that is no more: from the beginning. */
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

/* The whole list, as clients expect it, unless they ask for pages or it is too long. */
static int list_of_user(Req *req, void *in) {
  (void)in;
  Uuid user;
  TRY(req_uuid(req, 0, &user));
  if (http_query(req->http, STR("page_size")).p || http_query(req->http, STR("page_token")).p)
    return req_page(req, &select_of_user, &V_UUID(user), 1, notification_fields, sizeof(Notification), F_UUID);
  DbResult found;
  List list;
  const Uuid from_the_first = {0};
  TRY(req_query(req, DB_STMT(&select_of_user, V_UUID(user), V_UUID(from_the_first), V_INT(LIST_MOST)), &found));
  TRY(db_read_rows(req->arena, &found, notification_fields, sizeof(Notification), &list));
  reply_list(req, 200, notification_fields, sizeof(Notification), list);
  if (found.rows == LIST_MOST)
    http_reply_header(req->reply, STR("link"),
                      arena_printf(req->arena, "<%.*s?page_token=%.*s>; rel=\"next\"", STR_FMT(req->http->path),
                                   STR_FMT(db_cell(&found, found.rows - 1, 4))));
  return E_OK;
}

static const Route routes[] = {
    {"GET", "/notification/notification", list_all, NULL, 0, 0},
    {"GET", "/notification/notification/{userId}", list_of_user, NULL, 0, 0},
    {0},
};

/* One operation of Billing's history. Texts are as they are shown; absent: null in the history. */
typedef struct Operation {
  Uuid id, billing_id;
  Str type, status, sum, wallet;
} Operation;

typedef struct Account { /* whose user is looked for */
  Uuid billingId, userId;
  Str email, traceparent; /* traceparent: of the first event that asks; absent: none */
  bool answered;
} Account;

typedef struct Row { /* a notification to be stored */
  Uuid id, historyId, billingId, userId;
  Str email, message;
  int64_t lsn;
  int account; /* its place in Work's accounts, -1 without a billing id */
  Str traceparent;
  int64_t commit_us;
} Row;

typedef struct DeadLetter {
  Str position, reason, payload;
} DeadLetter;

static const Field account_fields[] = {
    FIELD(Account, billingId, F_UUID),
    FIELD(Account, userId, F_UUID),
    FIELD(Account, email, F_TEXT),
    {0},
};

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
/* $1: a list of dead_letter_fields. In a topic or a cluster made anew a position comes again and is another event's:
 * then the payload's digest tells them apart. */
static const Sql insert_dead_letters = {
    "INSERT INTO notification.dead_letters (position, reason, payload) SELECT CASE WHEN old.position IS NULL OR "
    "old.payload IS NOT DISTINCT FROM d.payload THEN d.position ELSE d.position || ' ' || "
    "encode(sha256(convert_to(coalesce(d.payload, ''), 'UTF8')), 'hex') END, d.reason, d.payload "
    "FROM json_to_recordset($1::json) AS d(position text, reason text, payload text) "
    "LEFT JOIN notification.dead_letters old ON old.position = d.position ON CONFLICT DO NOTHING"};
static const Sql select_due = {"SELECT DISTINCT billing_id FROM (SELECT billing_id FROM notification.notifications "
                               "WHERE address_at <= clock_timestamp() ORDER BY attempts, address_at LIMIT 64) AS due"};
static const Sql select_pending = {
    "SELECT count(*), (extract(epoch FROM min(address_at) - clock_timestamp()) * 1000000)::bigint "
    "FROM (SELECT address_at FROM notification.notifications WHERE address_at IS NOT NULL "
    "ORDER BY address_at LIMIT 1000) AS pending"};
/* $1: a list of account_fields. Without a user only what is due is touched, and waits longer: 20 ms, doubled up to ten
 * minutes, for an hour. With one the whole account is addressed. */
static const Sql update_addressed = {
    "UPDATE notification.notifications AS n SET user_id = a.\"userId\", email = a.email, attempts = n.attempts + 1, "
    "address_at = CASE WHEN a.\"userId\" IS NULL AND n.created_at > now() - interval '1 hour' THEN clock_timestamp() + "
    "least(interval '20 ms' * power(2, least(n.attempts + 1, 15)), interval '10 min') END "
    "FROM json_to_recordset($1::json) AS a(\"billingId\" uuid, \"userId\" uuid, email text) "
    "WHERE n.billing_id = a.\"billingId\" AND n.user_id IS NULL "
    "AND (a.\"userId\" IS NOT NULL OR n.address_at <= clock_timestamp())"};

static Str placeholder(const Operation *o, Str name) {
  const struct {
    Str name, value;
  } known[] = {
      {STR("operation"), o->type}, {STR("status"), o->status}, {STR("sum"), o->sum}, {STR("wallet"), o->wallet}};
  for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
    if (str_eq(known[i].name, name))
      return known[i].value.p ? known[i].value : STR("an unknown amount");
  return (Str){0};
}

static const char *template_of(const Operation *o) {
  static const struct {
    const char *type, *status, *text;
  } templates[] = {
      {"CREATE", "SUCCESS", "Your account was opened; its wallet holds {wallet}."},
      {"CREATE", "FAILED", "Your account could not be opened."},
      {"REFILL", "SUCCESS", "Your wallet was refilled with {sum} and now holds {wallet}."},
      {"REFILL", "FAILED", "The refill of your wallet with {sum} failed; it holds {wallet}."},
      {"BUY", "SUCCESS", "You paid {sum} from your wallet, which now holds {wallet}."},
      {"BUY", "FAILED", "Your payment of {sum} was refused: your wallet holds {wallet}."},
      {"REFUND", "SUCCESS", "You were refunded {sum}; your wallet now holds {wallet}."},
      {"REFUND", "FAILED", "The refund of {sum} failed; your wallet holds {wallet}."},
  };
  for (size_t i = 0; i < sizeof(templates) / sizeof(templates[0]); i++)
    if (str_eq(o->type, str_from(templates[i].type)) && str_eq(o->status, str_from(templates[i].status)))
      return templates[i].text;
  return "{operation} of {sum}: {status}. Your wallet holds {wallet}.";
}

static Str message_of(Arena *arena, const Operation *o) {
  Buf out = {.arena = arena};
  for (Str rest = str_from(template_of(o)); rest.p;) {
    buf_str(&out, str_cut(&rest, '{'));
    if (rest.p)
      buf_str(&out, placeholder(o, str_cut(&rest, '}')));
  }
  return buf_view(&out);
}

static bool is_null(const JsonValue *value) {
  return !value || value->type == JSON_NULL;
}

static bool read_id(const JsonValue *row, Str name, Uuid *ret) {
  const JsonValue *value = json_get(row, name);
  return value && value->type == JSON_STRING && uuid_parse(value->text, ret) == E_OK && !uuid_is_nil(*ret);
}

static bool read_text(const JsonValue *row, Str name, Str *ret) {
  const JsonValue *value = json_get(row, name);
  if (!value || value->type != JSON_STRING)
    return false;
  *ret = value->text;
  return true;
}

/* A number, or a number as text, as the connector is configured; null leaves *ret absent. What is beyond Money is shown
 * with the digits it came with. */
static bool read_money(Arena *arena, const JsonValue *row, Str name, Str *ret) {
  const JsonValue *value = json_get(row, name);
  if (is_null(value))
    return true;
  if (value->type != JSON_NUMBER && value->type != JSON_STRING)
    return false;
  Money money = 0;
  int rc = money_parse(value->text, &money);
  if (rc == E_MALFORMED)
    return false;
  char text[MONEY_TEXT];
  *ret = rc == E_OK ? arena_str(arena, (Str){text, money_format(money, text)}) : value->text;
  return true;
}

/* NULL, or why it can never be a notification. */
static const char *read_operation(Arena *arena, const JsonValue *row, Operation *ret) {
  Operation o = {0};
  Str before = {0};
  if (!row)
    return "the event has no row";
  if (!read_id(row, STR("id"), &o.id))
    return "id is missing or no UUID";
  if (!is_null(json_get(row, STR("billing_id"))) && !read_id(row, STR("billing_id"), &o.billing_id))
    return "billing_id is no UUID";
  if (!read_text(row, STR("type_operation"), &o.type))
    return "type_operation is missing or no text";
  if (!read_text(row, STR("status"), &o.status))
    return "status is missing or no text";
  if (!read_money(arena, row, STR("sum"), &o.sum) || !read_money(arena, row, STR("last_value_wallet"), &before) ||
      !read_money(arena, row, STR("current_value_wallet"), &o.wallet))
    return "an amount is no number";
  if (!o.wallet.p)
    o.wallet = before;
  *ret = o;
  return NULL;
}

/* What a batch of events becomes. */
typedef struct Work {
  Arena *arena;
  Buf *schema; /* of the last event */
  Row *rows;
  DeadLetter *dead;
  Account *accounts;
  int row_count, dead_count, account_count;
  int ignored;
  int64_t inserted; /* of the rows, those that were not there before */
} Work;

static int find_account(Work *w, Uuid billing_id, Str traceparent) {
  if (uuid_is_nil(billing_id))
    return -1;
  int i = 0;
  while (i < w->account_count && !uuid_eq(w->accounts[i].billingId, billing_id))
    i++;
  if (i == w->account_count)
    w->accounts[w->account_count++] = (Account){.billingId = billing_id, .traceparent = traceparent};
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

/* The fiber goes on with the trace of the operation that an event tells of. */
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
                                  .message = message_of(w->arena, o),
                                  .account = find_account(w, o->billing_id, traceparent),
                                  .traceparent = traceparent,
                                  .lsn = envelope->lsn,
                                  .commit_us = envelope->commit_us};
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
  const char *problem = read_operation(w->arena, envelope.after, &operation);
  Str traceparent = event->traceparent;
  if (!traceparent.p && envelope.after)
    (void)read_text(envelope.after, STR("traceparent"), &traceparent);
  if (problem)
    add_dead_letter(w, event, traceparent, problem);
  else
    add_row(w, &operation, &envelope, traceparent);
}

static void read_batch(Work *w, const ChangeBatch *batch) {
  size_t most = (size_t)batch->count;
  w->rows = ARENA_ARRAY(w->arena, Row, most);
  w->dead = ARENA_ARRAY(w->arena, DeadLetter, most);
  w->accounts = ARENA_ARRAY(w->arena, Account, most);
  for (int i = 0; i < batch->count; i++)
    read_event(w, &batch->events[i]);
}

typedef struct User {
  Uuid id;
  Str email;
} User;

static const Field user_fields[] = {FIELD(User, id, F_UUID), FIELD(User, email, F_TEXT), {0}};

/* Only 404 says that there is no such user; anything else unexpected means: ask again later. */
static int ask_user(Arena *arena, Account *account) {
  char id[UUID_TEXT];
  uuid_format(account->billingId, id);
  SCOPED_ARENA scratch = arena_new();
  HttpRequest call = {.arena = scratch,
                      .method = STR("GET"),
                      .path = arena_printf(scratch, "/user/user/billing_id/%s", id),
                      .deadline_us = loop_now_us() + CALL_US};
  HttpReply reply = {0};
  TRY(service_call("user", &call, &reply));
  if (reply.status == 200) {
    User user = {0};
    TRY(json_read(scratch, reply.body, user_fields, &user, NULL));
    account->userId = user.id;
    account->email = arena_str(arena, user.email);
  } else if (reply.status != 404) {
    return E_UNAVAILABLE;
  }
  account->answered = true;
  return E_OK;
}

typedef struct Lookup { /* shared by the fibers that work it off */
  Arena *arena;
  Account *accounts;
  int count, next;
  int helpers;
  int error;
  Fiber *owner;
} Lookup;

static void look_up_rest(Lookup *l) {
  FiberContext own = *fiber_context();
  while (l->next < l->count && l->error == E_OK) {
    Account *account = &l->accounts[l->next++];
    span_receive(account->traceparent);
    int rc = account->answered ? E_OK : ask_user(l->arena, account);
    if (rc < 0)
      l->error = rc;
  }
  *fiber_context() = own;
}

static void help_look_up(void *arg) {
  Lookup *l = arg;
  look_up_rest(l);
  if (--l->helpers == 0)
    fiber_wake(l->owner);
}

/* Asks for all users at once, within bounds. On an error those answered stay answered. */
static int look_up(Arena *arena, Account *accounts, int count) {
  Lookup l = {.arena = arena, .accounts = accounts, .count = count, .owner = fiber_current()};
  while (l.helpers < CALLS_AT_ONCE - 1 && l.helpers < count - 1 && fiber_start("user look-up", help_look_up, &l))
    l.helpers++;
  look_up_rest(&l);
  while (l.helpers > 0)
    if (fiber_wait("user look-up", FIBER_FOREVER) == E_CANCELED) {
      l.error = E_CANCELED;
      fiber_yield(); /* the helpers work on this stack */
    }
  return l.error;
}

typedef struct Consumer {
  Service *service;
  Source *source; /* NULL: closed */
  Fiber *reader;  /* NULL: ended */
  Fiber *addresser, *stopper;
  Buf schema;              /* of the last event */
  bool stored_unaddressed; /* since the addresser last looked */
  bool user_down;          /* as last logged by the addresser */
} Consumer;

static DbStmt list_statement(Arena *arena, const Sql *sql, const Field *fields, size_t size, void *items, int count) {
  Buf json = {.arena = arena};
  json_write_list(&json, fields, size, (List){items, (size_t)count});
  DbValue *value = ARENA_NEW(arena, DbValue);
  *value = V_TEXT(buf_view(&json));
  return (DbStmt){sql, value, 1};
}

static int address_rows(Work *w) {
  TRY(look_up(w->arena, w->accounts, w->account_count));
  for (int i = 0; i < w->row_count; i++)
    if (w->rows[i].account >= 0) {
      w->rows[i].userId = w->accounts[w->rows[i].account].userId;
      w->rows[i].email = w->accounts[w->rows[i].account].email;
    }
  return E_OK;
}

/* Notifications and dead letters in one transaction: after it the events are done for good. */
static int store(Consumer *c, Work *w) {
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
  TRY(db_group(c->service->db, arena, statements, count, results, loop_now_us() + CALL_US));
  w->inserted = w->row_count > 0 ? results[0].affected : 0;
  return E_OK;
}

static int handle(Consumer *c, Work *w) {
  TRY(address_rows(w));
  return store(c, w);
}

static void count_events(Consumer *c, const Work *w) {
  metric_add(metrics.stored, w->row_count);
  metric_add(metrics.ignored, w->ignored);
  metric_add(metrics.dead, w->dead_count);
  metric_add(metrics.rows, (double)w->inserted);
  int64_t now_us = loop_unix_ms() * 1000;
  for (int i = 0; i < w->row_count; i++) {
    int64_t commit_us = w->rows[i].commit_us;
    if (commit_us > 0)
      metric_observe(metrics.seconds, now_us > commit_us ? (double)(now_us - commit_us) / 1e6 : 0);
    if (uuid_is_nil(w->rows[i].userId) && w->rows[i].account >= 0)
      c->stored_unaddressed = true;
  }
  if (c->stored_unaddressed)
    fiber_wake(c->addresser);
}

static void log_rows(const Work *w) {
  if (!log_on(LOG_DEBUG, "notification"))
    return;
  FiberContext own = *fiber_context();
  for (int i = 0; i < w->row_count; i++) {
    work_for(w->rows[i].historyId, w->rows[i].traceparent);
    LOG(DEBUG, "notification", "noted");
  }
  *fiber_context() = own;
}

/* Again and again until it is stored: the rows were checked before, so what fails is the user service or the database.
 */
static int handle_batch(Consumer *c, const ChangeBatch *batch) {
  SCOPED_ARENA arena = arena_new();
  Work work = {.arena = arena, .schema = &c->schema};
  read_batch(&work, batch);
  int64_t wait_us = RETRY_FIRST_US;
  int rc = E_OK;
  while ((rc = handle(c, &work)) < 0) {
    if (rc == E_CANCELED)
      return rc;
    if (wait_us == RETRY_FIRST_US)
      LOG(WARN, "notification", "%d events wait: %s", batch->count, err_info(rc)->title);
    TRY(fiber_sleep(wait_us));
    wait_us = wait_us * 2 < RETRY_MOST_US ? wait_us * 2 : RETRY_MOST_US;
  }
  count_events(c, &work);
  log_rows(&work);
  return E_OK;
}

static void consume(void *arg) {
  Consumer *c = arg;
  ChangeBatch batch;
  while (c->source->next(c->source, &batch) == E_OK && handle_batch(c, &batch) == E_OK)
    c->source->done(c->source);
  c->reader = NULL;
  fiber_wake(c->stopper);
}

static int read_due(Arena *arena, const DbResult *due, Account **ret) {
  Account *accounts = ARENA_ARRAY(arena, Account, (size_t)due->rows + 1);
  for (int i = 0; i < due->rows; i++)
    TRY(uuid_parse(db_cell(due, i, 0), &accounts[i].billingId));
  *ret = accounts;
  return due->rows;
}

/* How long until the next row is due, in *ret_wait_us. */
static int read_pending(const DbResult *pending, int64_t *ret_wait_us) {
  int64_t count = 0, next_us = IDLE_US;
  TRY(str_to_int(db_cell(pending, 0, 0), &count));
  if (count > 0)
    TRY(str_to_int(db_cell(pending, 0, 1), &next_us));
  metric_set(metrics.unaddressed, (double)count);
  *ret_wait_us = next_us < 0 ? 0 : next_us < IDLE_US ? next_us : IDLE_US;
  return E_OK;
}

/* One round: looks again for the users of the rows that are due. */
static int address_due(Consumer *c, int64_t *ret_wait_us) {
  SCOPED_ARENA arena = arena_new();
  Db *db = c->service->db;
  const DbStmt statements[] = {{&select_due, NULL, 0}, {&select_pending, NULL, 0}};
  DbResult results[2];
  TRY(db_group(db, arena, statements, 2, results, loop_now_us() + CALL_US));
  int64_t wait_us = 0;
  TRY(read_pending(&results[1], &wait_us));
  Account *accounts = NULL;
  int count = read_due(arena, &results[0], &accounts);
  TRY(count);
  if (count > 0) {
    TRY(look_up(arena, accounts, count));
    DbStmt update = list_statement(arena, &update_addressed, account_fields, sizeof(Account), accounts, count);
    TRY(db_exec(db, arena, update, NULL, loop_now_us() + CALL_US));
    wait_us = 0;
  }
  *ret_wait_us = wait_us;
  return E_OK;
}

static void log_addressing(Consumer *c, int rc) {
  bool down = rc < 0;
  if (down && !c->user_down)
    LOG(WARN, "notification", "users cannot be looked up for notifications without one: %s", err_info(rc)->title);
  c->user_down = down;
}

/* Each round is followed by a pause that nothing shortens, then by a wait that a new row ends. */
static void address(void *arg) {
  Consumer *c = arg;
  for (int rc = E_OK; rc != E_CANCELED;) {
    c->stored_unaddressed = false;
    int64_t wait_us = RETRY_MOST_US;
    rc = address_due(c, &wait_us);
    if (rc == E_CANCELED)
      return;
    log_addressing(c, rc);
    rc = fiber_sleep(PACE_US);
    if (rc == E_OK && !c->stored_unaddressed && wait_us > PACE_US)
      rc = fiber_wait("unaddressed", loop_now_us() + wait_us - PACE_US);
  }
}

static void show_gauges(void *arg) {
  const Consumer *c = arg;
  int64_t rebalances = 0;
  while (c->source) {
    SourceStatus status;
    c->source->status(c->source, &status);
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
  Consumer *c = calloc(1, sizeof(*c));
  if (!c)
    abort();
  c->service = s;
  s->state = c;
  c->source = new_source();
  c->addresser = fiber_start("notification addressing", address, c);
  c->reader = fiber_start("notification events", consume, c);
  if (!c->addresser || !c->reader || !fiber_start("notification gauges", show_gauges, c))
    abort(); /* at start there is room for them, or the limit is a defect */
}

/* Whoever takes over then need not wait until this process counts as dead. A batch in hand comes again. */
static void stop(Service *s, int64_t deadline_us) {
  (void)deadline_us; /* it waits for no work, only until its own fibers have seen that they are canceled */
  int64_t end_us = loop_now_us() + SERVICE_RELEASE_US;
  Consumer *c = s->state;
  if (!c)
    return;
  c->stopper = fiber_current();
  if (c->reader)
    fiber_cancel(c->reader);
  while (c->reader)
    if (fiber_wait("notification: stop", end_us) < 0)
      return;
  Source *source = c->source;
  c->source = NULL;
  source->close(source, end_us);
  buf_free(&c->schema);
}

const ServiceDef notification_service = {.name = "notification",
                                         .schema = "notification",
                                         .migrations = sql_notification,
                                         .routes = routes,
                                         .prepare = prepare,
                                         .start = start,
                                         .stop = stop};

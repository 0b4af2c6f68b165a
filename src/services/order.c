/* Order: orders and their lines, and the saga in which an order is paid, reserved and scheduled, or all of that is
 * compensated. */
#include "http/problem.h"
#include "metrics/metrics.h"
#include "rt/clock.h"
#include "rt/random.h"
#include "saga/engine.h"
#include "saga/operate.h"
#include "saga/view.h"
#include "service/idempotency.h"
#include "service/req.h"
#include "service/service.h"
#include "services/services.h"
#include "sql.h"
#include "json/json.h"

enum { FIRST_LINE = 16, LINES_MAX = 500 }; /* uuid_child number of line 0 */
enum { PAYMENT, WAREHOUSE, DELIVERY, STEPS };

#define ROLLED_BACK "Failed to create order. Rollback all successful steps"

typedef struct Line {
  Uuid id, orderId;
  Str item;
  int64_t amount;
  Money price;
} Line;

typedef struct Order {
  Uuid id;
  List contents;
  Str status;
} Order;

typedef struct OrderSaga { /* what a client sends, and what the saga stores as its input */
  List contents;
  LocalTime timeDelivery;
  Uuid billingId;
  Money cost;
  Str key;
} OrderSaga;

static const char *const statuses[] = {"PENDING", "SUCCESS", "CANCELED", NULL};

static const Field line_fields[] = {
    FIELD(Line, id, F_UUID, .flags = FIELD_OUT),
    FIELD(Line, orderId, F_UUID, .flags = FIELD_OUT),
    FIELD(Line, item, F_TEXT, .min = 1, .max = 200),
    FIELD(Line, amount, F_INT, .min = 1, .max = 1000000),
    FIELD(Line, price, F_MONEY, .min = 0, .max = MONEY_MAX),
    {0},
};

static const Field order_fields[] = {
    FIELD(Order, id, F_UUID, .flags = FIELD_OUT),
    FIELD(Order, contents, F_LIST, .min = 1, .max = LINES_MAX, .fields = line_fields, .size = sizeof(Line)),
    FIELD(Order, status, F_TEXT, .values = statuses),
    {0},
};

#define CONTENTS(which)                                                                                                \
  FIELD(OrderSaga, contents, F_LIST, .min = 1, .max = LINES_MAX, .fields = (which), .size = sizeof(Line))

static const Field request_fields[] = {
    CONTENTS(line_fields),
    FIELD(OrderSaga, timeDelivery, F_TIME),
    FIELD(OrderSaga, billingId, F_UUID, .flags = FIELD_OPTIONAL),
    {0},
};

/* The same lines in the form that Warehouse expects. */
static const Field stock_fields[] = {FIELD(Line, item, F_TEXT), FIELD(Line, amount, F_INT), {0}};
static const Field stored_fields[] = {
    FIELD(Line, item, F_TEXT), FIELD(Line, amount, F_INT), FIELD(Line, price, F_MONEY), {0}};

static const Field input_fields[] = {
    CONTENTS(stored_fields),
    FIELD(OrderSaga, timeDelivery, F_TIME),
    FIELD(OrderSaga, billingId, F_UUID, .flags = FIELD_OPTIONAL),
    FIELD(OrderSaga, cost, F_MONEY),
    FIELD(OrderSaga, key, F_TEXT, .flags = FIELD_OPTIONAL),
    {0},
};

#define INSERT_LINES                                                                                                   \
  "INSERT INTO \"order\".contents (order_id, line, item, amount, price) SELECT $1, r.line - 1, r.item, r.amount, "     \
  "r.price FROM ROWS FROM (json_to_recordset($2::json) AS (item text, amount bigint, price numeric)) "                 \
  "WITH ORDINALITY AS r (item, amount, price, line)"

static const Sql insert_order = {
    "WITH made AS (INSERT INTO \"order\".orders (id, status, saga) VALUES ($1, $3, $4)) " INSERT_LINES};
/* While a saga runs, its order must not change. Nor may it return to the state that only a saga may leave. */
#define RUNNING "saga AND status = 'PENDING'"
static const Sql lock_order = {"SELECT " RUNNING " FROM \"order\".orders WHERE id = $1 FOR UPDATE"};
static const Sql lock_for_status = {"SELECT saga AND 'PENDING' IN (status, $2) FROM \"order\".orders WHERE id = $1 "
                                    "FOR UPDATE"};
static const Sql update_order = {"UPDATE \"order\".orders SET status = $2 WHERE id = $1 AND NOT (saga AND 'PENDING' IN "
                                 "(status, $2))"};
static const Sql delete_lines = {"DELETE FROM \"order\".contents c USING \"order\".orders o WHERE c.order_id = $1 AND "
                                 "o.id = $1 AND NOT (saga AND 'PENDING' IN (status, $2))"};
static const Sql insert_lines = {INSERT_LINES " WHERE EXISTS (SELECT FROM \"order\".orders WHERE id = $1 AND NOT (saga "
                                              "AND 'PENDING' IN (status, $3)))"};
static const Sql delete_order = {"WITH gone AS (DELETE FROM \"order\".orders WHERE id = $1 AND NOT (" RUNNING
                                 ") RETURNING id) DELETE FROM \"order\".contents WHERE order_id IN (SELECT id FROM "
                                 "gone)"};
static const Sql select_order = {"SELECT o.status, c.item, c.amount, c.price FROM \"order\".orders o JOIN "
                                 "\"order\".contents c ON c.order_id = o.id WHERE o.id = $1 ORDER BY c.line"};
static const Sql end_order = {"UPDATE \"order\".orders SET status = $2 WHERE id = $1 AND status = 'PENDING'"};

static void number_lines(Uuid order, List contents) {
  Line *lines = contents.items;
  for (size_t i = 0; i < contents.count; i++) {
    lines[i].id = uuid_child(order, FIRST_LINE + (unsigned)i);
    lines[i].orderId = order;
  }
}

static Str lines_json(Arena *arena, const Field *fields, List contents) {
  Buf b = {.arena = arena};
  json_write_list(&b, fields, sizeof(Line), contents);
  return buf_view(&b);
}

static int total(List contents, Money *ret) {
  const Line *lines = contents.items;
  Money sum = 0, part;
  for (size_t i = 0; i < contents.count; i++) {
    TRY(money_mul(lines[i].price, lines[i].amount, &part));
    TRY(money_add(sum, part, &sum));
  }
  *ret = sum;
  return 0;
}

static int create_order(Req *req, void *in) {
  Order *o = in;
  o->id = uuid_new();
  number_lines(o->id, o->contents);
  reply_object(req, 200, order_fields, o);
  Str lines = lines_json(req->arena, stored_fields, o->contents);
  return idempotency_commit(
      req, &DB_STMT(&insert_order, V_UUID(o->id), V_TEXT(lines), V_TEXT(o->status), V_BOOL(false)), 1, NULL);
}

static int get_order(Req *req, void *in) {
  (void)in;
  Order o = {0};
  DbResult rows;
  TRY(req_uuid(req, 0, &o.id));
  TRY(req_query(req, DB_STMT(&select_order, V_UUID(o.id)), &rows));
  if (!rows.rows)
    return E_NOT_FOUND;
  Line *lines = ARENA_ARRAY(req->arena, Line, (size_t)rows.rows);
  o.contents = (List){lines, (size_t)rows.rows};
  o.status = db_cell(&rows, 0, 0);
  number_lines(o.id, o.contents);
  for (int i = 0; i < rows.rows; i++) {
    lines[i].item = db_cell(&rows, i, 1);
    TRY(str_to_int(db_cell(&rows, i, 2), &lines[i].amount));
    TRY(money_parse(db_cell(&rows, i, 3), &lines[i].price));
  }
  return reply_object(req, 200, order_fields, &o);
}

/* lock: one row that says whether a saga forbade the change, or none if there is no order. */
static int reply_changed(Req *req, const DbResult *lock) {
  if (lock->rows && str_eq(db_cell(lock, 0, 0), STR("t")))
    return fail(req, E_CONFLICT, NULL, "a saga's order is SUCCESS or CANCELED, and cannot be changed while it runs");
  return reply_status(req, lock->rows > 0);
}

static int put_order(Req *req, void *in) {
  const Order *o = in;
  Uuid id;
  DbResult results[4];
  TRY(req_uuid(req, 0, &id));
  Str lines = lines_json(req->arena, stored_fields, o->contents);
  const DbStmt statements[] = {DB_STMT(&lock_for_status, V_UUID(id), V_TEXT(o->status)),
                               DB_STMT(&delete_lines, V_UUID(id), V_TEXT(o->status)),
                               DB_STMT(&insert_lines, V_UUID(id), V_TEXT(lines), V_TEXT(o->status)),
                               DB_STMT(&update_order, V_UUID(id), V_TEXT(o->status))};
  TRY(db_group(req->db, req->arena, statements, 4, results, req->http->deadline_us));
  return reply_changed(req, &results[0]);
}

static int remove_order(Req *req, void *in) {
  (void)in;
  Uuid id;
  DbResult results[2];
  TRY(req_uuid(req, 0, &id));
  const DbStmt statements[] = {DB_STMT(&lock_order, V_UUID(id)), DB_STMT(&delete_order, V_UUID(id))};
  TRY(db_group(req->db, req->arena, statements, 2, results, req->http->deadline_us));
  return reply_changed(req, &results[0]);
}

/* ---- the saga ---- */

static int load_saga(SagaRun *run) {
  run->data = ARENA_NEW(run->arena, OrderSaga);
  return json_read(run->arena, run->input, input_fields, run->data, NULL);
}

/* The target, and the start of the body that all calls share: the caller adds its members and closes it. */
static Buf step_call(const SagaRun *run, SagaCall *call, const char *service, bool cancel) {
  char id[UUID_TEXT];
  uuid_format(run->id, id);
  call->service = service;
  call->path = arena_printf(call->arena, "/%s/step/%s%s", service, id, cancel ? "/cancel" : "");
  Buf b = {.arena = call->arena};
  buf_cstr(&b, "{\"orderId\":\"");
  buf_cstr(&b, id);
  buf_char(&b, '"');
  return b;
}

static int payment_call(const SagaRun *run, SagaCall *call, bool cancel) {
  const OrderSaga *o = run->data;
  char cost[MONEY_TEXT], account[UUID_TEXT];
  money_format(o->cost, cost);
  uuid_format(o->billingId, account);
  Buf b = step_call(run, call, "payment", cancel);
  buf_cstr(&b, ",\"cost\":");
  buf_cstr(&b, cost);
  if (!uuid_is_nil(o->billingId))
    buf_printf(&b, ",\"billingId\":\"%s\"", account);
  buf_char(&b, '}');
  call->body = buf_view(&b);
  return 0;
}

static int warehouse_call(const SagaRun *run, SagaCall *call, bool cancel) {
  const OrderSaga *o = run->data;
  Buf b = step_call(run, call, "warehouse", cancel);
  buf_cstr(&b, ",\"lines\":");
  json_write_list(&b, stock_fields, sizeof(Line), o->contents);
  buf_char(&b, '}');
  call->body = buf_view(&b);
  return 0;
}

static int delivery_call(const SagaRun *run, SagaCall *call, bool cancel) {
  const OrderSaga *o = run->data;
  char when[LOCALTIME_TEXT];
  localtime_format(o->timeDelivery, when);
  Buf b = step_call(run, call, "delivery", cancel);
  buf_printf(&b, ",\"timeDelivery\":\"%s\"}", when);
  call->body = buf_view(&b);
  return 0;
}

static int pay(const SagaRun *run, SagaCall *call) {
  return payment_call(run, call, false);
}

static int refund(const SagaRun *run, SagaCall *call) {
  return payment_call(run, call, true);
}

static int reserve(const SagaRun *run, SagaCall *call) {
  return warehouse_call(run, call, false);
}

static int release(const SagaRun *run, SagaCall *call) {
  return warehouse_call(run, call, true);
}

static int schedule(const SagaRun *run, SagaCall *call) {
  return delivery_call(run, call, false);
}

static int unschedule(const SagaRun *run, SagaCall *call) {
  return delivery_call(run, call, true);
}

static const SagaStep order_steps[STEPS] = {
    [PAYMENT] = {.name = "payment",
                 .kind = SAGA_COMPENSATABLE,
                 .timeout_us = 5 * SECONDS,
                 .forward = pay,
                 .compensate = refund},
    [WAREHOUSE] = {.name = "warehouse",
                   .kind = SAGA_COMPENSATABLE,
                   .timeout_us = 5 * SECONDS,
                   .forward = reserve,
                   .compensate = release},
    [DELIVERY] = {.name = "delivery",
                  .kind = SAGA_COMPENSATABLE,
                  .timeout_us = 5 * SECONDS,
                  .forward = schedule,
                  .compensate = unschedule},
};

/* [order, payment, delivery, [warehouse items]]: clients expect these four, even if there are other steps. */
static const int response_steps[] = {PAYMENT, DELIVERY, WAREHOUSE};
_Static_assert(sizeof(response_steps) / sizeof(response_steps[0]) == 3, "CONTRACT: a response of four elements");

static Str success_body(const SagaRun *run) {
  const OrderSaga *s = run->data;
  Order o = {.id = run->id, .contents = s->contents, .status = STR("SUCCESS")};
  number_lines(o.id, o.contents);
  Buf b = {.arena = run->arena};
  buf_char(&b, '[');
  json_write(&b, order_fields, &o);
  for (size_t i = 0; i < sizeof(response_steps) / sizeof(response_steps[0]); i++) {
    buf_char(&b, ',');
    buf_str(&b, run->steps[response_steps[i]].answer);
  }
  buf_char(&b, ']');
  return buf_view(&b);
}

/* The response to a saga's client, the same for the first request and for a replay. */
static void saga_response(const SagaRun *run, bool success, HttpReply *reply) {
  if (success) {
    *reply = (HttpReply){.status = 200, .content_type = "application/json", .body = success_body(run)};
    return;
  }
  char id[UUID_TEXT];
  uuid_format(run->id, id);
  Buf members = {.arena = run->arena};
  buf_printf(&members, "\"status\":\"" ROLLED_BACK "\",\"orderId\":\"%s\",\"step\":", id);
  buf_json_string(&members, run->failed_step);
  buf_cstr(&members, ",\"reason\":");
  buf_json_string(&members, run->reason);
  Str detail = run->failed_step.p ? arena_printf(run->arena, "%.*s did not succeed", STR_FMT(run->failed_step))
                                  : run->reason; /* an operator's */
  problem_reply(run->arena, &(Problem){.code = E_DEPENDENCY, .detail = detail, .members = buf_view(&members)}, reply);
}

static int finish_saga(const SagaRun *run, bool success, DbStmt *statements) {
  const OrderSaga *s = run->data;
  const DbValue values[] = {V_UUID(run->id), V_TEXT(success ? STR("SUCCESS") : STR("CANCELED"))};
  statements[0] = (DbStmt){.sql = &end_order, .values = arena_copy(run->arena, values, sizeof(values)), .count = 2};
  if (!s->key.p)
    return 1;
  HttpReply reply;
  saga_response(run, success, &reply);
  statements[1] = idempotency_finish(service_find("order"), run->arena, s->key, reply.status, reply.body);
  return 2;
}

static Metric *orders[2]; /* by whether they succeeded */

static void count_order(const SagaRun *run) {
  metric_add(orders[run->state == SAGA_SUCCEEDED], 1);
}

static const SagaType sagas[] = {
    {.name = "order",
     .steps = order_steps,
     .step_count = STEPS,
     .load = load_saga,
     .finish = finish_saga,
     .ended = count_order,
     .subject = LOG_ORDER_ID},
    {0},
};

static int begin_saga(Req *req, const OrderSaga *s, SagaRun *run) {
  Str lines = lines_json(req->arena, stored_fields, s->contents);
  DbStmt statements[2] = {DB_STMT(&insert_order, V_UUID(run->id), V_TEXT(lines), V_TEXT(STR("PENDING")), V_BOOL(true))};
  int count = 1;
  if (s->key.p)
    statements[count++] = idempotency_insert(req, 0, (Str){0});
  int rc = saga_begin(run, statements, count, req->http->deadline_us);
  return rc == E_EXISTS ? idempotency_lost_race(req) : rc;
}

static int reply_accepted(Req *req, const SagaRun *run) {
  char id[UUID_TEXT];
  uuid_format(run->id, id);
  const char *state = saga_state_name(run->state);
  reply_json(req, 202, arena_printf(req->arena, "{\"id\":\"%s\",\"state\":\"%s\"}", id, state));
  http_reply_header(req->reply, STR("location"), arena_printf(req->arena, "/order/saga/%s", id));
  http_reply_header(req->reply, STR("retry-after"), STR("1"));
  return 0;
}

/* The run's memory ends with it, so what goes into the reply is copied. */
static int reply_ended(Req *req, const SagaRun *run) {
  HttpReply reply;
  saga_response(run, run->state == SAGA_SUCCEEDED, &reply);
  *req->reply = reply;
  req->reply->body = arena_str(req->arena, reply.body);
  return 0;
}

static int prepare_saga(Req *req, OrderSaga *s, SagaRun **ret) {
  if (total(s->contents, &s->cost) < 0)
    return fail(req, E_RANGE, "/contents", "the sum of amount times price is more than can be stored");
  if (s->cost == 0)
    return fail(req, E_FIELD, "/contents", "the sum of amount times price must be greater than zero");
  s->key = req->key;
  Buf input = {.arena = req->arena};
  json_write(&input, input_fields, s);
  return saga_new(req->service->state, &sagas[0], uuid_new(), buf_view(&input), ret);
}

static int create_saga(Req *req, void *in) {
  OrderSaga *s = in;
  SagaRun *run;
  TRY(prepare_saga(req, s, &run));
  int rc = begin_saga(req, s, run);
  if (rc == 0) {
    bool async = http_has_token(http_header(req->http, STR("prefer")), STR("respond-async"));
    rc = async ? E_TIMEOUT : saga_wait(run, req->http->deadline_us);
    rc = rc == 0 ? reply_ended(req, run) : reply_accepted(req, run); /* it is stored, and continues */
  }
  saga_release(run);
  return rc;
}

static const Route routes[] = {
    {.method = "POST",
     .path = "/order/order",
     .handler = create_order,
     ROUTE_BODY(order_fields, Order),
     .flags = ROUTE_KEYED},
    {.method = "GET", .path = "/order/order/{id}", .handler = get_order},
    {.method = "PUT", .path = "/order/order/{id}", .handler = put_order, ROUTE_BODY(order_fields, Order)},
    {.method = "DELETE", .path = "/order/order/{id}", .handler = remove_order},
    {.method = "POST",
     .path = "/order/order/saga",
     .handler = create_saga,
     ROUTE_BODY(request_fields, OrderSaga),
     .flags = ROUTE_KEYED},
    {.method = "GET", .path = "/order/saga/{id}", .handler = saga_show},
    {.method = "GET", .path = "/order/saga", .handler = saga_list},
    {.method = "POST",
     .path = "/order/saga/{id}/retry",
     .handler = saga_retry,
     ROUTE_BODY(saga_remark_fields, SagaOperation),
     .flags = ROUTE_KEYED | ROUTE_BODY_OPTIONAL},
    {.method = "POST",
     .path = "/order/saga/{id}/cancel",
     .handler = saga_cancel,
     ROUTE_BODY(saga_remark_fields, SagaOperation),
     .flags = ROUTE_KEYED | ROUTE_BODY_OPTIONAL},
    {.method = "POST",
     .path = "/order/saga/{id}/skip",
     .handler = saga_skip,
     ROUTE_BODY(saga_skip_fields, SagaOperation),
     .flags = ROUTE_KEYED},
    {0},
};

static void prepare(Service *s) {
  const char *name = "skald_orders_total", *help = "Orders that a saga brought to their end.";
  orders[0] = metric_new(METRIC_COUNTER, name, help, "outcome=\"canceled\"");
  orders[1] = metric_new(METRIC_COUNTER, name, help, "outcome=\"success\"");
  s->state = saga_engine_new(s->def->schema, sagas, service_call);
}

static void start(Service *s, int worker) {
  saga_engine_start(s->state, s->db, worker);
}

static void stop(Service *s, int64_t deadline_us) {
  saga_engine_stop(s->state, deadline_us);
}

const ServiceDef order_service = {
    .name = "order",
    .schema = "\"order\"",
    .migrations = sql_order,
    .modules = {{.name = "saga", .old_name = "module 0", .sql = sql_saga}},
    .routes = routes,
    .prepare = prepare,
    .start = start,
    .stop = stop,
};

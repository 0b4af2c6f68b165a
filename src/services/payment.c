/* Payment: payments for orders. A saga's payment from a wallet takes the money through Billing. */
#include "http/problem.h"
#include "rt/random.h"
#include "service/idempotency.h"
#include "service/req.h"
#include "service/service.h"
#include "services/services.h"
#include "sql.h"

enum { SAGA_PAYMENT = 1 }; /* uuid_child number of a saga's payment */

typedef struct Payment {
  Uuid id, orderId;
  Money cost;
  Str status;
} Payment;

typedef struct Step {
  Uuid orderId, billingId;
  Money cost;
} Step;

static const char *const statuses[] = {"SUCCESS", "FAILED", "CANCELED", NULL};

static const Field payment_fields[] = {
    FIELD(Payment, id, F_UUID, .flags = FIELD_OUT),
    FIELD(Payment, orderId, F_UUID),
    FIELD(Payment, cost, F_MONEY, .min = 1, .max = MONEY_MAX),
    FIELD(Payment, status, F_TEXT, .values = statuses),
    {0},
};

static const Field step_fields[] = {
    FIELD(Step, orderId, F_UUID),
    FIELD(Step, cost, F_MONEY, .min = 1, .max = MONEY_MAX),
    FIELD(Step, billingId, F_UUID, .flags = FIELD_OPTIONAL),
    {0},
};

static const Sql insert_payment = {"INSERT INTO payment.payments (id, order_id, cost, status) VALUES ($1, $2, $3, $4)"};
static const Sql select_payment = {"SELECT id, order_id, cost, status FROM payment.payments WHERE id = $1"};
static const Sql update_payment = {
    "UPDATE payment.payments SET order_id = $2, cost = $3, status = $4 WHERE id = $1 RETURNING 1"};
static const Sql delete_payment = {"DELETE FROM payment.payments WHERE id = $1 RETURNING 1"};
static const Sql pay_once = {"INSERT INTO payment.payments (id, order_id, cost, status) VALUES ($1, $2, $3, $4) "
                             "ON CONFLICT (id) DO NOTHING"};
/* Waits for an uncommitted payment. If there is none, it leaves a tombstone, by which a late payment is refused. */
static const Sql cancel_once = {
    "INSERT INTO payment.payments AS p (id, order_id, cost, status) VALUES ($1, $2, $3, 'CANCELED') "
    "ON CONFLICT (id) DO UPDATE SET status = 'CANCELED' WHERE p.status <> 'CANCELED'"};

static int create_payment(Req *req, void *in) {
  Payment *p = in;
  p->id = uuid_new();
  reply_object(req, 200, payment_fields, p);
  return idempotency_commit(
      req, &DB_STMT(&insert_payment, V_UUID(p->id), V_UUID(p->orderId), V_MONEY(p->cost), V_TEXT(p->status)), 1, NULL);
}

static int get_payment(Req *req, void *in) {
  (void)in;
  Uuid id;
  Payment p;
  TRY(req_uuid(req, 0, &id));
  TRY(req_row(req, DB_STMT(&select_payment, V_UUID(id)), payment_fields, &p));
  return reply_object(req, 200, payment_fields, &p);
}

static int put_payment(Req *req, void *in) {
  Payment *p = in;
  TRY(req_uuid(req, 0, &p->id));
  return req_touch(req,
                   DB_STMT(&update_payment, V_UUID(p->id), V_UUID(p->orderId), V_MONEY(p->cost), V_TEXT(p->status)));
}

static int remove_payment(Req *req, void *in) {
  (void)in;
  Uuid id;
  TRY(req_uuid(req, 0, &id));
  return req_touch(req, DB_STMT(&delete_payment, V_UUID(id)));
}

/* PUT /billing/step/{saga}/{operation}: 0 when done, E_REFUSED with Billing's reason, or an error whose status says
 * that the outcome is unknown. */
static int call_billing(Req *req, Uuid saga, const char *operation, const Step *step) {
  char id[UUID_TEXT], account[UUID_TEXT], sum[MONEY_TEXT];
  uuid_format(saga, id);
  uuid_format(step->billingId, account);
  money_format(step->cost, sum);
  HttpRequest call = {.arena = req->arena,
                      .method = STR("PUT"),
                      .path = arena_printf(req->arena, "/billing/step/%s/%s", id, operation),
                      .body = arena_printf(req->arena, "{\"billingId\":\"%s\",\"sum\":%s}", account, sum),
                      .headers = {{STR("content-type"), STR("application/json")}},
                      .header_count = 1,
                      .deadline_us = req->http->deadline_us};
  HttpReply reply = {0};
  int rc = service_call("billing", &call, &reply);
  if (rc < 0)
    return fail(req, rc == E_UNAVAILABLE || rc == E_TIMEOUT ? rc : E_UNKNOWN, NULL, "no response from Billing");
  HttpOutcome outcome = http_outcome(reply.status);
  if (outcome == HTTP_DONE)
    return 0;
  if (outcome == HTTP_UNKNOWN)
    return fail(req, E_UNKNOWN, NULL, "Billing responded with %d", reply.status);
  Str detail = problem_text(req->arena, reply.body);
  return fail(req, E_REFUSED, NULL, "%.*s", STR_FMT(detail));
}

/* The row already existed: a repeated call gets the first response, a late one is refused. */
static int repeat_payment(Req *req, Uuid id) {
  Payment p;
  TRY(req_row(req, DB_STMT(&select_payment, V_UUID(id)), payment_fields, &p));
  if (!str_eq(p.status, STR("SUCCESS")))
    return fail(req, E_REFUSED, NULL, "the payment was canceled before");
  return reply_object(req, 200, payment_fields, &p);
}

static int pay(Req *req, void *in) {
  const Step *step = in;
  Uuid saga;
  DbResult result;
  TRY(req_uuid(req, 0, &saga));
  if (!uuid_is_nil(step->billingId))
    TRY(call_billing(req, saga, "buy", step));
  Payment p = {uuid_child(saga, SAGA_PAYMENT), step->orderId, step->cost, STR("SUCCESS")};
  TRY(req_query(req, DB_STMT(&pay_once, V_UUID(p.id), V_UUID(p.orderId), V_MONEY(p.cost), V_TEXT(p.status)), &result));
  return result.affected ? reply_object(req, 200, payment_fields, &p) : repeat_payment(req, p.id);
}

/* The tombstone comes before the refund, so that a payment that passes Billing in between finds it. */
static int cancel_payment(Req *req, void *in) {
  const Step *step = in;
  Uuid saga;
  TRY(req_uuid(req, 0, &saga));
  Uuid id = uuid_child(saga, SAGA_PAYMENT);
  TRY(req_query(req, DB_STMT(&cancel_once, V_UUID(id), V_UUID(step->orderId), V_MONEY(step->cost)), NULL));
  if (!uuid_is_nil(step->billingId))
    TRY(call_billing(req, saga, "refund", step));
  return reply_status(req, true);
}

static const Route routes[] = {
    {.method = "POST",
     .path = "/payment/payment",
     .handler = create_payment,
     ROUTE_BODY(payment_fields, Payment),
     .flags = ROUTE_KEYED},
    {.method = "GET", .path = "/payment/payment/{id}", .handler = get_payment},
    {.method = "PUT", .path = "/payment/payment/{id}", .handler = put_payment, ROUTE_BODY(payment_fields, Payment)},
    {.method = "DELETE", .path = "/payment/payment/{id}", .handler = remove_payment},
    {.method = "PUT", .path = "/payment/step/{saga}", .handler = pay, ROUTE_BODY(step_fields, Step)},
    {.method = "PUT", .path = "/payment/step/{saga}/cancel", .handler = cancel_payment, ROUTE_BODY(step_fields, Step)},
    {0},
};

const ServiceDef payment_service = {
    .name = "payment", .schema = "payment", .migrations = sql_payment, .routes = routes};

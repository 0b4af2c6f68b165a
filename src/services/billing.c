/* Billing: accounts and their wallets. Each operation leaves one row in history_billings, in the same transaction as
 * the change of the wallet; change data capture publishes that table. */
#include "http/span.h"
#include "metrics/metrics.h"
#include "rt/random.h"
#include "service/idempotency.h"
#include "service/req.h"
#include "services/services.h"
#include "sql.h"

/* uuid_child numbers of a saga's operations: their rows in billing.step. */
enum { SAGA_OPEN = 1, SAGA_BUY = 2 };

typedef struct Account {
  Uuid id;
  Money wallet;
} Account;

typedef struct OpenStep {
  Uuid billingId;
} OpenStep;

typedef struct BuyStep {
  Uuid billingId;
  Money sum;
} BuyStep;

static const Field account_fields[] = {
    FIELD(Account, id, F_UUID, .flags = FIELD_OUT),
    FIELD(Account, wallet, F_MONEY, .flags = FIELD_OPTIONAL, .min = 0, .max = MONEY_MAX),
    {0},
};

static const Field open_fields[] = {FIELD(OpenStep, billingId, F_UUID), {0}};

static const Field buy_fields[] = {
    FIELD(BuyStep, billingId, F_UUID),
    FIELD(BuyStep, sum, F_MONEY, .min = 1, .max = MONEY_MAX),
    {0},
};

#define INSERT_HISTORY                                                                                                 \
  "INSERT INTO billing.history_billings "                                                                              \
  "(id, billing_id, sum, last_value_wallet, current_value_wallet, type_operation, status, traceparent) "

static const Sql select_account = {"SELECT id, wallet FROM billing.accounts WHERE id = $1"};
static const Sql delete_account = {"DELETE FROM billing.accounts WHERE id = $1 RETURNING 1"};
static const Sql create_with_history = {
    "WITH account AS (INSERT INTO billing.accounts (id, wallet) VALUES ($1, $2) RETURNING id, wallet) " INSERT_HISTORY
    "SELECT $3::uuid, id, wallet, 0, wallet, 'CREATE', 'SUCCESS', $4::text FROM account"};
/* $4: the maximum that the wallet may hold before, so that the result can be stored. */
static const Sql refill_with_history = {
    "WITH account AS (UPDATE billing.accounts SET wallet = wallet + $2 WHERE id = $1 AND wallet <= $4 "
    "  RETURNING id, wallet) " INSERT_HISTORY
    "SELECT $3::uuid, id, $2, wallet - $2, wallet, 'REFILL', 'SUCCESS', $5::text FROM account"};
/* Nothing was done, so the key is not kept and may be reused. */
static const Sql forget_refused_key = {"DELETE FROM billing.idempotency WHERE key = $1 "
                                       "AND NOT EXISTS (SELECT FROM billing.history_billings WHERE id = $2)"};

/* Locks the account before it decides. The new values are computed from the locked row. The row in the statement's
 * snapshot may be older, and a CHECK would be evaluated on that one first. */
static const Sql buy_with_history = {
    "WITH account AS (SELECT wallet, wallet >= $2::numeric AS enough FROM billing.accounts WHERE id = $1 FOR UPDATE), "
    "taken AS (UPDATE billing.accounts a SET wallet = account.wallet - $2::numeric FROM account "
    "  WHERE a.id = $1 AND account.enough) " INSERT_HISTORY
    "SELECT $3::uuid, $1, $2::numeric, wallet, CASE WHEN enough THEN wallet - $2::numeric ELSE wallet END, 'BUY', "
    "  CASE WHEN enough THEN 'SUCCESS' ELSE 'FAILED' END, $4::text FROM account"};
static const Sql select_outcome = {
    "SELECT CASE WHEN EXISTS (SELECT FROM billing.history_billings WHERE id = $1 AND status = 'SUCCESS') "
    "THEN '{\"status\":true}' ELSE '{\"status\":false}' END"};

/* A saga's operations are insert-first on billing.step. They return no row if the step's row already existed. */
static const Sql open_once = {
    "WITH step AS (INSERT INTO billing.step (id, billing_id, sum, state) SELECT $1::uuid, $2::uuid, 0, "
    "    CASE WHEN EXISTS (SELECT FROM billing.accounts WHERE id = $2::uuid) THEN 'EXISTS' ELSE 'OPEN' END "
    "  ON CONFLICT (id) DO NOTHING RETURNING billing_id, state), "
    "account AS (INSERT INTO billing.accounts (id, wallet) SELECT billing_id, 0 FROM step WHERE state = 'OPEN' "
    "  RETURNING id), "
    "history AS (" INSERT_HISTORY "SELECT $3::uuid, id, 0, 0, 0, 'CREATE', 'SUCCESS', $4::text FROM account) "
    "SELECT state FROM step"};
static const Sql buy_once = {
    "WITH account AS (SELECT wallet FROM billing.accounts WHERE id = $2 FOR UPDATE), "
    "step AS (INSERT INTO billing.step (id, billing_id, sum, state) SELECT $1::uuid, $2, $3::numeric, "
    "    CASE WHEN (SELECT wallet FROM account) >= $3::numeric THEN 'TAKEN' "
    "      WHEN EXISTS (SELECT FROM account) THEN 'SHORT' ELSE 'MISSING' END "
    "  ON CONFLICT (id) DO NOTHING RETURNING state), "
    "taken AS (UPDATE billing.accounts a SET wallet = account.wallet - $3::numeric FROM account, step "
    "  WHERE a.id = $2 AND step.state = 'TAKEN'), "
    "history AS (" INSERT_HISTORY "SELECT $4::uuid, $2, $3::numeric, wallet, "
    "    CASE state WHEN 'TAKEN' THEN wallet - $3::numeric ELSE wallet END, 'BUY', "
    "    CASE state WHEN 'TAKEN' THEN 'SUCCESS' ELSE 'FAILED' END, $5::text FROM account, step) "
    "SELECT state FROM step"};
static const Sql select_state = {"SELECT state FROM billing.step WHERE id = $1"};

/* Waits for an uncommitted operation. If there is none, it leaves a tombstone, by which a late operation is refused. */
static const Sql insert_tombstone = {"INSERT INTO billing.step (id, billing_id, sum, state) "
                                     "VALUES ($1, $2, $3, 'CANCELED') ON CONFLICT (id) DO NOTHING"};
static const Sql close_opened = {
    "WITH step AS (UPDATE billing.step SET state = 'CANCELED' WHERE id = $1 AND state = 'OPEN' RETURNING billing_id) "
    "DELETE FROM billing.accounts a USING step WHERE a.id = step.billing_id"};
static const Sql refund_taken = {
    "WITH step AS (UPDATE billing.step SET state = 'CANCELED' WHERE id = $1 AND state = 'TAKEN' "
    "  RETURNING billing_id, sum), "
    "account AS (UPDATE billing.accounts a SET wallet = a.wallet + step.sum FROM step WHERE a.id = step.billing_id "
    "  RETURNING a.id, a.wallet, step.sum) " INSERT_HISTORY
    "SELECT $2::uuid, id, sum, wallet - sum, wallet, 'REFUND', 'SUCCESS', $3::text FROM account"};

/* For the operation's history row, so that its readers continue the trace. */
static DbValue own_trace(const Req *req) {
  char text[TRACEPARENT_TEXT];
  return V_TEXT(span_traceparent(text) ? arena_str(req->arena, str_from(text)) : (Str){0});
}

static struct { Metric *created, *refilled, *bought, *short_of, *refunded; } operations;

static Metric *operation_metric(const char *labels) {
  return metric_new(METRIC_COUNTER, "skald_wallet_operations_total", "Rows written to Billing's history.", labels);
}

static void prepare(Service *s) {
  (void)s;
  operations.created = operation_metric("operation=\"create\",outcome=\"success\"");
  operations.refilled = operation_metric("operation=\"refill\",outcome=\"success\"");
  operations.bought = operation_metric("operation=\"buy\",outcome=\"success\"");
  operations.short_of = operation_metric("operation=\"buy\",outcome=\"failed\"");
  operations.refunded = operation_metric("operation=\"refund\",outcome=\"success\"");
}

static int create_account(Req *req, void *in) {
  Account *a = in;
  a->id = uuid_new();
  reply_object(req, 200, account_fields, a);
  const DbStmt create =
      DB_STMT(&create_with_history, V_UUID(a->id), V_MONEY(a->wallet), V_UUID(uuid_new()), own_trace(req));
  int rc = idempotency_commit(req, &create, 1, NULL);
  if (rc == 0)
    metric_add(operations.created, 1);
  return rc;
}

static int get_account(Req *req, void *in) {
  (void)in;
  Uuid id;
  Account a;
  TRY(req_uuid(req, 0, &id));
  TRY(req_row(req, DB_STMT(&select_account, V_UUID(id)), account_fields, &a));
  return reply_object(req, 200, account_fields, &a);
}

static int remove_account(Req *req, void *in) {
  (void)in;
  Uuid id;
  TRY(req_uuid(req, 0, &id));
  return req_touch(req, DB_STMT(&delete_account, V_UUID(id)));
}

static int refuse_refill(Req *req, Uuid account) {
  DbResult found;
  TRY(req_query(req, DB_STMT(&select_account, V_UUID(account)), &found));
  return found.rows ? fail(req, E_RANGE, NULL, "the wallet cannot hold that much") : reply_status(req, false);
}

static int refill(Req *req, void *in) {
  (void)in;
  Uuid account, history = uuid_new();
  Money sum;
  DbResult results[2];
  TRY(req_uuid(req, 0, &account));
  TRY(req_money(req, 1, &sum));
  reply_status(req, true);
  const DbStmt statements[] = {
      db_hot(account, DB_STMT(&refill_with_history, V_UUID(account), V_MONEY(sum), V_UUID(history),
                              V_MONEY(MONEY_MAX - sum), own_trace(req))),
      DB_STMT(&forget_refused_key, V_TEXT(req->key), V_UUID(history)),
  };
  int rc = idempotency_commit(req, statements, req->key.p ? 2 : 1, results);
  if (rc != 0)
    return rc;
  if (!results[0].affected)
    return refuse_refill(req, account);
  metric_add(operations.refilled, 1);
  return 0;
}

static int buy(Req *req, void *in) {
  (void)in;
  Uuid account, history = uuid_new();
  Money sum;
  TRY(req_uuid(req, 0, &account));
  TRY(req_money(req, 1, &sum));
  DbResult row;
  DbStmt take =
      db_hot(account, DB_STMT(&buy_with_history, V_UUID(account), V_MONEY(sum), V_UUID(history), own_trace(req)));
  int rc = idempotency_commit_response(req, &take, 1, DB_STMT(&select_outcome, V_UUID(history)), &row);
  if (rc == 0 && row.affected)
    metric_add(str_eq(req->reply->body, STR("{\"status\":true}")) ? operations.bought : operations.short_of, 1);
  return rc;
}

static void count_once(Str state) {
  if (str_eq(state, STR("OPEN")))
    metric_add(operations.created, 1);
  else if (str_eq(state, STR("TAKEN")))
    metric_add(operations.bought, 1);
  else if (str_eq(state, STR("SHORT")))
    metric_add(operations.short_of, 1);
}

/* Runs a saga's operation and returns the step's state, old or new. */
static int once(Req *req, DbStmt statement, Uuid step, Str *ret_state) {
  DbResult result;
  TRY(req_query(req, statement, &result));
  if (result.rows)
    count_once(db_cell(&result, 0, 0));
  else
    TRY(req_query(req, DB_STMT(&select_state, V_UUID(step)), &result));
  *ret_state = result.rows ? db_cell(&result, 0, 0) : STR("CANCELED");
  return 0;
}

static int refuse(Req *req, Str state) {
  if (str_eq(state, STR("SHORT")))
    return fail(req, E_REFUSED, NULL, "the wallet holds too little");
  if (str_eq(state, STR("MISSING")))
    return fail(req, E_REFUSED, "/billingId", "there is no such account");
  if (str_eq(state, STR("EXISTS")))
    return fail(req, E_REFUSED, "/billingId", "there is such an account already");
  return fail(req, E_REFUSED, NULL, "the operation was canceled before");
}

static int open_account(Req *req, void *in) {
  const OpenStep *step = in;
  Uuid saga;
  Str state;
  TRY(req_uuid(req, 0, &saga));
  Uuid id = uuid_child(saga, SAGA_OPEN);
  TRY(once(req, DB_STMT(&open_once, V_UUID(id), V_UUID(step->billingId), V_UUID(uuid_new()), own_trace(req)), id,
           &state));
  if (!str_eq(state, STR("OPEN")))
    return refuse(req, state);
  return reply_object(req, 200, account_fields, &(Account){.id = step->billingId});
}

static int buy_step(Req *req, void *in) {
  const BuyStep *step = in;
  Uuid saga;
  Str state;
  TRY(req_uuid(req, 0, &saga));
  Uuid id = uuid_child(saga, SAGA_BUY);
  DbStmt take = db_hot(step->billingId, DB_STMT(&buy_once, V_UUID(id), V_UUID(step->billingId), V_MONEY(step->sum),
                                                V_UUID(uuid_new()), own_trace(req)));
  TRY(once(req, take, id, &state));
  return str_eq(state, STR("TAKEN")) ? reply_status(req, true) : refuse(req, state);
}

static int cancel(Req *req, Uuid step, Uuid account, Money sum, DbStmt compensation) {
  const DbStmt statements[] = {DB_STMT(&insert_tombstone, V_UUID(step), V_UUID(account), V_MONEY(sum)),
                               db_hot(account, compensation)};
  DbResult results[2];
  TRY(db_group(req->db, req->arena, statements, 2, results, req->http->deadline_us));
  if (compensation.sql == &refund_taken && results[1].affected)
    metric_add(operations.refunded, 1);
  return reply_status(req, true);
}

static int close_account(Req *req, void *in) {
  const OpenStep *step = in;
  Uuid saga;
  TRY(req_uuid(req, 0, &saga));
  Uuid id = uuid_child(saga, SAGA_OPEN);
  return cancel(req, id, step->billingId, 0, DB_STMT(&close_opened, V_UUID(id)));
}

static int refund(Req *req, void *in) {
  const BuyStep *step = in;
  Uuid saga;
  TRY(req_uuid(req, 0, &saga));
  Uuid id = uuid_child(saga, SAGA_BUY);
  return cancel(req, id, step->billingId, step->sum,
                DB_STMT(&refund_taken, V_UUID(id), V_UUID(uuid_new()), own_trace(req)));
}

static const Route routes[] = {
    {.method = "POST",
     .path = "/billing/billing",
     .handler = create_account,
     ROUTE_BODY(account_fields, Account),
     .flags = ROUTE_KEYED},
    {.method = "GET", .path = "/billing/billing/{id}", .handler = get_account},
    {.method = "DELETE", .path = "/billing/billing/{id}", .handler = remove_account},
    {.method = "PUT", .path = "/billing/billing/refill/{id}/{sum}", .handler = refill, .flags = ROUTE_KEYED},
    {.method = "PUT", .path = "/billing/billing/{id}/{sum}", .handler = buy, .flags = ROUTE_KEYED},
    {.method = "PUT", .path = "/billing/step/{saga}/open", .handler = open_account, ROUTE_BODY(open_fields, OpenStep)},
    {.method = "PUT",
     .path = "/billing/step/{saga}/close",
     .handler = close_account,
     ROUTE_BODY(open_fields, OpenStep)},
    {.method = "PUT", .path = "/billing/step/{saga}/buy", .handler = buy_step, ROUTE_BODY(buy_fields, BuyStep)},
    {.method = "PUT", .path = "/billing/step/{saga}/refund", .handler = refund, ROUTE_BODY(buy_fields, BuyStep)},
    {0},
};

const ServiceDef billing_service = {
    .name = "billing", .schema = "billing", .migrations = sql_billing, .routes = routes, .prepare = prepare};

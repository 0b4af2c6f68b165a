/* Compares orders with payments, reservations, deliveries and wallets. They are in separate databases and only Order
 * has an index by order. So each is read once, sorted by order, and the sorted streams are merged. What a participant
 * holds for an order is turned into text. It must equal the expected text if the order succeeded, and be absent if it
 * was canceled. Canceled rows hold nothing, so they are not read. */
#include "commands/audit/orders.h"

#include "base/uuid.h"
#include "db/array.h"

enum { SAGA_BUY = 2 }; /* uuid_child number of a saga's row in billing.step */

enum { PAYMENT, WAREHOUSE, DELIVERY, PARTICIPANTS };

/* The lines are sorted, so that equal sets give equal texts. Items are JSON strings, so that they are unambiguous. */
#define LINES(line)                                                                                                    \
  "string_agg(" line ".amount || ' ' || to_json(" line ".item), ', ' ORDER BY " line ".item COLLATE \"C\", " line      \
  ".amount)"
#define PRICED_LINES(line)                                                                                             \
  "string_agg(" line ".amount || ' ' || to_json(" line ".item) || ' ' || " line ".price::numeric(38,2), ', ' "         \
  "ORDER BY " line ".item COLLATE \"C\", " line ".amount, " line ".price)"

static const char select_orders[] =
    "SELECT o.id, o.status, s.state, s.input::json->>'billingId', c.cost, c.lines FROM \"order\".orders o "
    "LEFT JOIN \"order\".saga s ON s.id = o.id "
    "LEFT JOIN (SELECT l.order_id, sum(l.amount * l.price)::text AS cost, " LINES(
        "l") " AS lines "
             "  FROM \"order\".contents l GROUP BY l.order_id) c ON c.order_id = o.id "
             "WHERE o.saga ORDER BY o.id";
enum { ORDER_ID, ORDER_STATUS, SAGA_STATE, SAGA_WALLET, ORDER_COST, ORDER_LINES };

/* Returns a row if the order's lines differ from the saga's input. Only a client can have changed them. */
static const char select_changed[] =
    "SELECT 1 FROM \"order\".saga s WHERE s.id = '%.*s' AND "
    "(SELECT " PRICED_LINES("l") " FROM \"order\".contents l WHERE l.order_id = s.id) IS DISTINCT FROM "
                                 "(SELECT " PRICED_LINES("l") " FROM json_to_recordset(s.input::json->'contents') "
                                                              "  AS l(item text, amount bigint, price numeric))";
static const char count_deleted[] = "SELECT count(*) FROM \"order\".saga s WHERE s.type = 'order' AND NOT EXISTS "
                                    "(SELECT FROM \"order\".orders o WHERE o.id = s.id)";

static const char select_taken[] = "SELECT wanted.n - 1, s.sum, s.billing_id FROM unnest('%.*s'::uuid[]) "
                                   "WITH ORDINALITY AS wanted(id, n) JOIN billing.step s ON s.id = wanted.id "
                                   "WHERE s.state = 'TAKEN'";

static const struct {
  int source;
  const char *what;   /* what is expected, in messages */
  const char *select; /* order id, what is held for it */
} participants[PARTICIPANTS] = {
    [PAYMENT] = {AUDIT_PAYMENT, "successful payment",
                 "SELECT order_id, string_agg(cost::text, ' and ' ORDER BY cost) FROM payment.payments "
                 "WHERE status = 'SUCCESS' GROUP BY order_id ORDER BY order_id"},
    [WAREHOUSE] = {AUDIT_WAREHOUSE, "reserved lines",
                   "SELECT r.order_id, " LINES(
                       "r") " FROM warehouse.reservations r WHERE r.status = 'RESERVED' GROUP BY r.order_id "
                            "ORDER BY r.order_id"},
    [DELIVERY] = {AUDIT_DELIVERY, "scheduled deliveries",
                  "SELECT order_id, count(*) FROM delivery.deliveries WHERE status = 'SCHEDULED' GROUP BY order_id "
                  "ORDER BY order_id"},
};

typedef struct Taken { /* what was taken from a wallet */
  Str sum, account;
} Taken;

typedef struct Problem {
  int rule;
  const char *what;
  Str expected, found;
} Problem;

typedef struct Orders {
  AuditSource *sources;
  AuditReport *report;
  AuditStream orders, held[PARTICIPANTS];
  Arena *arena; /* of a page of orders */
  Taken *taken; /* parallel to the page's rows */
  Problem problems[PARTICIPANTS + 3];
  int count; /* problems of the current order */
} Orders;

static void add_problem(Orders *o, int rule, const char *what, Str expected, Str found) {
  o->problems[o->count++] = (Problem){rule, what, expected, found};
}

static void expect(Orders *o, int rule, const char *what, Str expected, Str found) {
  bool equal = expected.p && found.p ? str_eq(expected, found) : !expected.p && !found.p;
  if (!equal)
    add_problem(o, rule, what, expected, found);
}

static int buy_ids(const Orders *o, Str *ret) {
  DbArray ids = db_array(o->arena);
  const DbResult *page = &o->orders.page;
  for (int i = 0; i < page->rows; i++) {
    Uuid saga;
    TRY(uuid_parse(db_cell(page, i, ORDER_ID), &saga));
    db_array_add(&ids, V_UUID(uuid_child(saga, SAGA_BUY)));
  }
  *ret = db_array_end(&ids).text;
  return 0;
}

/* The ids of Billing's steps are derived from the orders' ids but not in the same order, so they are read page by page.
 */
static int load_taken(Orders *o) {
  arena_reset(o->arena);
  o->taken = ARENA_ARRAY(o->arena, Taken, (size_t)o->orders.page.rows);
  DbResult found;
  Str ids;
  TRY(buy_ids(o, &ids));
  Str sql = arena_printf(o->arena, select_taken, STR_FMT(ids));
  TRY(audit_query(&o->sources[AUDIT_BILLING], sql.p, o->arena, &found));
  for (int i = 0; i < found.rows; i++) {
    int64_t at;
    TRY(str_to_int(db_cell(&found, i, 0), &at));
    o->taken[at] = (Taken){db_cell(&found, i, 1), db_cell(&found, i, 2)};
  }
  return 0;
}

/* The saga shows whether an order was paid from a wallet. After the saga was deleted, only the step itself does. */
static void check_wallet(Orders *o, bool success) {
  Taken taken = o->taken[o->orders.row];
  Str account = audit_stream_cell(&o->orders, SAGA_WALLET), none = {0};
  bool paid = success && (account.p || taken.account.p);
  expect(o, success ? 2 : 3, "taken from a wallet", paid ? audit_stream_cell(&o->orders, ORDER_COST) : none, taken.sum);
  if (paid && account.p && taken.account.p)
    expect(o, 2, "wallet", account, taken.account);
}

static int check_participants(Orders *o, bool success) {
  Str expected[PARTICIPANTS] = {[PAYMENT] = audit_stream_cell(&o->orders, ORDER_COST),
                                [WAREHOUSE] = audit_stream_cell(&o->orders, ORDER_LINES),
                                [DELIVERY] = STR("1")};
  for (int i = 0; i < PARTICIPANTS; i++) {
    Str found;
    TRY(audit_stream_seek(&o->held[i], audit_stream_cell(&o->orders, ORDER_ID), &found));
    expect(o, success ? 2 : 3, participants[i].what, success ? expected[i] : (Str){0}, found);
  }
  check_wallet(o, success);
  return 0;
}

/* The part of a text to print. An order has up to 500 lines, so texts may be long. */
static Str shown(Str text) {
  static const size_t max = 300;
  if (!text.p)
    return STR("none");
  if (text.n > max)
    text.n = max;
  while (text.n && !str_is_utf8(text))
    text.n--;
  return text;
}

static int is_changed(Orders *o) {
  DbResult found;
  Str sql = arena_printf(o->arena, select_changed, STR_FMT(audit_stream_cell(&o->orders, ORDER_ID)));
  TRY(audit_query(&o->sources[AUDIT_ORDER], sql.p, o->arena, &found));
  return found.rows;
}

static int report_problems(Orders *o) {
  if (o->count == 0)
    return 0;
  int changed = is_changed(o);
  TRY(changed);
  if (changed) {
    o->report->left_out++;
    return 0;
  }
  for (int i = 0; i < o->count; i++) {
    const Problem *p = &o->problems[i];
    Str expected = shown(p->expected), found = shown(p->found);
    audit_violation(o->report, p->rule, "order %.*s (%.*s): %s: expected %.*s, found %.*s",
                    STR_FMT(audit_stream_cell(&o->orders, ORDER_ID)),
                    STR_FMT(audit_stream_cell(&o->orders, ORDER_STATUS)), p->what, STR_FMT(expected), STR_FMT(found));
  }
  return 0;
}

static int check_order(Orders *o) {
  Str status = audit_stream_cell(&o->orders, ORDER_STATUS), state = audit_stream_cell(&o->orders, SAGA_STATE);
  bool success = str_eq(status, STR("SUCCESS")), canceled = str_eq(status, STR("CANCELED"));
  o->count = 0;
  o->report->orders++;
  if (str_eq(state, STR("RUNNING")) || str_eq(state, STR("COMPENSATING")) || str_eq(state, STR("PARKED")))
    return 0; /* sagas in flight and parked sagas are checked separately */
  if (!success && !canceled)
    add_problem(o, 1, "status", STR("SUCCESS or CANCELED"), status);
  else if (state.p)
    expect(o, 1, "saga", success ? STR("SUCCEEDED") : STR("COMPENSATED"), state);
  if (success || canceled)
    TRY(check_participants(o, success));
  return report_problems(o);
}

static int check_orders(Orders *o) {
  TRY(audit_stream_open(&o->orders, &o->sources[AUDIT_ORDER], select_orders));
  for (int i = 0; i < PARTICIPANTS; i++)
    TRY(audit_stream_open(&o->held[i], &o->sources[participants[i].source], participants[i].select));
  for (;;) {
    int more = audit_stream_next(&o->orders);
    if (more <= 0)
      return more;
    if (o->orders.row == 0)
      TRY(load_taken(o));
    TRY(check_order(o));
  }
}

static int count_deleted_orders(Orders *o) {
  DbResult found;
  int64_t deleted;
  TRY(audit_query(&o->sources[AUDIT_ORDER], count_deleted, o->arena, &found));
  TRY(str_to_int(db_cell(&found, 0, 0), &deleted));
  o->report->left_out += deleted;
  return 0;
}

int audit_orders(AuditSource *sources, AuditReport *report) {
  Orders o = {.sources = sources, .report = report, .arena = arena_new()};
  int rc = check_orders(&o);
  if (rc == 0)
    rc = count_deleted_orders(&o);
  audit_stream_close(&o.orders);
  for (int i = 0; i < PARTICIPANTS; i++)
    audit_stream_close(&o.held[i]);
  arena_free(o.arena);
  return rc;
}

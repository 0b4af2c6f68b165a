/* Warehouse: the lines of orders that are reserved. An item with a stock record can be reserved only while stock lasts;
 * one without is made to order and always available. */
#include "db/array.h"
#include "metrics/metrics.h"
#include "rt/random.h"
#include "service/idempotency.h"
#include "service/req.h"
#include "services/services.h"
#include "sql.h"

#include <string.h>

enum {
  SAGA_FIRST_LINE = 16, /* uuid_child number of a saga's first reservation */
  LINES_MAX = 500,
  ITEM_MAX = 200, /* bytes */
  AMOUNT_MAX = 1000000,
};

#define STOCK_MAX INT64_C(1000000000000)

typedef struct Reservation {
  Uuid id, orderId;
  Str item;
  int64_t amount; /* 0: not given */
  Str status;
} Reservation;

typedef struct Line {
  Str item;
  int64_t amount;
} Line;

typedef struct Step {
  Uuid orderId;
  List lines; /* of Line */
} Step;

typedef struct Stock {
  Str item;
  int64_t available, reserved;
} Stock;

static const char *const statuses[] = {"RESERVED", "CANCELED", NULL};

static const Field reservation_fields[] = {
    FIELD(Reservation, id, F_UUID, .flags = FIELD_OUT),
    FIELD(Reservation, orderId, F_UUID),
    FIELD(Reservation, item, F_TEXT, .min = 1, .max = ITEM_MAX),
    FIELD(Reservation, amount, F_INT, .flags = FIELD_OPTIONAL | FIELD_HIDDEN, .min = 1, .max = AMOUNT_MAX),
    FIELD(Reservation, status, F_TEXT, .values = statuses),
    {0},
};

static const Field line_fields[] = {
    FIELD(Line, item, F_TEXT, .flags = FIELD_STORED, .min = 1, .max = ITEM_MAX),
    FIELD(Line, amount, F_INT, .min = 1, .max = AMOUNT_MAX),
    {0},
};

static const Field step_fields[] = {
    FIELD(Step, orderId, F_UUID),
    FIELD(Step, lines, F_LIST, .min = 1, .max = LINES_MAX, .fields = line_fields, .size = sizeof(Line)),
    {0},
};

static const Field stock_fields[] = {
    FIELD(Stock, item, F_TEXT, .flags = FIELD_OUT),
    FIELD(Stock, available, F_INT, .min = 0, .max = STOCK_MAX),
    FIELD(Stock, reserved, F_INT, .flags = FIELD_OUT),
    {0},
};

static const Sql select_reservation = {
    "SELECT id, order_id, item, amount, status FROM warehouse.reservations WHERE id = $1"};

/* The common case, kept cheap: none of the items has a stock record. */
static const Sql reserve_made_to_order = {
    "INSERT INTO warehouse.reservations (id, order_id, item, amount, status, from_stock) "
    "SELECT l.id, $2, l.item, l.amount, 'RESERVED', false "
    "FROM unnest($1::uuid[], $3::text[], $4::integer[]) AS l(id, item, amount) "
    "WHERE NOT EXISTS (SELECT FROM warehouse.stock s WHERE s.item = ANY($3::text[])) "
    "ON CONFLICT (id) DO NOTHING"};

/* All lines or none. Locks the stock records in the items' order before it decides. The new values are computed from
 * the locked records. The rows in the statement's snapshot may be older, and a CHECK would be evaluated on those first.
 * If an item is short it returns that item's row, and with $6 the lines are stored as CANCELED, so that a repeated call
 * is refused as well. */
static const Sql reserve = {
    "WITH line AS (SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::integer[], $5::text[]) "
    "  AS l(id, order_id, item, amount, status)), "
    "wanted AS (SELECT item, sum(amount) AS amount FROM line WHERE status = 'RESERVED' GROUP BY item), "
    "held AS (SELECT item, available, reserved FROM warehouse.stock WHERE item IN (SELECT item FROM wanted) "
    "  ORDER BY item FOR UPDATE), "
    "short AS MATERIALIZED (SELECT item FROM held JOIN wanted USING (item) WHERE held.available < wanted.amount), "
    "added AS (INSERT INTO warehouse.reservations (id, order_id, item, amount, status, from_stock) "
    "  SELECT id, order_id, item, amount, CASE WHEN EXISTS (SELECT FROM short) THEN 'CANCELED' ELSE status END, "
    "    status = 'RESERVED' AND item IN (SELECT item FROM held) FROM line "
    "  WHERE $6 OR NOT EXISTS (SELECT FROM short) "
    "  ON CONFLICT (id) DO NOTHING RETURNING item, amount, status = 'RESERVED' AND from_stock AS takes), "
    "moved AS (UPDATE warehouse.stock s SET available = held.available - t.amount, "
    "  reserved = held.reserved + t.amount "
    "  FROM (SELECT item, sum(amount) AS amount FROM added WHERE takes GROUP BY item) t JOIN held USING (item) "
    "  WHERE s.item = t.item) "
    "SELECT item FROM short ORDER BY item"};
static const Sql count_reserved = {
    "SELECT count(*) FROM warehouse.reservations WHERE id = ANY($1::uuid[]) AND status = 'RESERVED'"};
/* Nothing was done, so the key is not kept and may be reused. */
static const Sql forget_refused_key = {"DELETE FROM warehouse.idempotency WHERE key = $1 "
                                       "AND NOT EXISTS (SELECT FROM warehouse.reservations WHERE id = $2)"};

/* Waits for uncommitted lines. If there are none, it leaves tombstones, by which late lines are refused. */
static const Sql insert_tombstones = {
    "INSERT INTO warehouse.reservations (id, order_id, item, amount, status, from_stock) "
    "SELECT l.id, $2, l.item, l.amount, 'CANCELED', false "
    "FROM unnest($1::uuid[], $3::text[], $4::integer[]) AS l(id, item, amount) "
    "ON CONFLICT (id) DO NOTHING"};
static const Sql cancel_reserved = {
    "WITH gone AS (UPDATE warehouse.reservations SET status = 'CANCELED' "
    "  WHERE id = ANY($1::uuid[]) AND status = 'RESERVED' RETURNING item, amount, from_stock), "
    "held AS (SELECT item, available, reserved FROM warehouse.stock "
    "  WHERE item IN (SELECT item FROM gone WHERE from_stock) ORDER BY item FOR UPDATE) "
    "UPDATE warehouse.stock s SET available = held.available + b.amount, reserved = held.reserved - b.amount "
    "FROM (SELECT item, sum(amount) AS amount FROM gone WHERE from_stock GROUP BY item) b JOIN held USING (item) "
    "WHERE s.item = b.item"};

/* A change is three statements. The locks come first, so that the snapshot of the last one shows rows that can no
 * longer change. That one releases what the row held and takes the new amount. */
static const Sql lock_reservation = {"SELECT FROM warehouse.reservations WHERE id = $1 FOR UPDATE"};
static const Sql lock_stock = {"SELECT FROM warehouse.stock WHERE item = $2 OR item = (SELECT item FROM "
                               "warehouse.reservations WHERE id = $1) ORDER BY item FOR UPDATE"};
static const Sql update_reservation = {
    "WITH old AS (SELECT item, amount, status = 'RESERVED' AND from_stock AS holds FROM warehouse.reservations "
    "  WHERE id = $1), "
    "new AS (SELECT coalesce(nullif($4::integer, 0), amount) AS amount FROM old), "
    "stock AS (SELECT s.available + CASE WHEN old.holds AND old.item = s.item THEN old.amount ELSE 0 END AS available "
    "  FROM warehouse.stock s, old WHERE s.item = $3 AND $5 = 'RESERVED'), "
    "done AS (UPDATE warehouse.reservations r SET order_id = $2, item = $3, amount = new.amount, status = $5, "
    "    from_stock = EXISTS (SELECT FROM stock) FROM new "
    "  WHERE r.id = $1 AND NOT EXISTS (SELECT FROM stock WHERE available < new.amount) "
    "  RETURNING r.item, r.amount, r.from_stock AS takes), "
    "delta AS (SELECT item, sum(amount) AS amount FROM (SELECT item, amount FROM done WHERE takes "
    "  UNION ALL SELECT item, -amount FROM old WHERE holds AND EXISTS (SELECT FROM done)) m GROUP BY item), "
    "moved AS (UPDATE warehouse.stock s SET available = s.available - delta.amount, "
    "  reserved = s.reserved + delta.amount FROM delta WHERE s.item = delta.item) "
    "SELECT EXISTS (SELECT FROM done) FROM old"};
static const Sql delete_reservation = {
    "WITH gone AS (DELETE FROM warehouse.reservations WHERE id = $1 RETURNING item, amount, "
    "  status = 'RESERVED' AND from_stock AS holds), "
    "held AS (SELECT item, available, reserved FROM warehouse.stock "
    "  WHERE item = (SELECT item FROM gone WHERE holds) FOR UPDATE), "
    "moved AS (UPDATE warehouse.stock s SET available = held.available + gone.amount, "
    "  reserved = held.reserved - gone.amount FROM gone JOIN held USING (item) WHERE s.item = gone.item) "
    "SELECT 1 FROM gone"};

static const Sql put_stock_record = {
    "INSERT INTO warehouse.stock (item, available) VALUES ($1, $2) ON CONFLICT (item) DO UPDATE "
    "SET available = excluded.available RETURNING item, available, reserved"};
static const Sql select_stock = {"SELECT item, available, reserved FROM warehouse.stock WHERE item = $1"};

/* One member of all reservations. */
static DbValue column(Arena *arena, List reservations, size_t offset, FieldType type) {
  DbArray array = db_array(arena);
  const Reservation *r = reservations.items;
  for (size_t i = 0; i < reservations.count; i++) {
    const void *member = (const char *)&r[i] + offset;
    if (type == F_UUID)
      db_array_add(&array, V_UUID(*(const Uuid *)member));
    else if (type == F_INT)
      db_array_add(&array, V_INT(*(const int64_t *)member));
    else
      db_array_add(&array, V_TEXT(*(const Str *)member));
  }
  return db_array_end(&array);
}

#define COLUMN(req, reservations, member, type) column((req)->arena, reservations, offsetof(Reservation, member), type)

/* Locks are taken in the items' order, so the first item is the key of the whole request. */
static Uuid contended(List reservations) {
  const Reservation *r = reservations.items;
  Str first = r->item;
  for (size_t i = 1; i < reservations.count; i++) {
    int order = memcmp(r[i].item.p, first.p, r[i].item.n < first.n ? r[i].item.n : first.n);
    if (order < 0 || (order == 0 && r[i].item.n < first.n))
      first = r[i].item;
  }
  uint64_t hash = str_hash(first);
  Uuid key = {0};
  memcpy(key.b, &hash, sizeof(hash));
  return key;
}

static DbStmt reserve_statement(Req *req, List reservations, bool keep_refusal) {
  DbValue *values = ARENA_ARRAY(req->arena, DbValue, 6);
  values[0] = COLUMN(req, reservations, id, F_UUID);
  values[1] = COLUMN(req, reservations, orderId, F_UUID);
  values[2] = COLUMN(req, reservations, item, F_TEXT);
  values[3] = COLUMN(req, reservations, amount, F_INT);
  values[4] = COLUMN(req, reservations, status, F_TEXT);
  values[5] = V_BOOL(keep_refusal);
  return (DbStmt){.sql = &reserve, .values = values, .count = 6, .hot_key = contended(reservations)};
}

static Metric *refusals;

static void prepare(Service *s) {
  (void)s;
  refusals =
      metric_new(METRIC_COUNTER, "skald_stock_refusals_total", "Reservations refused because stock was short.", "");
}

static int refuse_short(Req *req, Str item) {
  metric_add(refusals, 1);
  return fail(req, E_REFUSED, NULL, "not enough in stock: %.*s", STR_FMT(item));
}

static int create_reservations(Req *req, void *in) {
  const List *list = in;
  Reservation *r = list->items;
  DbResult results[2];
  for (size_t i = 0; i < list->count; i++) {
    r[i].id = uuid_new();
    r[i].amount = r[i].amount ? r[i].amount : 1;
  }
  reply_list(req, 200, reservation_fields, sizeof(*r), *list);
  const DbStmt statements[] = {
      reserve_statement(req, *list, false),
      DB_STMT(&forget_refused_key, V_TEXT(req->key), V_UUID(r->id)),
  };
  int rc = idempotency_commit(req, statements, req->key.p ? 2 : 1, results);
  if (rc != 0)
    return rc;
  return results[0].rows ? refuse_short(req, db_cell(&results[0], 0, 0)) : 0;
}

static int get_reservation(Req *req, void *in) {
  (void)in;
  Uuid id;
  Reservation r;
  TRY(req_uuid(req, 0, &id));
  TRY(req_row(req, DB_STMT(&select_reservation, V_UUID(id)), reservation_fields, &r));
  return reply_object(req, 200, reservation_fields, &r);
}

static int put_reservation(Req *req, void *in) {
  Reservation *r = in;
  DbResult results[3];
  TRY(req_uuid(req, 0, &r->id));
  const DbStmt statements[] = {
      DB_STMT(&lock_reservation, V_UUID(r->id)),
      db_hot(contended((List){r, 1}), DB_STMT(&lock_stock, V_UUID(r->id), V_TEXT(r->item))),
      DB_STMT(&update_reservation, V_UUID(r->id), V_UUID(r->orderId), V_TEXT(r->item), V_INT(r->amount),
              V_TEXT(r->status)),
  };
  TRY(db_group(req->db, req->arena, statements, 3, results, req->http->deadline_us));
  if (results[2].rows == 0)
    return reply_status(req, false);
  if (str_eq(db_cell(&results[2], 0, 0), STR("f")))
    return refuse_short(req, r->item);
  return reply_status(req, true);
}

static int remove_reservation(Req *req, void *in) {
  (void)in;
  Uuid id;
  TRY(req_uuid(req, 0, &id));
  return req_touch(req, DB_STMT(&delete_reservation, V_UUID(id)));
}

/* A saga's reservations: their ids follow from the saga, which makes the rows its barrier. */
static int saga_reservations(Req *req, const Step *step, List *ret) {
  Uuid saga;
  TRY(req_uuid(req, 0, &saga));
  Reservation *r = ARENA_ARRAY(req->arena, Reservation, step->lines.count);
  const Line *line = step->lines.items;
  for (size_t i = 0; i < step->lines.count; i++)
    r[i] = (Reservation){uuid_child(saga, SAGA_FIRST_LINE + (unsigned)i), step->orderId, line[i].item, line[i].amount,
                         STR("RESERVED")};
  *ret = (List){r, step->lines.count};
  return 0;
}

/* An item has a stock record, or the rows already existed. */
static int reserve_from_stock(Req *req, List reservations) {
  DbResult results[2];
  int64_t reserved = 0;
  const DbStmt statements[] = {
      reserve_statement(req, reservations, true),
      DB_STMT(&count_reserved, COLUMN(req, reservations, id, F_UUID)),
  };
  TRY(db_group(req->db, req->arena, statements, 2, results, req->http->deadline_us));
  TRY(str_to_int(db_cell(&results[1], 0, 0), &reserved));
  if ((size_t)reserved == reservations.count)
    return reply_list(req, 200, reservation_fields, sizeof(Reservation), reservations);
  if (results[0].rows == 0)
    return fail(req, E_REFUSED, NULL, "the reservation was refused or canceled before");
  return refuse_short(req, db_cell(&results[0], 0, 0));
}

static int reserve_lines(Req *req, void *in) {
  const Step *step = in;
  List list;
  DbResult result;
  TRY(saga_reservations(req, step, &list));
  TRY(req_query(req,
                DB_STMT(&reserve_made_to_order, COLUMN(req, list, id, F_UUID), V_UUID(step->orderId),
                        COLUMN(req, list, item, F_TEXT), COLUMN(req, list, amount, F_INT)),
                &result));
  if ((size_t)result.affected < list.count)
    return reserve_from_stock(req, list);
  return reply_list(req, 200, reservation_fields, sizeof(Reservation), list);
}

static int cancel_lines(Req *req, void *in) {
  const Step *step = in;
  List list;
  TRY(saga_reservations(req, step, &list));
  DbValue ids = COLUMN(req, list, id, F_UUID);
  const DbStmt statements[] = {
      DB_STMT(&insert_tombstones, ids, V_UUID(step->orderId), COLUMN(req, list, item, F_TEXT),
              COLUMN(req, list, amount, F_INT)),
      db_hot(contended(list), DB_STMT(&cancel_reserved, ids)),
  };
  TRY(db_group(req->db, req->arena, statements, 2, NULL, req->http->deadline_us));
  return reply_status(req, true);
}

static int path_item(Req *req, Str *ret) {
  Str item = req->params[0];
  if (item.n < 1 || item.n > ITEM_MAX || !str_is_utf8(item) || memchr(item.p, 0, item.n))
    return fail(req, E_MALFORMED, NULL, "an item's name has 1 to %d bytes of UTF-8", ITEM_MAX);
  *ret = item;
  return 0;
}

static int put_stock(Req *req, void *in) {
  Stock *stock = in;
  TRY(req_text(req, 0, ITEM_MAX, &stock->item));
  Uuid key = contended((List){&(Reservation){.item = stock->item}, 1});
  DbStmt put = db_hot(key, DB_STMT(&put_stock_record, V_TEXT(stock->item), V_INT(stock->available)));
  TRY(req_row(req, put, stock_fields, stock));
  return reply_object(req, 200, stock_fields, stock);
}

static int get_stock(Req *req, void *in) {
  (void)in;
  Stock stock;
  TRY(path_item(req, &stock.item));
  TRY(req_row(req, DB_STMT(&select_stock, V_TEXT(stock.item)), stock_fields, &stock));
  return reply_object(req, 200, stock_fields, &stock);
}

static const Route routes[] = {
    {.method = "POST",
     .path = "/warehouse/warehouse",
     .handler = create_reservations,
     ROUTE_BODY(reservation_fields, Reservation),
     .flags = ROUTE_KEYED | ROUTE_LIST},
    {.method = "GET", .path = "/warehouse/warehouse/{id}", .handler = get_reservation},
    {.method = "PUT",
     .path = "/warehouse/warehouse/{id}",
     .handler = put_reservation,
     ROUTE_BODY(reservation_fields, Reservation)},
    {.method = "DELETE", .path = "/warehouse/warehouse/{id}", .handler = remove_reservation},
    {.method = "PUT", .path = "/warehouse/step/{saga}", .handler = reserve_lines, ROUTE_BODY(step_fields, Step)},
    {.method = "PUT", .path = "/warehouse/step/{saga}/cancel", .handler = cancel_lines, ROUTE_BODY(step_fields, Step)},
    {.method = "PUT", .path = "/warehouse/stock/{item}", .handler = put_stock, ROUTE_BODY(stock_fields, Stock)},
    {.method = "GET", .path = "/warehouse/stock/{item}", .handler = get_stock},
    {0},
};

const ServiceDef warehouse_service = {
    .name = "warehouse", .schema = "warehouse", .migrations = sql_warehouse, .routes = routes, .prepare = prepare};

/* Delivery: the times at which orders are delivered. A time with a slot record has room for as many deliveries as its
 * capacity, a time without one for any number. Times are local times without a zone; "now" is in UTC. */
#include "metrics/metrics.h"
#include "rt/clock.h"
#include "rt/random.h"
#include "service/idempotency.h"
#include "service/req.h"
#include "services/services.h"
#include "sql.h"

#include <string.h>

enum { SAGA_DELIVERY = 2 }; /* uuid_child number of a saga's delivery */

#define CAPACITY_MAX INT64_C(1000000000)

typedef struct Delivery {
  Uuid id, orderId;
  LocalTime timeDelivery;
  Str status;
} Delivery;

typedef struct Step {
  Uuid orderId;
  LocalTime timeDelivery;
} Step;

typedef struct Slot {
  LocalTime timeDelivery;
  int64_t capacity, taken;
} Slot;

static const char *const statuses[] = {"SCHEDULED", "CANCELED", NULL};

static const Field delivery_fields[] = {
    FIELD(Delivery, id, F_UUID, .flags = FIELD_OUT),
    FIELD(Delivery, orderId, F_UUID),
    FIELD(Delivery, timeDelivery, F_TIME),
    FIELD(Delivery, status, F_TEXT, .values = statuses),
    {0},
};

static const Field step_fields[] = {
    FIELD(Step, orderId, F_UUID),
    FIELD(Step, timeDelivery, F_TIME),
    {0},
};

static const Field slot_fields[] = {
    FIELD(Slot, timeDelivery, F_TIME, .flags = FIELD_OUT),
    FIELD(Slot, capacity, F_INT, .min = 0, .max = CAPACITY_MAX),
    FIELD(Slot, taken, F_INT, .flags = FIELD_OUT),
    {0},
};

static const Sql select_delivery = {
    "SELECT id, order_id, time_delivery, status FROM delivery.deliveries WHERE id = $1"};

/* The common case, kept cheap: the time has no slot record. */
static const Sql schedule_unlimited = {
    "INSERT INTO delivery.deliveries (id, order_id, time_delivery, status, in_slot) "
    "SELECT $1::uuid, $2::uuid, $3::timestamp, 'SCHEDULED', false "
    "WHERE NOT EXISTS (SELECT FROM delivery.slots WHERE time_delivery = $3::timestamp) ON CONFLICT (id) DO NOTHING"};

/* Locks the slot before it decides. The new values are computed from the locked slot. The row in the statement's
 * snapshot may be older, and a CHECK would be evaluated on that one first. If the slot is full it returns a row, and
 * with $5 the delivery is stored as CANCELED, so that a repeated call is refused as well. */
static const Sql schedule = {
    "WITH slot AS (SELECT taken, taken < capacity AS free FROM delivery.slots "
    "  WHERE time_delivery = $3::timestamp AND $4::text = 'SCHEDULED' FOR UPDATE), "
    "busy AS MATERIALIZED (SELECT FROM slot WHERE NOT free), "
    "added AS (INSERT INTO delivery.deliveries (id, order_id, time_delivery, status, in_slot) "
    "  SELECT $1::uuid, $2::uuid, $3::timestamp, "
    "    CASE WHEN EXISTS (SELECT FROM busy) THEN 'CANCELED' ELSE $4::text END, EXISTS (SELECT FROM slot) "
    "  WHERE $5::boolean OR NOT EXISTS (SELECT FROM busy) "
    "  ON CONFLICT (id) DO NOTHING RETURNING status = 'SCHEDULED' AND in_slot AS takes), "
    "moved AS (UPDATE delivery.slots s SET taken = slot.taken + 1 FROM added, slot "
    "  WHERE added.takes AND s.time_delivery = $3::timestamp) "
    "SELECT true FROM busy"};
/* Nothing was done, so the key is not kept and may be reused. */
static const Sql forget_refused_key = {"DELETE FROM delivery.idempotency WHERE key = $1 "
                                       "AND NOT EXISTS (SELECT FROM delivery.deliveries WHERE id = $2)"};

/* Waits for an uncommitted delivery. If there is none, it leaves a tombstone, by which a late delivery is refused. */
static const Sql insert_tombstone = {"INSERT INTO delivery.deliveries (id, order_id, time_delivery, status, in_slot) "
                                     "VALUES ($1, $2, $3, 'CANCELED', false) ON CONFLICT (id) DO NOTHING"};
static const Sql cancel_scheduled = {
    "WITH gone AS (UPDATE delivery.deliveries SET status = 'CANCELED' WHERE id = $1 AND status = 'SCHEDULED' "
    "  RETURNING time_delivery, in_slot), "
    "slot AS (SELECT time_delivery, taken FROM delivery.slots "
    "  WHERE time_delivery = (SELECT time_delivery FROM gone WHERE in_slot) FOR UPDATE) "
    "UPDATE delivery.slots s SET taken = slot.taken - 1 FROM slot WHERE s.time_delivery = slot.time_delivery"};

/* A change is three statements. The locks come first, so that the snapshot of the last one shows rows that can no
 * longer change. That one releases the place that the row held and takes the new one. */
static const Sql lock_delivery = {"SELECT FROM delivery.deliveries WHERE id = $1 FOR UPDATE"};
static const Sql lock_slots = {
    "SELECT FROM delivery.slots WHERE time_delivery = $2 OR time_delivery = (SELECT time_delivery FROM "
    "delivery.deliveries WHERE id = $1) ORDER BY time_delivery FOR UPDATE"};
static const Sql update_delivery = {
    "WITH old AS (SELECT time_delivery, status = 'SCHEDULED' AND in_slot AS holds FROM delivery.deliveries "
    "  WHERE id = $1), "
    "slot AS (SELECT s.taken - CASE WHEN old.holds AND old.time_delivery = s.time_delivery THEN 1 ELSE 0 END "
    "    < s.capacity AS free "
    "  FROM delivery.slots s, old WHERE s.time_delivery = $3 AND $4 = 'SCHEDULED'), "
    "done AS (UPDATE delivery.deliveries SET order_id = $2, time_delivery = $3, status = $4, "
    "    in_slot = EXISTS (SELECT FROM slot) "
    "  WHERE id = $1 AND NOT EXISTS (SELECT FROM slot WHERE NOT free) RETURNING time_delivery, in_slot AS takes), "
    "delta AS (SELECT time_delivery, sum(places) AS places FROM (SELECT time_delivery, 1 AS places FROM done "
    "  WHERE takes UNION ALL SELECT time_delivery, -1 FROM old WHERE holds AND EXISTS (SELECT FROM done)) m "
    "  GROUP BY time_delivery), "
    "moved AS (UPDATE delivery.slots s SET taken = s.taken + delta.places FROM delta "
    "  WHERE s.time_delivery = delta.time_delivery) "
    "SELECT EXISTS (SELECT FROM done) FROM old"};
static const Sql delete_delivery = {"WITH gone AS (DELETE FROM delivery.deliveries WHERE id = $1 "
                                    "  RETURNING time_delivery, status = 'SCHEDULED' AND in_slot AS holds), "
                                    "slot AS (SELECT time_delivery, taken FROM delivery.slots "
                                    "  WHERE time_delivery = (SELECT time_delivery FROM gone WHERE holds) FOR UPDATE), "
                                    "moved AS (UPDATE delivery.slots s SET taken = slot.taken - 1 FROM slot "
                                    "  WHERE s.time_delivery = slot.time_delivery) "
                                    "SELECT 1 FROM gone"};

static const Sql put_slot_record = {
    "INSERT INTO delivery.slots AS s (time_delivery, capacity) VALUES ($1, $2) ON CONFLICT (time_delivery) DO UPDATE "
    "SET capacity = excluded.capacity WHERE s.taken <= excluded.capacity RETURNING time_delivery, capacity, taken"};
static const Sql select_slot = {"SELECT time_delivery, capacity, taken FROM delivery.slots WHERE time_delivery = $1"};

static Uuid contended(LocalTime time) {
  Uuid key = {0};
  memcpy(key.b, &time, sizeof(time));
  return key;
}

static bool is_future(LocalTime time) {
  return time > clock_unix_ms() * 1000;
}

static Metric *refused_past, *refused_full;

static void prepare(Service *s) {
  (void)s;
  const char *name = "skald_delivery_refusals_total", *help = "Deliveries refused, by reason.";
  refused_past = metric_new(METRIC_COUNTER, name, help, "reason=\"past\"");
  refused_full = metric_new(METRIC_COUNTER, name, help, "reason=\"full\"");
}

static int refuse_past(Req *req) {
  metric_add(refused_past, 1);
  return fail(req, E_FIELD, "/timeDelivery", "must lie in the future");
}

static int refuse_full(Req *req) {
  metric_add(refused_full, 1);
  return fail(req, E_REFUSED, NULL, "no delivery is free at this time");
}

static int create_delivery(Req *req, void *in) {
  Delivery *d = in;
  DbResult results[2];
  if (!is_future(d->timeDelivery))
    return refuse_past(req);
  d->id = uuid_new();
  reply_object(req, 200, delivery_fields, d);
  const DbStmt statements[] = {
      db_hot(contended(d->timeDelivery), DB_STMT(&schedule, V_UUID(d->id), V_UUID(d->orderId), V_TIME(d->timeDelivery),
                                                 V_TEXT(d->status), V_BOOL(false))),
      DB_STMT(&forget_refused_key, V_TEXT(req->key), V_UUID(d->id)),
  };
  int rc = idempotency_commit(req, statements, req->key.p ? 2 : 1, results);
  if (rc != 0)
    return rc;
  return results[0].rows ? refuse_full(req) : 0;
}

static int get_delivery(Req *req, void *in) {
  (void)in;
  Uuid id;
  Delivery d;
  TRY(req_uuid(req, 0, &id));
  TRY(req_row(req, DB_STMT(&select_delivery, V_UUID(id)), delivery_fields, &d));
  return reply_object(req, 200, delivery_fields, &d);
}

static int put_delivery(Req *req, void *in) {
  Delivery *d = in;
  DbResult results[3];
  TRY(req_uuid(req, 0, &d->id));
  if (str_eq(d->status, STR("SCHEDULED")) && !is_future(d->timeDelivery))
    return refuse_past(req);
  const DbStmt statements[] = {
      DB_STMT(&lock_delivery, V_UUID(d->id)),
      db_hot(contended(d->timeDelivery), DB_STMT(&lock_slots, V_UUID(d->id), V_TIME(d->timeDelivery))),
      DB_STMT(&update_delivery, V_UUID(d->id), V_UUID(d->orderId), V_TIME(d->timeDelivery), V_TEXT(d->status)),
  };
  TRY(db_group(req->db, req->arena, statements, 3, results, req->http->deadline_us));
  if (results[2].rows == 0)
    return reply_status(req, false);
  return str_eq(db_cell(&results[2], 0, 0), STR("f")) ? refuse_full(req) : reply_status(req, true);
}

static int remove_delivery(Req *req, void *in) {
  (void)in;
  Uuid id;
  TRY(req_uuid(req, 0, &id));
  return req_touch(req, DB_STMT(&delete_delivery, V_UUID(id)));
}

/* The time has a slot record, or the row already existed. */
static int schedule_in_slot(Req *req, const Delivery *d) {
  DbResult results[2];
  const DbStmt statements[] = {
      db_hot(contended(d->timeDelivery), DB_STMT(&schedule, V_UUID(d->id), V_UUID(d->orderId), V_TIME(d->timeDelivery),
                                                 V_TEXT(d->status), V_BOOL(true))),
      DB_STMT(&select_delivery, V_UUID(d->id)),
  };
  TRY(db_group(req->db, req->arena, statements, 2, results, req->http->deadline_us));
  Delivery kept = {0};
  if (results[1].rows)
    TRY(db_read_row(&results[1], 0, delivery_fields, &kept));
  if (str_eq(kept.status, STR("SCHEDULED")))
    return reply_object(req, 200, delivery_fields, &kept);
  return results[0].rows ? refuse_full(req) : fail(req, E_REFUSED, NULL, "the delivery was refused or canceled before");
}

/* A repeated call may arrive when the time has passed; it still gets the first response. */
static int repeat_delivery(Req *req, Uuid id) {
  Delivery d;
  int rc = req_row(req, DB_STMT(&select_delivery, V_UUID(id)), delivery_fields, &d);
  if (rc < 0 && rc != E_NOT_FOUND)
    return rc;
  if (rc == 0 && str_eq(d.status, STR("SCHEDULED")))
    return reply_object(req, 200, delivery_fields, &d);
  return refuse_past(req);
}

static int schedule_step(Req *req, void *in) {
  const Step *step = in;
  Uuid saga;
  DbResult result;
  TRY(req_uuid(req, 0, &saga));
  Delivery d = {uuid_child(saga, SAGA_DELIVERY), step->orderId, step->timeDelivery, STR("SCHEDULED")};
  if (!is_future(d.timeDelivery))
    return repeat_delivery(req, d.id);
  TRY(req_query(req, DB_STMT(&schedule_unlimited, V_UUID(d.id), V_UUID(d.orderId), V_TIME(d.timeDelivery)), &result));
  return result.affected ? reply_object(req, 200, delivery_fields, &d) : schedule_in_slot(req, &d);
}

static int cancel_step(Req *req, void *in) {
  const Step *step = in;
  Uuid saga;
  TRY(req_uuid(req, 0, &saga));
  Uuid id = uuid_child(saga, SAGA_DELIVERY);
  const DbStmt statements[] = {
      DB_STMT(&insert_tombstone, V_UUID(id), V_UUID(step->orderId), V_TIME(step->timeDelivery)),
      db_hot(contended(step->timeDelivery), DB_STMT(&cancel_scheduled, V_UUID(id))),
  };
  TRY(db_group(req->db, req->arena, statements, 2, NULL, req->http->deadline_us));
  return reply_status(req, true);
}

static int put_slot(Req *req, void *in) {
  Slot *slot = in;
  TRY(req_time(req, 0, &slot->timeDelivery));
  DbStmt put = DB_STMT(&put_slot_record, V_TIME(slot->timeDelivery), V_INT(slot->capacity));
  int rc = req_row(req, db_hot(contended(slot->timeDelivery), put), slot_fields, slot);
  if (rc == E_NOT_FOUND)
    return fail(req, E_CONFLICT, "/capacity", "more deliveries than this are scheduled");
  TRY(rc);
  return reply_object(req, 200, slot_fields, slot);
}

static int get_slot(Req *req, void *in) {
  (void)in;
  Slot slot;
  TRY(req_time(req, 0, &slot.timeDelivery));
  TRY(req_row(req, DB_STMT(&select_slot, V_TIME(slot.timeDelivery)), slot_fields, &slot));
  return reply_object(req, 200, slot_fields, &slot);
}

static const Route routes[] = {
    {.method = "POST",
     .path = "/delivery/delivery",
     .handler = create_delivery,
     ROUTE_BODY(delivery_fields, Delivery),
     .flags = ROUTE_KEYED},
    {.method = "GET", .path = "/delivery/delivery/{id}", .handler = get_delivery},
    {.method = "PUT",
     .path = "/delivery/delivery/{id}",
     .handler = put_delivery,
     ROUTE_BODY(delivery_fields, Delivery)},
    {.method = "DELETE", .path = "/delivery/delivery/{id}", .handler = remove_delivery},
    {.method = "PUT", .path = "/delivery/step/{saga}", .handler = schedule_step, ROUTE_BODY(step_fields, Step)},
    {.method = "PUT", .path = "/delivery/step/{saga}/cancel", .handler = cancel_step, ROUTE_BODY(step_fields, Step)},
    {.method = "PUT", .path = "/delivery/slot/{timeDelivery}", .handler = put_slot, ROUTE_BODY(slot_fields, Slot)},
    {.method = "GET", .path = "/delivery/slot/{timeDelivery}", .handler = get_slot},
    {0},
};

const ServiceDef delivery_service = {
    .name = "delivery", .schema = "delivery", .migrations = sql_delivery, .routes = routes, .prepare = prepare};

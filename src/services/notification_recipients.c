/* Users are looked up in the user service by their account's id. Pending recipients are looked up again in rounds; the
 * longer a row's user is missing, the less often. */
#include "services/notification_recipients.h"

#include "http/span.h"
#include "log/log.h"
#include "metrics/metrics.h"
#include "rt/clock.h"
#include "rt/fiber.h"
#include "service/service.h"
#include "json/json.h"

#include <stdlib.h>

#define CALL_US       (5 * SECONDS) /* for one call of the user service, or one statement */
#define CALLS_AT_ONCE 16
#define RETRY_US      (2 * SECONDS)       /* after a round that failed */
#define PACE_US       (20 * MILLISECONDS) /* between two rounds: a long backlog leaves room for others */
#define IDLE_US       (60 * SECONDS)      /* rows stored by another process are found this late at worst */

struct NotificationResolver {
  Service *service;
  Fiber *fiber;
  bool stored_pending; /* since the last round */
  bool user_down;      /* as last logged */
};

static Metric *pending_rows;

static const Field recipient_fields[] = {
    FIELD(Recipient, billingId, F_UUID),
    FIELD(Recipient, userId, F_UUID),
    FIELD(Recipient, email, F_TEXT),
    {0},
};

static const Sql select_due = {"SELECT DISTINCT billing_id FROM (SELECT billing_id FROM notification.notifications "
                               "WHERE address_at <= clock_timestamp() ORDER BY attempts, address_at LIMIT 64) AS due"};
static const Sql select_pending = {
    "SELECT count(*), (extract(epoch FROM min(address_at) - clock_timestamp()) * 1000000)::bigint "
    "FROM (SELECT address_at FROM notification.notifications WHERE address_at IS NOT NULL "
    "ORDER BY address_at LIMIT 1000) AS pending"};
/* $1: a list of recipient_fields. If the user was not found, only rows that are due are updated, and their wait is
 * doubled: from 20 ms to ten minutes, for an hour. If it was found, all rows of the account get it. */
static const Sql update_resolved = {
    "UPDATE notification.notifications AS n SET user_id = a.\"userId\", email = a.email, attempts = n.attempts + 1, "
    "address_at = CASE WHEN a.\"userId\" IS NULL AND n.created_at > now() - interval '1 hour' THEN clock_timestamp() + "
    "least(interval '20 ms' * power(2, least(n.attempts + 1, 15)), interval '10 min') END "
    "FROM json_to_recordset($1::json) AS a(\"billingId\" uuid, \"userId\" uuid, email text) "
    "WHERE n.billing_id = a.\"billingId\" AND n.user_id IS NULL "
    "AND (a.\"userId\" IS NOT NULL OR n.address_at <= clock_timestamp())"};

typedef struct User {
  Uuid id;
  Str email;
} User;

static const Field user_fields[] = {FIELD(User, id, F_UUID), FIELD(User, email, F_TEXT), {0}};

/* Only 404 means that there is no such user. After any other unexpected status the lookup is retried later. */
static int ask_user(Arena *arena, Recipient *recipient) {
  char id[UUID_TEXT];
  uuid_format(recipient->billingId, id);
  SCOPED_ARENA scratch = arena_new();
  HttpRequest call = {.arena = scratch,
                      .method = STR("GET"),
                      .path = arena_printf(scratch, "/user/user/billing_id/%s", id),
                      .deadline_us = clock_now_us() + CALL_US};
  HttpReply reply = {0};
  TRY(service_call("user", &call, &reply));
  if (reply.status == 200) {
    User user = {0};
    TRY(json_read(scratch, reply.body, user_fields, &user, NULL));
    recipient->userId = user.id;
    recipient->email = arena_str(arena, user.email);
  } else if (reply.status != 404) {
    return E_UNAVAILABLE;
  }
  recipient->looked_up = true;
  return E_OK;
}

typedef struct Lookup { /* shared by the fibers that process it */
  Arena *arena;
  Recipient *recipients;
  int count, next;
  int helpers;
  int error;
  Fiber *owner;
} Lookup;

static void look_up_rest(Lookup *l) {
  FiberContext own = *fiber_context();
  while (l->next < l->count && l->error == E_OK) {
    Recipient *recipient = &l->recipients[l->next++];
    span_receive(recipient->traceparent);
    int rc = recipient->looked_up ? E_OK : ask_user(l->arena, recipient);
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

int notification_recipients_look_up(Arena *arena, Recipient *recipients, int count) {
  Lookup l = {.arena = arena, .recipients = recipients, .count = count, .owner = fiber_current()};
  while (l.helpers < CALLS_AT_ONCE - 1 && l.helpers < count - 1 && fiber_start("user look-up", help_look_up, &l))
    l.helpers++;
  look_up_rest(&l);
  while (l.helpers > 0 && l.error != E_CANCELED)
    if (fiber_wait("user look-up", FIBER_FOREVER) == E_CANCELED)
      l.error = E_CANCELED; /* the helpers start no more lookups */
  while (l.helpers > 0)     /* they use this stack */
    fiber_wait_uncancelable("user look-up", FIBER_FOREVER);
  return l.error;
}

static int read_due(Arena *arena, const DbResult *due, Recipient **ret) {
  Recipient *recipients = ARENA_ARRAY(arena, Recipient, (size_t)due->rows + 1);
  for (int i = 0; i < due->rows; i++)
    TRY(uuid_parse(db_cell(due, i, 0), &recipients[i].billingId));
  *ret = recipients;
  return due->rows;
}

/* How long until the next row is due, in *ret_wait_us. */
static int read_pending(const DbResult *pending, int64_t *ret_wait_us) {
  int64_t count = 0, next_us = IDLE_US;
  TRY(str_to_int(db_cell(pending, 0, 0), &count));
  if (count > 0)
    TRY(str_to_int(db_cell(pending, 0, 1), &next_us));
  metric_set(pending_rows, (double)count);
  *ret_wait_us = next_us < 0 ? 0 : next_us < IDLE_US ? next_us : IDLE_US;
  return E_OK;
}

/* One round: looks up the users of the rows that are due. */
static int resolve_due(NotificationResolver *r, int64_t *ret_wait_us) {
  SCOPED_ARENA arena = arena_new();
  Db *db = r->service->db;
  const DbStmt statements[] = {{.sql = &select_due}, {.sql = &select_pending}};
  DbResult results[2];
  TRY(db_group(db, arena, statements, 2, results, clock_now_us() + CALL_US));
  int64_t wait_us = 0;
  TRY(read_pending(&results[1], &wait_us));
  Recipient *recipients = NULL;
  int count = read_due(arena, &results[0], &recipients);
  TRY(count);
  if (count > 0) {
    TRY(notification_recipients_look_up(arena, recipients, count));
    Buf json = {.arena = arena};
    json_write_list(&json, recipient_fields, sizeof(Recipient), (List){recipients, (size_t)count});
    TRY(db_exec(db, arena, DB_STMT(&update_resolved, V_TEXT(buf_view(&json))), NULL, clock_now_us() + CALL_US));
    wait_us = 0;
  }
  *ret_wait_us = wait_us;
  return E_OK;
}

static void log_outcome(NotificationResolver *r, int rc) {
  bool down = rc < 0;
  if (down && !r->user_down)
    LOG(WARN, "notification", "pending recipients cannot be looked up, retrying: %s", err_info(rc)->title);
  r->user_down = down;
}

/* After each round there is a fixed pause, then a wait that ends early if a new row is stored. */
static void resolve_pending(void *arg) {
  NotificationResolver *r = arg;
  for (int rc = E_OK; rc != E_CANCELED;) {
    r->stored_pending = false;
    int64_t wait_us = RETRY_US;
    rc = resolve_due(r, &wait_us);
    if (rc == E_CANCELED)
      return;
    log_outcome(r, rc);
    rc = fiber_sleep(PACE_US);
    if (rc == E_OK && !r->stored_pending && wait_us > PACE_US)
      rc = fiber_wait("pending recipients", clock_now_us() + wait_us - PACE_US);
  }
}

void notification_recipients_prepare(void) {
  pending_rows = metric_new(METRIC_GAUGE, "notification_unaddressed",
                            "Notifications waiting for their user to be known, counted up to 1000.", "");
}

NotificationResolver *notification_resolver_start(Service *s) {
  NotificationResolver *r = calloc(1, sizeof(*r));
  if (!r)
    die("out of memory");
  r->service = s;
  r->fiber = fiber_start("notification recipients", resolve_pending, r);
  if (!r->fiber)
    die("no fiber can be started");
  return r;
}

void notification_resolver_wake(NotificationResolver *r) {
  r->stored_pending = true;
  fiber_wake(r->fiber);
}

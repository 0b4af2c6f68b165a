/* User: the customers. A registration is a saga of one step, so that no user is left without a billing account, and no
 * account without its user. */
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

enum { BILLING_ACCOUNT = 1 }; /* uuid_child number of a user's account */

typedef struct User {
  Uuid id, billingId;
  Str name, email;
} User;

typedef struct Registration { /* the saga's input */
  User user;
  Str key;
} Registration;

static const Field user_fields[] = {
    FIELD(User, id, F_UUID, .flags = FIELD_OUT),
    FIELD(User, billingId, F_UUID, .flags = FIELD_OUT),
    FIELD(User, name, F_TEXT, .min = 1, .max = 200),
    FIELD(User, email, F_TEXT, .flags = FIELD_EMAIL, .min = 3, .max = 320),
    {0},
};

static const Field registration_fields[] = {
    {.name = "id", .type = F_UUID, .offset = offsetof(Registration, user.id)},
    {.name = "billingId", .type = F_UUID, .offset = offsetof(Registration, user.billingId)},
    {.name = "name", .type = F_TEXT, .offset = offsetof(Registration, user.name)},
    {.name = "email", .type = F_TEXT, .offset = offsetof(Registration, user.email)},
    {.name = "key", .type = F_TEXT, .offset = offsetof(Registration, key), .flags = FIELD_OPTIONAL},
    {0},
};

static const Sql insert_user = {
    "INSERT INTO \"user\".users (id, billing_id, name, email, registered) VALUES ($1, $2, $3, $4, false)"};
static const Sql complete_user = {"UPDATE \"user\".users SET registered = true WHERE id = $1"};
static const Sql forget_user = {"DELETE FROM \"user\".users WHERE id = $1 AND NOT registered"};
static const Sql select_user = {"SELECT id, billing_id, name, email FROM \"user\".users WHERE id = $1 AND registered"};
static const Sql select_by_billing = {
    "SELECT id, billing_id, name, email FROM \"user\".users WHERE billing_id = $1 AND registered"};
static const Sql update_user = {
    "UPDATE \"user\".users SET name = $2, email = $3 WHERE id = $1 AND registered RETURNING 1"};
static const Sql delete_user = {"DELETE FROM \"user\".users WHERE id = $1 AND registered RETURNING 1"};

static int load_registration(SagaRun *run) {
  run->data = ARENA_NEW(run->arena, Registration);
  return json_read(run->arena, run->input, registration_fields, run->data, NULL);
}

static int account_call(const SagaRun *run, const char *operation, SagaCall *call) {
  const Registration *r = run->data;
  char id[UUID_TEXT], account[UUID_TEXT];
  uuid_format(run->id, id);
  uuid_format(r->user.billingId, account);
  call->service = "billing";
  call->path = arena_printf(call->arena, "/billing/step/%s/%s", id, operation);
  call->body = arena_printf(call->arena, "{\"billingId\":\"%s\"}", account);
  return 0;
}

static int open_account(const SagaRun *run, SagaCall *call) {
  return account_call(run, "open", call);
}

static int close_account(const SagaRun *run, SagaCall *call) {
  return account_call(run, "close", call);
}

static int finish_registration(const SagaRun *run, bool success, DbStmt *statements) {
  const Registration *r = run->data;
  DbValue *id = arena_copy(run->arena, &V_UUID(run->id), sizeof(DbValue));
  statements[0] = (DbStmt){.sql = success ? &complete_user : &forget_user, .values = id, .count = 1};
  if (!r->key.p)
    return 1;
  Buf b = {.arena = run->arena};
  json_write(&b, user_fields, &r->user);
  if (success)
    statements[1] = idempotency_finish(service_find("user"), run->arena, r->key, 200, buf_view(&b));
  else
    statements[1] = idempotency_forget(service_find("user"), run->arena, r->key);
  return 2;
}

static const SagaStep registration_steps[] = {
    {.name = "billing",
     .kind = SAGA_COMPENSATABLE,
     .timeout_us = 5 * SECONDS,
     .forward = open_account,
     .compensate = close_account},
};

static const SagaType sagas[] = {
    {.name = "registration",
     .steps = registration_steps,
     .step_count = sizeof(registration_steps) / sizeof(registration_steps[0]),
     .load = load_registration,
     .finish = finish_registration,
     .subject = LOG_USER_ID},
    {0},
};

static int begin_registration(Req *req, const Registration *r, SagaRun *run) {
  const User *u = &r->user;
  DbStmt statements[2] = {
      DB_STMT(&insert_user, V_UUID(u->id), V_UUID(u->billingId), V_TEXT(u->name), V_TEXT(u->email))};
  int count = 1;
  if (r->key.p)
    statements[count++] = idempotency_insert(req, 0, (Str){0});
  int rc = saga_begin(run, statements, count, req->http->deadline_us);
  return rc == E_EXISTS ? idempotency_lost_race(req) : rc;
}

static int register_user(Req *req, void *in) {
  Registration r = {.user = *(User *)in, .key = req->key};
  r.user.id = uuid_new();
  r.user.billingId = uuid_child(r.user.id, BILLING_ACCOUNT);
  Buf input = {.arena = req->arena};
  json_write(&input, registration_fields, &r);
  SagaRun *run;
  TRY(saga_new(req->service->state, &sagas[0], r.user.id, buf_view(&input), &run));
  int rc = begin_registration(req, &r, run);
  if (rc == 0)
    rc = saga_wait(run, req->http->deadline_us);
  if (rc == 0 && run->state == SAGA_SUCCEEDED)
    reply_object(req, 200, user_fields, &r.user);
  else if (rc == 0)
    rc = fail(req, E_UNAVAILABLE, NULL, "the billing account could not be opened, so the user was not registered");
  else if (rc == E_FENCED && run->state == SAGA_PARKED)
    rc = fail(req, E_UNKNOWN, NULL, "the registration could not be compensated and waits for an operator");
  else if (rc == E_TIMEOUT || rc == E_FENCED)
    rc = fail(req, E_UNKNOWN, NULL, "the registration is still in progress; retry with the same Idempotency-Key");
  saga_release(run);
  return rc;
}

static int get_by(Req *req, const Sql *sql) {
  Uuid id;
  User u;
  TRY(req_uuid(req, 0, &id));
  TRY(req_row(req, DB_STMT(sql, V_UUID(id)), user_fields, &u));
  return reply_object(req, 200, user_fields, &u);
}

static int get_user(Req *req, void *in) {
  (void)in;
  return get_by(req, &select_user);
}

static int get_by_billing(Req *req, void *in) {
  (void)in;
  return get_by(req, &select_by_billing);
}

static int put_user(Req *req, void *in) {
  const User *u = in;
  Uuid id;
  TRY(req_uuid(req, 0, &id));
  return req_touch(req, DB_STMT(&update_user, V_UUID(id), V_TEXT(u->name), V_TEXT(u->email)));
}

static int remove_user(Req *req, void *in) {
  (void)in;
  Uuid id;
  TRY(req_uuid(req, 0, &id));
  return req_touch(req, DB_STMT(&delete_user, V_UUID(id)));
}

static const Route routes[] = {
    {.method = "POST",
     .path = "/user/user",
     .handler = register_user,
     ROUTE_BODY(user_fields, User),
     .flags = ROUTE_KEYED},
    {.method = "GET", .path = "/user/user/billing_id/{billingId}", .handler = get_by_billing},
    {.method = "GET", .path = "/user/user/{id}", .handler = get_user},
    {.method = "PUT", .path = "/user/user/{id}", .handler = put_user, ROUTE_BODY(user_fields, User)},
    {.method = "DELETE", .path = "/user/user/{id}", .handler = remove_user},
    {.method = "GET", .path = "/user/saga/{id}", .handler = saga_show},
    {.method = "GET", .path = "/user/saga", .handler = saga_list},
    {.method = "POST",
     .path = "/user/saga/{id}/retry",
     .handler = saga_retry,
     ROUTE_BODY(saga_remark_fields, SagaOperation),
     .flags = ROUTE_KEYED | ROUTE_BODY_OPTIONAL},
    {.method = "POST",
     .path = "/user/saga/{id}/cancel",
     .handler = saga_cancel,
     ROUTE_BODY(saga_remark_fields, SagaOperation),
     .flags = ROUTE_KEYED | ROUTE_BODY_OPTIONAL},
    {.method = "POST",
     .path = "/user/saga/{id}/skip",
     .handler = saga_skip,
     ROUTE_BODY(saga_skip_fields, SagaOperation),
     .flags = ROUTE_KEYED},
    {0},
};

static void prepare(Service *s) {
  s->state = saga_engine_new(s->def->schema, sagas, service_call);
}

static void start(Service *s, int worker) {
  saga_engine_start(s->state, s->db, worker);
}

static void stop(Service *s, int64_t deadline_us) {
  saga_engine_stop(s->state, deadline_us);
}

const ServiceDef user_service = {
    .name = "user",
    .schema = "\"user\"",
    .migrations = sql_user,
    .modules = {{.name = "saga", .old_name = "module 0", .sql = sql_saga}},
    .routes = routes,
    .prepare = prepare,
    .start = start,
    .stop = stop,
};

/* An operator's commands: guarded writes that make a saga due, whichever process runs it or none. The epoch they
 * raise fences that process, and the next one that claims what is due takes it over. */
#include "saga/operate.h"

#include "db/array.h"
#include "log/log.h"
#include "rt/random.h"
#include "saga/engine.h"
#include "saga/run.h"
#include "service/idempotency.h"
#include "json/text.h"

#define REASON_MAX   1000
#define OPERATOR_MAX 200

const Field saga_skip_fields[] = {
    FIELD(SagaOperation, step, F_TEXT, .min = 1, .max = 100),
    FIELD(SagaOperation, reason, F_TEXT, .min = 1, .max = REASON_MAX),
    {0},
};

const Field saga_remark_fields[] = {
    FIELD(SagaOperation, reason, F_TEXT, .flags = FIELD_OPTIONAL, .min = 1, .max = REASON_MAX),
    {0},
};

typedef struct Command {
  const char *action;
  const Sql *sql;
  bool beyond_pivot;                                         /* also of sagas that may not turn back */
  int (*refuse)(Req *req, SagaState state, Str parked_step); /* says why nothing was done */
} Command;

static const SagaStoreOperate *statements_of(const Req *req) {
  const SagaEngine *e = req->service->state;
  return saga_store_operate(e->store);
}

static bool has_pivot(const SagaType *type) {
  for (int i = 0; i < type->step_count; i++)
    if (type->steps[i].kind == SAGA_PIVOT)
      return true;
  return false;
}

/* Their names. Whether a pivot has been reached is nothing that a row could tell. */
static DbValue types_of(Req *req, bool with_pivot) {
  const SagaEngine *e = req->service->state;
  DbArray names = db_array(req->arena);
  for (const SagaType *t = e->types; t->name; t++)
    if (with_pivot || !has_pivot(t))
      db_array_add(&names, V_TEXT(str_from(t->name)));
  return db_array_end(&names);
}

static int operator_of(Req *req, Str *ret) {
  Str name = http_header(req->http, STR("x-operator"));
  if (name.n > OPERATOR_MAX || !str_is_utf8(name) || text_has_control(name) || (name.n && text_is_blank(name)))
    return fail(req, E_MALFORMED, NULL,
                "X-Operator must be a name in UTF-8, of at most %d bytes and without control characters", OPERATOR_MAX);
  *ret = name;
  return 0;
}

static int refuse(Req *req, const Command *command, const DbResult *look) {
  if (!look->rows)
    return E_NOT_FOUND;
  Str name = db_cell(look, 0, 0);
  for (int i = SAGA_RUNNING; i <= SAGA_PARKED; i++)
    if (str_eq(name, str_from(saga_state_name((SagaState)i))))
      return command->refuse(req, (SagaState)i, db_cell(look, 0, 1));
  return E_INTERNAL;
}

static int operate(Req *req, const Command *command, const SagaOperation *o) {
  const SagaStoreOperate *sql = statements_of(req);
  Uuid saga, trace = uuid_new();
  Str by = {0};
  DbResult results[3];
  TRY(req_uuid(req, 0, &saga));
  TRY(operator_of(req, &by));
  reply_status(req, true);
  const DbValue values[] = {V_UUID(trace),     V_UUID(saga), V_TEXT(str_from(command->action)),   V_TEXT(o->step),
                            V_TEXT(o->reason), V_TEXT(by),   types_of(req, command->beyond_pivot)};
  const DbStmt statements[] = {{.sql = command->sql, .values = values, .count = 7},
                               DB_STMT(&sql->look, V_UUID(saga)),
                               DB_STMT(&sql->forget, V_TEXT(req->key), V_UUID(trace))};
  int rc = idempotency_commit(req, statements, req->key.p ? 3 : 2, results);
  if (rc != 0)
    return rc;
  if (!results[0].affected)
    return refuse(req, command, &results[1]);
  LOG(INFO, "saga", "%s by an operator", command->action);
  return 0;
}

static int refuse_ended(Req *req, SagaState state) {
  return fail(req, E_CONFLICT, NULL, "the saga has ended: it is %s", saga_state_name(state));
}

static int refuse_going_on(Req *req, SagaState state, Str parked_step) {
  if (state == SAGA_SUCCEEDED || state == SAGA_COMPENSATED)
    return refuse_ended(req, state);
  if (state == SAGA_PARKED)
    return fail(req, E_CONFLICT, NULL, "the saga is parked at its step %.*s", STR_FMT(parked_step));
  return fail(req, E_CONFLICT, NULL, "the saga is not parked: it is %s, and goes on by itself", saga_state_name(state));
}

static int refuse_cancel(Req *req, SagaState state, Str parked_step) {
  (void)parked_step;
  if (state == SAGA_SUCCEEDED || state == SAGA_COMPENSATED)
    return refuse_ended(req, state);
  if (state == SAGA_COMPENSATING)
    return fail(req, E_CONFLICT, NULL, "the saga is being compensated already");
  if (state == SAGA_PARKED)
    return fail(req, E_CONFLICT, NULL, "the saga is parked: retry it, or skip the step it is parked at");
  return fail(req, E_CONFLICT, NULL, "the saga may have reached a step that cannot be compensated");
}

int saga_retry(Req *req, void *in) {
  const Command command = {
      .action = "retry", .sql = &statements_of(req)->resume, .beyond_pivot = true, .refuse = refuse_going_on};
  return operate(req, &command, in);
}

int saga_cancel(Req *req, void *in) {
  const Command command = {
      .action = "cancel", .sql = &statements_of(req)->cancel, .beyond_pivot = false, .refuse = refuse_cancel};
  return operate(req, &command, in);
}

int saga_skip(Req *req, void *in) {
  const Command command = {
      .action = "skip", .sql = &statements_of(req)->resume, .beyond_pivot = true, .refuse = refuse_going_on};
  return operate(req, &command, in);
}

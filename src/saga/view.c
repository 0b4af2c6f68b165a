/* Sagas as JSON: state, steps, attempts, times and reasons. */
#include "saga/view.h"

#include "saga/engine.h"
#include "saga/run.h"

typedef struct SagaView {
  Uuid id;
  Str type, state, failedStep, reason, steps, createdAt, finishedAt, parked, operations;
} SagaView;

static const Field view_fields[] = {
    FIELD(SagaView, id, F_UUID),
    FIELD(SagaView, type, F_TEXT),
    FIELD(SagaView, state, F_TEXT),
    FIELD(SagaView, failedStep, F_TEXT),
    FIELD(SagaView, reason, F_TEXT),
    FIELD(SagaView, steps, F_JSON),
    FIELD(SagaView, createdAt, F_TEXT),
    FIELD(SagaView, finishedAt, F_TEXT),
    FIELD(SagaView, parked, F_JSON),
    FIELD(SagaView, operations, F_JSON),
    {0},
};

int saga_show(Req *req, void *in) {
  (void)in;
  const SagaEngine *e = req->service->state;
  Uuid id;
  SagaView view;
  TRY(req_uuid(req, 0, &id));
  TRY(req_row(req, DB_STMT(saga_store_show(e->store), V_UUID(id)), view_fields, &view));
  return reply_object(req, 200, view_fields, &view);
}

int saga_list(Req *req, void *in) {
  (void)in;
  const SagaEngine *e = req->service->state;
  Str state = http_query(req->http, STR("state"));
  bool known = !state.p;
  for (int i = SAGA_RUNNING; i <= SAGA_PARKED && !known; i++)
    known = str_eq(state, str_from(saga_state_name((SagaState)i)));
  if (!known)
    return fail(req, E_MALFORMED, NULL, "state must be RUNNING, COMPENSATING, SUCCEEDED, COMPENSATED or PARKED");
  bool ended = str_eq(state, STR("SUCCEEDED")) || str_eq(state, STR("COMPENSATED"));
  return req_page(req, saga_store_list(e->store, state.p && !ended), &V_TEXT(state), 1, view_fields, sizeof(SagaView),
                  F_UUID);
}

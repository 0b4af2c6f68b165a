/* Durable sagas. A saga type is a table of steps; the engine runs them, and when one does not succeed compensates every
 * step it may have reached. It knows nothing of shops. What it promises: a saga that was begun (one transaction with
 * the caller's own rows) ends SUCCEEDED or COMPENSATED whatever dies on the way, or waits PARKED for an operator where
 * a step that must succeed does not; and its end is one transaction with the caller's. Each saga has an owner, a lease
 * (due_at, by the database's clock) and an epoch; every write is guarded by epoch and state. Participants are
 * idempotent under the saga's id, so a takeover simply calls them again. */
#ifndef SKALD_SAGA_SAGA_H
#define SKALD_SAGA_SAGA_H

#include "db/db.h"
#include "http/http.h"
#include "rt/fiber.h"
#include "saga/state.h"

#define SAGA_STEPS 16

typedef enum SagaStepKind {
  SAGA_COMPENSATABLE, /* can be compensated; refused: the saga is rolled back */
  SAGA_PIVOT,         /* the last that may refuse; once done the saga goes forward only */
  SAGA_RETRIABLE,     /* after the pivot: retried until it succeeds */
} SagaStepKind;

typedef struct SagaCall { /* one request to a participant, made in the arena it comes with */
  Arena *arena;
  const char *service, *method;
  Str path, body;
} SagaCall;

typedef struct SagaEngine SagaEngine; /* saga/engine.h */
/* How the engine reaches participants: service_call, or a simulation. */
typedef int SagaTransport(const char *service, HttpRequest *request, HttpReply *reply);

typedef struct SagaStepRun {
  SagaStepState state;
  bool started, skipped; /* skipped: an operator resolved it, as done or compensated */
  int attempts, status;  /* HTTP status of the last response, 0 without one */
  int64_t took_us;
  Str answer; /* the participant's body when done */
} SagaStepRun;

typedef struct SagaRun {
  Uuid id;
  const struct SagaType *type;
  SagaEngine *engine;
  Arena *arena; /* everything of the run lives here, until saga_release */
  Str input;    /* JSON, as stored */
  void *data;   /* what type->load made of it */
  SagaState state;
  int64_t epoch;
  bool fenced, ended; /* fenced: another owns it, or it is parked; ended: its end is stored */
  SagaStepRun steps[SAGA_STEPS];
  Str failed_step, reason;        /* why it is compensated */
  Str parked_step, parked_reason; /* why it cannot go on */
  Fiber *waiter;                  /* woken at the end */
  int64_t began_us, resumed_us;   /* resumed: by an operator; else as it began */
  int references;
  struct SagaRun *next, *previous;
} SagaRun;

typedef struct SagaStep {
  const char *name;
  SagaStepKind kind;
  unsigned after;     /* bit n: step n must be done before */
  int64_t timeout_us; /* of the forward action, all attempts together */
  int (*forward)(const SagaRun *run, SagaCall *call);
  int (*compensate)(const SagaRun *run, SagaCall *call); /* NULL: nothing to compensate */
} SagaStep;

typedef struct SagaType {
  const char *name;
  const SagaStep *steps;
  int step_count;
  int (*load)(SagaRun *run); /* run->input to run->data; a stored input that fails is a defect */
  /* The caller's statements of the same transaction as the saga's end (at most 4); returns how many. */
  int (*finish)(const SagaRun *run, bool success, DbStmt *statements);
  void (*ended)(const SagaRun *run); /* once its end is stored; may be NULL */
  LogKey subject; /* what the saga's id is also the id of, as the log calls it; LOG_NO_KEY: nothing */
} SagaType;

#endif

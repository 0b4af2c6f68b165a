/* The saga engine of one service: begins sagas, runs them, takes over those whose owner is gone. */
#ifndef SKALD_SAGA_ENGINE_H
#define SKALD_SAGA_ENGINE_H

#include "rt/config.h"
#include "saga/saga.h"

/* The process's settings of all its engines: environment variables, see rt/config.h. */
extern const Option saga_options[];
/* This process's name: the sagas that an earlier process of the same name left behind are taken over at once. */
void saga_set_owner(const char *owner);

/* Before the fork (it registers metrics). types ends with {0}. */
SagaEngine *saga_engine_new(const char *schema, const SagaType *types, SagaTransport *transport);
/* In the loop: starts lease renewal, recovery and retention. worker distinguishes the processes of one owner. */
void saga_engine_start(SagaEngine *e, Db *db, int worker);
/* In a fiber, when none is begun any more: waits until the deadline for those that run, then releases the others, so
 * that another process takes them over at once. */
void saga_engine_stop(SagaEngine *e, int64_t deadline_us);

/* A new run with input (copied) loaded; the caller holds one reference. */
MUST_CHECK int saga_new(SagaEngine *e, const SagaType *type, Uuid id, Str input, SagaRun **ret);
/* Stores it together with the caller's statements, in one transaction, and starts it. */
MUST_CHECK int saga_begin(SagaRun *run, const DbStmt *statements, int count, int64_t deadline_us);
/* Waits for its end, one fiber at a time: 0 (run->state says which), E_TIMEOUT (it still runs) or E_FENCED (another
 * process has it, or it is SAGA_PARKED until an operator intervenes). */
MUST_CHECK int saga_wait(SagaRun *run, int64_t deadline_us);
void saga_release(SagaRun *run);

/* How the steps went, as a JSON array. */
Str saga_steps_json(const SagaRun *run);

#endif

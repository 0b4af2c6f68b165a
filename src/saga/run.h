/* Running one saga: its steps forward, or back. Private to saga/. */
#ifndef SKALD_SAGA_RUN_H
#define SKALD_SAGA_RUN_H

#include "saga/saga.h"
#include "saga/stats.h"
#include "saga/store.h"

#define SAGA_TARGETS 16
#define SAGA_TYPES   4

typedef struct SagaConfig {
  const char *owner;
  int64_t lease_us;     /* how long a silent owner keeps its sagas */
  int64_t attempt_us;   /* one call's deadline */
  int64_t retention_us; /* ended sagas are deleted after it */
  int64_t running_max;  /* sagas driven at once */
  int64_t calls_per_target;
  int64_t park_refusals; /* consecutive, of a step that must succeed */
  int64_t park_after_us; /* how long such a step is retried */
} SagaConfig;

extern SagaConfig saga_config;

struct SagaEngine {
  const SagaType *types;
  SagaTransport *transport;
  SagaStore *store;
  SagaRun active; /* list head of the runs this process drives */
  int active_count;
  bool claiming, stopping;
  Fiber *stopper; /* woken when there is nothing active any more */
  struct {
    const char *service;
    Semaphore slots;
  } targets[SAGA_TARGETS]; /* one participant that hangs must not delay the others */
  int target_count;
  SagaStats stats[SAGA_TYPES]; /* one for each of the types */
};

/* A fiber function: drives the run (arg: SagaRun, a reference of its own) to its end. */
void saga_drive(void *arg);
/* All steps that can run, until all are done or one is not. 0, or E_REFUSED with failed_step and reason set, or with
 * parked_step and parked_reason where there is no way back. */
MUST_CHECK int saga_forward(SagaRun *run);
/* Compensates every step that may have been reached. 0, E_REFUSED with parked_step and parked_reason set, or E_FENCED /
 * E_CANCELED. */
MUST_CHECK int saga_backward(SagaRun *run);

/* How long to wait before try number tries + 1. */
int64_t saga_backoff_us(int tries);

#endif

/* The metrics of an engine's sagas, by type and step. Private to saga/. */
#ifndef SKALD_SAGA_STATS_H
#define SKALD_SAGA_STATS_H

#include "metrics/metrics.h"
#include "saga/saga.h"

enum { SAGA_CALL_OUTCOMES = 3 }; /* done, refused, unknown */

typedef struct SagaStats { /* of one type */
  Metric *started, *takeovers, *oldest, *parked;
  Metric *ended[2], *duration[2]; /* by whether it succeeded */
  Metric *running[2];             /* by whether it is being compensated */
  struct SagaStepStats {
    Metric *duration[STEP_UNDONE + 1]; /* by its state at the end */
    Metric *calls[SAGA_CALL_OUTCOMES];
    Metric *retries, *failed, *parkings;
  } steps[SAGA_STEPS];
} SagaStats;

/* Before the fork. service: as the label says it. */
void saga_stats_init(SagaStats *stats, const char *service, const SagaType *type);
void saga_stats_ended(SagaStats *stats, const SagaRun *run);
/* by: 1 when a run enters this state, RUNNING or COMPENSATING, -1 when it leaves it. */
void saga_stats_state(SagaStats *stats, SagaState state, int by);
void saga_stats_failed(SagaStats *stats, const SagaRun *run); /* it is going to be compensated */
void saga_stats_parked(SagaStats *stats, const SagaRun *run);

#endif

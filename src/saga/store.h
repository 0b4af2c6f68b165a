/* The sagas' rows. Every write is guarded by the epoch: E_FENCED means that another owns the saga now. */
#ifndef SKALD_SAGA_STORE_H
#define SKALD_SAGA_STORE_H

#include "saga/saga.h"

#define SAGA_FINISH_STATEMENTS 4

typedef struct SagaStore SagaStore;

SagaStore *saga_store_new(const char *schema);
void saga_store_open(SagaStore *s, Db *db, const char *owner, int64_t lease_us);

MUST_CHECK int saga_store_begin(SagaStore *s, const SagaRun *run, const DbStmt *statements, int count,
                                int64_t deadline_us);
/* RUNNING to COMPENSATING, with failed_step and reason: before the first compensation is sent. */
MUST_CHECK int saga_store_compensate(SagaStore *s, const SagaRun *run, int64_t deadline_us);
typedef struct SagaEnd { /* what is stored with the end */
  Str steps;
  DbStmt statements[SAGA_FINISH_STATEMENTS]; /* the type's own */
  int count;
} SagaEnd;
/* RUNNING or COMPENSATING to PARKED, with parked_step and parked_reason, and how its steps stand. */
MUST_CHECK int saga_store_park(SagaStore *s, const SagaRun *run, Str steps, int64_t deadline_us);
/* The end. 0 also when an earlier attempt of ours had done it. */
MUST_CHECK int saga_store_finish(SagaStore *s, const SagaRun *run, SagaState end, const SagaEnd *with,
                                 int64_t deadline_us);

/* Statements that give id, type, state, failed_step, reason, steps, created_at, finished_at, parked, operations: of one
 * saga ($1), and of a page of them (state or NULL, id to go on from, how many), which also gives the id as its last
 * column. open: only of those that have not ended, which are soon found among many. */
const Sql *saga_store_show(const SagaStore *s);
const Sql *saga_store_list(const SagaStore *s, bool open);

typedef struct SagaStoreOperate { /* an operator's statements */
  /* These make a saga due and record the operation; where its state forbids it they change nothing. Values: the
   * record's id, the saga's, action, step, reason, by, types ('{order,…}'). */
  Sql resume; /* PARKED; step, unless NULL, must be the one it is parked at */
  Sql cancel; /* RUNNING, of one of these types: to COMPENSATING */
  Sql forget; /* the Idempotency-Key ($1) if there is no record ($2) */
  Sql look;   /* state, parked_step */
} SagaStoreOperate;
const SagaStoreOperate *saga_store_operate(const SagaStore *s);

typedef struct SagaClaim {
  Uuid id;
  Str type, state;
  int64_t epoch;
  Str input, failedStep, reason, traceId;
  int64_t ageUs, resumedUs; /* since its begin, and since an operator last resumed it, else the same */
  Str skipped;              /* names of steps that an operator resolved, with commas between */
} SagaClaim;
/* Takes over sagas whose lease has run out, at most so many, and never more than 64; with mine also those that an
 * earlier life of a process of our name left behind. */
MUST_CHECK int saga_store_claim(SagaStore *s, Arena *arena, bool mine, int64_t max, List *ret);
typedef struct SagaLost {
  int64_t at; /* in the array given */
} SagaLost;
/* Renews the leases of these runs; *ret_lost: SagaLost of those that another owns. */
MUST_CHECK int saga_store_renew(SagaStore *s, Arena *arena, SagaRun *const *runs, size_t count, List *ret_lost);
/* Releases all of this process: they have no owner and are due at once. */
MUST_CHECK int saga_store_release(SagaStore *s, Arena *arena, int64_t deadline_us);
typedef struct SagaParked {
  Str type;
  int64_t count;
} SagaParked;
/* How many are parked, by type; one without any may be missing. */
MUST_CHECK int saga_store_parked(SagaStore *s, Arena *arena, List *ret);
/* Deletes a portion of the ended sagas older than that, and what operators did to them. Returns 1: there may be more.
 */
MUST_CHECK int saga_store_expire(SagaStore *s, Arena *arena, int64_t age_us);

#endif

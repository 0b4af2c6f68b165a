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
/* The end. 0 also when an earlier try of ours had done it. */
MUST_CHECK int saga_store_finish(SagaStore *s, const SagaRun *run, SagaState end, const SagaEnd *with,
                                 int64_t deadline_us);

/* Statements that give id, type, state, failed_step, reason, steps, created_at, finished_at: of one saga ($1), and of a
 * page of them (state or NULL, id to go on from, how many), which also gives the id as its last column. */
const Sql *saga_store_show(const SagaStore *s);
const Sql *saga_store_list(const SagaStore *s);

typedef struct SagaClaim {
  Uuid id;
  Str type, state;
  int64_t epoch;
  Str input, failedStep, reason, traceId;
  int64_t ageUs; /* since its begin */
} SagaClaim;
/* Takes over up to 64 sagas whose lease has run out; with mine also those that an earlier life of a process of our name
 * left behind.
 */
MUST_CHECK int saga_store_claim(SagaStore *s, Arena *arena, bool mine, List *ret);
/* Renews the leases of these runs; *ret_kept lists (id and epoch of SagaClaim) those that are still ours. */
MUST_CHECK int saga_store_renew(SagaStore *s, Arena *arena, const Uuid *ids, size_t count, List *ret_kept);
/* Gives back all that are ours: nobody's, and due at once. */
MUST_CHECK int saga_store_release(SagaStore *s, Arena *arena, int64_t deadline_us);
/* Deletes ended sagas older than that. */
MUST_CHECK int saga_store_expire(SagaStore *s, Arena *arena, int64_t age_us);

#endif

/* What the store asks of the database: what stands in one transaction, which statements are guarded by what, and how a
 * write of unknown outcome is found to have come through. The database is a script. */
#include "saga/store.h"

#include "rt/clock.h"
#include "unit/unit.h"

#include <string.h>

enum { CALLS = 4, STATEMENTS = 8, VALUES = 8 };

typedef struct Call { /* one transaction */
  int count;
  struct {
    const Sql *sql;
    int count;
    DbValue values[VALUES];
  } statements[STATEMENTS];
} Call;

static struct {
  Call calls[CALLS];
  int count;
  int outcomes[CALLS];
  DbResult results[CALLS]; /* of its last statement */
} script;

int db_group(Db *db, Arena *arena, const DbStmt *statements, int count, DbResult *results, int64_t deadline_us) {
  (void)db, (void)arena;
  CHECK(deadline_us > clock_now_us());
  Call *call = &script.calls[script.count];
  call->count = count;
  for (int i = 0; i < count; i++) {
    call->statements[i].sql = statements[i].sql;
    call->statements[i].count = statements[i].count;
    for (int v = 0; v < statements[i].count; v++)
      call->statements[i].values[v] = statements[i].values[v];
  }
  if (results)
    results[count - 1] = script.results[script.count];
  return script.outcomes[script.count++];
}

int db_exec(Db *db, Arena *arena, DbStmt statement, DbResult *result, int64_t deadline_us) {
  return db_group(db, arena, &statement, 1, result, deadline_us);
}

static const SagaType type = {.name = "test"};
static const Sql theirs = {"INSERT INTO orders"};
static SagaStore *store;
static SagaRun run;

static void begin(void) {
  memset(&script, 0, sizeof(script));
  if (!store)
    store = saga_store_new("s");
  saga_store_open(store, NULL, "host/0#life", 10 * SECONDS);
  if (run.arena)
    arena_free(run.arena);
  run = (SagaRun){.id = {.b = {1}},
                  .type = &type,
                  .arena = arena_new(),
                  .input = STR("{}"),
                  .epoch = 5,
                  .failed_step = STR("pay"),
                  .reason = STR("409: no"),
                  .parked_step = STR("refund"),
                  .parked_reason = STR("refused 10 times")};
}

static int64_t deadline(void) {
  return clock_now_us() + SECONDS;
}

static bool mentions(int call, int statement, const char *text) {
  return strstr(script.calls[call].statements[statement].sql->text, text) != NULL;
}

static Str text_of(int call, int statement, int value) {
  return script.calls[call].statements[statement].values[value].text;
}

static int64_t number_of(int call, int statement, int value) {
  return script.calls[call].statements[statement].values[value].integer;
}

/* Only the owner may do it, and when it was not ours all else of the transaction is undone. */
static void check_guarded(int call, int statement) {
  CHECK(mentions(call, statement, "id = $1 AND epoch = $2"));
  CHECK(mentions(call, statement, "SELECT s.saga_fence(count(*)) FROM changed"));
  CHECK(uuid_eq(script.calls[call].statements[statement].values[0].uuid, run.id));
  CHECK_INT(number_of(call, statement, 1), 5);
}

static DbResult one_cell(const char *text) {
  Str *cell = ARENA_NEW(run.arena, Str);
  *cell = str_from(text);
  return (DbResult){.rows = 1, .columns = 1, .cells = cell};
}

TEST(a_begin_is_one_transaction_with_the_caller_s_statements) {
  begin();
  run.epoch = 1;
  const DbStmt order[2] = {{.sql = &theirs}, {.sql = &theirs}};
  CHECK_INT(saga_store_begin(store, &run, order, 2, deadline()), 0);
  CHECK_INT(script.count, 1);
  CHECK_INT(script.calls[0].count, 3);
  CHECK(script.calls[0].statements[0].sql == &theirs && script.calls[0].statements[1].sql == &theirs);
  CHECK(mentions(0, 2, "INSERT INTO s.saga "));
  CHECK_STR(text_of(0, 2, 1), "test");
  CHECK_STR(text_of(0, 2, 2), "host/0#life");
  CHECK_STR(text_of(0, 2, 3), "{}");
  CHECK_INT(number_of(0, 2, 5), 10000); /* the lease, in milliseconds */
}

TEST(a_begin_that_fails_says_how) {
  begin();
  run.epoch = 1;
  script.outcomes[0] = E_EXISTS;
  CHECK_INT(saga_store_begin(store, &run, NULL, 0, deadline()), E_EXISTS);
}

TEST(the_decision_is_guarded_and_keeps_its_reason) {
  begin();
  CHECK_INT(saga_store_compensate(store, &run, deadline()), 0);
  check_guarded(0, 0);
  CHECK(mentions(0, 0, "state = 'RUNNING'"));
  CHECK_STR(text_of(0, 0, 2), "pay");
  CHECK_STR(text_of(0, 0, 3), "409: no");
}

TEST(parking_is_guarded_and_makes_the_saga_nobody_s) {
  begin();
  CHECK_INT(saga_store_park(store, &run, STR("[]"), deadline()), 0);
  check_guarded(0, 0);
  CHECK(mentions(0, 0, "owner = '', due_at = 'infinity'"));
  CHECK_STR(text_of(0, 0, 2), "refund");
  CHECK_STR(text_of(0, 0, 3), "refused 10 times");
}

TEST(the_end_is_one_transaction_with_the_type_s_statements) {
  begin();
  SagaEnd end = {.steps = STR("[]"), .statements = {{.sql = &theirs}, {.sql = &theirs}}, .count = 2};
  CHECK_INT(saga_store_finish(store, &run, SAGA_SUCCEEDED, &end, deadline()), 0);
  CHECK_INT(script.count, 1);
  CHECK_INT(script.calls[0].count, 3);
  check_guarded(0, 0);
  CHECK(mentions(0, 0, "due_at IS NOT NULL")); /* it has not ended yet */
  CHECK(mentions(0, 0, "CASE $3 WHEN 'SUCCEEDED' THEN 'RUNNING' ELSE 'COMPENSATING' END"));
  CHECK_STR(text_of(0, 0, 2), "SUCCEEDED");
  CHECK(script.calls[0].statements[1].sql == &theirs && script.calls[0].statements[2].sql == &theirs);
}

typedef int Write(void);

static int write_decision(void) {
  return saga_store_compensate(store, &run, deadline());
}

static int write_parked(void) {
  return saga_store_park(store, &run, STR("[]"), deadline());
}

static int write_end(void) {
  return saga_store_finish(store, &run, SAGA_COMPENSATED, &(SagaEnd){.steps = STR("[]")}, deadline());
}

static const struct {
  Write *write;
  const char *state;
} writes[] = {{write_decision, "COMPENSATING"}, {write_parked, "PARKED"}, {write_end, "COMPENSATED"}};
enum { WRITES = sizeof(writes) / sizeof(*writes) };

TEST(a_write_that_an_earlier_attempt_did_is_done) {
  for (int i = 0; i < WRITES; i++) {
    begin();
    script.outcomes[0] = E_FENCED;
    script.results[1] = one_cell(writes[i].state);
    CHECK_INT(writes[i].write(), 0);
    CHECK_INT(script.count, 2);
    CHECK(mentions(1, 0, "WHERE id = $1 AND epoch = $2"));
    CHECK_INT(number_of(1, 0, 1), 5);
  }
}

TEST(a_write_of_one_who_lost_the_saga_is_fenced) {
  for (int i = 0; i < WRITES; i++) {
    begin();
    script.outcomes[0] = E_FENCED;
    CHECK_INT(writes[i].write(), E_FENCED); /* no row with our epoch */
    begin();
    script.outcomes[0] = E_FENCED;
    script.results[1] = one_cell("RUNNING");
    CHECK_INT(writes[i].write(), E_FENCED);
  }
}

TEST(a_write_whose_outcome_cannot_be_found_out_is_not_taken_for_done) {
  for (int i = 0; i < WRITES; i++) {
    begin();
    script.outcomes[0] = E_FENCED;
    script.outcomes[1] = E_UNAVAILABLE;
    CHECK_INT(writes[i].write(), E_UNAVAILABLE);
    begin();
    script.outcomes[0] = E_UNKNOWN;
    CHECK_INT(writes[i].write(), E_UNKNOWN);
    CHECK_INT(script.count, 1);
  }
}

TEST(a_claim_is_bounded_and_asks_for_ours_only_when_told) {
  begin();
  List claims;
  CHECK_INT(saga_store_claim(store, run.arena, true, 1000, &claims), 0);
  CHECK_INT(claims.count, 0);
  CHECK_STR(text_of(0, 0, 0), "host/0#life");
  CHECK_STR(text_of(0, 0, 2), "host/0");
  CHECK_INT(number_of(0, 0, 3), 64);
  CHECK(mentions(0, 0, "epoch = epoch + 1"));
  CHECK(mentions(0, 0, "FOR UPDATE SKIP LOCKED"));
  CHECK_INT(saga_store_claim(store, run.arena, false, 3, &claims), 0);
  CHECK(!text_of(1, 0, 2).p);
  CHECK_INT(number_of(1, 0, 3), 3);
}

TEST(a_claim_is_read) {
  begin();
  static const char *const cells[] = {"01890000-0000-7000-8000-000000000001",
                                      "order",
                                      "COMPENSATING",
                                      "7",
                                      "{}",
                                      "pay",
                                      "409: no",
                                      NULL,
                                      "1000",
                                      "500",
                                      "a,b"};
  enum { COLUMNS = sizeof(cells) / sizeof(*cells) };
  script.results[0] = (DbResult){.rows = 1, .columns = COLUMNS, .cells = ARENA_ARRAY(run.arena, Str, COLUMNS)};
  for (int i = 0; i < COLUMNS; i++)
    script.results[0].cells[i] = cells[i] ? str_from(cells[i]) : (Str){0};
  List claims = {0};
  CHECK_INT(saga_store_claim(store, run.arena, false, 1, &claims), 0);
  CHECK_INT(claims.count, 1);
  const SagaClaim *claim = claims.items;
  CHECK_INT(claim->epoch, 7);
  CHECK_STR(claim->state, "COMPENSATING");
  CHECK_STR(claim->failedStep, "pay");
  CHECK_INT(claim->ageUs, 1000);
  CHECK_INT(claim->resumedUs, 500);
  CHECK_STR(claim->skipped, "a,b");
}

TEST(leases_are_renewed_by_id_epoch_and_owner) {
  begin();
  SagaRun other = {.id = {.b = {2}}, .epoch = 9};
  SagaRun *runs[] = {&run, &other};
  script.results[0] = one_cell("1");
  List lost = {0};
  CHECK_INT(saga_store_renew(store, run.arena, runs, 2, &lost), 0);
  CHECK_STR(text_of(0, 0, 0), "{01000000-0000-0000-0000-000000000000,02000000-0000-0000-0000-000000000000}");
  CHECK_INT(number_of(0, 0, 1), 10000);
  CHECK_STR(text_of(0, 0, 2), "host/0#life");
  CHECK_STR(text_of(0, 0, 3), "{5,9}");
  CHECK(mentions(0, 0, "s.id = a.id AND s.epoch = a.epoch AND owner = $3"));
  CHECK_INT(lost.count, 1);
  CHECK_INT(((SagaLost *)lost.items)[0].at, 1);
}

TEST(a_release_gives_up_all_of_this_process_and_nothing_else) {
  begin();
  CHECK_INT(saga_store_release(store, run.arena, deadline()), 0);
  CHECK(mentions(0, 0, "SET owner = '', due_at = clock_timestamp() WHERE owner = $1 AND due_at IS NOT NULL"));
  CHECK_STR(text_of(0, 0, 0), "host/0#life");
}

TEST(ended_sagas_are_deleted_in_portions) {
  begin();
  script.results[0] = one_cell("1000");
  script.results[1] = one_cell("999");
  script.results[2] = one_cell("?");
  CHECK_INT(saga_store_expire(store, run.arena, 60 * SECONDS), 1);
  CHECK_INT(saga_store_expire(store, run.arena, 60 * SECONDS), 0);
  CHECK(saga_store_expire(store, run.arena, 60 * SECONDS) < 0);
  CHECK_INT(number_of(0, 0, 1), 60000);
  CHECK_INT(number_of(0, 0, 2), 1000);
  CHECK(mentions(0, 0, "finished_at < now() - $2"));
}

TEST(an_operator_s_statements_raise_the_epoch_and_leave_a_trace) {
  begin();
  const SagaStoreOperate *operate = saga_store_operate(store);
  const Sql *all[] = {&operate->resume, &operate->cancel};
  for (int i = 0; i < 2; i++) {
    CHECK(strstr(all[i]->text, "epoch = epoch + 1") != NULL);
    CHECK(strstr(all[i]->text, "INSERT INTO s.saga_operation") != NULL);
    CHECK(strstr(all[i]->text, "FROM changed") != NULL);
  }
  CHECK(strstr(operate->resume.text, "state = 'PARKED'") != NULL);
  CHECK(strstr(operate->cancel.text, "state = 'RUNNING'") != NULL);
}

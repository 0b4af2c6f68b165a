/* The pool and its connections over a scripted server: what shares a transaction, who gets which rows, what is sent
 * again and what never, and how long a connection is waited for. */
#include "db/db.h"
#include "metrics/metrics.h"
#include "rt/clock.h"
#include "rt/fiber.h"
#include "rt/loop.h"
#include "unit/db/pool_double.h"
#include "unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CALLS_MAX   5000
#define LATER       (100 * MILLISECONDS)
#define DEADLINE    (60 * SECONDS)
#define NOT_YET     1
#define CONNECTIONS 2

static const Sql write_row = {"write"}, write_other = {"write other"};

typedef struct Call {
  const char *values[12]; /* a statement each */
  const char *component;
  uint8_t hot_key;
  int64_t deadline_us;
  int outcome; /* NOT_YET */
  char cell[64];
} Call;

static struct {
  Db *db;
  Call calls[CALLS_MAX];
  int count;
} pool;

static void call_main(void *arg) {
  Call *c = arg;
  SCOPED_ARENA arena = arena_new();
  DbStmt statements[12];
  DbValue values[12];
  DbResult results[12];
  int count = 0;
  if (c->component)
    fiber_context()->component = c->component;
  for (; c->values[count]; count++) {
    values[count] = V_TEXT(str_from(c->values[count]));
    statements[count] = (DbStmt){
        .sql = count ? &write_other : &write_row, .values = &values[count], .count = 1, .hot_key = {{c->hot_key}}};
  }
  int rc = db_group(pool.db, arena, statements, count, results, c->deadline_us);
  if (rc == 0 && results[count - 1].rows == 1)
    snprintf(c->cell, sizeof(c->cell), "%.*s", STR_FMT(db_cell(&results[count - 1], 0, 0)));
  c->outcome = rc;
}

static Call *start(Call call) {
  Call *c = &pool.calls[pool.count++];
  *c = call;
  c->outcome = NOT_YET;
  c->deadline_us = clock_now_us() + (call.deadline_us ? call.deadline_us : DEADLINE);
  if (!fiber_start("call", call_main, c))
    abort();
  return c;
}

/* A group of a fiber of its own: CALL("a"), CALL("a", "b"), CALL("a", .hot_key = 1). */
#define CALL(...)             start((Call){.values = {__VA_ARGS__}})
#define CALL_WITH(value, ...) start((Call){.values = {value}, __VA_ARGS__})

/* Passes of the loop, until all that can happen at this time has happened. */
static void settle(void) {
  for (int i = 0; i < 12; i++)
    fiber_yield();
}

static void advance(int64_t us) {
  settle();
  clock_advance(us);
  settle();
}

static void reconnect(void) {
  settle();
  for (int i = 0; i < 100 && !db_is_up(pool.db); i++)
    advance(100 * MILLISECONDS);
  advance(2 * SECONDS); /* the other one, too */
}

static void run_test(void *arg) {
  UnitFn *const *fn = arg;
  server_reset();
  reconnect();
  Call *warm[] = {CALL("warm"), CALL("warm", "up")}; /* prepares both statements */
  settle();
  CHECK_INT(warm[0]->outcome, E_OK);
  CHECK_INT(warm[1]->outcome, E_OK);
  server_forget_journal();
  forget_logged();
  (*fn)();
  server_reset();
  settle();
  loop_stop();
}

static void run(UnitFn *fn) {
  static bool begun;
  if (!begun) {
    metrics_init(1);
    loop_init();
    fiber_limit(8000);
    pool.db = db_new("", "order");
    db_start(pool.db, CONNECTIONS, 64);
  }
  begun = true;
  pool.count = 0;
  loop_resume();
  if (!fiber_start("test", run_test, &fn))
    abort();
  loop_run();
}

#define POOL_TEST(name)                                                                                                \
  static void in_fiber_##name(void);                                                                                   \
  TEST(name) {                                                                                                         \
    run(in_fiber_##name);                                                                                              \
  }                                                                                                                    \
  static void in_fiber_##name(void)

/* ---- transactions ---- */

POOL_TEST(groups_of_one_pass_share_a_transaction_and_each_gets_its_rows) {
  Call *a = CALL("a"), *b = CALL("b1", "b2"), *c = CALL("c");
  settle();
  CHECK_STR(server_journal(), "0:a 0:b1 0:b2 0:c ; ");
  CHECK_STR(a->cell, "row of a");
  CHECK_STR(b->cell, "row of b2");
  CHECK_STR(c->cell, "row of c");
}

POOL_TEST(a_batch_is_sorted_by_hot_key) {
  CALL_WITH("three", .hot_key = 3);
  CALL_WITH("one", .hot_key = 1);
  CALL("none");
  CALL_WITH("two", .hot_key = 2);
  CALL_WITH("one again", .hot_key = 1);
  settle();
  CHECK_STR(server_journal(), "0:none 0:one 0:one again 0:two 0:three ; ");
}

POOL_TEST(the_first_key_of_a_group_counts) {
  SCOPED_ARENA arena = arena_new();
  DbStmt statements[] = {DB_STMT(&write_row, V_TEXT(STR("plain"))),
                         db_hot((Uuid){{9}}, DB_STMT(&write_row, V_TEXT(STR("hot"))))};
  CALL_WITH("five", .hot_key = 5);
  fiber_yield(); /* so that both are in the queue when it is sent */
  CHECK_INT(db_group(pool.db, arena, statements, 2, NULL, clock_now_us() + DEADLINE), E_OK);
  CHECK_STR(server_journal(), "0:five 0:plain 0:hot ; ");
}

POOL_TEST(when_a_batch_fails_each_group_goes_again_alone_and_only_the_culprit_fails) {
  server_fail("b", "23505");
  Call *a = CALL("a"), *b = CALL("b"), *c = CALL("c");
  settle();
  CHECK_INT(a->outcome, E_OK);
  CHECK_INT(b->outcome, E_EXISTS);
  CHECK_INT(c->outcome, E_OK);
  CHECK_STR(c->cell, "row of c");
  CHECK(str_starts(str_from(server_journal()), STR("0:a 0:b 0:c ; 0:a ; ")));
  CHECK_INT(server_sent("a"), 2);
  CHECK_INT(server_sent("b"), 2);
  CHECK_INT(server_sent("c"), 2);
  CHECK(strstr(server_journal(), ":b 0:") == NULL || strstr(strchr(server_journal(), ';'), ":b 0:") == NULL);
  CHECK(strstr(server_journal(), ":a ; ") != NULL && strstr(server_journal(), ":c ; ") != NULL);
}

POOL_TEST(results_are_dealt_to_their_fibers_when_one_of_them_has_gone) {
  server_lock("a");
  Call *a = CALL("a", "a2"), *gone = start((Call){.values = {"gone", "gone2"}, .deadline_us = SECONDS}), *c = CALL("c");
  advance(2 * SECONDS);
  CHECK_INT(gone->outcome, E_TIMEOUT);
  server_unlock("a");
  settle();
  CHECK_STR(a->cell, "row of a2");
  CHECK_STR(c->cell, "row of c");
  CHECK_STR(gone->cell, "");
}

POOL_TEST(a_commit_that_fails_is_no_success) {
  server_fail("COMMIT", "23503");
  Call *a = CALL("a");
  settle();
  CHECK_INT(a->outcome, E_INTERNAL);
  CHECK_STR(logged(), "- error SQL error 23503: it went wrong in: COMMIT");
}

POOL_TEST(deadlocks_are_tried_again_a_few_times) {
  server_fail("a", "40P01");
  Call *a = CALL("a");
  settle();
  settle();
  CHECK_INT(a->outcome, E_BUSY);
  CHECK_INT(server_sent("a"), 7);
}

/* ---- what is not known ---- */

POOL_TEST(what_was_sent_before_the_connection_was_lost_is_unknown_and_never_sent_again) {
  server_lock("a");
  Call *a = CALL("a"), *b = CALL("b");
  settle();
  CHECK_STR(server_journal(), "0:a 0:b ; ");
  server_cut(0);
  settle();
  CHECK_INT(a->outcome, E_UNKNOWN);
  CHECK_INT(b->outcome, E_UNKNOWN);
  server_reset();
  reconnect();
  CHECK_INT(server_sent("a"), 0);
  CHECK_INT(server_sent("b"), 0);
}

POOL_TEST(one_that_ends_with_the_server_is_unknown) {
  server_fail("a", "57P01");
  Call *a = CALL("a"), *b = CALL("b");
  settle();
  CHECK_INT(a->outcome, E_UNKNOWN);
  CHECK_INT(b->outcome, E_UNKNOWN);
  CHECK_INT(server_sent("b"), 1);
}

POOL_TEST(what_waits_when_a_connection_is_lost_goes_over_the_next) {
  server_lock("a");
  server_lock("b");
  Call *a = CALL_WITH("a", .hot_key = 1);
  settle();
  Call *b = CALL_WITH("b", .hot_key = 2);
  advance(2 * LATER);
  Call *waits = CALL("waits");
  settle();
  CHECK_STR(server_journal(), "0:a ; 1:b ; ");
  server_cut(0);
  settle();
  CHECK_INT(a->outcome, E_UNKNOWN);
  CHECK_INT(waits->outcome, NOT_YET);
  reconnect();
  CHECK_INT(waits->outcome, E_OK);
  CHECK_INT(server_sent("waits"), 1);
  server_unlock("b");
  settle();
  CHECK_INT(b->outcome, E_OK);
}

POOL_TEST(without_a_connection_it_is_said_at_once) {
  server_refuse(true);
  server_cut(0);
  server_cut(1);
  settle();
  CHECK(!db_is_up(pool.db));
  Call *a = CALL("a");
  settle();
  CHECK_INT(a->outcome, E_UNAVAILABLE);
  CHECK_INT(server_sent("a"), 0);
}

/* ---- deadlines and limits ---- */

static void lock_all_connections(void) {
  server_lock("l1");
  server_lock("l2");
  CALL("l1");
  settle();
  CALL("l2");
  advance(2 * LATER);
  CHECK_STR(server_journal(), "0:l1 ; 1:l2 ; ");
}

POOL_TEST(one_whose_deadline_passes_in_the_queue_is_never_sent) {
  lock_all_connections();
  Call *first = CALL("first"), *late = start((Call){.values = {"late"}, .deadline_us = SECONDS}), *last = CALL("last");
  advance(2 * SECONDS);
  CHECK_INT(late->outcome, E_TIMEOUT);
  server_unlock("l1");
  server_unlock("l2");
  settle();
  CHECK_INT(first->outcome, E_OK);
  CHECK_INT(last->outcome, E_OK);
  CHECK_INT(server_sent("late"), 0);
}

POOL_TEST(beyond_4096_that_wait_the_next_is_refused) {
  lock_all_connections();
  Call *last = NULL;
  for (int i = 0; i < 4096; i++)
    last = CALL("waits");
  settle();
  CHECK_INT(last->outcome, NOT_YET);
  CHECK_INT(CALL("one more")->outcome, NOT_YET);
  settle();
  CHECK_INT(pool.calls[pool.count - 1].outcome, E_BUSY);
  server_unlock("l1");
  server_unlock("l2");
  for (int i = 0; i < 100 && last->outcome == NOT_YET; i++)
    settle();
  CHECK_INT(last->outcome, E_OK);
}

/* ---- a connection that says nothing ---- */

POOL_TEST(a_frozen_connection_is_given_up_when_a_statement_can_no_longer_run) {
  int opened = server_opened();
  server_freeze(true);
  Call *a = CALL("a");
  advance(12 * SECONDS);
  CHECK_INT(a->outcome, NOT_YET);
  advance(2 * SECONDS);
  CHECK_INT(a->outcome, E_UNKNOWN);
  advance(SECONDS);
  CHECK(server_opened() > opened);
}

POOL_TEST(a_frozen_connection_is_given_up_when_nobody_waits_for_it) {
  int opened = server_opened();
  server_freeze(true);
  Call *a = start((Call){.values = {"a", "b", "c", "d"}, .deadline_us = 15 * SECONDS});
  advance(14 * SECONDS);
  CHECK_INT(a->outcome, NOT_YET);
  advance(2 * SECONDS);
  CHECK_INT(a->outcome, E_TIMEOUT);
  advance(2 * SECONDS);
  CHECK(server_opened() > opened);
}

POOL_TEST(a_frozen_connection_is_given_up_however_long_somebody_waits) {
  server_freeze(true);
  Call *a = start((Call){.values = {"a", "b", "c"}, .deadline_us = 600 * SECONDS});
  advance(30 * SECONDS);
  CHECK_INT(a->outcome, NOT_YET);
  advance(5 * SECONDS);
  CHECK_INT(a->outcome, E_UNKNOWN);
}

POOL_TEST(a_slow_batch_is_waited_for_while_somebody_waits) {
  static const char *const names[] = {"a", "b", "c", "d", "e"};
  Call *calls[5];
  for (int i = 0; i < 5; i++) {
    server_lock(names[i]);
    calls[i] = start((Call){.values = {names[i]}, .deadline_us = 15 * SECONDS});
  }
  for (int i = 0; i < 5; i++) {
    advance(2800 * MILLISECONDS);
    server_unlock(names[i]);
  }
  settle();
  for (int i = 0; i < 5; i++)
    CHECK_INT(calls[i]->outcome, E_OK);
  CHECK_STR(server_journal(), "0:a 0:b 0:c 0:d 0:e ; ");
}

POOL_TEST(the_wait_behind_another_batch_is_not_counted) {
  server_lock("a");
  server_lock("b");
  server_lock("c");
  CALL("a", "a2");
  settle();
  CALL("b", "b2");
  settle();
  Call *c = CALL("c"); /* behind one of them, as it has just been sent */
  advance(8 * SECONDS);
  CHECK_INT(server_sent("c"), 1);
  server_unlock("a");
  server_unlock("b");
  advance(8 * SECONDS);
  CHECK_INT(c->outcome, NOT_YET);
  server_unlock("c");
  settle();
  CHECK_INT(c->outcome, E_OK);
}

POOL_TEST(an_idle_connection_that_was_cut_is_noticed) {
  int opened = server_opened();
  server_freeze(true);
  for (int i = 0; i < 25; i++)
    advance(SECONDS);
  CHECK(server_opened() >= opened + CONNECTIONS);
}

/* ---- beside a locked row ---- */

POOL_TEST(an_idle_connection_is_preferred) {
  server_lock("locked");
  Call *locked = CALL("locked");
  settle();
  Call *free_ = CALL("free");
  settle();
  CHECK_INT(free_->outcome, E_OK);
  CHECK_STR(server_journal(), "0:locked ; 1:free ; ");
  server_unlock("locked");
  settle();
  CHECK_INT(locked->outcome, E_OK);
}

POOL_TEST(two_batches_share_a_connection_when_none_is_idle) {
  server_lock("a");
  server_lock("b");
  CALL("a");
  settle();
  CALL("b");
  settle();
  CALL("c");
  settle();
  CALL("d");
  settle();
  CALL("e");
  settle();
  CHECK(!strncmp(server_journal(), "0:a ; 1:b ; ", 12));
  CHECK_INT(server_sent("c") + server_sent("d"), 2);
  CHECK_INT(server_sent("e"), 0);
  CHECK(strstr(server_journal(), "0:c ; 0:d") == NULL && strstr(server_journal(), "1:c ; 1:d") == NULL);
}

POOL_TEST(nothing_goes_behind_a_batch_that_waits) {
  lock_all_connections();
  Call *waits = CALL("waits");
  settle();
  CHECK_INT(server_sent("waits"), 0);
  server_unlock("l2");
  settle();
  CHECK_INT(waits->outcome, E_OK);
  CHECK_STR(server_journal(), "0:l1 ; 1:l2 ; 1:waits ; ");
}

POOL_TEST(a_second_group_for_a_locked_row_locks_no_other_connection) {
  server_lock("locked");
  Call *first = CALL_WITH("locked", .hot_key = 7);
  advance(2 * LATER);
  Call *second = CALL_WITH("locked", .hot_key = 7), *other = CALL_WITH("other", .hot_key = 8);
  settle();
  CHECK_INT(server_sent("locked"), 1);
  CHECK_INT(other->outcome, E_OK);
  CHECK_INT(CALL("later")->outcome, NOT_YET);
  settle();
  CHECK_STR(server_journal(), "0:locked ; 1:other ; 1:later ; ");
  server_unlock("locked");
  settle();
  CHECK_INT(first->outcome, E_OK);
  CHECK_INT(second->outcome, E_OK);
}

POOL_TEST(who_waited_for_a_lock_lets_the_others_pass) {
  server_lock("locked");
  Call *locked = CALL_WITH("locked", .hot_key = 7), *a = CALL("a"), *b = CALL("b");
  advance(3 * SECONDS);
  server_time_out("locked");
  settle();
  CHECK_INT(a->outcome, E_OK);
  CHECK_INT(b->outcome, E_OK);
  CHECK_INT(locked->outcome, NOT_YET);
  CHECK_INT(server_sent("locked"), 2);
  Call *c = CALL("c"), *d = CALL("d"); /* at once, and yet not behind it */
  settle();
  CHECK_INT(c->outcome, E_OK);
  CHECK_INT(d->outcome, E_OK);
  server_unlock("locked");
  settle();
  CHECK_INT(locked->outcome, E_OK);
}

POOL_TEST(rows_that_stay_locked_leave_one_connection_to_the_others) {
  server_lock("x");
  server_lock("y");
  Call *x = CALL_WITH("x", .hot_key = 1);
  settle();
  Call *y = CALL_WITH("y", .hot_key = 2);
  advance(3 * SECONDS);
  server_time_out("x");
  settle();
  server_time_out("y");
  settle();
  Call *a = CALL("a");
  settle();
  CHECK_INT(a->outcome, E_OK);
  server_unlock("x");
  server_unlock("y");
  settle();
  CHECK_INT(x->outcome, E_OK);
  CHECK_INT(y->outcome, E_OK);
}

POOL_TEST(one_that_shared_the_batch_is_tried_before_the_one_that_waits) {
  server_lock("x");
  server_lock("y");
  Call *x = CALL_WITH("x", .hot_key = 1), *y = CALL_WITH("y", .hot_key = 2);
  advance(3 * SECONDS);
  server_time_out("x");
  settle();
  CHECK_STR(server_journal(), "0:x 0:y ; 0:y ; "); /* and x waits until it is known what becomes of y */
  Call *a = CALL("a");
  settle();
  CHECK_INT(a->outcome, E_OK);
  server_unlock("y");
  settle();
  CHECK_INT(y->outcome, E_OK);
  server_unlock("x");
  settle();
  CHECK_INT(x->outcome, E_OK);
}

/* ---- errors ---- */

POOL_TEST(an_sql_error_is_logged_once_with_its_statement_and_by_whose_it_is) {
  server_fail("bad", "23514");
  CALL("a");
  Call *bad = start((Call){.values = {"good", "bad"}, .component = "delivery"});
  settle();
  CHECK_INT(bad->outcome, E_INTERNAL);
  CHECK_STR(logged(), "delivery error SQL error 23514: it went wrong in: write other");
}

POOL_TEST(one_that_was_nobodys_own_is_not_logged) {
  server_fail("bad", "23514");
  CALL("a");
  CALL("bad");
  fiber_yield();
  fiber_yield();
  CHECK_INT(server_sent("bad"), 1);
  CHECK_STR(logged(), "");
}

POOL_TEST(a_read_only_server_is_left_for_one_that_can_be_written) {
  int opened = server_opened();
  server_read_only(true);
  server_fail("a", "25006");
  Call *a = CALL("a");
  settle();
  CHECK_INT(a->outcome, E_UNAVAILABLE);
  Call *b = CALL("b");
  server_fail("b", "25006");
  settle();
  CHECK_INT(b->outcome, E_UNAVAILABLE);
  advance(2 * SECONDS);
  CHECK(!db_is_up(pool.db));
  Call *none = CALL("none");
  settle();
  CHECK_INT(none->outcome, E_UNAVAILABLE);
  CHECK_INT(server_sent("none"), 0);
  server_reset();
  reconnect();
  CHECK(db_is_up(pool.db));
  CHECK_INT(server_opened(), opened + CONNECTIONS);
}

POOL_TEST(an_idle_pool_notices_that_its_server_became_read_only) {
  server_read_only(true);
  for (int i = 0; i < 10; i++)
    advance(SECONDS);
  CHECK(!db_is_up(pool.db));
}

POOL_TEST(a_statement_that_cannot_be_prepared_is_no_busy_database) {
  server_cut(0);
  server_cut(1);
  reconnect();
  server_fail_prepare("42P01");
  server_fail("a", "26000");
  Call *a = CALL("a");
  settle();
  CHECK_INT(a->outcome, E_UNAVAILABLE);
  CHECK_INT(server_sent("a"), 1);
}

/* Events become rows and dead letters, are stored however often that takes, and only then are done. */
#include "services/notification_consumer.h"

#include "cdc/samples.h"
#include "metrics/metrics.h"
#include "rt/clock.h"
#include "rt/fiber.h"
#include "rt/loop.h"
#include "unit/unit.h"

#include <stdio.h>

#include "services/notification_double.c"

#define USER  "ab0a4f6e-6f0e-4b0e-8a55-1f0f2f6c9a22"
#define EMAIL "of " SAMPLE_ACCOUNT

/* ---- a source of prepared batches ---- */

static struct {
  Source source;
  ChangeBatch batches[4];
  int count, given, done;
  int groups_at_done[4]; /* how many groups the database had taken when a batch was done */
  Fiber *reader;
} script;

static int next_batch(Source *source, ChangeBatch *ret) {
  (void)source;
  CHECK_INT(script.given, script.done); /* the batch before it is done */
  script.reader = fiber_current();
  while (script.given == script.count)
    TRY(fiber_wait("script", FIBER_FOREVER));
  *ret = script.batches[script.given++];
  return 0;
}

static void batch_done(Source *source) {
  (void)source;
  script.groups_at_done[script.done++] = world.groups;
}

static NotificationConsumer *start(const ChangeEvent *events, int count) {
  memset(&script, 0, sizeof(script));
  script.source = (Source){.next = next_batch, .done = batch_done};
  script.batches[script.count++] = (ChangeBatch){events, count};
  Service *service = world.service;
  return notification_consumer_start(service, &script.source, notification_resolver_start(service));
}

static void wait_until(bool (*holds)(void)) {
  int64_t end_us = clock_now_us() + 20 * SECONDS;
  while (!holds() && clock_now_us() < end_us)
    CHECK_INT(fiber_sleep(1 * MILLISECONDS), 0);
  CHECK(holds());
}

static bool is_done(void) {
  return script.done == script.count;
}

/* The resolver's groups are others: those that insert are the consumer's. */
static int inserts(void) {
  int n = 0;
  for (int i = 0; i < world.groups; i++)
    n += !strncmp(world.first_sql[i], "INSERT", 6);
  return n;
}

static int insert_number(int n) {
  for (int i = 0; i < world.groups; i++)
    if (!strncmp(world.first_sql[i], "INSERT", 6) && n-- == 0)
      return i;
  return 0;
}

/* The resolver finds nothing to do. */
static void answer_nothing_due(int group, Arena *arena, DbResult *results) {
  if (strncmp(world.first_sql[group], "SELECT", 6) != 0)
    return;
  results[1] = (DbResult){.rows = 1, .columns = 2, .cells = ARENA_ARRAY(arena, Str, 2)};
  results[1].cells[0] = STR("0");
}

static void begin(void) {
  static bool prepared;
  if (!prepared)
    notification_consumer_prepare();
  prepared = true;
  world.answer = answer_nothing_due;
  add_user(SAMPLE_ACCOUNT, 200);
}

static const ChangeEvent good = {.value = STR(SAMPLE_2_3), .position = STR("p1")};

static void store_one(void *arg) {
  (void)arg;
  begin();
  NotificationConsumer *c = start(&good, 1);
  wait_until(is_done);
  const char *row = world.sent[insert_number(0)][0];
  CHECK_INT(inserts(), 1);
  CHECK(strstr(row, "\"historyId\":\"" SAMPLE_ID "\",\"billingId\":\"" SAMPLE_ACCOUNT "\",\"userId\":\"" USER
                    "\",\"email\":\"" EMAIL "\",\"message\":\"You paid 123.45 from your wallet, which now holds "
                    "876.55.\",\"lsn\":314477488}") != NULL);
  CHECK_INT(notification_consumer_stop(c, clock_now_us() + 1 * SECONDS), 0);
}

TEST(an_event_is_stored_with_its_user_then_done) {
  in_loop(store_one);
}

static bool failed_twice(void) {
  return inserts() >= 3;
}

static void store_again(void *arg) {
  (void)arg;
  begin();
  for (int i = 0; i < DOUBLE_GROUPS; i++)
    world.outcomes[i] = E_UNKNOWN;
  NotificationConsumer *c = start(&good, 1);
  wait_until(failed_twice);
  CHECK_INT(script.done, 0); /* never before it is stored */
  memset(world.outcomes, 0, sizeof(world.outcomes));
  wait_until(is_done);
  CHECK(script.groups_at_done[0] > insert_number(inserts() - 1));
  CHECK_STR(world.sent[insert_number(0)][0], world.sent[insert_number(inserts() - 1)][0]); /* the same rows, same ids */
  CHECK_INT(world.calls, 1); /* who was found is not looked up again */
  CHECK_INT(notification_consumer_stop(c, clock_now_us() + 1 * SECONDS), 0);
}

TEST(what_cannot_be_stored_is_retried_and_not_done_before) {
  in_loop(store_again);
}

static void cancel_retries(void *arg) {
  (void)arg;
  begin();
  for (int i = 0; i < DOUBLE_GROUPS; i++)
    world.outcomes[i] = E_UNAVAILABLE;
  NotificationConsumer *c = start(&good, 1);
  wait_until(failed_twice);
  CHECK_INT(notification_consumer_stop(c, clock_now_us() + 1 * SECONDS), 0);
  CHECK_INT(script.done, 0); /* it comes again, elsewhere */
}

TEST(a_batch_given_up_is_not_done) {
  in_loop(cancel_retries);
}

static bool one_is_held(void) {
  return inserts() == 1;
}

static void cancel_store(void *arg) {
  (void)arg;
  begin();
  world.hold_groups = true;
  NotificationConsumer *c = start(&good, 1);
  wait_until(one_is_held);
  CHECK_INT(notification_consumer_stop(c, clock_now_us() + 1 * SECONDS), 0);
  CHECK_INT(script.done, 0);
}

TEST(a_batch_whose_storing_is_canceled_is_not_done) {
  in_loop(cancel_store);
}

static void wait_for_user_service(void *arg) {
  (void)arg;
  begin();
  world.users[0].status = 503;
  NotificationConsumer *c = start(&good, 1);
  while (world.calls < 2)
    CHECK_INT(fiber_sleep(1 * MILLISECONDS), 0);
  CHECK_INT(inserts(), 0); /* an outage is not a missing user */
  world.users[0].status = 200;
  wait_until(is_done);
  CHECK(strstr(world.sent[insert_number(0)][0], "\"email\":\"" EMAIL "\"") != NULL);
  CHECK_INT(notification_consumer_stop(c, clock_now_us() + 1 * SECONDS), 0);
}

TEST(an_outage_of_the_user_service_holds_the_batch) {
  in_loop(wait_for_user_service);
}

static bool resolver_looked_twice(void) {
  return world.groups - inserts() >= 2;
}

static void store_without_user(void *arg) {
  (void)arg;
  begin();
  world.user_count = 0;
  NotificationConsumer *c = start(&good, 1);
  wait_until(is_done);
  CHECK(strstr(world.sent[insert_number(0)][0], "\"userId\":null,\"email\":null,\"message\":\"You paid") != NULL);
  wait_until(resolver_looked_twice); /* once at its start; again for this row, long before a minute is over */
  CHECK_INT(notification_consumer_stop(c, clock_now_us() + 1 * SECONDS), 0);
}

TEST(a_row_without_user_is_stored_and_wakes_the_resolver) {
  in_loop(store_without_user);
}

#define POISON "{\"before\":null,\"after\":{\"id\":\"7\"},\"source\":{},\"op\":\"c\"}"

static const ChangeEvent mixed[] = {
    {.value = STR("no JSON"), .position = STR("p1")},
    {.value = STR(SAMPLE_2_3), .position = STR("p2")},
    {.value = STR(POISON), .position = STR("p3")},
    {.value = STR("{\"before\":null,\"after\":null,\"source\":{},\"op\":\"d\"}"), .position = STR("p4")},
    {.value = {0}, .position = STR("p5")}, /* a tombstone */
    {.value = STR("\xff\x01"), .position = STR("p6")},
};

static void store_mixed(void *arg) {
  (void)arg;
  begin();
  NotificationConsumer *c = start(mixed, sizeof(mixed) / sizeof(mixed[0]));
  wait_until(is_done);
  int group = insert_number(0);
  CHECK_INT(inserts(), 1);
  CHECK_INT(world.statements[group], 2); /* rows and dead letters in one transaction */
  CHECK(strstr(world.sent[group][0], SAMPLE_ID) != NULL);
  CHECK_STR(world.sent[group][1],
            "[{\"position\":\"p1\",\"reason\":\"not a change event\",\"payload\":\"no JSON\"},"
            "{\"position\":\"p3\",\"reason\":\"id is missing or no UUID\",\"payload\":"
            "\"{\\\"before\\\":null,\\\"after\\\":{\\\"id\\\":\\\"7\\\"},\\\"source\\\":{},\\\"op\\\":\\\"c\\\"}\"},"
            "{\"position\":\"p6\",\"reason\":\"not a change event\",\"payload\":\"\\\\xff01\"}]");
  CHECK_INT(notification_consumer_stop(c, clock_now_us() + 1 * SECONDS), 0);
}

TEST(what_can_never_be_a_notification_is_kept_as_a_dead_letter) {
  in_loop(store_mixed);
}

static const ChangeEvent ignored[] = {
    {.value = STR("{\"before\":null,\"after\":null,\"source\":{},\"op\":\"d\"}"), .position = STR("p1")}};

static void ignore(void *arg) {
  (void)arg;
  begin();
  NotificationConsumer *c = start(ignored, 1);
  wait_until(is_done);
  CHECK_INT(inserts(), 0);
  CHECK_INT(notification_consumer_stop(c, clock_now_us() + 1 * SECONDS), 0);
}

TEST(a_batch_of_nothing_to_store_is_done) {
  in_loop(ignore);
}

/* Users looked up for accounts, at once within bounds, and again for the rows stored without one. */
#include "services/notification_recipients.h"

#include "metrics/metrics.h"
#include "rt/clock.h"
#include "rt/fiber.h"
#include "rt/loop.h"
#include "unit/unit.h"

#include <stdio.h>

#include "services/notification_double.c"

#define KNOWN   "0b0a4f6e-6f0e-4b0e-8a55-1f0f2f6c9a22"
#define UNKNOWN "1b0a4f6e-6f0e-4b0e-8a55-1f0f2f6c9a22"
#define BROKEN  "2b0a4f6e-6f0e-4b0e-8a55-1f0f2f6c9a22"

static Uuid uuid_of(const char *text) {
  Uuid id = {0};
  CHECK_INT(uuid_parse(str_from(text), &id), 0);
  return id;
}

static void check_recipient(const Recipient *r, const char *user, const char *email) {
  char id[UUID_TEXT];
  uuid_format(r->userId, id);
  CHECK_STR(id, user);
  CHECK_STR(r->email, email);
}

static void look_up(void *arg) {
  (void)arg;
  SCOPED_ARENA arena = arena_new();
  Recipient recipients[] = {{.billingId = uuid_of(KNOWN)}, {.billingId = uuid_of(UNKNOWN)}};
  add_user(KNOWN, 200);
  CHECK_INT(notification_recipients_look_up(arena, recipients, 2), 0);
  check_recipient(&recipients[0], "ab0a4f6e-6f0e-4b0e-8a55-1f0f2f6c9a22", "of " KNOWN);
  CHECK(uuid_is_nil(recipients[1].userId) && recipients[1].looked_up);
  CHECK_INT(world.calls, 2);
}

TEST(known_users_are_found_and_404_means_none) {
  in_loop(look_up);
}

/* A user service that is down is no user that is missing. */
static void look_up_broken(void *arg) {
  (void)arg;
  SCOPED_ARENA arena = arena_new();
  Recipient recipients[] = {{.billingId = uuid_of(KNOWN)}, {.billingId = uuid_of(BROKEN)}};
  add_user(KNOWN, 200);
  static const int statuses[] = {500, 503, 408, 429, 301, 422};
  add_user(BROKEN, 503);
  for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
    world.users[1].status = statuses[i];
    CHECK_INT(notification_recipients_look_up(arena, recipients, 2), E_UNAVAILABLE);
    CHECK(recipients[0].looked_up && !recipients[1].looked_up);
  }
  CHECK_INT(world.calls, 1 + (int)(sizeof(statuses) / sizeof(statuses[0]))); /* who has answered is not called again */
  world.users[1].status = 200;
  CHECK_INT(notification_recipients_look_up(arena, recipients, 2), 0);
  check_recipient(&recipients[1], "ab0a4f6e-6f0e-4b0e-8a55-1f0f2f6c9a22", "of " BROKEN);
}

TEST(an_outage_is_an_error_and_keeps_what_was_found) {
  in_loop(look_up_broken);
}

static void look_up_many(void *arg) {
  (void)arg;
  SCOPED_ARENA arena = arena_new();
  Recipient recipients[60] = {0};
  for (int i = 0; i < 60; i++) {
    char account[UUID_TEXT];
    snprintf(account, sizeof(account), "%08x-6f0e-4b0e-8a55-1f0f2f6c9a22", 0x10000000 + i);
    add_user(account, 200);
    recipients[i].billingId = uuid_of(account);
  }
  CHECK_INT(notification_recipients_look_up(arena, recipients, 60), 0);
  CHECK_INT(world.calls, 60);
  CHECK_INT(world.running_max, 16);
  for (int i = 0; i < 60; i++)
    CHECK(recipients[i].looked_up && !uuid_is_nil(recipients[i].userId));
}

TEST(calls_run_at_once_within_bounds) {
  in_loop(look_up_many);
}

/* ---- rows stored without a user ---- */

static int rounds;

static Str *cells(Arena *arena, Str a, Str b) {
  Str *made = ARENA_ARRAY(arena, Str, 2);
  made[0] = a;
  made[1] = b;
  return made;
}

/* Rounds: two accounts are due; none is, and one row is still pending, due in a minute. */
static void answer_due(int group, Arena *arena, DbResult *results) {
  if (world.statements[group] == 1) /* the update */
    return;
  bool first = rounds++ == 0;
  if (first)
    results[0] = (DbResult){.rows = 2, .columns = 1, .cells = cells(arena, STR(KNOWN), STR(UNKNOWN))};
  Str count = first ? STR("2") : STR("1");
  results[1] = (DbResult){.rows = 1, .columns = 2, .cells = cells(arena, count, STR("60000000"))};
}

static void resolve(void *arg) {
  (void)arg;
  rounds = 0;
  world.answer = answer_due;
  add_user(KNOWN, 200);
  NotificationResolver *r = notification_resolver_start(world.service);
  while (rounds < 2)
    CHECK_INT(fiber_sleep(1 * MILLISECONDS), 0);
  CHECK_INT(world.groups, 3);
  CHECK_STR(world.sent[1][0],
            "[{\"billingId\":\"" KNOWN "\",\"userId\":\"ab0a4f6e-6f0e-4b0e-8a55-1f0f2f6c9a22\","
            "\"email\":\"of " KNOWN "\"},{\"billingId\":\"" UNKNOWN "\",\"userId\":null,\"email\":null}]");
  int64_t began_us = clock_now_us();
  notification_resolver_wake(r); /* or it would wait for a minute */
  while (rounds < 3 && clock_now_us() - began_us < 10 * SECONDS)
    CHECK_INT(fiber_sleep(1 * MILLISECONDS), 0);
  CHECK_INT(rounds, 3);
}

TEST(pending_rows_get_their_user_and_a_new_one_wakes_the_resolver) {
  in_loop(resolve);
}

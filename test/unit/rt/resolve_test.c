/* Lookups on a real loop, with a resolver that gives addresses, none, or no response. */
#include "rt/resolve.h"

#include "resolver.h"
#include "rt/clock.h"
#include "rt/fiber.h"
#include "rt/loop.h"
#include "unit/unit.h"

#define SHORT_US (50 * MILLISECONDS)
#define LONG_US  (10 * SECONDS)

static struct addrinfo *const untouched = (struct addrinfo *)&resolver;

static struct {
  Fiber *fiber;
  int rc;
  struct addrinfo *found;
  int64_t took_us;
} seen;

static void run(FiberFn *fn) {
  static bool begun;
  if (!begun)
    loop_init();
  begun = true;
  loop_resume();
  seen.found = untouched;
  seen.fiber = fiber_start("test", fn, NULL);
  CHECK(seen.fiber != NULL);
  loop_run();
}

static void look_up(const char *name, int64_t deadline_us) {
  int64_t began_us = clock_now_us();
  seen.rc = resolve(name, "7", began_us + deadline_us, &seen.found);
  seen.took_us = clock_now_us() - began_us;
}

static void wait_until(const atomic_int *count, int wanted) {
  for (int64_t end_us = clock_now_us() + LONG_US; *count < wanted && clock_now_us() < end_us;)
    if (fiber_sleep(MILLISECONDS) < 0)
      return;
  CHECK_INT(*count, wanted);
}

static void finds_two(void *arg) {
  (void)arg;
  look_up("two.test", LONG_US);
  loop_stop();
}

TEST(all_addresses_of_a_name_are_found) {
  run(finds_two);
  CHECK_INT(seen.rc, E_OK);
  CHECK(seen.found != untouched && seen.found->ai_next && !seen.found->ai_next->ai_next);
  resolve_free(seen.found);
  CHECK_INT(resolver.in_loop, 0);
}

static void finds_none(void *arg) {
  (void)arg;
  look_up("none.test", LONG_US);
  loop_stop();
}

TEST(unknown_name_leaves_the_result_untouched) {
  run(finds_none);
  CHECK_INT(seen.rc, E_UNAVAILABLE);
  CHECK(seen.found == untouched);
}

static void waits_for_silence(void *arg) {
  (void)arg;
  look_up("silent.test", SHORT_US);
  CHECK_INT(resolver.answered, 0);
  sem_post(&resolver.silence); /* the lookup ends, and nobody is there any more */
  wait_until(&resolver.answered, 1);
  look_up("two.test", LONG_US);
  loop_stop();
}

TEST(silent_name_server_is_waited_for_until_the_deadline) {
  resolver_forget();
  run(waits_for_silence);
  CHECK_INT(seen.rc, E_OK); /* the next lookup is well */
  resolve_free(seen.found);
}

static void waits_to_be_canceled(void *arg) {
  (void)arg;
  look_up("silent.test", LONG_US);
  loop_stop();
}

static void cancels(void *arg) {
  Fiber **whom = arg;
  wait_until(&resolver.silent, 1);
  fiber_cancel(*whom);
}

TEST(cancel_ends_the_wait_at_once) {
  resolver_forget();
  CHECK(fiber_start("cancel", cancels, &seen.fiber) != NULL);
  run(waits_to_be_canceled);
  CHECK_INT(seen.rc, E_CANCELED);
  CHECK(seen.found == untouched);
  CHECK(seen.took_us < LONG_US / 2);
  sem_post(&resolver.silence);
}

/* libuv has four threads for lookups. */
static void begins_many(void *arg) {
  (void)arg;
  Resolve *lookups[12];
  int64_t deadline_us = clock_now_us() + SHORT_US;
  for (int i = 0; i < 12; i++)
    lookups[i] = resolve_begin("silent.test", NULL);
  for (int i = 0; i < 12; i++)
    CHECK_INT(resolve_end(lookups[i], deadline_us, &seen.found), E_TIMEOUT);
  for (int i = 0; i < 12; i++)
    sem_post(&resolver.silence);
  look_up("two.test", LONG_US);
  loop_stop();
}

TEST(lookups_that_have_not_begun_are_taken_back) {
  resolver_forget();
  run(begins_many);
  CHECK_INT(seen.rc, E_OK);
  resolve_free(seen.found);
  CHECK(resolver.silent <= 4);
}

static void is_empty(void *arg) {
  (void)arg;
  Resolve *r = resolve_begin(NULL, NULL);
  seen.rc = resolve_end(r, clock_now_us() + LONG_US, &seen.found);
  loop_stop();
}

TEST(no_name_at_all_is_not_found) {
  run(is_empty);
  CHECK_INT(seen.rc, E_UNAVAILABLE);
  CHECK(seen.found == untouched);
}

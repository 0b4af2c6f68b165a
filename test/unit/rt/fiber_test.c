/* Fibers on a real loop: waits, deadlines, wakes, cancellation, semaphores, the limit, and many switches. */
#include "rt/fiber.h"

#include "rt/clock.h"
#include "rt/fiber_switch.h"
#include "rt/loop.h"
#include "unit/unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
  Fiber *fiber;
  int rc, counter;
  int64_t waited_us;
  double sum;
  Str order;
  char log[64];
} seen;

static void stop(void *arg) {
  (void)arg;
  loop_stop();
}

/* Runs fn in a fiber on a loop of its own until something calls loop_stop. */
static void run(FiberFn *fn, void *arg) {
  static bool begun;
  if (!begun)
    loop_init();
  begun = true;
  memset(&seen, 0, sizeof(seen));
  loop_resume();
  CHECK(fiber_start("test", fn, arg) != NULL);
  loop_run();
}

static void wait_for_nobody(void *arg) {
  (void)arg;
  int64_t began = clock_now_us();
  seen.rc = fiber_wait("nobody", began + 30000);
  seen.waited_us = clock_now_us() - began;
  loop_stop();
}

TEST(a_wait_ends_at_its_deadline) {
  run(wait_for_nobody, NULL);
  CHECK_INT(seen.rc, E_TIMEOUT);
  CHECK(seen.waited_us >= 30000);
  CHECK(seen.waited_us < 3000000);
}

static void waits(void *arg) {
  (void)arg;
  seen.fiber = fiber_current();
  seen.rc = fiber_wait("wake", clock_now_us() + 10000000);
  loop_stop();
}

static void wakes(void *arg) {
  (void)arg;
  CHECK(fiber_start("waits", waits, NULL) != NULL);
  fiber_yield();
  fiber_wake(seen.fiber);
}

TEST(a_wake_ends_a_wait) {
  seen.rc = -1;
  run(wakes, NULL);
  CHECK_INT(seen.rc, 0);
}

static void wakes_itself_first(void *arg) {
  (void)arg;
  fiber_wake(fiber_current());
  seen.rc = fiber_wait("remembered", clock_now_us() + 10000000);
  loop_stop();
}

TEST(a_wake_before_the_wait_is_remembered) {
  run(wakes_itself_first, NULL);
  CHECK_INT(seen.rc, 0);
}

static void cancels(void *arg) {
  (void)arg;
  CHECK(fiber_start("waits", waits, NULL) != NULL);
  fiber_yield();
  fiber_cancel(seen.fiber);
}

TEST(a_canceled_wait_says_so) {
  run(cancels, NULL);
  CHECK_INT(seen.rc, E_CANCELED);
}

static void waits_uncancelably(void *arg) {
  (void)arg;
  seen.fiber = fiber_current();
  int64_t began = clock_now_us();
  seen.rc = fiber_wait_uncancelable("wake", began + 30000);
  seen.waited_us = clock_now_us() - began;
  CHECK_INT(fiber_wait("next", began + 30000), E_CANCELED);
  loop_stop();
}

static void cancels_it(void *arg) {
  (void)arg;
  CHECK(fiber_start("waits", waits_uncancelably, NULL) != NULL);
  fiber_yield();
  fiber_cancel(seen.fiber);
}

TEST(an_uncancelable_wait_goes_on_after_a_cancel_which_the_next_wait_reports) {
  run(cancels_it, NULL);
  CHECK_INT(seen.rc, E_TIMEOUT);
  CHECK(seen.waited_us >= 30000);
}

static void cancels_and_wakes_it(void *arg) {
  cancels_it(arg);
  fiber_wake(seen.fiber);
}

TEST(a_wake_ends_an_uncancelable_wait_after_a_cancel) {
  run(cancels_and_wakes_it, NULL);
  CHECK_INT(seen.rc, 0);
}

static void is_canceled_first(void *arg) {
  fiber_cancel(fiber_current());
  waits_uncancelably(arg);
}

TEST(a_canceled_fiber_can_wait_uncancelably) {
  run(is_canceled_first, NULL);
  CHECK_INT(seen.rc, E_TIMEOUT);
  CHECK(seen.waited_us >= 30000);
}

static void sleeps(void *arg) {
  int ms = *(const int *)arg;
  CHECK_INT(fiber_sleep(ms * 1000), 0);
  seen.log[strlen(seen.log)] = (char)('a' + ms / 10);
  if (strlen(seen.log) == 5)
    loop_stop();
}

static void starts_sleepers(void *arg) {
  (void)arg;
  static const int ms[] = {40, 10, 30, 50, 20};
  for (int i = 0; i < 5; i++)
    CHECK(fiber_start("sleeps", sleeps, (void *)(uintptr_t)&ms[i]) != NULL);
}

TEST(sleepers_wake_in_the_order_of_their_deadlines) {
  run(starts_sleepers, NULL);
  CHECK_STR(seen.log, "bcdef");
}

static Semaphore semaphore;

static void holds(void *arg) {
  (void)arg;
  CHECK_INT(semaphore_acquire(&semaphore, "test", FIBER_FOREVER), 0);
  seen.counter++;
  CHECK(seen.counter <= 2);
  CHECK_INT(fiber_sleep(2000), 0);
  seen.counter--;
  semaphore_release(&semaphore);
  if (++seen.rc == 10)
    loop_stop();
}

static void starts_holders(void *arg) {
  (void)arg;
  semaphore = (Semaphore){.free = 2};
  for (int i = 0; i < 10; i++)
    CHECK(fiber_start("holds", holds, NULL) != NULL);
}

TEST(a_semaphore_lets_in_as_many_as_it_has) {
  run(starts_holders, NULL);
  CHECK_INT(seen.rc, 10);
  CHECK_INT(semaphore.free, 2);
}

static void gives_up(void *arg) {
  (void)arg;
  semaphore = (Semaphore){.free = 0};
  seen.rc = semaphore_acquire(&semaphore, "test", clock_now_us() + 5000);
  semaphore_release(&semaphore);
  CHECK_INT(semaphore_acquire(&semaphore, "test", clock_now_us() + 5000), 0);
  loop_stop();
}

TEST(who_gave_up_on_a_semaphore_does_not_get_it_later) {
  run(gives_up, NULL);
  CHECK_INT(seen.rc, E_TIMEOUT);
  CHECK(semaphore.first == NULL);
}

static void adds(void *arg) {
  double step = *(const double *)arg;
  for (int i = 0; i < 20000; i++) {
    seen.sum += step; /* floating point state must survive the switch */
    fiber_yield();
  }
  if (++seen.counter == 8)
    loop_stop();
}

static void starts_adders(void *arg) {
  (void)arg;
  static const double steps[8] = {0.5, 0.25, 1, 2, 4, 8, 16, 32};
  for (int i = 0; i < 8; i++)
    CHECK(fiber_start("adds", adds, (void *)(uintptr_t)&steps[i]) != NULL);
}

TEST(state_survives_many_switches) {
  run(starts_adders, NULL);
  CHECK(seen.sum == 20000 * 63.75);
}

static void uses_stack(void *arg) {
  (void)arg;
  volatile char area[FIBER_STACK * 3 / 4];
  for (size_t i = 0; i < sizeof(area); i += 512)
    area[i] = (char)i;
  fiber_yield();
  CHECK_INT(area[1024], 0);
  loop_stop();
}

TEST(a_fiber_may_use_most_of_its_stack) {
  run(uses_stack, NULL);
}

static void reaches_limit(void *arg) {
  (void)arg;
  fiber_limit(fiber_count() + 2);
  CHECK(fiber_start("one", stop, NULL) != NULL);
  CHECK(fiber_start("two", stop, NULL) != NULL);
  CHECK(fiber_start("three", stop, NULL) == NULL);
  fiber_limit(4096);
}

TEST(beyond_the_limit_no_fiber_starts) {
  run(reaches_limit, NULL);
}

static void inherits(void *arg) {
  (void)arg;
  seen.order = str_from(strdup(fiber_context()->saga_id));
  loop_stop();
}

static void has_context(void *arg) {
  (void)arg;
  memcpy(fiber_context()->saga_id, "a saga", sizeof("a saga"));
  CHECK(fiber_start("inherits", inherits, NULL) != NULL);
}

TEST(a_fiber_inherits_the_context_of_who_started_it) {
  run(has_context, NULL);
  CHECK_STR(seen.order, "a saga");
  free((char *)(uintptr_t)seen.order.p);
  CHECK_STR(fiber_context()->saga_id, "");
}

enum { BURST = 400 };

static const volatile char *deep[BURST]; /* a byte of each one's stack */

static int64_t resident(void) {
  long long pages = 0;
  FILE *f = fopen("/proc/self/statm", "r");
  CHECK(f && fscanf(f, "%*s %lld", &pages) == 1);
  if (f)
    fclose(f);
  return pages * sysconf(_SC_PAGESIZE);
}

static void goes_deep(void *arg) {
  (void)arg;
  volatile char area[FIBER_STACK * 3 / 4];
  for (size_t i = 0; i < sizeof(area); i += 512)
    area[i] = (char)i;
  deep[seen.counter++] = area;
  CHECK_INT(semaphore_acquire(&semaphore, "all", FIBER_FOREVER), 0);
  CHECK_INT(area[512 * 3], 0);
  semaphore_release(&semaphore);
  seen.counter--;
}

static int count_mapped(void) {
  int ends[2], count = 0;
  CHECK_INT(pipe(ends), 0);
  for (int i = 0; i < BURST; i++)
    count += write(ends[1], (const void *)(uintptr_t)deep[i], 1) == 1;
  close(ends[0]);
  close(ends[1]);
  return count;
}

static void bursts(void *arg) {
  (void)arg;
  const int64_t used = (int64_t)BURST * FIBER_STACK * 3 / 4;
  int64_t before = resident();
  semaphore = (Semaphore){.free = 0};
  for (int i = 0; i < BURST; i++)
    CHECK(fiber_start("deep", goes_deep, NULL) != NULL);
  while (seen.counter < BURST)
    fiber_yield();
  CHECK(resident() - before > used * 9 / 10);
  semaphore_release(&semaphore);
  while (seen.counter > 0)
    fiber_yield();
  int64_t until = clock_now_us() + 10 * SECONDS;
  while (count_mapped() > BURST / 4 && clock_now_us() < until)
    CHECK_INT(fiber_sleep(50 * MILLISECONDS), 0);
  CHECK(count_mapped() <= BURST / 4);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* what they note about each byte stays */
  CHECK(resident() - before <= used / 4);
#endif
  loop_stop();
}

TEST(memory_of_stacks_goes_back_after_a_burst) {
  run(bursts, NULL);
}

static void starts_and_waits(void *arg) {
  (void)arg;
  semaphore = (Semaphore){.free = 0};
  for (int i = 0; i < 4; i++)
    CHECK(fiber_start("deep", goes_deep, NULL) != NULL);
  semaphore_release(&semaphore);
  while (seen.counter > 0 || seen.rc++ == 0)
    fiber_yield();
  loop_stop();
}

TEST(fibers_start_on_stacks_kept_and_on_new_ones) {
  for (int i = 0; i < 3; i++)
    run(starts_and_waits, NULL);
  CHECK_INT(seen.counter, 0);
}

TEST(below_a_stack_lies_a_guard) {
  enum { STACKS = 16, GUARD = 64 * 1024 }; /* several, as they mostly lie side by side */
  FiberStack stacks[STACKS] = {0};
  int ends[2];
  CHECK_INT(pipe(ends), 0);
  for (int i = 0; i < STACKS; i++)
    fiber_stack_map(&stacks[i], FIBER_STACK);
  for (int i = 0; i < STACKS; i++) {
    const char *bottom = stacks[i].bottom;
    CHECK_INT(write(ends[1], bottom, 1), 1);
    for (int below = 1; below <= GUARD; below = below == 1 ? 1024 : below + 1024)
      CHECK(write(ends[1], bottom - below, 1) == -1 && errno == EFAULT);
  }
  for (int i = 0; i < STACKS; i++)
    fiber_stack_unmap(&stacks[i]);
  close(ends[0]);
  close(ends[1]);
}

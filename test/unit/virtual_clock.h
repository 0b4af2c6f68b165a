/* Time that only the test moves: include it once in a test program, and it takes the place of rt/clock. A minute passes
 * in as long as the loop takes to turn, so a test can wait for every bound, and two runs do the same. */
#ifndef SKALD_TEST_UNIT_VIRTUAL_CLOCK_H
#define SKALD_TEST_UNIT_VIRTUAL_CLOCK_H

#include "rt/clock.h"
#include "unit/in_loop.h"

#define VIRTUAL_EPOCH_US INT64_C(1790710562903499)
#define VIRTUAL_STEP     MILLISECONDS
#define VIRTUAL_WAIT_MAX (120 * SECONDS)

static int64_t virtual_us = 1000 * SECONDS;

int64_t clock_now_us(void) {
  return virtual_us;
}

int64_t clock_unix_ns(void) {
  return clock_unix_us() * 1000;
}

int64_t clock_unix_us(void) {
  return VIRTUAL_EPOCH_US + virtual_us;
}

int64_t clock_unix_ms(void) {
  return clock_unix_us() / 1000;
}

/* Lets the other fibers run, for so long by their clock; 0: until they all wait. */
static void pass(int64_t us) {
  for (int64_t end_us = virtual_us + us; virtual_us < end_us; virtual_us += VIRTUAL_STEP)
    fiber_yield();
  for (int turns = 0; turns < 20; turns++) /* one may wake the next */
    fiber_yield();
}

/* Lets them run until the condition holds; returns how long that took. */
#define PASS_UNTIL(condition)                                                                                          \
  ({                                                                                                                   \
    int64_t pass_from_us = virtual_us;                                                                                 \
    while (!(condition) && virtual_us - pass_from_us < VIRTUAL_WAIT_MAX)                                               \
      virtual_us += VIRTUAL_STEP, fiber_yield();                                                                       \
    pass(0);                                                                                                           \
    CHECK(condition);                                                                                                  \
    virtual_us - pass_from_us;                                                                                         \
  })

#endif

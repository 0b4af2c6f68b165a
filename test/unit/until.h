/* Waiting in a LOOP_TEST for what other fibers, threads or sockets do. */
#ifndef SKALD_TEST_UNIT_UNTIL_H
#define SKALD_TEST_UNIT_UNTIL_H

#include "rt/clock.h"
#include "unit/in_loop.h"

#define TURNS_MAX 10000 /* of at least a millisecond each */

static bool turn(int *turns) {
  if (fiber_sleep(MILLISECONDS) < 0)
    die("the test's fiber was canceled");
  return ++*turns < TURNS_MAX;
}

/* Lets the loop turn until the condition holds. Where it does not, the test ends. */
#define UNTIL(condition)                                                                                               \
  for (int until_turns = 0; !(condition);)                                                                             \
    if (!turn(&until_turns)) {                                                                                         \
      unit_check(false, "in time: " #condition, __FILE__, __LINE__);                                                   \
      exit(1);                                                                                                         \
    }

#endif

/* The clocks, read through the vDSO: no system call. */
#include "rt/clock.h"

#include <time.h>

static int64_t read_ns(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t clock_now_us(void) {
  return read_ns(CLOCK_MONOTONIC) / 1000;
}

int64_t clock_unix_ns(void) {
  return read_ns(CLOCK_REALTIME);
}

int64_t clock_unix_us(void) {
  return clock_unix_ns() / 1000;
}

int64_t clock_unix_ms(void) {
  return clock_unix_ns() / 1000000;
}

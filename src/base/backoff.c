/* Backoff with "equal jitter": half fixed, half random. */
#include "base/backoff.h"

#include <assert.h>

int64_t backoff_us(int attempts, int64_t first_us, int64_t max_us, uint64_t random) {
  assert(attempts >= 0 && first_us > 0 && first_us <= max_us);
  int64_t full_us = first_us;
  for (int i = 0; i < attempts && full_us < max_us; i++)
    full_us = full_us > max_us / 2 ? max_us : full_us * 2;
  return full_us / 2 + (int64_t)(random % (uint64_t)(full_us - full_us / 2));
}

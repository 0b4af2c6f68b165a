/* Exponential backoff: how long to wait before the next attempt. */
#ifndef SKALD_BASE_BACKOFF_H
#define SKALD_BASE_BACKOFF_H

#include <stdint.h>

/* After attempts failed attempts, counted from 0: first_us doubled that many times, at most max_us, of which the upper
 * half is chosen by random, so that a crowd of retries spreads out and the wait still grows. 0 < first_us <= max_us. */
int64_t backoff_us(int attempts, int64_t first_us, int64_t max_us, uint64_t random);

#endif

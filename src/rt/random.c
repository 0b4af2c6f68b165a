/* Randomness from the kernel, fetched in portions: most uses want a few bytes, and a system call costs more than they
 * do. */
#include "rt/random.h"

#include "base/err.h"
#include "rt/clock.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/random.h>

static struct {
  uint8_t bytes[512];
  size_t left; /* the last so many are unused */
} pool;

static void from_kernel(void *out, size_t n) {
  for (uint8_t *p = out; n;) {
    ssize_t got = getrandom(p, n, 0);
    if (got < 0 && errno != EINTR)
      die("getrandom: %s", strerror(errno)); /* no id made from here on would be unique */
    if (got > 0) {
      p += got;
      n -= (size_t)got;
    }
  }
}

void random_bytes(void *out, size_t n) {
  if (n > sizeof(pool.bytes)) {
    from_kernel(out, n);
    return;
  }
  if (n > pool.left) {
    from_kernel(pool.bytes, sizeof(pool.bytes));
    pool.left = sizeof(pool.bytes);
  }
  uint8_t *from = pool.bytes + (sizeof(pool.bytes) - pool.left);
  memcpy(out, from, n);
  memset(from, 0, n); /* what was given out can't be read back from here */
  pool.left -= n;
}

uint64_t random_u64(void) {
  uint64_t value;
  random_bytes(&value, sizeof(value));
  return value;
}

uint64_t random_below(uint64_t bound) {
  assert(bound > 0);
  uint64_t unfair = -bound % bound; /* so many of the lowest values would make small results likelier */
  uint64_t value;
  do
    value = random_u64();
  while (value < unfair);
  return value % bound;
}

Uuid uuid_new(void) {
  uint8_t random[10];
  random_bytes(random, sizeof(random));
  return uuid_v7(clock_unix_ms(), random);
}

void random_after_fork(void) {
  memset(pool.bytes, 0, sizeof(pool.bytes));
  pool.left = 0;
}

/* The process's randomness, from the kernel. */
#ifndef SKALD_RT_RANDOM_H
#define SKALD_RT_RANDOM_H

#include "base/uuid.h"

void random_bytes(void *out, size_t n);
uint64_t random_u64(void);
uint64_t random_below(uint64_t bound); /* uniform in [0, bound) */
Uuid uuid_new(void);                   /* a fresh version 7 id */
void random_after_fork(void);          /* drops buffered bytes, so that parent and child differ */

#endif

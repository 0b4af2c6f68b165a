/* UUIDs (RFC 9562). The nil UUID stands for "absent". Making one takes clock and randomness from the caller:
 * rt/random.h. */
#ifndef SKALD_BASE_UUID_H
#define SKALD_BASE_UUID_H

#include "base/str.h"

typedef struct Uuid {
  uint8_t b[16];
} Uuid;

#define UUID_TEXT 37 /* 36 characters and the zero byte */

int uuid_parse(Str text, Uuid *ret);            /* the 8-4-4-4-12 form only, either case; E_MALFORMED */
void uuid_format(Uuid id, char out[UUID_TEXT]); /* lower case */
bool uuid_eq(Uuid a, Uuid b);
int uuid_cmp(Uuid a, Uuid b); /* as memcmp, which is also PostgreSQL's order */
bool uuid_is_nil(Uuid id);
/* Version 7 from Unix milliseconds and ten random bytes. Ids of one millisecond are in no promised order. */
Uuid uuid_v7(int64_t unix_ms, const uint8_t random[10]);
/* The n-th id derived from a parent, 1 ≤ n < 65536: the same always for the same n, different for different n, the
 * parent's time and version kept, so that what belongs together also lies together in an index. */
Uuid uuid_child(Uuid parent, unsigned n);

#endif

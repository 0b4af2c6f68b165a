/* UUIDs: text, order, and the bits of versions 7. */
#include "base/uuid.h"

#include "base/err.h"

#include <assert.h>
#include <string.h>

#define TEXT_LENGTH  (UUID_TEXT - 1)
#define TAIL_BITS    62 /* what is random after the variant's two bits */
#define TAIL_MASK    ((UINT64_C(1) << TAIL_BITS) - 1)
#define VARIANT_MASK UINT64_C(0xC000000000000000)

/* A hyphen stands before these bytes. */
static bool hyphen_before(size_t byte) {
  return byte == 4 || byte == 6 || byte == 8 || byte == 10;
}

int uuid_parse(Str text, Uuid *ret) {
  if (text.n != TEXT_LENGTH)
    return E_MALFORMED;
  Uuid id;
  const char *p = text.p;
  for (size_t i = 0; i < sizeof(id.b); i++) {
    if (hyphen_before(i) && *p++ != '-')
      return E_MALFORMED;
    int high = str_hex_value(p[0]), low = str_hex_value(p[1]);
    if (high < 0 || low < 0)
      return E_MALFORMED;
    id.b[i] = (uint8_t)(high << 4 | low);
    p += 2;
  }
  *ret = id;
  return 0;
}

void uuid_format(Uuid id, char out[UUID_TEXT]) {
  static const char hex[] = "0123456789abcdef";
  for (size_t i = 0; i < sizeof(id.b); i++) {
    if (hyphen_before(i))
      *out++ = '-';
    *out++ = hex[id.b[i] >> 4];
    *out++ = hex[id.b[i] & 15];
  }
  *out = 0;
}

bool uuid_eq(Uuid a, Uuid b) {
  return uuid_cmp(a, b) == 0;
}

int uuid_cmp(Uuid a, Uuid b) {
  return memcmp(a.b, b.b, sizeof(a.b));
}

bool uuid_is_nil(Uuid id) {
  return uuid_eq(id, (Uuid){0});
}

Uuid uuid_v7(int64_t unix_ms, const uint8_t random[10]) {
  Uuid id;
  for (int i = 0; i < 6; i++)
    id.b[i] = (uint8_t)((uint64_t)unix_ms >> (40 - 8 * i));
  memcpy(id.b + 6, random, 10);
  id.b[6] = (uint8_t)(0x70 | (id.b[6] & 0x0F));
  id.b[8] = (uint8_t)(0x80 | (id.b[8] & 0x3F));
  return id;
}

/* A permutation of the 62-bit numbers: every step can be undone, so different numbers stay different. */
static uint64_t scramble(uint64_t x) {
  x ^= x >> 31;
  x = x * UINT64_C(0x2545F4914F6CDD1D) & TAIL_MASK;
  x ^= x >> 29;
  x = x * UINT64_C(0x1B873593CC9E2D51) & TAIL_MASK;
  return x ^ x >> 32;
}

Uuid uuid_child(Uuid parent, unsigned n) {
  assert(n >= 1 && n < 65536);
  uint64_t tail = 0;
  for (int i = 8; i < 16; i++)
    tail = tail << 8 | parent.b[i];
  /* Adding n times an odd number differs for every n, and the permutation keeps that; it also keeps grandchildren from
   * meeting children, as they would were n only added. */
  uint64_t own = scramble((tail + n * UINT64_C(0x9E3779B97F4A7C15)) & TAIL_MASK);
  tail = (tail & VARIANT_MASK) | own;
  Uuid child = parent;
  for (int i = 0; i < 8; i++)
    child.b[8 + i] = (uint8_t)(tail >> (56 - 8 * i));
  return child;
}

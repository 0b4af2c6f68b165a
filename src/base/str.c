/* Str: comparing, cutting and checking borrowed bytes. */
#include "base/str.h"

#include "base/err.h"

#include <string.h>

Str str_from(const char *zero_terminated) {
  return zero_terminated ? (Str){zero_terminated, strlen(zero_terminated)} : (Str){0};
}

bool str_eq(Str a, Str b) {
  if (!a.p || !b.p)
    return a.p == b.p;
  return a.n == b.n && memcmp(a.p, b.p, a.n) == 0;
}

static char ascii_lower(char c) {
  return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

bool str_eq_nocase(Str a, Str b) {
  if (!a.p || !b.p)
    return a.p == b.p;
  if (a.n != b.n)
    return false;
  for (size_t i = 0; i < a.n; i++)
    if (ascii_lower(a.p[i]) != ascii_lower(b.p[i]))
      return false;
  return true;
}

static bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

Str str_trim(Str s) {
  while (s.n && is_space(s.p[0]))
    s = (Str){s.p + 1, s.n - 1};
  while (s.n && is_space(s.p[s.n - 1]))
    s.n--;
  return s;
}

bool str_starts(Str s, Str prefix) {
  return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

Str str_cut(Str *rest, char sep) {
  Str whole = *rest;
  const char *at = whole.n ? memchr(whole.p, sep, whole.n) : NULL;
  if (!at) {
    *rest = (Str){0};
    return whole;
  }
  size_t before = (size_t)(at - whole.p);
  *rest = (Str){at + 1, whole.n - before - 1};
  return (Str){whole.p, before};
}

/* The value is built up on its own side of zero, because INT64_MIN has no positive twin. */
static int push_digit(int64_t *value, char c, bool negative) {
  int digit = negative ? '0' - c : c - '0';
  if (__builtin_mul_overflow(*value, 10, value) || __builtin_add_overflow(*value, digit, value))
    return E_RANGE;
  return 0;
}

int str_to_int(Str s, int64_t *ret) {
  bool negative = s.n > 0 && s.p[0] == '-';
  size_t first = negative ? 1 : 0;
  if (s.n == first)
    return E_MALFORMED;
  for (size_t i = first; i < s.n; i++)
    if (s.p[i] < '0' || s.p[i] > '9')
      return E_MALFORMED;
  int64_t value = 0;
  for (size_t i = first; i < s.n; i++)
    TRY(push_digit(&value, s.p[i], negative));
  *ret = value;
  return 0;
}

/* The well-formed sequences of RFC 3629 §4 by their first byte: how many bytes follow, and the bounds of the second
 * byte, which is where overlong forms, surrogates and what lies beyond U+10FFFF are distinguished. */
static size_t utf8_shape(unsigned char first, unsigned char *low, unsigned char *high) {
  *low = 0x80;
  *high = 0xBF;
  if (first >= 0xC2 && first <= 0xDF)
    return 1;
  if (first >= 0xE0 && first <= 0xEF) {
    if (first == 0xE0)
      *low = 0xA0;
    if (first == 0xED)
      *high = 0x9F;
    return 2;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    if (first == 0xF0)
      *low = 0x90;
    if (first == 0xF4)
      *high = 0x8F;
    return 3;
  }
  return 0;
}

size_t str_utf8_first(Str s) {
  const unsigned char *p = (const unsigned char *)s.p;
  if (s.n == 0)
    return 0;
  if (p[0] < 0x80)
    return 1;
  unsigned char low, high;
  size_t more = utf8_shape(p[0], &low, &high);
  if (more == 0 || s.n <= more || p[1] < low || p[1] > high)
    return 0;
  for (size_t i = 2; i <= more; i++)
    if ((p[i] & 0xC0) != 0x80)
      return 0;
  return more + 1;
}

/* How many bytes of ASCII s begins with, counted in words as far as whole words of it go. */
static size_t ascii_words(Str s) {
  size_t i = 0;
  for (uint64_t word; i + sizeof(word) <= s.n; i += sizeof(word)) {
    memcpy(&word, s.p + i, sizeof(word));
    if (word & UINT64_C(0x8080808080808080))
      break;
  }
  return i;
}

bool str_is_utf8(Str s) {
  while (s.n) {
    size_t n = ascii_words(s);
    if (n == 0)
      n = str_utf8_first(s);
    if (n == 0)
      return false;
    s = (Str){s.p + n, s.n - n};
  }
  return true;
}

Str str_utf8_cut(Str s, size_t most) {
  if (s.n <= most)
    return s;
  while (most && ((unsigned char)s.p[most] & 0xC0) == 0x80)
    most--;
  return (Str){s.p, most};
}

int str_hex_value(char c) {
  if (c >= '0' && c <= '9')
    return c - '0';
  if (c >= 'a' && c <= 'f')
    return c - 'a' + 10;
  if (c >= 'A' && c <= 'F')
    return c - 'A' + 10;
  return -1;
}

uint64_t str_hash(Str s) {
  uint64_t hash = UINT64_C(0xcbf29ce484222325);
  for (size_t i = 0; i < s.n; i++)
    hash = (hash ^ (unsigned char)s.p[i]) * UINT64_C(0x100000001b3);
  return hash;
}

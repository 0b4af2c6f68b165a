/* Buf: appending bytes, numbers and JSON strings. */
#include "base/buf.h"

#include "base/decimal.h"
#include "base/err.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CAP_FIRST 128

void buf_reserve(Buf *b, size_t more) {
  assert(b->n <= b->cap);
  if (more <= b->cap - b->n)
    return;
  if (more > SIZE_MAX / 4 - b->n)
    die("out of memory: a buffer of %zu bytes was to grow by %zu", b->n, more);
  size_t cap = b->cap ? b->cap * 2 : CAP_FIRST;
  if (cap < b->n + more)
    cap = b->n + more;
  char *grown;
  if (b->arena) {
    grown = arena_alloc(b->arena, cap);
    if (b->n)
      memcpy(grown, b->p, b->n);
  } else {
    grown = realloc(b->p, cap);
    if (!grown)
      die("out of memory: a buffer of %zu bytes", cap);
  }
  b->p = grown;
  b->cap = cap;
}

void buf_add(Buf *b, const void *bytes, size_t n) {
  if (n == 0)
    return;
  buf_reserve(b, n);
  memcpy(b->p + b->n, bytes, n);
  b->n += n;
}

void buf_str(Buf *b, Str s) {
  buf_add(b, s.p, s.n);
}

void buf_cstr(Buf *b, const char *s) {
  buf_add(b, s, strlen(s));
}

void buf_char(Buf *b, char c) {
  buf_reserve(b, 1);
  b->p[b->n++] = c;
}

void buf_int(Buf *b, int64_t value) {
  buf_reserve(b, 1 + DECIMAL_TEXT);
  if (value < 0)
    b->p[b->n++] = '-';
  b->n += decimal_write(value < 0 ? 0 - (uint64_t)value : (uint64_t)value, b->p + b->n);
}

void buf_printf(Buf *b, const char *format, ...) {
  va_list args;
  va_start(args, format);
  va_list again;
  va_copy(again, args);
  size_t room = b->cap - b->n;
  int n = vsnprintf(room ? b->p + b->n : NULL, room, format, args);
  va_end(args);
  if (n < 0)
    die("vsnprintf failed on \"%s\"", format);
  if ((size_t)n >= room) {
    buf_reserve(b, (size_t)n + 1); /* vsnprintf wants room for its zero byte */
    vsnprintf(b->p + b->n, (size_t)n + 1, format, again);
  }
  va_end(again);
  b->n += (size_t)n;
}

static bool is_plain(unsigned char c) {
  return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

/* Appends the character s begins with, which is not a plain one. Returns how many bytes of s that was. Bytes that are
 * no UTF-8 become U+FFFD one by one: any input gives valid JSON. */
static size_t add_special(Buf *b, Str s) {
  static const char hex[] = "0123456789ABCDEF";
  static const char letters[0x20] = {['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'};
  unsigned char c = (unsigned char)s.p[0];
  if (c >= 0x80) {
    size_t n = str_utf8_first(s);
    if (n)
      buf_add(b, s.p, n);
    else
      buf_str(b, STR("\\ufffd"));
    return n ? n : 1;
  }
  char letter = c < 0x20 ? letters[c] : (char)c;
  if (letter)
    buf_add(b, (char[]){'\\', letter}, 2);
  else
    buf_add(b, (char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
  return 1;
}

void buf_json_string(Buf *b, Str s) {
  if (!s.p) {
    buf_str(b, STR("null"));
    return;
  }
  buf_reserve(b, s.n + 2);
  buf_char(b, '"');
  while (s.n) {
    size_t n = 0;
    while (n < s.n && is_plain((unsigned char)s.p[n]))
      n++;
    buf_add(b, s.p, n);
    if (n < s.n)
      n += add_special(b, (Str){s.p + n, s.n - n});
    s = (Str){s.p + n, s.n - n};
  }
  buf_char(b, '"');
}

static void add_big_endian(Buf *b, uint64_t value, size_t bytes) {
  buf_reserve(b, bytes);
  for (size_t i = 0; i < bytes; i++)
    b->p[b->n++] = (char)(value >> (8 * (bytes - 1 - i)));
}

void buf_be16(Buf *b, uint16_t v) {
  add_big_endian(b, v, 2);
}

void buf_be32(Buf *b, uint32_t v) {
  add_big_endian(b, v, 4);
}

void buf_be64(Buf *b, uint64_t v) {
  add_big_endian(b, v, 8);
}

Str buf_view(const Buf *b) {
  return (Str){b->n ? b->p : "", b->n};
}

void buf_clear(Buf *b) {
  b->n = 0;
}

void buf_free(Buf *b) {
  if (!b->arena)
    free(b->p);
  *b = (Buf){0};
}

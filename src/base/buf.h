/* Buf: bytes that grow at the end. Backed by an arena (nothing to free), or by malloc when arena is NULL (buf_free). */
#ifndef SKALD_BASE_BUF_H
#define SKALD_BASE_BUF_H

#include "base/arena.h"

typedef struct Buf {
  Arena *arena;
  char *p;
  size_t n; /* bytes written */
  size_t cap;
} Buf;

void buf_reserve(Buf *b, size_t more); /* at least so many bytes can be added without growing */
void buf_add(Buf *b, const void *bytes, size_t n);
void buf_str(Buf *b, Str s);
void buf_cstr(Buf *b, const char *s);
void buf_char(Buf *b, char c);
void buf_int(Buf *b, int64_t value);
void buf_printf(Buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buf_json_string(Buf *b, Str s); /* with quotes, escaped by RFC 8259; the absent Str gives null */
void buf_be16(Buf *b, uint16_t v);   /* big-endian, as network protocols want it */
void buf_be32(Buf *b, uint32_t v);
void buf_be64(Buf *b, uint64_t v);
Str buf_view(const Buf *b); /* valid until the next change */
void buf_clear(Buf *b);     /* keeps the memory */
void buf_free(Buf *b);      /* malloc-backed ones; leaves an empty Buf */

#endif

/* Arena: memory that is freed all at once. What a request makes lives in its arena, so handlers free nothing.
 * Out of memory aborts; every input is bounded so that it can't be provoked. Not for use by two threads. */
#ifndef SKALD_BASE_ARENA_H
#define SKALD_BASE_ARENA_H

#include "base/str.h"

#include <stdarg.h>

typedef struct Arena Arena;

Arena *arena_new(void);
void arena_free(Arena *a);         /* takes NULL */
void arena_reset(Arena *a);        /* forgets everything, keeps one block for the next use */
size_t arena_size(const Arena *a); /* bytes handed out since the last reset */

void *arena_alloc(Arena *a, size_t bytes) __attribute__((malloc, returns_nonnull)); /* zeroed, aligned for any type */
void *arena_copy(Arena *a, const void *from, size_t bytes);
Str arena_str(Arena *a, Str s); /* copies, and appends a zero byte that n does not count */
const char *arena_cstr(Arena *a, Str s);
Str arena_printf(Arena *a, const char *format, ...) __attribute__((format(printf, 2, 3)));
Str arena_vprintf(Arena *a, const char *format, va_list args);

#define ARENA_NEW(a, Type)          ((Type *)arena_alloc((a), sizeof(Type)))
#define ARENA_ARRAY(a, Type, count) ((Type *)arena_alloc((a), sizeof(Type) * (count)))

void arena_cleanup(Arena **a); /* for the cleanup attribute */
#define SCOPED_ARENA __attribute__((cleanup(arena_cleanup))) Arena *

#endif

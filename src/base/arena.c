/* Arena: a chain of blocks, the newest first, each handed out from its front. */
#include "base/arena.h"

#include "base/err.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* With AddressSanitizer, what is not handed out is poisoned: a use after arena_reset is caught like one after free. */
#if __has_include(<sanitizer/asan_interface.h>)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n)   ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

#define BLOCK_FIRST 4096  /* bytes of a new arena's block */
#define BLOCK_MAX   32768 /* blocks double up to this; only what fits nowhere gets a larger one of its own */

typedef struct Block {
  struct Block *next;
  size_t cap, used;
  _Alignas(max_align_t) char bytes[];
} Block;

struct Arena {
  Block *block;
  size_t size;
};

static Block *block_new(size_t cap, Block *next) {
  Block *b = cap <= SIZE_MAX / 2 ? malloc(sizeof(*b) + cap) : NULL;
  if (!b)
    die("out of memory: an arena's block of %zu bytes", cap);
  b->next = next;
  b->cap = cap;
  b->used = 0;
  ASAN_POISON_MEMORY_REGION(b->bytes, cap);
  return b;
}

static void block_free(Block *b) {
  ASAN_UNPOISON_MEMORY_REGION(b->bytes, b->cap);
  free(b);
}

static void *take(Arena *a, size_t bytes, size_t alignment) {
  Block *b = a->block;
  assert(b && b->used <= b->cap);
  size_t at = (b->used + alignment - 1) & ~(alignment - 1);
  if (at > b->cap || bytes > b->cap - at) {
    size_t cap = b->cap < BLOCK_MAX / 2 ? b->cap * 2 : BLOCK_MAX;
    b = a->block = block_new(bytes > cap ? bytes : cap, b);
    at = 0;
  }
  b->used = at + bytes;
  a->size += bytes;
  ASAN_UNPOISON_MEMORY_REGION(b->bytes + at, bytes);
  return b->bytes + at;
}

Arena *arena_new(void) {
  Arena *a = malloc(sizeof(*a));
  if (!a)
    die("out of memory: an arena");
  *a = (Arena){.block = block_new(BLOCK_FIRST, NULL)};
  return a;
}

/* Frees every block but keep, which may be NULL. */
static void free_blocks(Block *first, const Block *keep) {
  for (Block *b = first, *next; b; b = next) {
    next = b->next;
    if (b != keep)
      block_free(b);
  }
}

void arena_free(Arena *a) {
  if (!a)
    return;
  free_blocks(a->block, NULL);
  free(a);
}

void arena_reset(Arena *a) {
  /* The newest that is no giant is as large as this arena's work needs. There is one: the first block is none. */
  Block *keep = a->block;
  while (keep && keep->cap > BLOCK_MAX)
    keep = keep->next;
  assert(keep && keep->cap <= BLOCK_MAX);
  free_blocks(a->block, keep);
  ASAN_POISON_MEMORY_REGION(keep->bytes, keep->cap);
  keep->next = NULL;
  keep->used = 0;
  *a = (Arena){.block = keep};
}

size_t arena_size(const Arena *a) {
  return a->size;
}

void *arena_alloc(Arena *a, size_t bytes) {
  return memset(take(a, bytes, _Alignof(max_align_t)), 0, bytes);
}

void *arena_copy(Arena *a, const void *from, size_t bytes) {
  void *to = take(a, bytes, _Alignof(max_align_t));
  if (bytes)
    memcpy(to, from, bytes);
  return to;
}

Str arena_str(Arena *a, Str s) {
  if (!s.p)
    return (Str){0};
  char *to = take(a, s.n + 1, 1);
  memcpy(to, s.p, s.n);
  to[s.n] = 0;
  return (Str){to, s.n};
}

const char *arena_cstr(Arena *a, Str s) {
  return arena_str(a, s).p;
}

Str arena_printf(Arena *a, const char *format, ...) {
  va_list args;
  va_start(args, format);
  Str s = arena_vprintf(a, format, args);
  va_end(args);
  return s;
}

Str arena_vprintf(Arena *a, const char *format, va_list args) {
  va_list again;
  va_copy(again, args);
  char few[256];
  int n = vsnprintf(few, sizeof(few), format, args);
  if (n < 0)
    die("vsnprintf failed on \"%s\"", format);
  char *to = take(a, (size_t)n + 1, 1);
  if ((size_t)n < sizeof(few))
    memcpy(to, few, (size_t)n + 1);
  else
    vsnprintf(to, (size_t)n + 1, format, again);
  va_end(again);
  return (Str){to, (size_t)n};
}

void arena_cleanup(Arena **a) {
  arena_free(*a);
}

/* Arena: alignment, zeroing, growth, copies and what a reset keeps. */
#include "base/arena.h"

#include "base/buf.h"
#include "unit/unit.h"

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

TEST(memory_is_zeroed_and_aligned) {
  SCOPED_ARENA a = arena_new();
  for (size_t bytes = 1; bytes < 600; bytes++) {
    (void)arena_str(a, STR("x")); /* leaves the front at an odd place */
    unsigned char *p = arena_alloc(a, bytes);
    CHECK((uintptr_t)p % _Alignof(max_align_t) == 0);
    bool zero = true;
    for (size_t i = 0; i < bytes; i++)
      zero = zero && p[i] == 0;
    CHECK(zero);
    memset(p, 0xAA, bytes);
  }
}

TEST(pieces_do_not_overlap) {
  SCOPED_ARENA a = arena_new();
  enum { PIECES = 500 };
  unsigned char *pieces[PIECES];
  for (int i = 0; i < PIECES; i++) {
    pieces[i] = arena_alloc(a, (size_t)i + 1);
    memset(pieces[i], i & 0xFF, (size_t)i + 1);
  }
  bool intact = true;
  for (int i = 0; i < PIECES; i++)
    for (int j = 0; j <= i; j++)
      intact = intact && pieces[i][j] == (i & 0xFF);
  CHECK(intact);
}

TEST(size_counts_what_was_handed_out) {
  SCOPED_ARENA a = arena_new();
  CHECK_INT((int64_t)arena_size(a), 0);
  arena_alloc(a, 100);
  arena_alloc(a, 1);
  CHECK_INT((int64_t)arena_size(a), 101);
  arena_alloc(a, 1 << 20);
  CHECK_INT((int64_t)arena_size(a), 101 + (1 << 20));
  arena_reset(a);
  CHECK_INT((int64_t)arena_size(a), 0);
}

TEST(reset_reuses_memory_and_zeroes_it_again) {
  SCOPED_ARENA a = arena_new();
  char *first = arena_alloc(a, 64);
  memset(first, 0xFF, 64);
  arena_reset(a);
  char *again = arena_alloc(a, 64);
  CHECK(again == first);
  CHECK(again[0] == 0 && again[63] == 0);
}

TEST(reset_after_growth_settles_on_one_block) {
  SCOPED_ARENA a = arena_new();
  for (int round = 0; round < 3; round++) {
    for (int i = 0; i < 200; i++)
      memset(arena_alloc(a, 100), 1, 100);
    memset(arena_alloc(a, 5 << 20), 1, 5 << 20);
    arena_reset(a);
  }
  char *settled = arena_alloc(a, 8);
  arena_reset(a);
  CHECK((char *)arena_alloc(a, 8) == settled);
}

TEST(a_giant_first_piece_does_not_stay) {
  SCOPED_ARENA a = arena_new();
  memset(arena_alloc(a, 1 << 20), 1, 1 << 20);
  arena_reset(a);
  memset(arena_alloc(a, 1 << 20), 2, 1 << 20);
  CHECK_INT((int64_t)arena_size(a), 1 << 20);
}

TEST(empty_pieces_are_real_pointers) {
  SCOPED_ARENA a = arena_new();
  CHECK(arena_copy(a, NULL, 0) != NULL);
  CHECK_INT((int64_t)arena_size(a), 0);
}

TEST(strings_are_copied_and_terminated) {
  SCOPED_ARENA a = arena_new();
  char text[] = "mutable";
  Str copy = arena_str(a, (Str){text, 4});
  text[0] = 'X';
  CHECK_STR(copy, "muta");
  CHECK_INT(copy.p[4], 0);
  CHECK_STR(arena_cstr(a, STR("abc")), "abc");
  CHECK_STR(arena_str(a, STR("")), "");
  CHECK(arena_str(a, (Str){0}).p == NULL);
  CHECK(arena_cstr(a, (Str){0}) == NULL);
}

TEST(copies_are_aligned) {
  SCOPED_ARENA a = arena_new();
  (void)arena_str(a, STR("odd"));
  double value = 1.5;
  double *copy = arena_copy(a, &value, sizeof(value));
  CHECK((uintptr_t)copy % _Alignof(max_align_t) == 0);
  CHECK(*copy == 1.5);
}

TEST(arrays_and_structs) {
  SCOPED_ARENA a = arena_new();
  int *numbers = ARENA_ARRAY(a, int, 10);
  Str *s = ARENA_NEW(a, Str);
  CHECK_INT(numbers[9], 0);
  CHECK(s->p == NULL && s->n == 0);
}

TEST(printf_of_any_length) {
  SCOPED_ARENA a = arena_new();
  CHECK_STR(arena_printf(a, "%d-%s", 42, "x"), "42-x");
  CHECK_STR(arena_printf(a, "%s", ""), "");
  static const int widths[] = {254, 255, 256, 257, 5000, 40000};
  for (size_t i = 0; i < sizeof(widths) / sizeof(*widths); i++) {
    Str s = arena_printf(a, "%*d", widths[i], 7);
    CHECK_INT((int64_t)s.n, widths[i]);
    CHECK_INT(s.p[s.n - 1], '7');
    CHECK_INT(s.p[s.n], 0);
  }
}

TEST(free_takes_null) {
  arena_free(NULL);
  Arena *none = NULL;
  arena_cleanup(&none);
  CHECK(none == NULL);
}

static void allocates_too_much(void) {
  arena_alloc(arena_new(), SIZE_MAX / 2 + 1);
}

static void grows_too_much(void) {
  Buf b = {0};
  buf_reserve(&b, SIZE_MAX / 2);
}

TEST(out_of_memory_is_fatal_and_says_so) {
  static UnitFn *const fatal[] = {allocates_too_much, grows_too_much};
  for (int i = 0; i < 2; i++) {
    int out[2];
    CHECK_INT(pipe(out), 0);
    pid_t child = fork();
    if (child == 0) {
      dup2(out[1], STDERR_FILENO);
      fatal[i]();
      _exit(0);
    }
    close(out[1]);
    char text[128] = "";
    CHECK(read(out[0], text, sizeof(text) - 1) > 0);
    close(out[0]);
    int status = 0;
    CHECK_INT(waitpid(child, &status, 0), child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    CHECK(str_starts(str_from(text), STR("skald: fatal: out of memory: ")));
  }
}

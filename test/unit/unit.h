/* A small unit test harness. Each test program is one file of TEST()s, linked with unit.c, which holds main(): it runs
 * them in their order and reports in TAP (testanything.org). A failed check is reported and the test goes on. */
#ifndef SKALD_TEST_UNIT_UNIT_H
#define SKALD_TEST_UNIT_UNIT_H

#include "base/str.h"

typedef void UnitFn(void);

typedef struct UnitTest {
  const char *name;
  UnitFn *run;
  struct UnitTest *next;
} UnitTest;

void unit_register(UnitTest *test);
/* All return whether the check held; a failed one is printed, with both values where there are two. */
bool unit_check(bool ok, const char *expression, const char *file, int line);
bool unit_check_int(int64_t got, int64_t want, const char *expression, const char *file, int line);
bool unit_check_str(Str got, Str want, const char *expression, const char *file, int line);
Str unit_same(Str s);
void unit_skip(const char *why); /* the current test cannot run here */
bool unit_failed(void);          /* whether a check of the current test has failed */

#define TEST(test_name)                                                                                                \
  static void test_##test_name(void);                                                                                  \
  __attribute__((constructor)) static void register_##test_name(void) {                                                \
    static UnitTest test = {.name = #test_name, .run = test_##test_name};                                              \
    unit_register(&test);                                                                                              \
  }                                                                                                                    \
  static void test_##test_name(void)

#define UNIT_STR(s) _Generic((s), Str : unit_same, char * : str_from, const char * : str_from)(s)

#define CHECK(expression)    unit_check((expression), #expression, __FILE__, __LINE__)
#define CHECK_INT(got, want) unit_check_int((got), (want), #got, __FILE__, __LINE__)
/* Each side is a Str or a zero-terminated string; the absent Str equals only itself. */
#define CHECK_STR(got, want) unit_check_str(UNIT_STR(got), UNIT_STR(want), #got, __FILE__, __LINE__)

#endif

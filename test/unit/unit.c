/* The test runner: the registered tests in order, TAP on stdout. */
#include "unit/unit.h"

#include <inttypes.h>
#include <stdio.h>

static struct {
  UnitTest *first, **end;
  int count, failed;
  int failed_checks;   /* of the test that runs */
  const char *skipped; /* why it does not run here, or NULL */
} unit;

void unit_register(UnitTest *test) {
  if (!unit.first)
    unit.end = &unit.first;
  *unit.end = test;
  unit.end = &test->next;
  unit.count++;
}

static bool report(bool ok, const char *expression, const char *file, int line) {
  if (!ok) {
    unit.failed_checks++;
    printf("# %s:%d: failed: %s\n", file, line, expression);
  }
  return ok;
}

bool unit_check(bool ok, const char *expression, const char *file, int line) {
  return report(ok, expression, file, line);
}

bool unit_check_int(int64_t got, int64_t want, const char *expression, const char *file, int line) {
  if (!report(got == want, expression, file, line))
    printf("#   got  %" PRId64 "\n#   want %" PRId64 "\n", got, want);
  return got == want;
}

static void print_str(const char *label, Str s) {
  printf("#   %s ", label);
  if (!s.p)
    printf("(absent)");
  for (size_t i = 0; i < s.n; i++)
    if (s.p[i] >= 0x20 && s.p[i] < 0x7f)
      putchar(s.p[i]);
    else
      printf("\\x%02x", (unsigned char)s.p[i]);
  putchar('\n');
}

bool unit_check_str(Str got, Str want, const char *expression, const char *file, int line) {
  bool ok = report(str_eq(got, want), expression, file, line);
  if (!ok) {
    print_str("got ", got);
    print_str("want", want);
  }
  return ok;
}

void unit_skip(const char *why) {
  unit.skipped = why;
}

bool unit_failed(void) {
  return unit.failed_checks > 0;
}

Str unit_same(Str s) {
  return s;
}

static void run_test(const UnitTest *test, int number) {
  unit.failed_checks = 0;
  unit.skipped = NULL;
  test->run();
  if (unit.failed_checks)
    unit.failed++;
  printf("%s %d - %s%s%s\n", unit.failed_checks ? "not ok" : "ok", number, test->name, unit.skipped ? " # SKIP " : "",
         unit.skipped ? unit.skipped : "");
  fflush(stdout); /* what is buffered would be lost if the next test crashed */
}

int main(void) {
  printf("1..%d\n", unit.count);
  fflush(stdout);
  int number = 0;
  for (const UnitTest *test = unit.first; test; test = test->next)
    run_test(test, ++number);
  return unit.failed || unit.count == 0 ? 1 : 0;
}

/* localtime_parse and localtime_format: what is accepted is in bounds and comes back as the same instant; every
 * instant has a text, and later ones have later texts. */
#include "base/err.h"
#include "base/localtime.h"
#include "fuzz/fuzz.h"

#include <string.h>

#define FIRST (INT64_C(-62135596800) * 1000000)
#define LAST  (INT64_C(253402300800) * 1000000 - 1)

static void check_round_trip(LocalTime t, char out[LOCALTIME_TEXT]) {
  LocalTime back = 0;
  size_t n = localtime_format(t, out);
  PROPERTY(n >= 16 && n < LOCALTIME_TEXT && strlen(out) == n);
  PROPERTY(localtime_parse((Str){out, n}, &back) == 0 && back == t);
}

static void check_text(Str text) {
  LocalTime t = 42;
  int rc = localtime_parse(text, &t);
  if (rc < 0) {
    PROPERTY(rc == E_MALFORMED || rc == E_FIELD);
    PROPERTY(t == 42);
    return;
  }
  PROPERTY(t >= FIRST && t <= LAST);
  char out[LOCALTIME_TEXT];
  check_round_trip(t, out);
  PROPERTY(memcmp(out, text.p, 10) == 0 && memcmp(out + 11, text.p + 11, 5) == 0);
}

static LocalTime within_bounds(uint64_t any) {
  return FIRST + (LocalTime)(any % (uint64_t)(LAST - FIRST + 1));
}

static int sign(int64_t a, int64_t b) {
  return (a > b) - (a < b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  check_text((Str){(const char *)data, size});
  uint64_t any[2] = {0};
  memcpy(any, data, size < sizeof(any) ? size : sizeof(any));
  LocalTime a = within_bounds(any[0]), b = within_bounds(any[1]);
  char text_a[LOCALTIME_TEXT], text_b[LOCALTIME_TEXT];
  check_round_trip(a, text_a);
  check_round_trip(b, text_b);
  PROPERTY(sign(strcmp(text_a, text_b), 0) == sign(a, b));
  return 0;
}

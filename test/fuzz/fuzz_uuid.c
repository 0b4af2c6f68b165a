/* UUIDs: text is canonical up to case, order follows the text, derived ids differ and keep what they must. */
#include "base/err.h"
#include "base/uuid.h"
#include "fuzz/fuzz.h"

#include <string.h>

static void check_text(Str text) {
  Uuid id = {.b = {42}};
  int rc = uuid_parse(text, &id);
  if (rc < 0) {
    PROPERTY(rc == E_MALFORMED && id.b[0] == 42);
    return;
  }
  char out[UUID_TEXT];
  uuid_format(id, out);
  PROPERTY(str_eq_nocase(text, str_from(out)));
}

static void check_round_trip(Uuid id) {
  char out[UUID_TEXT];
  Uuid back = {0};
  uuid_format(id, out);
  PROPERTY(strlen(out) == UUID_TEXT - 1);
  PROPERTY(uuid_parse(str_from(out), &back) == 0 && uuid_eq(back, id));
}

static int sign(int value) {
  return (value > 0) - (value < 0);
}

static void check_order(Uuid a, Uuid b) {
  char text_a[UUID_TEXT], text_b[UUID_TEXT];
  uuid_format(a, text_a);
  uuid_format(b, text_b);
  PROPERTY(sign(uuid_cmp(a, b)) == sign(strcmp(text_a, text_b)));
  PROPERTY(uuid_eq(a, b) == (uuid_cmp(a, b) == 0));
}

static void check_children(Uuid parent, unsigned n, unsigned m) {
  Uuid x = uuid_child(parent, n), y = uuid_child(parent, m);
  PROPERTY(uuid_eq(x, y) == (n == m));
  PROPERTY(memcmp(x.b, parent.b, 8) == 0 && (x.b[8] & 0xC0) == (parent.b[8] & 0xC0));
}

static void check_v7(uint64_t ms, const uint8_t random[10]) {
  Uuid id = uuid_v7((int64_t)(ms >> 16), random);
  uint64_t time = 0;
  for (int i = 0; i < 6; i++)
    time = time << 8 | id.b[i];
  PROPERTY(time == ms >> 16);
  PROPERTY(id.b[6] >> 4 == 7 && id.b[8] >> 6 == 2);
  PROPERTY((id.b[6] & 15) == (random[0] & 15) && (id.b[8] & 63) == (random[2] & 63));
  PROPERTY(id.b[7] == random[1] && memcmp(id.b + 9, random + 3, 7) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  check_text((Str){(const char *)data, size});
  struct {
    Uuid a, b;
    uint64_t ms;
    uint8_t random[10];
    uint16_t n, m;
  } in = {0};
  memcpy(&in, data, size < sizeof(in) ? size : sizeof(in));
  check_round_trip(in.a);
  check_order(in.a, in.b);
  check_children(in.a, in.n ? in.n : 1, in.m ? in.m : 1);
  check_v7(in.ms, in.random);
  return 0;
}

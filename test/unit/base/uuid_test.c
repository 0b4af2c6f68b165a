/* UUIDs: text both ways, order, the bits of version 7, and derived ids. */
#include "base/uuid.h"

#include "base/err.h"
#include "unit/unit.h"

#include <stdlib.h>
#include <string.h>

static Uuid uuid_of(const char *text) {
  Uuid id = {0};
  CHECK_INT(uuid_parse(str_from(text), &id), 0);
  return id;
}

static void check_text(Uuid id, const char *want) {
  char text[UUID_TEXT];
  uuid_format(id, text);
  CHECK_STR(text, want);
}

TEST(text_and_back) {
  check_text(uuid_of("00112233-4455-6677-8899-aabbccddeeff"), "00112233-4455-6677-8899-aabbccddeeff");
  check_text(uuid_of("FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF"), "ffffffff-ffff-ffff-ffff-ffffffffffff");
  check_text((Uuid){0}, "00000000-0000-0000-0000-000000000000");
  Uuid id = uuid_of("00112233-4455-6677-8899-aAbBcCdDeEfF");
  for (int i = 0; i < 16; i++)
    CHECK_INT(id.b[i], i * 0x11);
}

TEST(other_forms_are_refused) {
  static const char *const bad[] = {
      "",
      "00112233-4455-6677-8899-aabbccddeef",
      "00112233-4455-6677-8899-aabbccddeeff0",
      "00112233445566778899aabbccddeeff",
      "{00112233-4455-6677-8899-aabbccddeef}",
      "00112233-4455-6677-8899_aabbccddeeff",
      "0011223-34455-6677-8899-aabbccddeeff",
      "00112233-4455-6677-8899-aabbccddeefg",
      "g0112233-4455-6677-8899-aabbccddeeff",
      "00112233-4455-6677-8899-aabbccddee f",
      "00112233-4455-6677-8899-aabbccddee-f",
      "00112233-4455-6677-8899-aabbccddee\xc3\xa9",
      "------------------------------------",
  };
  for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
    Uuid id = {.b = {42}};
    if (!CHECK_INT(uuid_parse(str_from(bad[i]), &id), E_MALFORMED))
      CHECK_STR(bad[i], "");
    CHECK_INT(id.b[0], 42);
  }
}

TEST(order_is_by_bytes) {
  Uuid a = uuid_of("00000000-0000-0000-0000-0000000000ff"), b = uuid_of("00000000-0000-0000-0000-000000000100");
  Uuid c = uuid_of("80000000-0000-0000-0000-000000000000");
  CHECK(uuid_cmp(a, b) < 0);
  CHECK(uuid_cmp(c, b) > 0);
  CHECK_INT(uuid_cmp(a, a), 0);
  CHECK(uuid_eq(a, a) && !uuid_eq(a, b));
}

TEST(nil_is_all_zeros) {
  CHECK(uuid_is_nil((Uuid){0}));
  for (int i = 0; i < 16; i++) {
    Uuid id = {0};
    id.b[i] = 1;
    CHECK(!uuid_is_nil(id));
  }
}

TEST(version_7_has_the_bits_of_rfc_9562) {
  uint8_t ones[10], zeros[10] = {0};
  memset(ones, 0xFF, sizeof(ones));
  check_text(uuid_v7(INT64_C(0x0123456789AB), ones), "01234567-89ab-7fff-bfff-ffffffffffff");
  check_text(uuid_v7(INT64_C(0x0123456789AB), zeros), "01234567-89ab-7000-8000-000000000000");
  /* The example of RFC 9562, appendix A.6. */
  static const uint8_t example[10] = {0x0C, 0xC3, 0x18, 0xC4, 0xDC, 0x0C, 0x0C, 0x07, 0x39, 0x8F};
  check_text(uuid_v7(INT64_C(0x017F22E279B0), example), "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
}

TEST(version_7_is_ordered_by_time) {
  uint8_t high[10], low[10] = {0};
  memset(high, 0xFF, sizeof(high));
  CHECK(uuid_cmp(uuid_v7(1000, high), uuid_v7(1001, low)) < 0);
  CHECK(uuid_cmp(uuid_v7(255, high), uuid_v7(256, low)) < 0);
}

static int compare(const void *a, const void *b) {
  return uuid_cmp(*(const Uuid *)a, *(const Uuid *)b);
}

static size_t count_repeats(Uuid *ids, size_t n) {
  qsort(ids, n, sizeof(*ids), compare);
  size_t repeats = 0;
  for (size_t i = 1; i < n; i++)
    repeats += uuid_eq(ids[i - 1], ids[i]);
  return repeats;
}

TEST(all_children_of_a_parent_differ) {
  static Uuid ids[65536];
  ids[0] = uuid_of("017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
  for (unsigned n = 1; n < 65536; n++)
    ids[n] = uuid_child(ids[0], n);
  CHECK_INT((int64_t)count_repeats(ids, 65536), 0);
}

TEST(children_and_grandchildren_of_neighbours_differ) {
  enum { PARENTS = 20, CHILDREN = 20, EACH = 1 + CHILDREN + CHILDREN * CHILDREN };
  static Uuid ids[PARENTS * EACH];
  size_t count = 0;
  for (uint8_t p = 0; p < PARENTS; p++) {
    const uint8_t random[10] = {[9] = p}; /* as alike as two parents can be */
    Uuid parent = uuid_v7(1, random);
    ids[count++] = parent;
    for (unsigned n = 1; n <= CHILDREN; n++) {
      Uuid child = ids[count++] = uuid_child(parent, n);
      for (unsigned m = 1; m <= CHILDREN; m++)
        ids[count++] = uuid_child(child, m);
    }
  }
  CHECK_INT((int64_t)count, PARENTS * EACH);
  CHECK_INT((int64_t)count_repeats(ids, count), 0);
}

TEST(a_child_keeps_time_version_and_variant) {
  Uuid parent = uuid_of("017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
  for (unsigned n = 1; n < 65536; n += 97) {
    Uuid child = uuid_child(parent, n);
    CHECK_INT(memcmp(child.b, parent.b, 8), 0);
    CHECK_INT(child.b[8] & 0xC0, 0x80);
    CHECK(uuid_eq(child, uuid_child(parent, n)));
  }
}

TEST(derived_ids_never_change) { /* they are stored, so a later version must derive the same */
  check_text(uuid_child(uuid_of("017f22e2-79b0-7cc3-98c4-dc0c0c07398f"), 1), "017f22e2-79b0-7cc3-947d-73796a0187e0");
  check_text(uuid_child(uuid_of("017f22e2-79b0-7cc3-98c4-dc0c0c07398f"), 65535),
             "017f22e2-79b0-7cc3-9685-d05ea9f63bc8");
}

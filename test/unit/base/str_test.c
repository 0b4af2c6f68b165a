/* Str: comparison, cutting, integers and UTF-8. */
#include "base/str.h"

#include "base/err.h"
#include "unit/unit.h"

static const Str absent = {0};

TEST(absent_differs_from_empty) {
  CHECK(str_from(NULL).p == NULL);
  CHECK(str_eq(absent, absent));
  CHECK(!str_eq(absent, STR("")));
  CHECK(!str_eq_nocase(STR(""), absent));
  CHECK(str_eq(STR(""), str_from("")));
}

TEST(equality_is_by_bytes) {
  CHECK(str_eq(STR("a\0b"), STR("a\0b")));
  CHECK(!str_eq(STR("a\0b"), STR("a\0c")));
  CHECK(!str_eq(STR("a"), STR("aa")));
  CHECK(!str_eq(STR("a"), STR("A")));
}

TEST(case_is_ignored_in_ascii_only) {
  CHECK(str_eq_nocase(STR("Content-TYPE"), STR("content-type")));
  CHECK(str_eq_nocase(STR("azAZ"), STR("AZaz")));
  CHECK(!str_eq_nocase(STR("@["), STR("`{")));
  CHECK(!str_eq_nocase(STR("\xc3\x84"), STR("\xc3\xa4")));
  CHECK(!str_eq_nocase(STR("a"), STR("ab")));
}

TEST(cut_between_characters) {
  CHECK_STR(str_utf8_cut(STR("ab"), 2), "ab");
  CHECK_STR(str_utf8_cut(STR("abc"), 2), "ab");
  CHECK_STR(str_utf8_cut(STR("a\xc3\xa4z"), 3), "a\xc3\xa4");
  CHECK_STR(str_utf8_cut(STR("a\xc3\xa4z"), 2), "a");
  CHECK_STR(str_utf8_cut(STR("\xf0\x9f\x98\x80"), 3), "");
  CHECK(str_utf8_cut(absent, 3).p == NULL);
}

TEST(prefixes) {
  CHECK(str_starts(STR("/order/order"), STR("/order")));
  CHECK(str_starts(STR("x"), STR("")));
  CHECK(str_starts(absent, STR("")));
  CHECK(!str_starts(STR("x"), STR("xy")));
  CHECK(!str_starts(STR("yx"), STR("x")));
}

TEST(cutting_gives_every_part_once) {
  Str rest = STR("a,,b");
  CHECK_STR(str_cut(&rest, ','), "a");
  CHECK_STR(str_cut(&rest, ','), "");
  CHECK_STR(str_cut(&rest, ','), "b");
  CHECK_STR(rest, absent);
  CHECK_STR(str_cut(&rest, ','), absent);
}

TEST(cutting_at_the_ends) {
  Str rest = STR(",x,");
  CHECK_STR(str_cut(&rest, ','), "");
  CHECK_STR(str_cut(&rest, ','), "x");
  CHECK_STR(rest, "");
  CHECK_STR(str_cut(&rest, ','), "");
  CHECK_STR(rest, absent);
}

TEST(integers_up_to_the_limits) {
  static const struct {
    const char *text;
    int64_t value;
  } rows[] = {
      {"0", 0},
      {"-0", 0},
      {"7", 7},
      {"-1", -1},
      {"00042", 42},
      {"9223372036854775807", INT64_MAX},
      {"-9223372036854775808", INT64_MIN},
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
    int64_t value = 99;
    CHECK_INT(str_to_int(str_from(rows[i].text), &value), 0);
    CHECK_INT(value, rows[i].value);
  }
}

TEST(integers_refused_leave_the_target_alone) {
  static const struct {
    const char *text;
    int rc;
  } rows[] = {
      {"", E_MALFORMED},
      {"-", E_MALFORMED},
      {"+1", E_MALFORMED},
      {" 1", E_MALFORMED},
      {"1 ", E_MALFORMED},
      {"1.0", E_MALFORMED},
      {"1e2", E_MALFORMED},
      {"--1", E_MALFORMED},
      {"0x10", E_MALFORMED},
      {"9223372036854775808", E_RANGE},
      {"-9223372036854775809", E_RANGE},
      {"99999999999999999999999999", E_RANGE},
      {"99999999999999999999999999x", E_MALFORMED},
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
    int64_t value = 99;
    CHECK_INT(str_to_int(str_from(rows[i].text), &value), rows[i].rc);
    CHECK_INT(value, 99);
  }
  int64_t value = 99;
  CHECK_INT(str_to_int(absent, &value), E_MALFORMED);
}

TEST(utf8_accepts_the_edges_of_every_length) {
  static const char *const good[] = {
      "",
      "ascii only",
      "\x7f",
      "\xc2\x80",
      "\xdf\xbf",
      "\xe0\xa0\x80",
      "\xed\x9f\xbf",
      "\xee\x80\x80",
      "\xef\xbf\xbf",
      "\xf0\x90\x80\x80",
      "\xf4\x8f\xbf\xbf",
      "1234567\xc3\xa9",
      "12345678\xc3\xa9 and on",
      "\xd0\xbf\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82",
  };
  for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
    if (!CHECK(str_is_utf8(str_from(good[i]))))
      CHECK_INT((int64_t)i, -1);
  CHECK(str_is_utf8(STR("a\0b")));
}

TEST(utf8_refuses_what_is_none) {
  static const char *const bad[] = {
      "\x80",
      "\xbf",
      "\xc0\x80",
      "\xc1\xbf", /* overlong ASCII */
      "\xe0\x80\x80",
      "\xe0\x9f\xbf",
      "\xf0\x80\x80\x80",
      "\xf0\x8f\xbf\xbf", /* overlong */
      "\xed\xa0\x80",
      "\xed\xbf\xbf",
      "\xed\xa0\xbd\xed\xb8\x80", /* surrogates */
      "\xf4\x90\x80\x80",
      "\xf5\x80\x80\x80",
      "\xf8\x88\x80\x80\x80",
      "\xfe",
      "\xff", /* beyond U+10FFFF */
      "\xc3",
      "\xe2\x82",
      "\xf0\x9f\x98",
      "\xe2\x28\xa1", /* cut short */
      "\xc3\x28",
      "\xe2\x82\x28",
      "\xf0\x9f\x98\x28",
      "12345678\xff",
      "\xc3\xa9\xc3",
  };
  for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
    if (!CHECK(!str_is_utf8(str_from(bad[i]))))
      CHECK_INT((int64_t)i, -1);
}

TEST(first_character_length) {
  CHECK_INT((int64_t)str_utf8_first(STR("")), 0);
  CHECK_INT((int64_t)str_utf8_first(STR("a\xff")), 1);
  CHECK_INT((int64_t)str_utf8_first(STR("\xc3\xa9x")), 2);
  CHECK_INT((int64_t)str_utf8_first(STR("\xe2\x82\xac")), 3);
  CHECK_INT((int64_t)str_utf8_first(STR("\xf0\x9f\x98\x80")), 4);
  CHECK_INT((int64_t)str_utf8_first(STR("\x80")), 0);
}

TEST(hash_is_fnv_1a) {
  CHECK(str_hash(STR("")) == UINT64_C(0xcbf29ce484222325));
  CHECK(str_hash(STR("a")) == UINT64_C(0xaf63dc4c8601ec8c));
  CHECK(str_hash(STR("foobar")) == UINT64_C(0x85944171f73967e8));
}

TEST(hexadecimal_digits_have_their_value) {
  int digits = 0;
  for (int c = -128; c < 128; c++)
    digits += str_hex_value((char)c) >= 0;
  CHECK_INT(digits, 22);
  CHECK_INT(str_hex_value('0'), 0);
  CHECK_INT(str_hex_value('9'), 9);
  CHECK_INT(str_hex_value('a'), 10);
  CHECK_INT(str_hex_value('F'), 15);
  CHECK_INT(str_hex_value('g'), -1);
}

/* Money: every edge of the number syntax, the two decimals, the limits, and the checked arithmetic. */
#include "base/money.h"

#include "base/err.h"
#include "unit/unit.h"

static void check_parses(const char *text, Money want) {
  Money got = 777;
  if (!CHECK_INT(money_parse(str_from(text), &got), 0) || !CHECK_INT(got, want))
    CHECK_STR(text, "");
}

static void check_refuses(const char *text, int want) {
  Money got = 777;
  if (!CHECK_INT(money_parse(str_from(text), &got), want) || !CHECK_INT(got, 777))
    CHECK_STR(text, "");
}

TEST(plain_numbers) {
  check_parses("0", 0);
  check_parses("-0", 0);
  check_parses("0.0", 0);
  check_parses("-0.00", 0);
  check_parses("1", 100);
  check_parses("123.45", 12345);
  check_parses("-0.1", -10);
  check_parses("0.01", 1);
  check_parses("51.30", 5130);
  check_parses("1000000", 100000000);
}

TEST(exponents_that_are_exact) {
  check_parses("1e2", 10000);
  check_parses("1E+2", 10000);
  check_parses("1.0E7", INT64_C(1000000000));
  check_parses("1.2345e2", 12345);
  check_parses("12345e-2", 12345);
  check_parses("1e-2", 1);
  check_parses("1.0e-2", 1);
  check_parses("-2500e-4", -25);
  check_parses("1e0", 100);
  check_parses("1e00000000000000000000000000002", 10000);
  check_parses("0e400", 0);
  check_parses("0e99999999999999999999999999", 0);
  check_parses("0.000e-99999999999999999999999999", 0);
}

TEST(exponents_beyond_the_cent) {
  check_refuses("1e-3", E_FIELD);
  check_refuses("1.5e-2", E_FIELD);
  check_refuses("1e-400", E_FIELD);
  check_refuses("1e-99999999999999999999999999", E_FIELD);
  check_refuses("123.456e0", E_FIELD);
}

TEST(three_decimals_are_refused_as_written) {
  check_refuses("0.001", E_FIELD);
  check_refuses("1.000", E_FIELD);
  check_refuses("123.450", E_FIELD);
  check_refuses("0.000", E_FIELD);
  check_refuses("0.00000000000000000000000000000000001", E_FIELD);
}

TEST(the_limits) {
  check_parses("90000000000000000", MONEY_MAX);
  check_parses("-90000000000000000.00", -MONEY_MAX);
  check_parses("89999999999999999.99", MONEY_MAX - 1);
  check_parses("9e16", MONEY_MAX);
  check_refuses("90000000000000000.01", E_RANGE);
  check_refuses("-90000000000000000.01", E_RANGE);
  check_refuses("92233720368547758.07", E_RANGE);
  check_refuses("92233720368547758.08", E_RANGE);
  check_refuses("184467440737095516.16", E_RANGE);
  check_refuses("1e17", E_RANGE);
  check_refuses("1e400", E_RANGE);
  check_refuses("-1e99999999999999999999999999", E_RANGE);
  check_refuses("123456789012345678901234567890123456789012345678901234567890", E_RANGE);
}

TEST(what_is_no_number) {
  static const char *const bad[] = {
      "",   "-",  "+1",  ".5",  "5.",  "01",  "-01", "00",    "1.e2",  "1e",    "1e+",   "1e-",  "e5",       "0x10",
      "1 ", " 1", "1,5", "NaN", "inf", "--1", "1-",  "1.2.3", "1e2e3", "1e2.5", "\"1\"", "null", "\xd9\xa1",
  };
  for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
    check_refuses(bad[i], E_MALFORMED);
  Money got = 777;
  CHECK_INT(money_parse(STR("1\0"), &got), E_MALFORMED);
  CHECK_INT(money_parse((Str){0}, &got), E_MALFORMED);
}

TEST(formats_the_shortest_exact_text) {
  static const struct {
    Money value;
    const char *text;
  } rows[] = {
      {0, "0"},
      {1, "0.01"},
      {-1, "-0.01"},
      {10, "0.1"},
      {-5, "-0.05"},
      {100, "1"},
      {5130, "51.3"},
      {12345, "123.45"},
      {10000, "100"},
      {-10001, "-100.01"},
      {MONEY_MAX, "90000000000000000"},
      {-MONEY_MAX, "-90000000000000000"},
      {INT64_MAX, "92233720368547758.07"},
      {INT64_MIN, "-92233720368547758.08"},
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
    char out[MONEY_TEXT];
    size_t n = money_format(rows[i].value, out);
    CHECK_STR(((Str){out, n}), rows[i].text);
    CHECK_INT(out[n], 0);
  }
}

TEST(text_and_back_is_the_same) {
  for (Money value = -25000; value <= 25000; value++) {
    char out[MONEY_TEXT];
    Money back = 0;
    size_t n = money_format(value, out);
    if (money_parse((Str){out, n}, &back) != 0 || back != value)
      CHECK_INT(back, value);
  }
  char out[MONEY_TEXT];
  Money back = 0;
  CHECK_INT(money_parse((Str){out, money_format(MONEY_MAX - 1, out)}, &back), 0);
  CHECK_INT(back, MONEY_MAX - 1);
}

TEST(addition_is_checked) {
  Money sum = 777;
  CHECK_INT(money_add(1, -3, &sum), 0);
  CHECK_INT(sum, -2);
  CHECK_INT(money_add(MONEY_MAX - 1, 1, &sum), 0);
  CHECK_INT(sum, MONEY_MAX);
  CHECK_INT(money_add(MONEY_MAX, -MONEY_MAX, &sum), 0);
  CHECK_INT(sum, 0);
  sum = 777;
  CHECK_INT(money_add(MONEY_MAX, 1, &sum), E_RANGE);
  CHECK_INT(money_add(-MONEY_MAX, -1, &sum), E_RANGE);
  CHECK_INT(money_add(MONEY_MAX, MONEY_MAX, &sum), E_RANGE);
  CHECK_INT(money_add(INT64_MIN, INT64_MIN, &sum), E_RANGE);
  CHECK_INT(sum, 777);
}

TEST(multiplication_is_checked) {
  Money product = 777;
  CHECK_INT(money_mul(12345, 3, &product), 0);
  CHECK_INT(product, 37035);
  CHECK_INT(money_mul(MONEY_MAX, -1, &product), 0);
  CHECK_INT(product, -MONEY_MAX);
  CHECK_INT(money_mul(MONEY_MAX, 0, &product), 0);
  CHECK_INT(product, 0);
  product = 777;
  CHECK_INT(money_mul(MONEY_MAX, 2, &product), E_RANGE);
  CHECK_INT(money_mul(MONEY_MAX / 3 + 1, 3, &product), E_RANGE);
  CHECK_INT(money_mul(INT64_MIN, -1, &product), E_RANGE);
  CHECK_INT(money_mul(INT64_C(1) << 62, 4, &product), E_RANGE);
  CHECK_INT(product, 777);
}

TEST(prose_always_has_two_decimals) {
  static const struct {
    Money value;
    const char *text, *shortest;
  } rows[] = {
      {0, "0.00", "0"},
      {1, "0.01", "0.01"},
      {10, "0.10", "0.1"},
      {100, "1.00", "1"},
      {1050, "10.50", "10.5"},
      {-5, "-0.05", "-0.05"},
      {-100, "-1.00", "-1"},
      {123456, "1234.56", "1234.56"},
      {100000, "1000.00", "1000"},
      {MONEY_MAX, "90000000000000000.00", "90000000000000000"},
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    char text[MONEY_TEXT], shortest[MONEY_TEXT];
    size_t n = money_format_prose(rows[i].value, text);
    CHECK_STR(((Str){text, n}), rows[i].text);
    CHECK_STR(text, rows[i].text);
    CHECK_INT(money_format(rows[i].value, shortest), str_from(rows[i].shortest).n);
    CHECK_STR(shortest, rows[i].shortest);
  }
}

/* LocalTime: accepted shapes, the calendar's edges, and text both ways. */
#include "base/localtime.h"

#include "base/err.h"
#include "unit/unit.h"

#define MICROS INT64_C(1000000)
#define DAY    (86400 * MICROS)

static LocalTime time_of(const char *text) {
  LocalTime t = 777;
  if (!CHECK_INT(localtime_parse(str_from(text), &t), 0))
    CHECK_STR(text, "");
  return t;
}

static void check_format(LocalTime t, const char *want) {
  char out[LOCALTIME_TEXT];
  size_t n = localtime_format(t, out);
  CHECK_STR(((Str){out, n}), want);
  CHECK_INT(out[n], 0);
}

TEST(known_instants) {
  CHECK_INT(time_of("1970-01-01T00:00"), 0);
  CHECK_INT(time_of("1970-01-01T00:00:01"), MICROS);
  CHECK_INT(time_of("1969-12-31T23:59:59.999999"), -1);
  CHECK_INT(time_of("2000-03-01T00:00"), INT64_C(951868800) * MICROS);
  CHECK_INT(time_of("2030-05-26T16:00"), INT64_C(1906041600) * MICROS);
  CHECK_INT(time_of("0001-01-01T00:00"), INT64_C(-62135596800) * MICROS);
  CHECK_INT(time_of("9999-12-31T23:59:59.999999"), INT64_C(253402300800) * MICROS - 1);
}

TEST(all_accepted_shapes) {
  LocalTime t = time_of("2030-05-26T16:00");
  CHECK_INT(time_of("2030-05-26 16:00"), t);
  CHECK_INT(time_of("2030-05-26T16:00:00"), t);
  CHECK_INT(time_of("2030-05-26 16:00:00"), t);
  CHECK_INT(time_of("2030-05-26T16:00:05"), t + 5 * MICROS);
  CHECK_INT(time_of("2030-05-26T16:00:05.1"), t + 5 * MICROS + 100000);
  CHECK_INT(time_of("2030-05-26T16:00:05.123"), t + 5 * MICROS + 123000);
  CHECK_INT(time_of("2030-05-26T16:00:05.123456"), t + 5 * MICROS + 123456);
  CHECK_INT(time_of("2030-05-26T16:00:05.000001"), t + 5 * MICROS + 1);
  CHECK_INT(time_of("2030-05-26T16:00:05.123456789"), t + 5 * MICROS + 123456);
  CHECK_INT(time_of("2030-05-26T16:00:05.9999999999999"), t + 5 * MICROS + 999999);
}

static void check_refuses(const char *text, int want) {
  LocalTime t = 777;
  if (!CHECK_INT(localtime_parse(str_from(text), &t), want) || !CHECK_INT(t, 777))
    CHECK_STR(text, "");
}

TEST(other_shapes_are_malformed) {
  static const char *const bad[] = {
      "",
      "2030-05-26",
      "2030-05-26T16",
      "2030-05-26T16:0",
      "2030-05-26T16:00:",
      "2030-05-26T16:00:0",
      "2030-05-26T16:00:00.",
      "2030-05-26T16:00:00,5",
      "2030-05-26T16:00:00Z",
      "2030-05-26T16:00Z",
      "2030-05-26T16:00:00.5Z",
      "2030-05-26T16:00:00+03:00",
      "2030-05-26T16:00:00.5+03:00",
      "2030-05-26t16:00:00",
      "2030/05/26T16:00:00",
      "2030-5-26T16:00:00",
      "30-05-26T16:00:00",
      "+2030-05-26T16:00:00",
      "-2030-05-26T16:00:00",
      "12030-05-26T16:00:00",
      "2030-05-26T16.00:00",
      " 2030-05-26T16:00",
      "2030-05-26T16:00 ",
      "infinity",
      "2030-05-26T16:00:00.\xd9\xa1",
      "xxxx-xx-xxTxx:xx",
  };
  for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
    check_refuses(bad[i], E_MALFORMED);
}

TEST(what_does_not_exist_is_a_bad_value) {
  static const char *const bad[] = {
      "0000-01-01T00:00",    "2030-00-01T00:00",    "2030-13-01T00:00", "2030-01-00T00:00", "2030-01-32T00:00",
      "2030-04-31T00:00",    "2030-06-31T00:00",    "2030-09-31T00:00", "2030-11-31T00:00", "2030-02-29T00:00",
      "2032-02-30T00:00",    "1900-02-29T00:00",    "2100-02-29T00:00", "2030-01-01T24:00", "2030-01-01T00:60",
      "2030-01-01T00:00:60", "2016-12-31T23:59:60",
  };
  for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
    check_refuses(bad[i], E_FIELD);
}

TEST(leap_years) {
  static const char *const leap_days[] = {"2000-02-29T00:00", "2024-02-29T00:00", "2400-02-29T00:00",
                                          "0004-02-29T00:00", "1600-02-29T00:00", "9996-02-29T00:00"};
  for (size_t i = 0; i < sizeof(leap_days) / sizeof(*leap_days); i++)
    check_format(time_of(leap_days[i]), leap_days[i]);
  CHECK_INT(time_of("2024-03-01T00:00") - time_of("2024-02-28T00:00"), 2 * DAY);
  CHECK_INT(time_of("2100-03-01T00:00") - time_of("2100-02-28T00:00"), DAY);
}

TEST(formats_as_java_does) {
  LocalTime t = time_of("2030-05-26T16:00");
  check_format(t, "2030-05-26T16:00");
  check_format(t + 5 * MICROS, "2030-05-26T16:00:05");
  check_format(t + 500000, "2030-05-26T16:00:00.500");
  check_format(t + 5 * MICROS + 123000, "2030-05-26T16:00:05.123");
  check_format(t + 1, "2030-05-26T16:00:00.000001");
  check_format(t + 123450, "2030-05-26T16:00:00.123450");
  check_format(-1, "1969-12-31T23:59:59.999999");
  check_format(time_of("0001-01-01T00:00"), "0001-01-01T00:00");
  check_format(time_of("9999-12-31T23:59:59.999999"), "9999-12-31T23:59:59.999999");
}

TEST(every_day_follows_the_one_before) {
  LocalTime first = time_of("0001-01-01T00:00"), last = time_of("9999-12-31T00:00");
  char before[LOCALTIME_TEXT] = "";
  int wrong = 0;
  for (LocalTime t = first; t <= last; t += DAY) {
    char text[LOCALTIME_TEXT];
    LocalTime back = 0;
    size_t n = localtime_format(t, text);
    int rc = localtime_parse((Str){text, n}, &back);
    bool rising = false;
    for (size_t i = 0; i <= n && !rising && text[i] >= before[i]; i++)
      rising = text[i] > before[i];
    wrong += rc != 0 || back != t || !rising;
    for (size_t i = 0; i <= n; i++)
      before[i] = text[i];
  }
  CHECK_INT(wrong, 0);
}

/* LocalTime: ISO-8601 text to microseconds and back, by the proleptic Gregorian calendar. */
#include "base/localtime.h"

#include "base/decimal.h"
#include "base/err.h"

#include <assert.h>

#define DAYS_TO_1970    719162 /* from 0001-01-01 */
#define DAYS_IN_400     146097
#define MICROS          INT64_C(1000000)
#define MICROS_OF_DAY   (86400 * MICROS)
#define FIRST_LOCALTIME (-DAYS_TO_1970 * MICROS_OF_DAY)
#define LAST_LOCALTIME  (INT64_C(2932897) * MICROS_OF_DAY - 1)

static bool is_leap(int year) {
  return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

static int month_days(int year, int month) {
  static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  return days[month - 1] + (month == 2 && is_leap(year) ? 1 : 0);
}

/* Days from 0001-01-01 to the first day of the year. */
static int days_before_year(int year) {
  int past = year - 1;
  return 365 * past + past / 4 - past / 100 + past / 400;
}

/* In the pattern 0 stands for any digit and T for a T or a space. */
static bool matches(const char *text, const char *pattern) {
  for (; *pattern; pattern++, text++) {
    bool fits = *pattern == '0'   ? *text >= '0' && *text <= '9'
                : *pattern == 'T' ? *text == 'T' || *text == ' '
                                  : *text == *pattern;
    if (!fits)
      return false;
  }
  return true;
}

static bool has_shape(Str text) {
  if (text.n < 16 || !matches(text.p, "0000-00-00T00:00"))
    return false;
  if (text.n == 16)
    return true;
  if (text.n < 19 || !matches(text.p + 16, ":00"))
    return false;
  if (text.n == 19)
    return true;
  for (size_t i = 20; i < text.n; i++)
    if (text.p[i] < '0' || text.p[i] > '9')
      return false;
  return text.p[19] == '.' && text.n > 20;
}

static int number_at(Str text, size_t at, size_t digits) {
  int value = 0;
  for (size_t i = at; i < at + digits; i++)
    value = value * 10 + (text.p[i] - '0');
  return value;
}

static int micros_of(Str text) {
  int micros = 0;
  for (size_t i = 20; i < 26; i++)
    micros = micros * 10 + (i < text.n ? text.p[i] - '0' : 0);
  return micros;
}

static int date_at(Str text, int64_t *ret_days) {
  int year = number_at(text, 0, 4), month = number_at(text, 5, 2), day = number_at(text, 8, 2);
  if (year < 1 || month < 1 || month > 12 || day < 1 || day > month_days(year, month))
    return E_FIELD;
  int days = days_before_year(year) + day - 1;
  for (int m = 1; m < month; m++)
    days += month_days(year, m);
  *ret_days = days - DAYS_TO_1970;
  return 0;
}

int localtime_parse(Str text, LocalTime *ret) {
  if (!has_shape(text))
    return E_MALFORMED;
  int64_t days;
  TRY(date_at(text, &days));
  int hour = number_at(text, 11, 2), minute = number_at(text, 14, 2);
  int second = text.n > 16 ? number_at(text, 17, 2) : 0;
  if (hour > 23 || minute > 59 || second > 59)
    return E_FIELD;
  *ret = days * MICROS_OF_DAY + (hour * 3600 + minute * 60 + second) * MICROS + micros_of(text);
  return 0;
}

static char *format_date(char *p, int days) {
  int year = (int)((int64_t)days * 400 / DAYS_IN_400) + 1; /* right, or one too many or too few */
  while (days < days_before_year(year))
    year--;
  while (days >= days_before_year(year + 1))
    year++;
  int day = days - days_before_year(year), month = 1;
  while (day >= month_days(year, month))
    day -= month_days(year, month++);
  p = decimal_pad(p, (unsigned)year, 4);
  *p++ = '-';
  p = decimal_pad(p, (unsigned)month, 2);
  *p++ = '-';
  return decimal_pad(p, (unsigned)day + 1, 2);
}

static char *format_time(char *p, int64_t micros) {
  unsigned seconds = (unsigned)(micros / MICROS), fraction = (unsigned)(micros % MICROS);
  p = decimal_pad(p, seconds / 3600, 2);
  *p++ = ':';
  p = decimal_pad(p, seconds / 60 % 60, 2);
  if (seconds % 60 || fraction) {
    *p++ = ':';
    p = decimal_pad(p, seconds % 60, 2);
  }
  if (fraction) {
    *p++ = '.';
    p = fraction % 1000 ? decimal_pad(p, fraction, 6) : decimal_pad(p, fraction / 1000, 3);
  }
  return p;
}

size_t localtime_format(LocalTime t, char out[LOCALTIME_TEXT]) {
  assert(t >= FIRST_LOCALTIME && t <= LAST_LOCALTIME);
  int64_t since_first = t - FIRST_LOCALTIME;
  char *p = format_date(out, (int)(since_first / MICROS_OF_DAY));
  *p++ = 'T';
  p = format_time(p, since_first % MICROS_OF_DAY);
  *p = 0;
  return (size_t)(p - out);
}

/* Dates and times of day out of PostgreSQL's text. */
#include "cdc/datetime.h"

#define DAY_US   INT64_C(86400000000)
#define YEAR_MAX 300000000 /* beyond any of PostgreSQL's, and far from where days overflow */

typedef struct Moment {
  int64_t year; /* astronomical: 0 is 1 BC */
  int month, day;
  int64_t us; /* of the day */
} Moment;

static bool take(Str *rest, Str head) {
  if (!str_starts(*rest, head))
    return false;
  *rest = (Str){rest->p + head.n, rest->n - head.n};
  return true;
}

/* At least min and at most max digits. */
static bool take_number(Str *rest, size_t min, size_t max, int64_t *ret) {
  size_t n = 0;
  while (n < rest->n && n < max && rest->p[n] >= '0' && rest->p[n] <= '9')
    n++;
  if (n < min || str_to_int((Str){rest->p, n}, ret) < 0)
    return false;
  *rest = (Str){rest->p + n, rest->n - n};
  return true;
}

static bool is_leap(int64_t year) {
  return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

static bool is_day(int64_t year, int64_t month, int64_t day) {
  static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  return month >= 1 && month <= 12 && day >= 1 && day <= days[month - 1] + (month == 2 && is_leap(year));
}

static bool take_date(Str *rest, Moment *ret) {
  int64_t year = 0, month = 0, day = 0;
  if (!take_number(rest, 4, 9, &year) || !take(rest, STR("-")) || !take_number(rest, 2, 2, &month) ||
      !take(rest, STR("-")) || !take_number(rest, 2, 2, &day) || year > YEAR_MAX)
    return false;
  *ret = (Moment){year, (int)month, (int)day, 0};
  return true;
}

static bool take_time(Str *rest, int64_t *ret_us) {
  int64_t hour = 0, minute = 0, second = 0, micros = 0;
  if (!take_number(rest, 2, 2, &hour) || !take(rest, STR(":")) || !take_number(rest, 2, 2, &minute) ||
      !take(rest, STR(":")) || !take_number(rest, 2, 2, &second))
    return false;
  if (take(rest, STR("."))) {
    size_t before = rest->n;
    if (!take_number(rest, 1, 6, &micros))
      return false;
    for (size_t digits = before - rest->n; digits < 6; digits++)
      micros *= 10;
  }
  int64_t us = ((hour * 60 + minute) * 60 + second) * 1000000 + micros;
  if (minute > 59 || second > 59 || us > DAY_US)
    return false;
  *ret_us = us;
  return true;
}

/* The era ends the text; the year before 1 AD is 1 BC. */
static bool take_end(Str *rest, Moment *m) {
  if (m->year == 0)
    return false;
  if (take(rest, STR(" BC")))
    m->year = 1 - m->year;
  return rest->n == 0 && is_day(m->year, m->month, m->day);
}

/* Days since 1970-01-01 of the proleptic Gregorian calendar; years begin in March, so that the leap day is their last.
 */
static int64_t days_of(const Moment *m) {
  int64_t year = m->year - (m->month <= 2);
  int64_t era = (year >= 0 ? year : year - 399) / 400;
  int64_t of_era = year - era * 400;
  int64_t of_year = (153 * (m->month + (m->month > 2 ? -3 : 9)) + 2) / 5 + m->day - 1;
  return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

bool datetime_date(Str text, int64_t *ret_days) {
  Moment m;
  if (!take_date(&text, &m) || !take_end(&text, &m))
    return false;
  *ret_days = days_of(&m);
  return true;
}

bool datetime_time(Str text, int64_t *ret_us) {
  int64_t us = 0;
  if (!take_time(&text, &us) || text.n > 0)
    return false;
  *ret_us = us;
  return true;
}

static bool take_moment(Str text, Str zone, Moment *ret) {
  Moment m;
  if (!take_date(&text, &m) || !take(&text, STR(" ")) || !take_time(&text, &m.us) || m.us == DAY_US ||
      !take(&text, zone) || !take_end(&text, &m))
    return false;
  *ret = m;
  return true;
}

bool datetime_timestamp(Str text, int64_t *ret_us) {
  Moment m;
  int64_t us = 0;
  if (!take_moment(text, STR(""), &m) || __builtin_mul_overflow(days_of(&m), DAY_US, &us) ||
      __builtin_add_overflow(us, m.us, &us))
    return false;
  *ret_us = us;
  return true;
}

static void write_year(Buf *out, int64_t year) {
  if (year > 9999)
    buf_char(out, '+');
  buf_printf(out, year < 0 ? "%05lld" : "%04lld", (long long)year);
}

bool datetime_write_zoned(Buf *out, Str text, int digits) {
  Moment m;
  if (!take_moment(text, STR("+00"), &m))
    return false;
  int64_t second = m.us / 1000000, micros = m.us % 1000000;
  write_year(out, m.year);
  buf_printf(out, "-%02d-%02dT%02d:%02d:%02d", m.month, m.day, (int)(second / 3600), (int)(second / 60 % 60),
             (int)(second % 60));
  for (int i = digits; i < 6; i++)
    micros /= 10;
  if (digits > 0)
    buf_printf(out, ".%0*lld", digits, (long long)micros);
  buf_char(out, 'Z');
  return true;
}

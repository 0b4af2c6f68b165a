/* Money: decimal text to cents and back, digit by digit. */
#include "base/money.h"

#include "base/decimal.h"
#include "base/err.h"

#define EXPONENT_MAX INT64_C(1000000000000) /* larger ones are cut to this: far beyond any text's length */

typedef struct Number { /* whole.fraction × 10^exponent */
  bool negative, scientific;
  Str whole, fraction;
  int64_t exponent;
} Number;

static bool take_char(Str *s, char c) {
  if (s->n == 0 || s->p[0] != c)
    return false;
  *s = (Str){s->p + 1, s->n - 1};
  return true;
}

static Str take_digits(Str *s) {
  size_t n = 0;
  while (n < s->n && s->p[n] >= '0' && s->p[n] <= '9')
    n++;
  Str digits = {s->p, n};
  *s = (Str){s->p + n, s->n - n};
  return digits;
}

static int take_exponent(Str *s, int64_t *ret) {
  bool negative = take_char(s, '-');
  if (!negative)
    take_char(s, '+');
  Str digits = take_digits(s);
  if (digits.n == 0)
    return E_MALFORMED;
  int64_t value = 0;
  for (size_t i = 0; i < digits.n && value < EXPONENT_MAX; i++)
    value = value * 10 + (digits.p[i] - '0');
  *ret = negative ? -value : value;
  return 0;
}

/* The grammar of RFC 8259 §6. */
static int scan(Str text, Number *ret) {
  Number n = {.negative = take_char(&text, '-')};
  n.whole = take_digits(&text);
  if (n.whole.n == 0 || (n.whole.n > 1 && n.whole.p[0] == '0'))
    return E_MALFORMED;
  if (take_char(&text, '.')) {
    n.fraction = take_digits(&text);
    if (n.fraction.n == 0)
      return E_MALFORMED;
  }
  n.scientific = take_char(&text, 'e') || take_char(&text, 'E');
  if (n.scientific)
    TRY(take_exponent(&text, &n.exponent));
  if (text.n)
    return E_MALFORMED;
  *ret = n;
  return 0;
}

static int digit_at(const Number *n, size_t i) {
  return (i < n->whole.n ? n->whole.p[i] : n->fraction.p[i - n->whole.n]) - '0';
}

static int push_digit(int64_t *cents, int digit) {
  if (*cents > (MONEY_MAX - digit) / 10)
    return E_RANGE;
  *cents = *cents * 10 + digit;
  return 0;
}

static int to_cents(const Number *n, int64_t *ret) {
  int64_t digits = (int64_t)(n->whole.n + n->fraction.n);
  int64_t shift = n->exponent + 2 - (int64_t)n->fraction.n;
  if (shift < 0 && !n->scientific)
    return E_FIELD;
  int64_t cents = 0, i = 0;
  for (; i < digits && i < digits + shift; i++)
    TRY(push_digit(&cents, digit_at(n, (size_t)i)));
  for (; i < digits; i++) /* these stand below the cent */
    if (digit_at(n, (size_t)i) != 0)
      return E_FIELD;
  for (; shift > 0 && cents; shift--)
    TRY(push_digit(&cents, 0));
  *ret = cents;
  return 0;
}

int money_parse(Str text, Money *ret) {
  Number n;
  int64_t cents;
  TRY(scan(text, &n));
  TRY(to_cents(&n, &cents));
  *ret = n.negative ? -cents : cents;
  return 0;
}

size_t money_format_prose(Money value, char out[MONEY_TEXT]) {
  uint64_t cents = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
  char *p = out;
  if (value < 0)
    *p++ = '-';
  p += decimal_write(cents / 100, p);
  *p++ = '.';
  p = decimal_pad(p, (unsigned)(cents % 100), 2);
  *p = 0;
  return (size_t)(p - out);
}

size_t money_format(Money value, char out[MONEY_TEXT]) {
  size_t n = money_format_prose(value, out);
  if (out[n - 1] == '0')
    n -= out[n - 2] == '0' ? sizeof(".00") - 1 : 1;
  out[n] = 0;
  return n;
}

static int checked(bool overflow, Money value, Money *ret) {
  if (overflow || value > MONEY_MAX || value < -MONEY_MAX)
    return E_RANGE;
  *ret = value;
  return 0;
}

int money_add(Money a, Money b, Money *ret) {
  Money sum;
  bool overflow = __builtin_add_overflow(a, b, &sum);
  return checked(overflow, sum, ret);
}

int money_mul(Money a, int64_t factor, Money *ret) {
  Money product;
  bool overflow = __builtin_mul_overflow(a, factor, &product);
  return checked(overflow, product, ret);
}

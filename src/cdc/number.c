/* Decimal text to Java's doubles and to Kafka Connect's decimals. */
#include "cdc/number.h"

#include "base/err.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SAFE_DIGITS   15  /* so many decimal digits are always the shortest text of their double */
#define SAFE_EXPONENT 290 /* of normal doubles, with room */
#define DOUBLE_DIGITS 800 /* no midpoint between two doubles needs more */
#define EXPONENT_MAX  1000000
#define LIMB_DIGITS   9

/* The value is ±0.DIGITS × 10^point, digits being whole followed by fraction. */
typedef struct Decimal {
  bool negative;
  Str whole, fraction;
  int64_t point;
} Decimal;

static Str take_digits(Str *rest) {
  Str digits = {rest->p, 0};
  while (digits.n < rest->n && rest->p[digits.n] >= '0' && rest->p[digits.n] <= '9')
    digits.n++;
  *rest = (Str){rest->p + digits.n, rest->n - digits.n};
  return digits;
}

static bool take(Str *rest, char c) {
  if (rest->n == 0 || rest->p[0] != c)
    return false;
  *rest = (Str){rest->p + 1, rest->n - 1};
  return true;
}

static bool take_exponent(Str *rest, int64_t *ret) {
  *ret = 0;
  if (!take(rest, 'e'))
    return true;
  bool negative = take(rest, '-');
  if (!negative)
    (void)take(rest, '+');
  Str digits = take_digits(rest);
  if (str_to_int(digits, ret) < 0 || *ret > EXPONENT_MAX)
    return false;
  *ret = negative ? -*ret : *ret;
  return true;
}

static bool parse(Str text, Decimal *ret) {
  Decimal d = {.negative = take(&text, '-')};
  int64_t exponent = 0;
  d.whole = take_digits(&text);
  if (d.whole.n == 0)
    return false;
  if (take(&text, '.')) {
    d.fraction = take_digits(&text);
    if (d.fraction.n == 0)
      return false;
  }
  if (!take_exponent(&text, &exponent) || text.n > 0)
    return false;
  d.point = (int64_t)d.whole.n + exponent;
  *ret = d;
  return true;
}

bool number_is_plain(Str text) {
  Decimal d;
  return parse(text, &d) && !memchr(text.p, 'e', text.n) && (d.whole.n == 1 || d.whole.p[0] != '0');
}

static char digit_at(const Decimal *d, size_t i) {
  return i < d->whole.n ? d->whole.p[i] : d->fraction.p[i - d->whole.n];
}

static void add_zeros(Buf *out, int64_t n) {
  for (; n > 0; n--)
    buf_char(out, '0');
}

/* ±0.DIGITS × 10^point as Java writes it; no leading or trailing zeros in digits. */
static void write_java(Buf *out, bool negative, Str digits, int64_t point) {
  if (negative)
    buf_char(out, '-');
  if (digits.n == 0) {
    buf_cstr(out, "0.0");
  } else if (point < -2 || point > 7) {
    buf_char(out, digits.p[0]);
    buf_char(out, '.');
    buf_str(out, digits.n > 1 ? (Str){digits.p + 1, digits.n - 1} : STR("0"));
    buf_char(out, 'E');
    buf_int(out, point - 1);
  } else if (point <= 0) {
    buf_cstr(out, "0.");
    add_zeros(out, -point);
    buf_str(out, digits);
  } else if (point >= (int64_t)digits.n) {
    buf_str(out, digits);
    add_zeros(out, point - (int64_t)digits.n);
    buf_cstr(out, ".0");
  } else {
    buf_str(out, (Str){digits.p, (size_t)point});
    buf_char(out, '.');
    buf_str(out, (Str){digits.p + point, digits.n - (size_t)point});
  }
}

/* Copies the digits from the first to the last that is not zero, at most `most`, and moves point accordingly. A rest
 * that does not fit leaves a 1 as its trace, which is all that rounding asks for. */
static Str significant(const Decimal *d, char *digits, size_t most, int64_t *ret_point) {
  size_t n = d->whole.n + d->fraction.n, first = 0, count = 0;
  while (first < n && digit_at(d, first) == '0')
    first++;
  while (n > first && digit_at(d, n - 1) == '0')
    n--;
  for (size_t i = first; i < n && count < most; i++)
    digits[count++] = digit_at(d, i);
  if (n - first > most)
    digits[most - 1] = '1';
  *ret_point = d->point - (int64_t)first;
  return (Str){digits, count};
}

static void write_nearest(Buf *out, bool negative, Str digits, int64_t point) {
  char text[DOUBLE_DIGITS + 32];
  snprintf(text, sizeof(text), "0.%.*se%lld", STR_FMT(digits), (long long)point);
  double value = strtod(text, NULL);
  if (isinf(value)) {
    buf_cstr(out, negative ? "\"-Infinity\"" : "\"Infinity\"");
    return;
  }
  for (int precision = SAFE_DIGITS; precision <= 17; precision++) {
    snprintf(text, sizeof(text), "%.*e", precision - 1, value);
    if (strtod(text, NULL) == value)
      break;
  }
  Decimal shortest;
  if (!parse(str_from(text), &shortest))
    die("the C library's own number is none: %s", text);
  char kept[24];
  Str nearest = significant(&shortest, kept, sizeof(kept), &point);
  write_java(out, negative, nearest, point);
}

static bool write_special(Buf *out, Str text) {
  if (!str_eq(text, STR("NaN")) && !str_eq(text, STR("Infinity")) && !str_eq(text, STR("-Infinity")))
    return false;
  buf_json_string(out, text);
  return true;
}

bool number_write_double(Buf *out, Str text) {
  Decimal d;
  if (!parse(text, &d))
    return write_special(out, text);
  char kept[DOUBLE_DIGITS];
  int64_t point = 0;
  Str digits = significant(&d, kept, sizeof(kept), &point);
  if (digits.n <= SAFE_DIGITS && point > -SAFE_EXPONENT && point < SAFE_EXPONENT)
    write_java(out, d.negative, digits, digits.n > 0 ? point : 0);
  else
    write_nearest(out, d.negative, digits, point);
  return true;
}

bool number_write_float(Buf *out, Str text) {
  Decimal d;
  if (!parse(text, &d))
    return write_special(out, text);
  char kept[32];
  int64_t point = 0;
  if (d.whole.n + d.fraction.n > sizeof(kept)) /* no float4 or float8 is written so */
    return number_write_double(out, text);
  Str digits = significant(&d, kept, sizeof(kept), &point);
  write_java(out, d.negative, digits, point);
  return true;
}

static bool parse_scaled(Str text, int scale, Decimal *ret) {
  return number_is_plain(text) && parse(text, ret) && (int64_t)ret->fraction.n <= scale;
}

bool number_write_plain(Buf *out, Str text, int scale) {
  Decimal d;
  if (!parse_scaled(text, scale, &d))
    return false;
  buf_str(out, text);
  if (d.fraction.n == 0 && scale > 0)
    buf_char(out, '.');
  add_zeros(out, scale - (int64_t)d.fraction.n);
  return true;
}

static const char base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_write(Buf *out, const uint8_t *bytes, size_t n) {
  buf_reserve(out, (n + 2) / 3 * 4);
  for (size_t i = 0; i < n; i += 3) {
    uint32_t triple = (uint32_t)bytes[i] << 16 | (i + 1 < n ? (uint32_t)bytes[i + 1] << 8 : 0) |
                      (i + 2 < n ? (uint32_t)bytes[i + 2] : 0);
    for (size_t k = 0; k < 4; k++)
      buf_char(out, i + k > n ? '=' : base64_digits[triple >> (18 - 6 * k) & 63]);
  }
}

/* limbs × factor + digit, limbs being little-endian. Returns the new count. */
static size_t multiply_add(uint32_t *limbs, size_t count, uint32_t factor, uint32_t addend) {
  uint64_t carry = addend;
  for (size_t i = 0; i < count; i++) {
    carry += (uint64_t)limbs[i] * factor;
    limbs[i] = (uint32_t)carry;
    carry >>= 32;
  }
  if (carry)
    limbs[count++] = (uint32_t)carry;
  return count;
}

/* The integer that n digits make, zeros added behind the last that there is. */
static size_t to_limbs(const Decimal *d, size_t n, uint32_t *limbs) {
  size_t count = 0, there = d->whole.n + d->fraction.n;
  for (size_t i = 0; i < n;) {
    uint32_t factor = 1, value = 0;
    for (size_t k = 0; k < LIMB_DIGITS && i < n; k++, i++) {
      factor *= 10;
      value = value * 10 + (i < there ? (uint32_t)(digit_at(d, i) - '0') : 0);
    }
    count = multiply_add(limbs, count, factor, value);
  }
  return count;
}

/* Big-endian two's complement in as few bytes as it takes, as Java's BigInteger.toByteArray gives it. */
static Str to_bytes(Arena *arena, const uint32_t *limbs, size_t count, bool negative) {
  size_t n = count * 4 + 1;
  uint8_t *bytes = arena_alloc(arena, n);
  for (size_t i = 0; i < count * 4; i++)
    bytes[n - 1 - i] = (uint8_t)(limbs[i / 4] >> (8 * (i % 4)));
  uint32_t carry = 1;
  for (size_t i = n; negative && i > 0; i--) {
    carry += (uint8_t)~bytes[i - 1];
    bytes[i - 1] = (uint8_t)carry;
    carry >>= 8;
  }
  size_t first = 0;
  while (first + 1 < n && bytes[first] == (bytes[first + 1] & 0x80 ? 0xff : 0))
    first++;
  return (Str){(const char *)bytes + first, n - first};
}

static void write_unscaled(Buf *out, const Decimal *d, size_t digits) {
  SCOPED_ARENA arena = arena_new();
  uint32_t *limbs = ARENA_ARRAY(arena, uint32_t, digits / LIMB_DIGITS + 2);
  size_t count = to_limbs(d, digits, limbs);
  Str bytes = to_bytes(arena, limbs, count, d->negative);
  buf_char(out, '"');
  base64_write(out, (const uint8_t *)bytes.p, bytes.n);
  buf_char(out, '"');
}

bool number_write_decimal(Buf *out, Str text, int scale) {
  Decimal d;
  if (!parse_scaled(text, scale, &d))
    return false;
  write_unscaled(out, &d, d.whole.n + (size_t)scale);
  return true;
}

bool number_write_variable(Buf *out, Str text) {
  Decimal d;
  if (!number_is_plain(text) || !parse(text, &d))
    return false;
  while (d.fraction.n > 0 && d.fraction.p[d.fraction.n - 1] == '0')
    d.fraction.n--;
  buf_cstr(out, "{\"scale\":");
  buf_int(out, (int64_t)d.fraction.n);
  buf_cstr(out, ",\"value\":");
  write_unscaled(out, &d, d.whole.n + d.fraction.n);
  buf_char(out, '}');
  return true;
}

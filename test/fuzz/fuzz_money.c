/* money_parse and money_format: exact both ways, bounded, and in agreement with arithmetic done another way. */
#include "base/err.h"
#include "base/money.h"
#include "fuzz/fuzz.h"

#include <string.h>

static void check_text(Str text) {
  Money value = 42;
  int rc = money_parse(text, &value);
  if (rc < 0) {
    PROPERTY(rc == E_MALFORMED || rc == E_FIELD || rc == E_RANGE);
    PROPERTY(value == 42);
    return;
  }
  PROPERTY(value <= MONEY_MAX && value >= -MONEY_MAX);
  char out[MONEY_TEXT];
  Money back = 0;
  size_t n = money_format(value, out);
  PROPERTY(n < sizeof(out) && out[n] == 0 && strlen(out) == n);
  PROPERTY(money_parse((Str){out, n}, &back) == 0 && back == value);
}

/* Any number is written in at most two decimals without needless zeros, and reads back when it is in bounds. */
static void check_value(Money value) {
  char out[MONEY_TEXT];
  size_t n = money_format(value, out);
  Money back = 0;
  int rc = money_parse((Str){out, n}, &back);
  bool in_bounds = value <= MONEY_MAX && value >= -MONEY_MAX;
  PROPERTY(in_bounds ? rc == 0 && back == value : rc == E_RANGE);
  const char *point = strchr(out, '.');
  PROPERTY(!point || (n - (size_t)(point - out) <= 3 && out[n - 1] != '0'));
}

static void check_arithmetic(Money a, Money b) {
  Money sum = 0, product = 0;
  __int128 exact_sum = (__int128)a + b, exact_product = (__int128)a * b;
  bool sum_fits = exact_sum <= MONEY_MAX && exact_sum >= -MONEY_MAX;
  bool product_fits = exact_product <= MONEY_MAX && exact_product >= -MONEY_MAX;
  PROPERTY(money_add(a, b, &sum) == (sum_fits ? 0 : E_RANGE));
  PROPERTY(money_mul(a, b, &product) == (product_fits ? 0 : E_RANGE));
  PROPERTY(!sum_fits || sum == exact_sum);
  PROPERTY(!product_fits || product == exact_product);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  check_text((Str){(const char *)data, size});
  Money values[2] = {0};
  memcpy(values, data, size < sizeof(values) ? size : sizeof(values));
  check_value(values[0]);
  check_arithmetic(values[0], values[1]);
  return 0;
}

/* Decimal digits, written without the cost of printf. For the formatters of base/. */
#ifndef SKALD_BASE_DECIMAL_H
#define SKALD_BASE_DECIMAL_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define DECIMAL_TEXT 20 /* digits of the largest uint64 */

/* Returns the number of digits. No zero byte. */
static inline size_t decimal_write(uint64_t value, char *out) {
  char digits[DECIMAL_TEXT];
  size_t at = sizeof(digits);
  do {
    digits[--at] = (char)('0' + value % 10);
    value /= 10;
  } while (value);
  memcpy(out, digits + at, sizeof(digits) - at);
  return sizeof(digits) - at;
}

/* Exactly width digits, zeros in front. Returns where the next character goes. */
static inline char *decimal_pad(char *out, unsigned value, size_t width) {
  for (size_t i = width; i > 0; i--) {
    out[i - 1] = (char)('0' + value % 10);
    value /= 10;
  }
  return out + width;
}

#endif

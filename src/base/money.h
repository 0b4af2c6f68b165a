/* Money: exact, in cents, as int64. Everything is overflow-checked; binary floating point is never used. */
#ifndef SKALD_BASE_MONEY_H
#define SKALD_BASE_MONEY_H

#include "base/str.h"

typedef int64_t Money; /* cents */

#define MONEY_MAX  INT64_C(9000000000000000000) /* leaves room below INT64_MAX, so that one addition cannot wrap */
#define MONEY_TEXT 32                           /* bytes that money_format may write, zero byte included */

/* A JSON number (RFC 8259 §6; an exponent is allowed as long as the value is exact): "123.45", "-0.1", "1e2".
 * E_MALFORMED: not a number. E_FIELD: more than two decimals are written. E_RANGE: beyond ±MONEY_MAX. */
int money_parse(Str text, Money *ret);
/* The shortest exact decimal, trailing zeros left out: 51.3, 100, -0.05. Returns its length. */
size_t money_format(Money value, char out[MONEY_TEXT]);
/* As people write it, always with two decimals: 51.30, 100.00, -0.05. Returns its length. */
size_t money_format_prose(Money value, char out[MONEY_TEXT]);
int money_add(Money a, Money b, Money *ret);        /* E_RANGE */
int money_mul(Money a, int64_t factor, Money *ret); /* E_RANGE */

#endif

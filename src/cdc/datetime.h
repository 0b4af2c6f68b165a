/* PostgreSQL's dates and times of day, given as text (DateStyle ISO, TimeZone UTC), as numbers: the whole range of its
 * types, years before 1 and beyond 9999 included. Each returns false where the text is none; "infinity" is none. */
#ifndef SKALD_CDC_DATETIME_H
#define SKALD_CDC_DATETIME_H

#include "base/buf.h"

bool datetime_date(Str text, int64_t *ret_days);    /* since 1970-01-01 */
bool datetime_time(Str text, int64_t *ret_us);      /* of the day; 24:00:00 is one */
bool datetime_timestamp(Str text, int64_t *ret_us); /* since 1970-01-01, of the unnamed zone */
/* A timestamptz in ISO-8601 in UTC, with so many digits of the second: 2030-05-26T16:00:00.500000Z. */
bool datetime_write_zoned(Buf *out, Str text, int digits);

#endif

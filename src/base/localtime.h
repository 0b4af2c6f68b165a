/* LocalTime: ISO-8601 date and time without a zone (java.time.LocalDateTime on the clients' side), in microseconds
 * since 1970-01-01T00:00:00 of the same unnamed zone. Years 1 to 9999, proleptic Gregorian. */
#ifndef SKALD_BASE_LOCALTIME_H
#define SKALD_BASE_LOCALTIME_H

#include "base/str.h"

typedef int64_t LocalTime;

#define LOCALTIME_NONE INT64_MIN
#define LOCALTIME_TEXT 32 /* bytes that localtime_format may write, zero byte included */

/* "2030-05-26T16:00", "2030-05-26T16:00:05", "2030-05-26T16:00:05.123456"; a space for the T as PostgreSQL writes it.
 * E_MALFORMED for another shape, E_FIELD for a date or time that does not exist. Digits past the sixth are cut. */
int localtime_parse(Str text, LocalTime *ret);
/* Seconds are left out when zero, the fraction is 3 or 6 digits when there is one. Returns the length. */
size_t localtime_format(LocalTime t, char out[LOCALTIME_TEXT]);

#endif

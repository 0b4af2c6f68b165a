/* The clocks. Everything that measures or waits uses the monotonic one; the wall clock is only for what people read and
 * for what is compared with times stored elsewhere. */
#ifndef SKALD_RT_CLOCK_H
#define SKALD_RT_CLOCK_H

#include <stdint.h>

/* Durations are int64_t microseconds: 5 * SECONDS. */
#define MILLISECONDS INT64_C(1000)
#define SECONDS      INT64_C(1000000)

int64_t clock_now_us(void);  /* CLOCK_MONOTONIC, microseconds; for deadlines, never for what is stored */
int64_t clock_unix_ns(void); /* CLOCK_REALTIME, since 1970 */
int64_t clock_unix_us(void);
int64_t clock_unix_ms(void);

#endif

/* Backoff grows, stays within its bounds and spreads. */
#include "base/backoff.h"

#include "unit/unit.h"

TEST(doubles_up_to_the_maximum) {
  static const int64_t full_us[] = {100, 200, 400, 800, 1000, 1000};
  for (int i = 0; i < 6; i++) {
    CHECK_INT(backoff_us(i, 100, 1000, 0), full_us[i] / 2);
    CHECK_INT(backoff_us(i, 100, 1000, (uint64_t)full_us[i] / 2 - 1), full_us[i] - 1);
    CHECK_INT(backoff_us(i, 100, 1000, (uint64_t)full_us[i] / 2), full_us[i] / 2);
  }
}

TEST(stays_within_bounds_for_any_random_number) {
  for (int i = 0; i < 1000; i++) {
    int64_t wait_us = backoff_us(i, 20000, 2000000, UINT64_MAX - (uint64_t)i * 7919);
    CHECK(wait_us >= 10000 && wait_us < 2000000);
  }
}

TEST(survives_extremes) {
  CHECK_INT(backoff_us(0, 1, 1, UINT64_MAX), 0);
  CHECK_INT(backoff_us(1000000, 1, INT64_MAX, 0), INT64_MAX / 2);
}

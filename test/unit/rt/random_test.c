/* Randomness: nothing repeats, not even across a fork, bounds hold, and ids are version 7 of now. */
#include "rt/random.h"

#include "rt/clock.h"
#include "unit/unit.h"

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

TEST(every_byte_asked_for_is_filled) {
  static const size_t sizes[] = {1, 10, 511, 512, 513, 5000};
  for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
    size_t n = sizes[i];
    uint8_t seen[5001] = {0};
    for (int round = 0; round < 64; round++) {
      uint8_t bytes[5001] = {0};
      random_bytes(bytes, n);
      CHECK_INT(bytes[n], 0);
      for (size_t at = 0; at < n; at++)
        seen[at] |= bytes[at];
    }
    CHECK(memchr(seen, 0, n) == NULL);
  }
}

TEST(no_bytes_change_nothing) {
  uint8_t byte = 7;
  random_bytes(&byte, 0);
  CHECK_INT(byte, 7);
}

TEST(below_its_bound) {
  static const uint64_t bounds[] = {1, 2, 3, 10, UINT64_C(1) << 32, UINT64_MAX / 2 + 2, UINT64_MAX};
  for (size_t i = 0; i < sizeof(bounds) / sizeof(*bounds); i++) {
    bool below = true;
    for (int n = 0; n < 2000; n++)
      below = below && random_below(bounds[i]) < bounds[i];
    CHECK(below);
  }
}

TEST(below_reaches_every_value_about_as_often) {
  enum { BOUND = 6, DRAWS = 60000 };
  int counts[BOUND] = {0};
  for (int n = 0; n < DRAWS; n++)
    counts[random_below(BOUND)]++;
  for (int v = 0; v < BOUND; v++) /* 10000 expected, with a standard deviation of 91: this is 10 of them */
    CHECK(counts[v] > 9090 && counts[v] < 10910);
}

TEST(new_ids_are_version_7_of_now) {
  int64_t before = clock_unix_ms();
  Uuid id = uuid_new();
  int64_t after = clock_unix_ms(), time = 0;
  for (int i = 0; i < 6; i++)
    time = time << 8 | id.b[i];
  CHECK(time >= before && time <= after);
  CHECK_INT(id.b[6] >> 4, 7);
  CHECK_INT(id.b[8] >> 6, 2);
}

TEST(new_ids_differ) {
  enum { COUNT = 2000 };
  static Uuid ids[COUNT];
  int same = 0;
  for (int i = 0; i < COUNT; i++) {
    ids[i] = uuid_new();
    for (int j = 0; j < i; j++)
      same += uuid_eq(ids[i], ids[j]);
  }
  CHECK_INT(same, 0);
}

static void child(int out) {
  random_after_fork();
  uint8_t bytes[16];
  random_bytes(bytes, sizeof(bytes));
  ssize_t n = write(out, bytes, sizeof(bytes));
  _exit(n == (ssize_t)sizeof(bytes) ? 0 : 1);
}

TEST(parent_and_child_differ_after_a_fork) {
  uint8_t mine[16], theirs[16] = {0};
  int ends[2], status = -1;
  random_bytes(mine, 1); /* so that there are buffered bytes to inherit */
  if (!CHECK_INT(pipe(ends), 0))
    return;
  pid_t pid = fork();
  if (pid == 0)
    child(ends[1]);
  CHECK(pid > 0);
  CHECK_INT(read(ends[0], theirs, sizeof(theirs)), sizeof(theirs));
  CHECK_INT(waitpid(pid, &status, 0), pid);
  CHECK_INT(status, 0);
  random_bytes(mine, sizeof(mine));
  CHECK(memcmp(mine, theirs, sizeof(mine)) != 0);
  close(ends[0]);
  close(ends[1]);
}

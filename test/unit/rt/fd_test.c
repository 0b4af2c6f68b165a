/* Descriptors on a real loop: waits, what comes while nobody waits, and a descriptor whose owner closes it. */
#include "rt/fd.h"

#include "rt/clock.h"
#include "rt/fiber.h"
#include "rt/loop.h"
#include "unit/unit.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LONG_US  10000000
#define SHORT_US 50000

static struct {
  int ours, theirs; /* a pair of sockets */
  int64_t passes;   /* of the loop */
} seen;

static void count_pass(void *arg) {
  (void)arg;
  seen.passes++;
}

static void open_pair(void) {
  int pair[2];
  CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
  seen.ours = pair[0];
  seen.theirs = pair[1];
}

static void send_byte(void) {
  CHECK_INT(send(seen.theirs, "x", 1, 0), 1);
}

static void take_bytes(void) {
  char bytes[64];
  CHECK(recv(seen.ours, bytes, sizeof(bytes), 0) > 0);
}

/* Runs fn in a fiber, on one loop for all tests, to its end. */
static void run(FiberFn *fn) {
  static bool begun;
  if (!begun) {
    loop_init();
    loop_before_poll(count_pass, NULL);
  }
  begun = true;
  memset(&seen, 0, sizeof(seen));
  open_pair();
  loop_resume();
  CHECK(fiber_start("test", fn, NULL) != NULL);
  loop_run();
  close(seen.ours);
  close(seen.theirs);
}

static void sends(void *arg) {
  (void)arg;
  send_byte();
}

static int wait_readable(Fd *fd, int64_t us) {
  return fd_wait(fd, FD_READABLE, "test", clock_now_us() + us);
}

static void reads_again_and_again(void *arg) {
  (void)arg;
  Fd *fd = fd_watch(seen.ours);
  for (int i = 0; i < 3; i++) {
    CHECK_INT(wait_readable(fd, SHORT_US), E_TIMEOUT);
    CHECK(!fd_is_ready(fd));
    CHECK(fiber_start("sends", sends, NULL) != NULL);
    CHECK_INT(wait_readable(fd, LONG_US), 0);
    CHECK(fd_is_ready(fd));
    take_bytes();
  }
  fd_unwatch(fd);
  loop_stop();
}

TEST(a_wait_ends_when_something_comes_and_so_does_the_next) {
  run(reads_again_and_again);
}

static void leaves_bytes(void *arg) {
  (void)arg;
  Fd *fd = fd_watch(seen.ours);
  CHECK_INT(wait_readable(fd, SHORT_US), E_TIMEOUT);
  send_byte();
  int64_t before = seen.passes;
  CHECK_INT(fiber_sleep(SHORT_US), 0);
  CHECK(seen.passes - before < 10);
  CHECK_INT(wait_readable(fd, LONG_US), 0);
  fd_unwatch(fd);
  loop_stop();
}

TEST(what_comes_while_nobody_waits_does_not_keep_the_loop_busy_and_is_found_later) {
  run(leaves_bytes);
}

static void ends_the_other_wait(void *arg) {
  fiber_wake(arg);
}

static void is_woken(void *arg) {
  (void)arg;
  Fd *fd = fd_watch(seen.ours);
  CHECK(fiber_start("wakes", ends_the_other_wait, fiber_current()) != NULL);
  CHECK_INT(wait_readable(fd, LONG_US), 0);
  CHECK(!fd_is_ready(fd));
  send_byte(); /* for nobody: the next wait is for something else */
  CHECK_INT(fiber_wait("nothing", clock_now_us() + SHORT_US), E_TIMEOUT);
  fd_unwatch(fd);
  loop_stop();
}

TEST(a_wait_that_ended_otherwise_is_told_nothing_any_more) {
  run(is_woken);
}

static void writes_then_reads(void *arg) {
  (void)arg;
  Fd *fd = fd_watch(seen.ours);
  CHECK_INT(fd_wait(fd, FD_READABLE | FD_WRITABLE, "test", clock_now_us() + LONG_US), 0);
  CHECK(fd_is_ready(fd));
  CHECK_INT(wait_readable(fd, SHORT_US), E_TIMEOUT);
  CHECK_INT(fd_wait(fd, FD_WRITABLE, "test", clock_now_us() + LONG_US), 0);
  CHECK(fd_is_ready(fd));
  fd_unwatch(fd);
  loop_stop();
}

TEST(each_wait_is_for_its_own_events) {
  run(writes_then_reads);
}

static void end_peer(void *arg) {
  (void)arg;
  shutdown(seen.theirs, SHUT_RDWR);
}

/* As libpq does when the server has gone. */
static void owner_closes(void *arg) {
  (void)arg;
  Fd *fd = fd_watch(seen.ours);
  CHECK(fiber_start("ends", end_peer, NULL) != NULL);
  CHECK_INT(wait_readable(fd, LONG_US), 0);
  int number = seen.ours;
  close(seen.ours);
  close(seen.theirs);
  open_pair();
  CHECK_INT(seen.ours, number); /* the lowest free one */
  Fd *other = fd_watch(seen.ours);
  CHECK_INT(wait_readable(other, SHORT_US), E_TIMEOUT);
  send_byte();
  CHECK_INT(wait_readable(other, LONG_US), 0);
  fd_unwatch(fd);
  fd_unwatch(other);
  loop_stop();
}

TEST(a_descriptor_may_be_closed_and_its_number_be_another_s_before_the_watch_ends) {
  run(owner_closes);
}

static void sends_later(void *arg) {
  (void)arg;
  CHECK_INT(fiber_sleep(SHORT_US), 0);
  send_byte();
}

static void is_canceled_and_waits_uncancelably(void *arg) {
  (void)arg;
  Fd *fd = fd_watch(seen.ours);
  fiber_cancel(fiber_current());
  CHECK(fiber_start("sends", sends_later, NULL) != NULL);
  CHECK_INT(wait_readable(fd, LONG_US), E_CANCELED);
  CHECK_INT(fd_wait_uncancelable(fd, FD_READABLE, "test", clock_now_us() + LONG_US), 0);
  CHECK(fd_is_ready(fd));
  take_bytes();
  CHECK_INT(fd_wait_uncancelable(fd, FD_READABLE, "test", clock_now_us() + SHORT_US), E_TIMEOUT);
  fd_unwatch(fd);
  loop_stop();
}

TEST(a_canceled_fiber_can_wait_for_a_descriptor_uncancelably) {
  run(is_canceled_and_waits_uncancelably);
}

/* A descriptor is a poll handle of libuv that watches only while a fiber waits. */
#include "rt/fd.h"

#include "rt/fiber.h"
#include "rt/loop.h"

#include <stdlib.h>
#include <uv.h>

_Static_assert((int)FD_READABLE == (int)UV_READABLE && (int)FD_WRITABLE == (int)UV_WRITABLE, "handed on as they are");

struct Fd {
  uv_poll_t poll;
  Fiber *fiber;
  bool ready;
};

Fd *fd_watch(int fd) {
  Fd *f = calloc(1, sizeof(*f));
  if (!f || uv_poll_init(loop_uv(), &f->poll, fd) < 0)
    abort();
  return f;
}

static void on_closed(uv_handle_t *handle) {
  free(handle);
}

void fd_unwatch(Fd *fd) {
  if (fd)
    uv_close((uv_handle_t *)&fd->poll, on_closed);
}

static void on_ready(uv_poll_t *poll, int status, int events) {
  (void)status; /* an error is found by who reads from the descriptor */
  (void)events;
  uv_poll_stop(poll);
  ((Fd *)poll)->ready = true;
  fiber_wake(((Fd *)poll)->fiber);
}

int fd_wait(Fd *fd, int events, const char *why, int64_t deadline_us) {
  fd->fiber = fiber_current();
  fd->ready = false;
  uv_poll_start(&fd->poll, events, on_ready);
  int rc = fiber_wait(why, deadline_us);
  uv_poll_stop(&fd->poll);
  return rc;
}

bool fd_is_ready(const Fd *fd) {
  return fd->ready;
}

/* A descriptor is a poll handle of libuv. It goes on watching after a wait, since to stop and to start again is a
 * system call each, and stops at an event that no fiber waits for. So it watches a copy of the descriptor: the
 * library may close its own one, and its number may be another's, before the watch is ended. */
#include "rt/fd.h"

#include "rt/fiber.h"
#include "rt/loop.h"

#include <assert.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

_Static_assert((int)FD_READABLE == (int)UV_READABLE && (int)FD_WRITABLE == (int)UV_WRITABLE, "handed on as they are");

struct Fd {
  uv_poll_t poll;
  int copy;
  int watched;  /* events; 0: none */
  Fiber *fiber; /* waits, or NULL */
  bool ready;
};

Fd *fd_watch(int fd) {
  Fd *f = calloc(1, sizeof(*f));
  if (!f)
    die("out of memory for a descriptor");
  f->copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (f->copy < 0) {
    free(f);
    return NULL;
  }
  int rc = uv_poll_init(loop_uv(), &f->poll, f->copy);
  if (rc < 0)
    die("descriptor %d cannot be polled: %s", fd, uv_strerror(rc)); /* a file, which nobody hands in */
  return f;
}

static void on_closed(uv_handle_t *handle) {
  Fd *f = (Fd *)handle;
  close(f->copy);
  free(f);
}

void fd_unwatch(Fd *fd) {
  if (fd)
    uv_close((uv_handle_t *)&fd->poll, on_closed);
}

static void on_ready(uv_poll_t *poll, int status, int events);

static void watch(Fd *f, int events) {
  if (events == f->watched)
    return;
  f->watched = events;
  if (events)
    uv_poll_start(&f->poll, events, on_ready);
  else
    uv_poll_stop(&f->poll);
}

static void on_ready(uv_poll_t *poll, int status, int events) {
  Fd *f = (Fd *)poll;
  (void)events;
  if (!f->fiber || status < 0) /* the next read from the descriptor reports an error */
    watch(f, 0);
  f->ready = true;
  fiber_wake(f->fiber);
}

static void begin_wait(Fd *fd, int events) {
  assert(!fd->fiber); /* one fiber at a time */
  watch(fd, events);
  fd->fiber = fiber_current();
  fd->ready = false;
}

int fd_wait(Fd *fd, int events, const char *why, int64_t deadline_us) {
  begin_wait(fd, events);
  int rc = fiber_wait(why, deadline_us);
  fd->fiber = NULL;
  return rc;
}

int fd_wait_uncancelable(Fd *fd, int events, const char *why, int64_t deadline_us) {
  begin_wait(fd, events);
  int rc = fiber_wait_uncancelable(why, deadline_us);
  fd->fiber = NULL;
  return rc;
}

bool fd_is_ready(const Fd *fd) {
  return fd->ready;
}

/* Waiting for a file descriptor in a fiber: how a library that does its own input and output meets the loop. */
#ifndef SKALD_RT_FD_H
#define SKALD_RT_FD_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum { FD_READABLE = 1, FD_WRITABLE = 2 };

typedef struct Fd Fd;

Fd *fd_watch(int fd);    /* a copy of it: the descriptor stays the caller's. NULL when there is no number left */
void fd_unwatch(Fd *fd); /* takes NULL */
/* One fiber at a time. 0 when the descriptor is ready, in error, or the fiber was woken otherwise. */
MUST_CHECK int fd_wait(Fd *fd, int events, const char *why, int64_t deadline_us);
/* As fiber_wait_uncancelable. */
int fd_wait_uncancelable(Fd *fd, int events, const char *why, int64_t deadline_us);
bool fd_is_ready(const Fd *fd); /* whether the last wait ended by the descriptor */

#endif

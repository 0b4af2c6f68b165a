/* Lookups by libuv's thread pool, waited for in a fiber. The system's resolver cannot be stopped, so a lookup that
 * nobody waits for any more belongs to itself until its thread is through. */
#include "rt/resolve.h"

#include "rt/fiber.h"
#include "rt/loop.h"

#include <assert.h>
#include <stdlib.h>
#include <uv.h>

struct Resolve {
  uv_getaddrinfo_t request; /* first: libuv gives it back */
  Fiber *fiber;
  struct addrinfo *found;
  bool done, abandoned;
};

static void on_done(uv_getaddrinfo_t *request, int status, struct addrinfo *found) {
  Resolve *r = (Resolve *)request;
  if (r->abandoned) {
    uv_freeaddrinfo(found);
    free(r);
    return;
  }
  r->found = status == 0 ? found : NULL;
  if (status != 0)
    uv_freeaddrinfo(found);
  r->done = true;
  fiber_wake(r->fiber);
}

Resolve *resolve_begin(const char *host, const char *service) {
  assert(fiber_current());
  Resolve *r = calloc(1, sizeof(*r));
  if (!r)
    die("out of memory");
  r->fiber = fiber_current();
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
  r->done = uv_getaddrinfo(loop_uv(), &r->request, on_done, host, service, &hints) != 0; /* no name at all */
  return r;
}

/* One that still waits for a thread is taken back, so that a silent name server leaves no backlog of lookups. */
static void abandon(Resolve *r) {
  r->abandoned = true;
  uv_cancel((uv_req_t *)&r->request);
}

int resolve_end(Resolve *r, int64_t deadline_us, struct addrinfo **ret) {
  assert(r->fiber == fiber_current());
  while (!r->done) {
    int rc = fiber_wait("resolve", deadline_us);
    if (rc < 0 && !r->done) {
      abandon(r);
      return rc;
    }
  }
  struct addrinfo *found = r->found;
  free(r);
  if (!found)
    return E_UNAVAILABLE;
  *ret = found;
  return E_OK;
}

int resolve(const char *host, const char *service, int64_t deadline_us, struct addrinfo **ret) {
  return resolve_end(resolve_begin(host, service), deadline_us, ret);
}

void resolve_free(struct addrinfo *found) {
  uv_freeaddrinfo(found);
}

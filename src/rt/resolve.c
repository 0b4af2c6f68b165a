/* One question to libuv's resolver, waited for in a fiber. */
#include "rt/resolve.h"

#include "rt/fiber.h"
#include "rt/loop.h"

#include <uv.h>

typedef struct Question {
  uv_getaddrinfo_t request;
  Fiber *fiber;
  struct addrinfo *found;
  bool done;
} Question;

static void on_answer(uv_getaddrinfo_t *request, int status, struct addrinfo *found) {
  Question *q = (Question *)request;
  q->found = status == 0 ? found : NULL;
  if (status != 0)
    uv_freeaddrinfo(found);
  q->done = true;
  fiber_wake(q->fiber);
}

int resolve(const char *host, const char *service, struct addrinfo **ret) {
  Question q = {.fiber = fiber_current()};
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
  int rc = uv_getaddrinfo(loop_uv(), &q.request, on_answer, host, service, &hints);
  while (rc == 0 && !q.done) /* q must stay until the resolver is through */
    fiber_wait_uncancelable("resolve", FIBER_FOREVER);
  *ret = q.found;
  return q.found ? E_OK : E_UNAVAILABLE;
}

void resolve_free(struct addrinfo *found) {
  uv_freeaddrinfo(found);
}

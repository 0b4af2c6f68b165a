/* Opens libpq connections without blocking the loop: names are resolved by libuv, the handshake waits in the fiber. */
#include "rt/db_connect.h"

#include "rt/fd.h"
#include "rt/loop.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#define PARAMETERS 8

typedef struct Lookup {
  uv_getaddrinfo_t request;
  Fiber *fiber;
  char address[64];
  bool done;
} Lookup;

static void on_lookup(uv_getaddrinfo_t *request, int status, struct addrinfo *found) {
  Lookup *l = (Lookup *)request;
  if (status == 0 && found)
    uv_ip_name(found->ai_addr, l->address, sizeof(l->address));
  uv_freeaddrinfo(found);
  l->done = true;
  fiber_wake(l->fiber);
}

static void lookup(const char *host, char out[64]) {
  Lookup l = {.fiber = fiber_current()};
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
  int rc = uv_getaddrinfo(loop_uv(), &l.request, on_lookup, host, NULL, &hints);
  while (rc == 0 && !l.done) /* the resolver has its own bound, and l must stay until it is through */
    if (fiber_wait("resolve", FIBER_FOREVER) == E_CANCELED)
      fiber_yield();
  memcpy(out, l.address, sizeof(l.address));
}

/* "" when there is nothing to resolve, or it failed: libpq then says what is wrong. */
static void resolve(const char *dsn, char out[64]) {
  out[0] = 0;
  PQconninfoOption *options = PQconninfoParse(dsn, NULL);
  for (const PQconninfoOption *o = options; o && o->keyword; o++)
    if (!strcmp(o->keyword, "host") && o->val && *o->val && !strchr("/@", *o->val) && !strchr(o->val, ','))
      lookup(o->val, out);
  PQconninfoFree(options);
}

/* libpq may open another socket between two steps, so each step watches anew. */
static int shake_hands(PGconn *pq) {
  int64_t deadline_us = loop_now_us() + DB_CONNECT_US;
  PostgresPollingStatusType status = PGRES_POLLING_WRITING;
  while (status != PGRES_POLLING_OK) {
    if (status == PGRES_POLLING_FAILED || PQstatus(pq) == CONNECTION_BAD)
      return E_UNAVAILABLE;
    Fd *socket = fd_watch(PQsocket(pq));
    int rc =
        fd_wait(socket, status == PGRES_POLLING_READING ? FD_READABLE : FD_WRITABLE, "postgres connect", deadline_us);
    fd_unwatch(socket);
    TRY(rc);
    status = PQconnectPoll(pq);
  }
  return E_OK;
}

int db_connect(const char *dsn, const char *const keys[], const char *const values[], PGconn **ret) {
  char address[64];
  resolve(dsn, address);
  const char *all_keys[PARAMETERS + 3] = {"dbname"}, *all_values[PARAMETERS + 3] = {dsn};
  int n = 1;
  for (int i = 0; keys[i]; i++, n++) {
    assert(i < PARAMETERS);
    all_keys[n] = keys[i];
    all_values[n] = values[i];
  }
  if (address[0]) {
    all_keys[n] = "hostaddr";
    all_values[n] = address;
  }
  *ret = PQconnectStartParams(all_keys, all_values, 1);
  if (!*ret)
    abort();
  TRY(shake_hands(*ret));
  return PQsetnonblocking(*ret, 1) == 0 ? E_OK : E_UNAVAILABLE;
}

/* Opens libpq connections without blocking the loop: names are resolved by libuv, the handshake waits in the fiber. */
#include "db/connect.h"

#include "rt/clock.h"
#include "rt/fd.h"
#include "rt/resolve.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#define PARAMETERS 8

#define ADDRESSES 512

typedef struct Lookup {
  const char *host;
  char hosts[ADDRESSES], addresses[ADDRESSES]; /* lists of equal length, as libpq wants them */
} Lookup;

static void add_address(Lookup *l, const struct sockaddr *address) {
  char text[64];
  if (uv_ip_name(address, text, sizeof(text)) < 0)
    return;
  size_t host = strlen(l->hosts), at = strlen(l->addresses);
  if (host + strlen(l->host) + 2 > ADDRESSES || at + strlen(text) + 2 > ADDRESSES)
    return;
  snprintf(l->hosts + host, ADDRESSES - host, "%s%s", host ? "," : "", l->host);
  snprintf(l->addresses + at, ADDRESSES - at, "%s%s", at ? "," : "", text);
}

static int lookup(Lookup *l) {
  struct addrinfo *found;
  TRY(resolve(l->host, NULL, &found));
  for (const struct addrinfo *a = found; a; a = a->ai_next)
    add_address(l, a->ai_addr);
  resolve_free(found);
  return l->addresses[0] ? E_OK : E_UNAVAILABLE;
}

/* libpq itself would resolve names blocking. Nothing found: E_UNAVAILABLE, and libpq must not be asked. */
static int resolve_hosts(const char *dsn, Lookup *l) {
  int rc = E_OK;
  PQconninfoOption *options = PQconninfoParse(dsn, NULL);
  for (const PQconninfoOption *o = options; o && o->keyword; o++)
    if (!strcmp(o->keyword, "host") && o->val && *o->val && !strchr("/@", *o->val) && !strchr(o->val, ',')) {
      l->host = o->val;
      rc = lookup(l);
    }
  PQconninfoFree(options);
  return rc;
}

/* Not over before the socket is ready, whoever wakes the fiber meanwhile: libpq would wait for a connection that is not
 * made yet, and all the process with it. libpq may open another socket between two steps, so each watches anew. */
static int wait_for_socket(PGconn *pq, PostgresPollingStatusType status, int64_t deadline_us) {
  int events = status == PGRES_POLLING_READING ? FD_READABLE : FD_WRITABLE, rc = E_OK;
  Fd *socket = fd_watch(PQsocket(pq));
  if (!socket)
    return E_UNAVAILABLE;
  do
    rc = fd_wait(socket, events, "postgres connect", deadline_us);
  while (rc == E_OK && !fd_is_ready(socket));
  fd_unwatch(socket);
  return rc;
}

static int shake_hands(PGconn *pq) {
  int64_t deadline_us = clock_now_us() + DB_CONNECT_US;
  PostgresPollingStatusType status = PGRES_POLLING_WRITING;
  while (status != PGRES_POLLING_OK) {
    if (status == PGRES_POLLING_FAILED || PQstatus(pq) == CONNECTION_BAD)
      return E_UNAVAILABLE;
    TRY(wait_for_socket(pq, status, deadline_us));
    status = PQconnectPoll(pq);
  }
  return E_OK;
}

int db_connect(const char *dsn, const char *const keys[], const char *const values[], PGconn **ret) {
  Lookup found = {0};
  *ret = NULL;
  TRY(resolve_hosts(dsn, &found));
  const char *all_keys[PARAMETERS + 4] = {"dbname"}, *all_values[PARAMETERS + 4] = {dsn};
  int n = 1;
  for (int i = 0; keys[i]; i++, n++) {
    assert(i < PARAMETERS);
    all_keys[n] = keys[i];
    all_values[n] = values[i];
  }
  if (found.addresses[0]) {
    all_keys[n] = "host";
    all_values[n++] = found.hosts;
    all_keys[n] = "hostaddr";
    all_values[n] = found.addresses;
  }
  *ret = PQconnectStartParams(all_keys, all_values, 1);
  if (!*ret)
    abort();
  TRY(shake_hands(*ret));
  return PQsetnonblocking(*ret, 1) == 0 ? E_OK : E_UNAVAILABLE;
}

/* Opens libpq connections without blocking the loop: names are resolved by libuv, the handshake and the session's first
 * commands wait in the fiber. */
#include "db/connect.h"

#include "db/dsn.h"
#include "rt/fd.h"
#include "rt/fiber.h"
#include "rt/resolve.h"

#include <assert.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define ADDRESS_MAX 96 /* an address of IPv6 with its interface */

typedef struct Attempt {
  const DbConnect *how;
  Arena *arena;
  HostList hosts; /* still to be tried, without names to look up */
  Buf failures;   /* what failed so far, as one line */
} Attempt;

static void add_failure(Attempt *a, Str text) {
  if (a->failures.n > 0)
    buf_cstr(&a->failures, "; ");
  buf_str(&a->failures, text);
}

void db_reason(const PGconn *pq, char reason[DB_REASON]) {
  size_t n = 0;
  Str rest = str_from(PQerrorMessage(pq));
  while (rest.n > 0) {
    Str line = str_cut(&rest, '\n');
    if (line.n > 0 && line.p[0] != '\t' && n < DB_REASON) /* a tab: advice */
      n += (size_t)snprintf(reason + n, DB_REASON - n, "%s%.*s", n > 0 ? "; " : "", STR_FMT(line));
  }
  if (n == 0)
    snprintf(reason, DB_REASON, "the connection was lost");
}

static void add_addresses(Attempt *a, const Host *host, const struct addrinfo *found) {
  for (; found; found = found->ai_next) {
    char text[ADDRESS_MAX];
    if (getnameinfo(found->ai_addr, found->ai_addrlen, text, sizeof(text), NULL, 0, NI_NUMERICHOST) != 0)
      continue;
    Host one = *host;
    one.address = arena_cstr(a->arena, str_from(text));
    hosts_add(&a->hosts, &one);
  }
}

/* A unix socket or an address. libpq asks the resolver for the latter, too, unless it stands in hostaddr. */
static void add_known(Attempt *a, const Host *host) {
  Host one = *host;
  if (host_is_address(host))
    one.address = one.name;
  hosts_add(&a->hosts, &one);
}

static void add_missing(Attempt *a, const Host *host, int rc) {
  add_failure(a, arena_printf(a->arena, "could not resolve host \"%s\"%s", host->name,
                              rc == E_TIMEOUT ? ": no response from the name server" : ""));
}

/* All names at once. One that is not found is left out, as libpq does; a cancel ends all lookups. */
static int resolve_hosts(Attempt *a, const HostList *from) {
  Resolve *lookups[HOSTS_MAX] = {0};
  int64_t deadline_us = clock_now_us() + DB_RESOLVE_US;
  int canceled = E_OK;
  for (int i = 0; i < from->count; i++)
    if (host_needs_lookup(&from->at[i]))
      lookups[i] = resolve_begin(from->at[i].name, NULL);
  for (int i = 0; i < from->count; i++) {
    const Host *host = &from->at[i];
    struct addrinfo *found = NULL;
    int rc = lookups[i] ? resolve_end(lookups[i], deadline_us, &found) : E_OK;
    if (rc == E_CANCELED)
      canceled = rc;
    else if (rc < 0)
      add_missing(a, host, rc);
    else if (found)
      add_addresses(a, host, found);
    else
      add_known(a, host);
    resolve_free(found);
  }
  return canceled == E_OK && a->hosts.count == 0 ? E_UNAVAILABLE : canceled;
}

/* Ends only when the socket is ready, even if the fiber is woken for another reason: libpq would wait for a connection
 * that is not made yet, and all the process with it. libpq may open another socket between two steps, so each watches
 * anew. */
static int wait_for_socket(PGconn *pq, int events, int64_t deadline_us) {
  int rc = E_OK;
  Fd *socket = fd_watch(PQsocket(pq));
  if (!socket)
    return E_UNAVAILABLE;
  do
    rc = fd_wait(socket, events, "postgres connect", deadline_us);
  while (rc == E_OK && !fd_is_ready(socket));
  fd_unwatch(socket);
  return rc;
}

/* Each address has its time. E_TIMEOUT: the one that is being tried gives no response. */
static int shake_hands(PGconn *pq) {
  PostgresPollingStatusType status = PGRES_POLLING_WRITING;
  char trying[DB_REASON] = "";
  int64_t deadline_us = 0;
  while (status != PGRES_POLLING_OK) {
    if (status == PGRES_POLLING_FAILED || PQstatus(pq) == CONNECTION_BAD)
      return E_UNAVAILABLE;
    char now[DB_REASON];
    snprintf(now, sizeof(now), "%s %s %s", PQhost(pq), PQhostaddr(pq), PQport(pq));
    if (strcmp(now, trying) != 0)
      deadline_us = clock_now_us() + DB_CONNECT_US;
    memcpy(trying, now, sizeof(now));
    TRY(wait_for_socket(pq, status == PGRES_POLLING_READING ? FD_READABLE : FD_WRITABLE, deadline_us));
    status = PQconnectPoll(pq);
  }
  return E_OK;
}

static PGconn *start(Attempt *a) {
  const char *names, *addresses, *ports, *replication = a->how->session == DB_SESSION_STREAM ? "database" : NULL;
  hosts_join(&a->hosts, a->arena, &names, &addresses, &ports);
  const char *keys[] = {"dbname", "client_encoding", "application_name", "host", "hostaddr", "port", "replication",
                        NULL};
  const char *values[] = {a->how->dsn, "UTF8", a->how->application_name, names, addresses, ports, replication, NULL};
  PGconn *pq = PQconnectStartParams(keys, values, 1);
  if (!pq)
    die("out of memory");
  return pq;
}

static bool is_current(const Host *h, const PGconn *pq) {
  const char *address = PQhostaddr(pq), *name = PQhost(pq); /* the first is empty for a unix socket */
  if (*h->port && strcmp(h->port, PQport(pq)) != 0)
    return false;
  if (*address)
    return !strcmp(h->address, address) || !strcmp(h->name, address);
  return !*h->address && (!*h->name || !strcmp(h->name, name));
}

/* The other hosts may be well: libpq goes on to them from one that refuses, but not from one that is silent. */
static void drop_current(Attempt *a, const PGconn *pq, const char *failure) {
  HostList left = {0};
  for (int i = 0; i < a->hosts.count; i++)
    if (!is_current(&a->hosts.at[i], pq))
      hosts_add(&left, &a->hosts.at[i]);
  if (left.count == a->hosts.count) { /* libpq writes its address in another way */
    memmove(left.at, left.at + 1, sizeof(left.at) - sizeof(left.at[0]));
    left.count--;
  }
  a->hosts = left;
  add_failure(a, arena_printf(a->arena, "%s host \"%s\", port %s", failure, PQhost(pq), PQport(pq)));
}

static int open_any(Attempt *a, PGconn **ret) {
  while (a->hosts.count > 0) {
    PGconn *pq = start(a);
    int rc = shake_hands(pq);
    if (rc == E_OK) {
      *ret = pq;
      return E_OK;
    }
    char reason[DB_REASON];
    db_reason(pq, reason);
    if (rc == E_TIMEOUT)
      drop_current(a, pq, "no response from");
    else
      add_failure(a, arena_str(a->arena, str_from(reason)));
    PQfinish(pq);
    if (rc != E_TIMEOUT)
      return rc;
  }
  return E_UNAVAILABLE;
}

/* Runs commands that give nothing back but success. */
static int run(PGconn *pq, const char *sql) {
  int64_t deadline_us = clock_now_us() + DB_CONNECT_US;
  if (PQsetnonblocking(pq, 1) < 0 || !PQsendQuery(pq, sql))
    return E_UNAVAILABLE;
  int left;
  while ((left = PQflush(pq)) > 0) {
    TRY(wait_for_socket(pq, FD_READABLE | FD_WRITABLE, deadline_us));
    if (!PQconsumeInput(pq))
      return E_UNAVAILABLE;
  }
  bool failed = left < 0;
  for (bool more = !failed; more;) {
    while (PQisBusy(pq)) {
      TRY(wait_for_socket(pq, FD_READABLE, deadline_us));
      if (!PQconsumeInput(pq))
        return E_UNAVAILABLE;
    }
    PGresult *result = PQgetResult(pq);
    more = result != NULL;
    failed |= result && PQresultStatus(result) != PGRES_COMMAND_OK && PQresultStatus(result) != PGRES_TUPLES_OK;
    PQclear(result);
  }
  return failed ? E_UNAVAILABLE : E_OK;
}

static int set_up(Attempt *a, PGconn *pq) {
  int rc = run(pq, session_sql(a->arena, a->how->session, PQserverVersion(pq)).p);
  if (rc == E_TIMEOUT)
    add_failure(a, arena_printf(a->arena, "no response from host \"%s\", port %s", PQhost(pq), PQport(pq)));
  char reason[DB_REASON];
  db_reason(pq, reason);
  if (rc == E_UNAVAILABLE)
    add_failure(a, arena_str(a->arena, str_from(reason)));
  return rc == E_TIMEOUT ? E_UNAVAILABLE : rc;
}

/* A pooler may not report these parameters; then the first write tells. */
static bool takes_writes(const PGconn *pq) {
  const char *standby = PQparameterStatus(pq, "in_hot_standby");
  const char *read_only = PQparameterStatus(pq, "default_transaction_read_only");
  return !(standby && !strcmp(standby, "on")) && !(read_only && !strcmp(read_only, "on"));
}

/* The first host whose session does what it is for. */
static int open_fit(Attempt *a, PGconn **ret) {
  for (;;) {
    PGconn *pq = NULL;
    TRY(open_any(a, &pq));
    int rc = set_up(a, pq);
    if (rc == E_OK && (a->how->session != DB_SESSION_POOL || takes_writes(pq))) {
      *ret = pq;
      return E_OK;
    }
    if (rc == E_OK)
      drop_current(a, pq, "no writes are taken by");
    PQfinish(pq);
    TRY(rc);
  }
}

static int connect_with(Attempt *a, PGconn **ret) {
  Dsn dsn;
  Str why = {0};
  if (dsn_read(a->how->dsn, a->arena, &dsn, &why) < 0) {
    add_failure(a, why);
    return E_FIELD;
  }
  TRY(resolve_hosts(a, &dsn.hosts));
  return open_fit(a, ret);
}

int db_connect(const DbConnect *how, PGconn **ret, char reason[DB_REASON]) {
  assert(fiber_current());
  SCOPED_ARENA arena = arena_new();
  Attempt a = {.how = how, .arena = arena, .failures = {.arena = arena}};
  int rc = connect_with(&a, ret);
  if (rc < 0)
    snprintf(reason, DB_REASON, "%.*s", STR_FMT(buf_view(&a.failures)));
  return rc;
}

/* Services: what stands between an HTTP request and a handler of a few lines. A service is a name, a route table, its
 * SQL and what it does in the background. Several run in one process; they call each other by name, directly where the
 * other lives in this process, over HTTP where it does not: same request, same handler, same answer. */
#ifndef SKALD_RT_SERVICE_H
#define SKALD_RT_SERVICE_H

#include "rt/db.h"
#include "rt/http.h"

#define SERVICE_RELEASE_US 6000000 /* see stop */

typedef struct Service Service;

typedef struct Req Req; /* rt/req.h */

/* in: the body, read by the route's field table (a List * for ROUTE_LIST, NULL without a table). Returns 0 after one of
 * the reply functions, or an error code, best through fail() of rt/req.h. */
typedef int Handler(Req *req, void *in);

enum {
  ROUTE_KEYED = 1, /* takes Idempotency-Key */
  ROUTE_LIST = 2,  /* the body is an array of 1 to 500 objects */
};

typedef struct Route {
  const char *method;
  const char *path; /* "/payment/payment/{id}"; a literal segment goes before a {…} one */
  Handler *handler;
  const Field *body; /* NULL: a body is not looked at */
  size_t body_size;
  unsigned flags;
} Route;

typedef struct ServiceDef {
  const char *name;
  const char *schema;          /* in SQL, quoted where needed */
  const char *modules[3];      /* SQL templates it also needs, {schema} standing for its schema; NULL-terminated */
  const char *migrations;      /* the text of its .sql file */
  const Route *routes;         /* ends with {0} */
  void (*prepare)(Service *s); /* before the fork: metrics; may be NULL */
  void (*start)(Service *s, int worker); /* in each worker's loop, in a fiber: background work; may be NULL */
  /* In a fiber, before the loop ends: finishes what it can until then, gives back what others wait for within
   * SERVICE_RELEASE_US. May be NULL. */
  void (*stop)(Service *s, int64_t deadline_us);
} ServiceDef;

struct Service {
  const ServiceDef *def;
  Db *db;
  const char *dsn;
  struct RouteState *routes;   /* one per route: its path cut up, its metrics */
  void *state;                 /* the service's own, made in prepare */
  struct IdempotencySql *keys; /* this schema's statements */
};

/* Calls another service and waits; the request's arena holds the answer. 0: any HTTP status. Else as http_client_call.
 */
MUST_CHECK int service_call(const char *service, HttpRequest *request, HttpReply *reply);

/* Before any of those below, after metrics_init. HOST:PORT for Ktor's names of the metrics, NULL: without them. */
void service_init(const char *ktor_address);
Service *service_add(const ServiceDef *def, const char *dsn); /* before the fork */
Service *service_find(const char *name);                      /* NULL: not in this process */
void service_peer(const char *name, const char *base_url);    /* where one lives that is not in this process */
/* In each worker's loop: connects the databases, starts background fibers. */
void service_start_all(int worker, int connections, int batch);
void service_not_ready(void); /* /readyz is 503 from now on: send no more requests */
/* In a fiber, when no request is served any more. All stop at once; whoever has not by SERVICE_RELEASE_US behind the
 * deadline is left as it is. */
void service_stop_all(int64_t deadline_us);
void service_handle(HttpRequest *request, HttpReply *reply); /* the HttpHandler of this process */
/* Health, metrics and the like: service_handle answers them without waiting for anything. */
bool service_at_once(Str method, Str path);

#endif

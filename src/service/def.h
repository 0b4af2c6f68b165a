/* What a service is: a name, a route table, its SQL and what it does in the background. */
#ifndef SKALD_SERVICE_DEF_H
#define SKALD_SERVICE_DEF_H

#include "db/db.h"
#include "http/http.h"
#include "rt/clock.h"

#define SERVICE_RELEASE_US (6 * SECONDS) /* see stop */

typedef struct Service Service;

typedef struct Req Req; /* service/req.h */

/* in: the body, read by the route's field table (a List * for ROUTE_LIST, NULL without a table). Returns 0 after one of
 * the reply functions, or an error code, best through fail() of service/req.h. */
typedef int Handler(Req *req, void *in);

enum {
  ROUTE_KEYED = 1,         /* takes Idempotency-Key */
  ROUTE_LIST = 2,          /* the body is an array of 1 to 500 objects */
  ROUTE_BODY_OPTIONAL = 4, /* without a body the handler gets a struct of zeros */
};

typedef struct Route {
  const char *method;
  const char *path; /* "/payment/payment/{id}"; a literal segment goes before a {…} one */
  Handler *handler;
  const Field *body; /* NULL: a body is not looked at */
  size_t body_size;
  unsigned flags;
} Route;
#define ROUTE_BODY(fields, type) .body = (fields), .body_size = sizeof(type)

typedef struct SqlModule { /* versioned SQL that several services share */
  const char *name;        /* in public.skald_migration: never another one */
  const char *old_name;    /* under which its rows are kept, too, for executables that know no other; NULL: none */
  const char *sql;         /* a template: {schema} stands for the service's schema */
} SqlModule;

typedef struct ServiceDef {
  const char *name;
  const char *schema;                    /* in SQL, quoted where needed */
  SqlModule modules[3];                  /* ends with {0} */
  const char *migrations;                /* the text of its .sql file */
  const Route *routes;                   /* ends with {0} */
  void (*prepare)(Service *s);           /* before the fork: metrics; may be NULL */
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
  struct SchemaWatch *schema;  /* whether its database has what it needs */
};

#endif

/* Which route a request is for: paths compared segment by segment, {…} segments captured and percent-decoded. */
#ifndef SKALD_SERVICE_ROUTER_H
#define SKALD_SERVICE_ROUTER_H

#include "service/req.h"

#define ROUTE_SEGMENTS 8

typedef struct RouteState {
  Str segments[ROUTE_SEGMENTS]; /* absent: captured */
  int count;
  int saga;                    /* which of the captured ones is {saga}; -1: none */
  struct HttpSeries *requests; /* how they went */
} RouteState;

void router_compile(Service *s); /* fills s->routes */
/* Sets req->route and req->params. E_NOT_FOUND; E_METHOD with *ret_allow naming the methods there are; E_MALFORMED. */
MUST_CHECK int router_match(const Service *s, Req *req, Str *ret_allow);

#endif

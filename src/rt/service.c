/* Services: who is in this process, how a request finds its handler, and how services call each other. */
#include "rt/service.h"

#include "rt/fiber.h"
#include "rt/http_client.h"
#include "rt/idempotency.h"
#include "rt/json.h"
#include "rt/log.h"
#include "rt/loop.h"
#include "rt/metrics.h"
#include "rt/problem.h"
#include "rt/router.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SERVICES  16
#define LIST_MOST 500

static struct {
  Service services[SERVICES];
  int count;
  struct {
    const char *name, *base_url;
  } peers[SERVICES];
  int peer_count;
} registry;

static void route_metrics(const Service *s, size_t i) {
  static const char *const classes[6] = {NULL, NULL, "2xx", "3xx", "4xx", "5xx"};
  const Route *route = &s->def->routes[i];
  char labels[256];
  int n = snprintf(labels, sizeof(labels), "http_request_method=\"%s\",http_route=\"%s\"", route->method, route->path);
  s->routes[i].duration = metric_new(METRIC_HISTOGRAM, "http_server_request_duration_seconds",
                                     "Time to answer a request, by route template", labels);
  for (int c = 2; c < 6; c++) {
    snprintf(labels + n, sizeof(labels) - (size_t)n, ",status=\"%s\"", classes[c]);
    s->routes[i].by_class[c] =
        metric_new(METRIC_COUNTER, "http_server_requests_total", "Requests answered, by class", labels);
  }
}

static Db *shared_db(const char *dsn, const char *name) {
  for (int i = 0; i < registry.count; i++)
    if (!strcmp(registry.services[i].dsn, dsn))
      return registry.services[i].db;
  return db_new(dsn, name);
}

Service *service_add(const ServiceDef *def, const char *dsn) {
  if (registry.count == SERVICES)
    abort();
  Db *db = shared_db(dsn, def->name);
  Service *s = &registry.services[registry.count++];
  *s = (Service){.def = def, .dsn = dsn, .db = db};
  router_compile(s);
  idempotency_prepare(s);
  for (size_t i = 0; def->routes[i].method; i++)
    route_metrics(s, i);
  if (def->prepare)
    def->prepare(s);
  return s;
}

Service *service_find(const char *name) {
  for (int i = 0; i < registry.count; i++)
    if (!strcmp(registry.services[i].def->name, name))
      return &registry.services[i];
  return NULL;
}

void service_peer(const char *name, const char *base_url) {
  if (registry.peer_count == SERVICES)
    abort();
  registry.peers[registry.peer_count].name = name;
  registry.peers[registry.peer_count++].base_url = base_url;
}

static bool has_keyed_route(const Service *s) {
  for (const Route *r = s->def->routes; r->method; r++)
    if (r->flags & ROUTE_KEYED)
      return true;
  return false;
}

void service_start_all(int worker, int connections, int batch) {
  for (int i = 0; i < registry.count; i++) {
    Service *s = &registry.services[i];
    bool first_of_db = true;
    for (int k = 0; k < i; k++)
      first_of_db &= registry.services[k].db != s->db;
    if (first_of_db)
      db_start(s->db, connections, batch);
    if (worker == 0 && has_keyed_route(s) && !fiber_start("idempotency retention", idempotency_retention, s))
      abort();
    if (s->def->start)
      s->def->start(s, worker);
  }
}

static int read_body(Req *req, void **ret_in) {
  const Route *route = req->route;
  *ret_in = NULL;
  if (!route->body)
    return 0;
  JsonError error = {0};
  int rc;
  if (route->flags & ROUTE_LIST) {
    List *list = ARENA_NEW(req->arena, List);
    rc = json_read_list(req->arena, req->http->body, route->body, route->body_size, 1, LIST_MOST, list, &error);
    *ret_in = list;
  } else {
    *ret_in = arena_alloc(req->arena, route->body_size);
    rc = json_read(req->arena, req->http->body, route->body, *ret_in, &error);
  }
  req->pointer = error.pointer;
  req->detail = error.detail;
  return rc;
}

static int run(Req *req) {
  Str allow;
  int rc = router_match(req->service, req, &allow);
  if (rc == E_METHOD)
    http_reply_header(req->reply, STR("allow"), allow);
  TRY(rc);
  void *in;
  TRY(read_body(req, &in));
  rc = idempotency_begin(req);
  return rc == 0 ? req->route->handler(req, in) : rc;
}

static void reply_problem(Req *req, int code) {
  HttpReply made = *req->reply;
  Problem problem = {.code = code, .detail = req->detail, .pointer = req->pointer};
  problem_reply(req->arena, &problem, req->reply);
  for (int i = 0; i < made.header_count; i++)
    http_reply_header(req->reply, made.headers[i].name, made.headers[i].value);
  if (req->reply->status >= 500)
    LOG(WARN, req->service->def->name, "%.*s %s: %s%s%.*s", STR_FMT(req->http->method),
        req->route ? req->route->path : "?", err_info(code)->name, req->detail.p ? ": " : "", STR_FMT(req->detail));
}

static void dispatch(Service *s, HttpRequest *request, HttpReply *reply) {
  int64_t began = loop_now_us();
  Req req = {.http = request, .arena = request->arena, .service = s, .db = s->db, .reply = reply};
  *reply = (HttpReply){0};
  int rc = run(&req);
  if (rc < 0)
    reply_problem(&req, rc);
  if (!req.route)
    return;
  RouteState *state = &s->routes[req.route - s->def->routes];
  metric_observe(state->duration, (double)(loop_now_us() - began) / 1e6);
  if (reply->status >= 200 && reply->status < 600)
    metric_add(state->by_class[reply->status / 100], 1);
}

static const char *peer_url(const char *name) {
  for (int i = 0; i < registry.peer_count; i++)
    if (!strcmp(registry.peers[i].name, name))
      return registry.peers[i].base_url;
  return NULL;
}

int service_call(const char *service, HttpRequest *request, HttpReply *reply) {
  Service *local = service_find(service);
  if (local) {
    dispatch(local, request, reply);
    return 0;
  }
  const char *url = peer_url(service);
  return url ? http_client_call(url, request, reply) : E_UNAVAILABLE;
}

void service_stop_all(void) {
  for (int i = 0; i < registry.count; i++)
    if (registry.services[i].def->stop)
      registry.services[i].def->stop(&registry.services[i]);
}

static void health(HttpReply *reply, Arena *arena, bool with_databases) {
  const char *down = NULL;
  for (int i = 0; i < registry.count && with_databases && !down; i++)
    if (!db_is_up(registry.services[i].db))
      down = registry.services[i].def->name;
  if (down) {
    Str detail = arena_printf(arena, "the database of %s cannot be reached", down);
    problem_reply(arena, &(Problem){.code = E_UNAVAILABLE, .detail = detail}, reply);
    return;
  }
  *reply = (HttpReply){.status = 200, .content_type = "application/json", .body = STR("{\"status\":\"ok\"}")};
}

static void text_reply(HttpReply *reply, Arena *arena, void (*render)(Buf *)) {
  Buf b = {.arena = arena};
  render(&b);
  *reply = (HttpReply){.status = 200, .content_type = "text/plain; version=0.0.4", .body = buf_view(&b)};
}

/* What every process answers, whatever services it has. */
static bool handle_common(HttpRequest *request, HttpReply *reply) {
  Str path = request->path;
  if (str_eq(path, STR("/health")) || str_eq(path, STR("/readyz")))
    health(reply, request->arena, true);
  else if (str_eq(path, STR("/livez")))
    health(reply, request->arena, false);
  else if (str_eq(path, STR("/metrics")) || str_eq(path, STR("/actuator/prometheus")))
    text_reply(reply, request->arena, metrics_render);
  else if (str_eq(path, STR("/debug/fibers")))
    text_reply(reply, request->arena, fiber_list);
  else
    return false;
  return true;
}

void service_handle(HttpRequest *request, HttpReply *reply) {
  if (str_eq(request->method, STR("HEAD"))) /* the server leaves the body out */
    request->method = STR("GET");
  if (str_eq(request->method, STR("GET")) && handle_common(request, reply))
    return;
  Str rest = request->path;
  str_cut(&rest, '/');
  Str name = str_cut(&rest, '/');
  for (int i = 0; i < registry.count; i++)
    if (str_eq(str_from(registry.services[i].def->name), name)) {
      dispatch(&registry.services[i], request, reply);
      return;
    }
  problem_reply(request->arena, &(Problem){.code = E_NOT_FOUND, .detail = STR("there is nothing at this path")}, reply);
}

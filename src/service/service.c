/* Services: which are in this process, how a request finds its handler, and how services call each other. */
#include "service/service.h"

#include "http/client.h"
#include "http/metrics.h"
#include "http/problem.h"
#include "http/span.h"
#include "log/log.h"
#include "metrics/metrics.h"
#include "rt/clock.h"
#include "rt/fiber.h"
#include "service/idempotency.h"
#include "service/router.h"
#include "service/schema.h"
#include "json/json.h"

#include <assert.h>
#include <string.h>

#define SERVICES 16
#define LIST_MAX 500

static struct {
  Service services[SERVICES];
  int count;
  struct {
    const char *name, *base_url;
    HttpSeries *calls;
  } peers[SERVICES];
  int peer_count;
  int worker;
  bool not_ready;
  Fiber *stopper; /* waits for the ends of services, or NULL */
  int stopping;
  int64_t stop_us;
} registry;

static Db *shared_db(const char *dsn, const char *name) {
  for (int i = 0; i < registry.count; i++)
    if (!strcmp(registry.services[i].dsn, dsn))
      return registry.services[i].db;
  return db_new(dsn, name);
}

Service *service_add(const ServiceDef *def, const char *dsn) {
  if (registry.count == SERVICES)
    die("more than %d services", SERVICES);
  Db *db = shared_db(dsn, def->name);
  Service *s = &registry.services[registry.count++];
  *s = (Service){.def = def, .dsn = dsn, .db = db};
  router_compile(s);
  idempotency_prepare(s);
  for (size_t i = 0; def->routes[i].method; i++)
    s->routes[i].requests = http_metrics_route(def->routes[i].path, def->routes[i].method);
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
    die("more than %d peers", SERVICES);
  registry.peers[registry.peer_count].name = name;
  registry.peers[registry.peer_count].base_url = base_url;
  registry.peers[registry.peer_count++].calls = http_metrics_peer(base_url);
}

static bool has_keyed_route(const Service *s) {
  for (const Route *r = s->def->routes; r->method; r++)
    if (r->flags & ROUTE_KEYED)
      return true;
  return false;
}

/* The service's background work. Not before its database has what it needs. */
static void begin_service(Service *s) {
  if (registry.worker == 0 && has_keyed_route(s) && !fiber_start("idempotency retention", idempotency_retention, s))
    die("no fiber left at the start");
  if (s->def->start)
    s->def->start(s, registry.worker);
}

void service_start_all(int worker, int connections, int batch) {
  registry.worker = worker;
  for (int i = 0; i < registry.count; i++) {
    Service *s = &registry.services[i];
    bool first_of_db = true;
    for (int k = 0; k < i; k++)
      first_of_db &= registry.services[k].db != s->db;
    if (first_of_db)
      db_start(s->db, connections, batch);
    fiber_context()->component = s->def->name; /* of the fibers it starts */
    schema_watch(s, begin_service);
    fiber_context()->component = NULL;
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
    rc = json_read_client_list(req->arena, req->http->body, route->body, route->body_size, 1, LIST_MAX, list, &error);
    *ret_in = list;
  } else {
    *ret_in = arena_alloc(req->arena, route->body_size);
    if (route->flags & ROUTE_BODY_OPTIONAL && !req->http->body.n)
      return 0;
    rc = json_read_client(req->arena, req->http->body, route->body, *ret_in, &error);
  }
  req->pointer = error.pointer;
  req->detail = error.detail;
  return rc;
}

static RouteState *route_state(const Req *req) {
  return &req->service->routes[req->route - req->service->def->routes];
}

/* A saga's calls say in their path whose they are. */
static void note_saga(const Req *req) {
  Uuid id;
  int i = route_state(req)->saga;
  if (i >= 0 && uuid_parse(req->params[i], &id) == 0)
    uuid_format(id, fiber_context()->saga_id);
}

static int run(Req *req) {
  Str allow;
  int rc = router_match(req->service, req, &allow);
  if (rc == E_METHOD)
    http_reply_header(req->reply, STR("allow"), allow);
  TRY(rc);
  req->detail = schema_admit(req->service, req->arena);
  if (req->detail.p)
    return E_UNAVAILABLE;
  note_saga(req);
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
}

/* Server errors are logged once, as warnings; everything else at debug level. */
static void log_request(const Req *req, int code, int64_t took_us) {
  const char *route = req->route ? req->route->path : "?", *error = code < 0 ? err_info(code)->name : NULL;
  Str method = http_metrics_method(req->http->method);
  const LogField fields[] = {{LOG_HTTP_METHOD, method, 0},
                             {LOG_HTTP_ROUTE, str_from(route), 0},
                             {LOG_HTTP_STATUS, (Str){0}, req->reply->status},
                             {LOG_DURATION, (Str){0}, took_us},
                             {error ? LOG_ERROR_CODE : LOG_NO_KEY, str_from(error), 0}};
  if (req->reply->status >= 500)
    LOG_WITH(WARN, "http", fields, "%.*s %s: %s%s%.*s", STR_FMT(method), route, error ? error : "failed",
             req->detail.p ? ": " : "", STR_FMT(req->detail));
  else
    LOG_WITH(DEBUG, "http", fields, "%.*s %s: %d", STR_FMT(method), route, req->reply->status);
}

/* Returns the series of the route. */
static const HttpSeries *dispatch(Service *s, HttpRequest *request, HttpReply *reply) {
  int64_t began = clock_now_us();
  FiberContext *context = fiber_context(), outer = *context;
  span_begin(s->def->name);
  Req req = {.http = request, .arena = request->arena, .service = s, .db = s->db, .reply = reply};
  *reply = (HttpReply){0};
  int rc = run(&req);
  if (rc < 0)
    reply_problem(&req, rc);
  if (rc == E_UNAVAILABLE)
    schema_doubt(s);
  log_request(&req, rc, clock_now_us() - began);
  *context = outer;
  return req.route ? route_state(&req)->requests : http_metrics_other();
}

static int call_peer(const char *name, const HttpRequest *request, HttpReply *reply) {
  int i = 0;
  while (i < registry.peer_count && strcmp(registry.peers[i].name, name) != 0)
    i++;
  if (i == registry.peer_count)
    return E_UNAVAILABLE;
  int64_t began_us = clock_now_us();
  int rc = http_client_call(registry.peers[i].base_url, request, reply);
  http_metrics_called(registry.peers[i].calls, request->method, rc, reply->status, began_us);
  return rc;
}

int service_call(const char *service, HttpRequest *request, HttpReply *reply) {
  Service *local = service_find(service);
  if (!local)
    return call_peer(service, request, reply);
  HttpTimer timer = http_metrics_begin(request->method);
  const HttpSeries *route = dispatch(local, request, reply);
  http_metrics_end(&timer, route, reply->status);
  return 0;
}

void service_not_ready(void) {
  registry.not_ready = true;
}

static void stop_service(void *arg) {
  Service *s = arg;
  fiber_context()->component = s->def->name;
  s->def->stop(s, registry.stop_us);
  assert(registry.stopping > 0);
  registry.stopping--;
  fiber_wake(registry.stopper);
}

void service_stop_all(int64_t deadline_us) {
  int64_t now_us = clock_now_us(), end_us = (deadline_us > now_us ? deadline_us : now_us) + SERVICE_RELEASE_US;
  registry.stop_us = deadline_us;
  registry.stopper = fiber_current();
  for (int i = 0; i < registry.count; i++) {
    schema_unwatch(&registry.services[i]);
    if (!registry.services[i].def->stop || !schema_begun(&registry.services[i]))
      continue;
    registry.stopping++;
    if (!fiber_start("service stop", stop_service, &registry.services[i]))
      die("no fiber to stop %s", registry.services[i].def->name); /* the drain has lifted the limit */
  }
  int rc = E_OK;
  while (registry.stopping > 0 && rc == E_OK)
    rc = fiber_wait("end of all services", end_us);
  registry.stopper = NULL;
  if (registry.stopping > 0)
    LOG(WARN, "serve", "%d services did not release their resources before the deadline", registry.stopping);
}

/* Why it should be sent no requests; absent: it may. */
static Str unready(Arena *arena) {
  if (registry.not_ready)
    return STR("the process is shutting down");
  for (int i = 0; i < registry.count; i++) {
    const Service *s = &registry.services[i];
    if (!db_is_up(s->db))
      return arena_printf(arena, "the database of %s cannot be reached", s->def->name);
    Str problem = schema_problem(s, arena);
    if (problem.p)
      return problem;
  }
  return (Str){0};
}

static void health(HttpReply *reply, Arena *arena, Str problem) {
  if (problem.p) {
    problem_reply(arena, &(Problem){.code = E_UNAVAILABLE, .detail = problem}, reply);
    return;
  }
  *reply = (HttpReply){.status = 200, .content_type = "application/json", .body = STR("{\"status\":\"ok\"}")};
}

static void ready(HttpReply *reply, Arena *arena) {
  health(reply, arena, unready(arena));
}

static void live(HttpReply *reply, Arena *arena) {
  health(reply, arena, (Str){0});
}

static void text_reply(HttpReply *reply, Arena *arena, void (*render)(Buf *)) {
  Buf b = {.arena = arena};
  render(&b);
  *reply = (HttpReply){.status = 200, .content_type = "text/plain; version=0.0.4", .body = buf_view(&b)};
}

static void metrics(HttpReply *reply, Arena *arena) {
  text_reply(reply, arena, metrics_render);
}

static void fibers(HttpReply *reply, Arena *arena) {
  text_reply(reply, arena, fiber_list);
}

/* Paths that every process serves, whatever services it has. */
static struct {
  const char *path;
  void (*respond)(HttpReply *reply, Arena *arena);
  HttpSeries *requests;
} commons[] = {
    {"/health", ready, NULL},
    {"/readyz", ready, NULL},
    {"/livez", live, NULL},
    {"/metrics", metrics, NULL},
    {"/actuator/prometheus", metrics, NULL},
    {"/debug/fibers", fibers, NULL},
};
enum { COMMONS = sizeof(commons) / sizeof(commons[0]) };

void service_init(const char *ktor_address) {
  http_metrics_init(ktor_address);
  for (int i = 0; i < COMMONS; i++)
    commons[i].requests = http_metrics_route(commons[i].path, "GET");
}

/* COMMONS: not one of them. */
static int find_common(Str path) {
  int i = 0;
  while (i < COMMONS && !str_eq(path, str_from(commons[i].path)))
    i++;
  return i;
}

bool service_at_once(Str method, Str path) {
  return (str_eq(method, STR("GET")) || str_eq(method, STR("HEAD"))) && find_common(path) < COMMONS;
}

/* NULL: not one of them. */
static const HttpSeries *respond_common(const HttpRequest *request, HttpReply *reply) {
  int i = find_common(request->path);
  if (i == COMMONS)
    return NULL;
  commons[i].respond(reply, request->arena);
  return commons[i].requests;
}

static const HttpSeries *respond(HttpRequest *request, HttpReply *reply) {
  const HttpSeries *common = str_eq(request->method, STR("GET")) ? respond_common(request, reply) : NULL;
  if (common)
    return common;
  Str rest = request->path;
  str_cut(&rest, '/');
  Str name = str_cut(&rest, '/');
  for (int i = 0; i < registry.count; i++)
    if (str_eq(str_from(registry.services[i].def->name), name)) {
      span_receive_request(request);
      return dispatch(&registry.services[i], request, reply);
    }
  problem_reply(request->arena, &(Problem){.code = E_NOT_FOUND, .detail = STR("there is nothing at this path")}, reply);
  return http_metrics_other();
}

void service_handle(HttpRequest *request, HttpReply *reply) {
  HttpTimer timer = http_metrics_begin(request->method);
  if (str_eq(request->method, STR("HEAD"))) /* the server leaves the body out */
    request->method = STR("GET");
  const HttpSeries *route = respond(request, reply);
  http_metrics_end(&timer, route, reply->status);
}

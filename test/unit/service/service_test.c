/* From a request to its handler and back: two services in one process, over a scripted database. */
#include "service/service.h"

#include "metrics/metrics.h"
#include "rt/clock.h"
#include "rt/fiber.h"
#include "service/db_double.c"
#include "service/req.h"

typedef struct Thing {
  Str name;
  int64_t n;
} Thing;

static const Field fields[] = {
    FIELD(Thing, name, F_TEXT, .min = 1, .max = 8), FIELD(Thing, n, F_INT, .flags = FIELD_OPTIONAL), {0}};

static struct {
  int calls, outcome;
  Thing thing;
  size_t list;
  int64_t deadline_us;
  char saga[UUID_TEXT], component[16];
} seen;

static int see(Req *req) {
  seen.calls++;
  seen.deadline_us = req->http->deadline_us;
  memcpy(seen.saga, fiber_context()->saga_id, sizeof(seen.saga));
  snprintf(seen.component, sizeof(seen.component), "%s", fiber_context()->component);
  http_reply_header(req->reply, STR("x-made"), STR("yes"));
  if (seen.outcome < 0)
    return fail(req, seen.outcome, "/name", "no %s", "way");
  return reply_status(req, true);
}

static int take(Req *req, void *in) {
  seen.thing = *(Thing *)in;
  return see(req);
}

static int take_list(Req *req, void *in) {
  seen.list = ((List *)in)->count;
  return see(req);
}

static int take_nothing(Req *req, void *in) {
  CHECK(in == NULL);
  return see(req);
}

static int call_on(Req *req, void *in) {
  (void)in;
  HttpRequest call = {
      .arena = req->arena, .method = STR("GET"), .path = STR("/one/one"), .deadline_us = req->http->deadline_us - 1};
  return service_call("one", &call, req->reply);
}

static const Route one_routes[] = {
    {.method = "GET", .path = "/one/one", .handler = take_nothing},
    {.method = "POST", .path = "/one/one", .handler = take, .body = fields, .body_size = sizeof(Thing)},
    {.method = "POST",
     .path = "/one/list",
     .handler = take_list,
     .body = fields,
     .body_size = sizeof(Thing),
     .flags = ROUTE_LIST},
    {.method = "POST",
     .path = "/one/optional",
     .handler = take,
     .body = fields,
     .body_size = sizeof(Thing),
     .flags = ROUTE_BODY_OPTIONAL},
    {.method = "PUT", .path = "/one/step/{saga}", .handler = take_nothing},
    {.method = "POST",
     .path = "/one/keyed",
     .handler = take,
     .body = fields,
     .body_size = sizeof(Thing),
     .flags = ROUTE_KEYED},
    {0},
};
static const Route two_routes[] = {{.method = "GET", .path = "/two/two", .handler = call_on}, {0}};
static const ServiceDef one = {.name = "one", .schema = "one", .routes = one_routes};
static const ServiceDef two = {.name = "two", .schema = "two", .routes = two_routes};

static struct {
  Arena *arena;
  HttpRequest request;
  HttpReply reply;
} world;

static void setup(void) {
  if (world.arena)
    return;
  world.arena = arena_new();
  metrics_init(1);
  service_init(NULL);
  service_add(&one, "dsn");
  service_add(&two, "dsn");
  metrics_worker(0);
}

static int handle(const char *method, const char *path, const char *body) {
  setup();
  db_reset();
  world.request.arena = world.arena;
  world.request.method = str_from(method);
  world.request.path = str_from(path);
  world.request.body = str_from(body);
  world.request.deadline_us = 1000;
  world.reply = (HttpReply){0};
  seen.thing = (Thing){.n = -1};
  seen.calls = 0;
  service_handle(&world.request, &world.reply);
  world.request.header_count = 0;
  return world.reply.status;
}

static bool body_has(const char *text) {
  return strstr(arena_cstr(world.arena, world.reply.body), text) != NULL;
}

TEST(the_first_part_of_the_path_picks_the_service) {
  seen.outcome = 0;
  CHECK_INT(handle("GET", "/one/one", NULL), 200);
  CHECK_STR(seen.component, "one");
  CHECK_INT(handle("GET", "/three/one", NULL), 404);
  CHECK_STR(world.reply.content_type, "application/problem+json");
  CHECK_INT(handle("GET", "/one/two", NULL), 404);
  CHECK_INT(handle("GET", "/", NULL), 404);
  CHECK_INT(seen.calls, 0);
}

TEST(head_is_get) {
  CHECK_INT(handle("HEAD", "/one/one", NULL), 200);
  CHECK_INT(seen.calls, 1);
}

TEST(a_method_that_is_not_there_is_405_and_says_which_are) {
  CHECK_INT(handle("DELETE", "/one/one", NULL), 405);
  CHECK_STR(world.reply.headers[0].name, "allow");
  CHECK_STR(world.reply.headers[0].value, "GET, POST");
  CHECK_INT(seen.calls, 0);
}

TEST(a_body_is_read_by_the_routes_table) {
  CHECK_INT(handle("POST", "/one/one", "{\"name\":\"x\",\"n\":5,\"z\":1}"), 200);
  CHECK_STR(seen.thing.name, "x");
  CHECK_INT(seen.thing.n, 5);
  CHECK_INT(handle("POST", "/one/one", "{\"name\":\"x\"}"), 200);
  CHECK_INT(seen.thing.n, 0);
}

TEST(a_bad_body_never_reaches_the_handler) {
  CHECK_INT(handle("POST", "/one/one", "{\"name\":5}"), 422);
  CHECK(body_has("\"pointer\":\"/name\""));
  CHECK_INT(handle("POST", "/one/one", "{\"name\":\"a\\nb\"}"), 422);
  CHECK_INT(handle("POST", "/one/list", "[{\"name\":\"a\\nb\"}]"), 422);
  CHECK(body_has("\"pointer\":\"/0/name\""));
  CHECK_INT(handle("POST", "/one/one", "{"), 400);
  CHECK_INT(handle("POST", "/one/one", NULL), 400);
  CHECK_INT(handle("POST", "/one/list", "[]"), 422);
  CHECK_INT(seen.calls, 0);
}

TEST(a_list_is_read_as_one) {
  CHECK_INT(handle("POST", "/one/list", "[{\"name\":\"x\"},{\"name\":\"y\"}]"), 200);
  CHECK_INT((int64_t)seen.list, 2);
}

TEST(an_optional_body_may_be_missing_but_not_wrong) {
  CHECK_INT(handle("POST", "/one/optional", NULL), 200);
  CHECK(!seen.thing.name.p);
  CHECK_INT(seen.thing.n, 0);
  CHECK_INT(handle("POST", "/one/optional", "{\"name\":\"x\"}"), 200);
  CHECK_STR(seen.thing.name, "x");
  CHECK_INT(handle("POST", "/one/optional", "{\"name\":5}"), 422);
  CHECK_INT(seen.calls, 0);
}

TEST(an_error_of_the_handler_becomes_a_problem_with_its_headers) {
  seen.outcome = E_REFUSED;
  CHECK_INT(handle("GET", "/one/one", NULL), 409);
  CHECK(body_has("\"detail\":\"no way\",\"pointer\":\"/name\""));
  CHECK_INT(world.reply.header_count, 1);
  CHECK_STR(world.reply.headers[0].name, "x-made");
  seen.outcome = 0;
}

TEST(a_known_key_is_replayed_before_the_handler) {
  setup();
  world.request.headers[0] = (HttpHeader){STR("idempotency-key"), STR("k")};
  world.request.header_count = 1;
  CHECK_INT(handle("POST", "/one/keyed", "{\"name\":\"x\"}"), 200);
  CHECK_INT(db_double.calls, 1);
  CHECK_INT(seen.calls, 1);
  world.request.header_count = 1;
  db_reset();
  seen.calls = 0;
  world.reply = (HttpReply){0};
  db_double.script[0] = (DbScript){.rows = 1, .columns = 3, .cells = {"t", "201", "{\"first\":1}"}};
  service_handle(&world.request, &world.reply);
  world.request.header_count = 0;
  CHECK_INT(world.reply.status, 201);
  CHECK(body_has("first"));
  CHECK_INT(seen.calls, 0);
}

TEST(a_call_within_the_process_is_a_request_with_the_callers_deadline) {
  seen.outcome = 0;
  CHECK_INT(handle("GET", "/two/two", NULL), 200);
  CHECK_INT(seen.calls, 1);
  CHECK_INT(seen.deadline_us, 999);
  CHECK_STR(seen.component, "one");
  CHECK(body_has("true"));
  seen.outcome = E_UNKNOWN;
  CHECK_INT(handle("GET", "/two/two", NULL), 503); /* a response like any other */
  seen.outcome = 0;
}

TEST(a_service_that_lives_nowhere_is_unavailable) {
  setup();
  HttpReply reply = {0};
  CHECK_INT(service_call("three", &world.request, &reply), E_UNAVAILABLE);
  CHECK(service_find("one") && !service_find("three"));
}

TEST(a_request_leaves_no_context_behind) {
  const char *saga = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f";
  CHECK_INT(handle("PUT", "/one/step/017f22e2-79b0-7cc3-98c4-dc0c0c07398f", NULL), 200);
  CHECK_STR(seen.saga, saga);
  CHECK_STR(fiber_context()->saga_id, "");
  CHECK(!fiber_context()->component);
}

TEST(probes_are_served_at_once) {
  setup();
  static const char *const paths[] = {"/health",      "/readyz", "/livez", "/metrics", "/actuator/prometheus",
                                      "/debug/fibers"};
  for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
    CHECK(service_at_once(STR("GET"), str_from(paths[i])));
    CHECK(service_at_once(STR("HEAD"), str_from(paths[i])));
    CHECK(!service_at_once(STR("POST"), str_from(paths[i])));
  }
  CHECK(!service_at_once(STR("GET"), STR("/one/one")));
  CHECK(!service_at_once(STR("GET"), STR("/livez/")));
  CHECK_INT(handle("GET", "/livez", NULL), 200);
  CHECK_INT(handle("GET", "/metrics", NULL), 200);
  CHECK(body_has("http_server_request_duration_seconds_count{http_request_method=\"GET\",http_route=\"/one/one\""));
}

/* The last test: there is no way back. */
TEST(one_that_shuts_down_is_alive_and_not_ready) {
  setup();
  service_not_ready();
  CHECK_INT(handle("GET", "/readyz", NULL), 503);
  CHECK(body_has("shutting down"));
  CHECK_INT(handle("GET", "/health", NULL), 503);
  CHECK_INT(handle("GET", "/livez", NULL), 200);
  CHECK_INT(handle("GET", "/one/one", NULL), 200); /* what still comes is served */
}

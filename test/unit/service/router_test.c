/* Which route a request is for, what its path holds, and what is said where there is none. */
#include "service/router.h"

#include "unit/unit.h"

#include <stdlib.h>
#include <string.h>

static int handler(Req *req, void *in) {
  (void)req;
  (void)in;
  return 0;
}

static const Route routes[] = {
    {.method = "GET", .path = "/shop/things", .handler = handler},
    {.method = "POST", .path = "/shop/things", .handler = handler},
    {.method = "GET", .path = "/shop/things/latest", .handler = handler},
    {.method = "GET", .path = "/shop/things/{id}", .handler = handler},
    {.method = "PUT", .path = "/shop/step/{saga}/cancel", .handler = handler},
    {.method = "PUT", .path = "/shop/{a}/{b}/{saga}/{c}", .handler = handler},
    {0},
};
static const ServiceDef def = {.name = "shop", .routes = routes};

static struct {
  Service service;
  Arena *arena;
  HttpRequest http;
  HttpReply reply;
  Req req;
  Str allow;
} world;

static int match(const char *method, const char *path) {
  if (!world.arena) {
    world.service.def = &def;
    router_compile(&world.service);
    world.arena = arena_new();
  }
  world.http = (HttpRequest){.arena = world.arena, .method = str_from(method), .path = str_from(path)};
  world.req = (Req){.http = &world.http, .arena = world.arena, .service = &world.service, .reply = &world.reply};
  world.allow = (Str){0};
  return router_match(&world.service, &world.req, &world.allow);
}

static void check_route(const char *method, const char *path, int route) {
  if (CHECK_INT(match(method, path), 0))
    CHECK_INT(world.req.route - routes, route);
}

TEST(routes_are_found_by_method_and_path) {
  check_route("GET", "/shop/things", 0);
  check_route("POST", "/shop/things", 1);
  check_route("GET", "/shop/things/5", 3);
  CHECK_STR(world.req.params[0], "5");
  check_route("PUT", "/shop/step/x/cancel", 4);
  CHECK_STR(world.req.params[0], "x");
}

TEST(a_literal_segment_comes_before_a_captured_one) {
  check_route("GET", "/shop/things/latest", 2);
  CHECK(!world.req.params[0].p);
  check_route("GET", "/shop/things/latest2", 3);
}

TEST(segments_are_captured_in_order) {
  check_route("PUT", "/shop/1/2/3/4", 5);
  for (int i = 0; i < ROUTE_PARAMS; i++)
    CHECK_STR(world.req.params[i], ((const char *const[]){"1", "2", "3", "4"})[i]);
}

TEST(captured_segments_are_decoded) {
  check_route("GET", "/shop/things/%d1%87a%2Fb+c", 3);
  CHECK_STR(world.req.params[0], "\xd1\x87"
                                 "a/b+c"); /* an encoded slash parts nothing */
}

TEST(the_saga_of_a_path_is_known) {
  match("GET", "/shop/things");
  CHECK_INT(world.service.routes[3].saga, -1);
  CHECK_INT(world.service.routes[4].saga, 0);
  CHECK_INT(world.service.routes[5].saga, 2);
}

static void check_refused(const char *path, const char *detail) {
  CHECK_INT(match("GET", path), E_MALFORMED);
  CHECK_STR(world.req.detail, detail);
}

TEST(a_bad_segment_is_named_with_the_reason) {
  check_refused("/shop/things/", "{id} in the path is empty");
  check_refused("/shop/things/a%00b", "{id} in the path contains the character U+0000");
  check_refused("/shop/things/%ff", "{id} in the path is not UTF-8");
  check_refused("/shop/things/\xff", "{id} in the path is not UTF-8");
  check_refused("/shop/things/%c3%28", "{id} in the path is not UTF-8");
  check_refused("/shop/things/a%zz", "{id} in the path has a % without two hexadecimal digits behind it");
  check_refused("/shop/things/a%2", "{id} in the path has a % without two hexadecimal digits behind it");
  check_refused("/shop/things/%", "{id} in the path has a % without two hexadecimal digits behind it");
}

TEST(other_paths_are_not_found) {
  static const char *const paths[] = {"/shop",         "/shop/",        "/shop/things/1/2",      "/shop/THINGS",
                                      "//shop/things", "/shop//things", "/1/2/3/4/5/6/7/8/9/10", ""};
  for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
    CHECK_INT(match("GET", paths[i]), E_NOT_FOUND);
    CHECK(world.req.detail.p && !world.req.route);
  }
}

TEST(other_methods_are_told_which_there_are) {
  CHECK_INT(match("DELETE", "/shop/things"), E_METHOD);
  CHECK_STR(world.allow, "GET, POST");
  CHECK_INT(match("get", "/shop/things/1"), E_METHOD);
  CHECK_STR(world.allow, "GET");
  CHECK_STR(world.req.detail, "this path has the methods GET");
  CHECK(!world.req.route);
}

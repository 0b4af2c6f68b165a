/* Routing: a linear look through one service's few routes. */
#include "service/router.h"

#include <assert.h>
#include <ctype.h>
#include <stdlib.h>

static int split(Str path, Str *segments) {
  int count = 0;
  if (path.n && path.p[0] == '/')
    path = (Str){path.p + 1, path.n - 1};
  while (path.p) {
    if (count == ROUTE_SEGMENTS)
      return -1;
    segments[count++] = str_cut(&path, '/');
  }
  return count;
}

void router_compile(Service *s) {
  size_t n = 0;
  while (s->def->routes[n].method)
    n++;
  s->routes = calloc(n, sizeof(*s->routes));
  if (!s->routes)
    die("out of memory for the routes of %s", s->def->name);
  for (size_t i = 0; i < n; i++) {
    RouteState *state = &s->routes[i];
    state->count = split(str_from(s->def->routes[i].path), state->segments);
    if (state->count < 0)
      die("more than %d segments: %s", ROUTE_SEGMENTS, s->def->routes[i].path);
    state->saga = -1;
    for (int k = 0, captured = 0; k < state->count; k++) {
      if (state->segments[k].n == 0 || state->segments[k].p[0] != '{')
        continue;
      if (captured == ROUTE_PARAMS)
        die("more than %d captured segments: %s", ROUTE_PARAMS, s->def->routes[i].path);
      if (str_eq(state->segments[k], STR("{saga}")))
        state->saga = captured;
      captured++;
      state->segments[k] = (Str){0};
    }
  }
}

static bool fits(const RouteState *state, const Str *segments, int count) {
  if (state->count != count)
    return false;
  for (int i = 0; i < count; i++)
    if (state->segments[i].p && !str_eq(state->segments[i], segments[i]))
      return false;
  return true;
}

/* Why http_percent_decode refuses it. */
static const char *decode_fault(Str segment) {
  for (size_t i = 0; i < segment.n; i++) {
    if (segment.p[i] != '%')
      continue;
    Str code = {segment.p + i + 1, segment.n - i - 1};
    if (code.n < 2 || !isxdigit((unsigned char)code.p[0]) || !isxdigit((unsigned char)code.p[1]))
      return "has a % without two hexadecimal digits behind it";
    if (str_starts(code, STR("00")))
      return "contains the character U+0000";
  }
  return "is not UTF-8";
}

static int capture(const RouteState *state, const Str *segments, Req *req) {
  Str names[ROUTE_SEGMENTS];
  int n = 0;
  split(str_from(req->route->path), names);
  for (int i = 0; i < state->count; i++) {
    if (state->segments[i].p)
      continue;
    assert(n < ROUTE_PARAMS);
    Str value;
    if (segments[i].n == 0)
      return fail(req, E_MALFORMED, NULL, "%.*s in the path is empty", STR_FMT(names[i]));
    if (http_percent_decode(req->arena, segments[i], &value) < 0)
      return fail(req, E_MALFORMED, NULL, "%.*s in the path %s", STR_FMT(names[i]), decode_fault(segments[i]));
    req->params[n++] = value;
  }
  return 0;
}

int router_match(const Service *s, Req *req, Str *ret_allow) {
  Str segments[ROUTE_SEGMENTS];
  int count = split(req->http->path, segments);
  Buf allow = {.arena = req->arena};
  for (size_t i = 0; s->def->routes[i].method; i++) {
    if (!fits(&s->routes[i], segments, count))
      continue;
    if (str_eq(str_from(s->def->routes[i].method), req->http->method)) {
      req->route = &s->def->routes[i];
      return capture(&s->routes[i], segments, req);
    }
    if (allow.n)
      buf_cstr(&allow, ", ");
    buf_cstr(&allow, s->def->routes[i].method);
  }
  if (!allow.n)
    return fail(req, E_NOT_FOUND, NULL, "there is nothing at this path");
  *ret_allow = buf_view(&allow);
  return fail(req, E_METHOD, NULL, "this path has the methods %.*s", STR_FMT(*ret_allow));
}

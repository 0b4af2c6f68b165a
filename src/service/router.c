/* Routing: a linear look through one service's few routes. */
#include "service/router.h"

#include <stdlib.h>
#include <string.h>

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
    abort();
  for (size_t i = 0; i < n; i++) {
    RouteState *state = &s->routes[i];
    state->count = split(str_from(s->def->routes[i].path), state->segments);
    state->saga = -1;
    for (int k = 0, captured = 0; k < state->count; k++) {
      if (state->segments[k].p[0] != '{')
        continue;
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

static int capture(const RouteState *state, const Str *segments, Req *req) {
  int n = 0;
  for (int i = 0; i < state->count; i++) {
    if (state->segments[i].p)
      continue;
    Str value;
    TRY(http_percent_decode(req->arena, segments[i], &value));
    if (!value.n || !str_is_utf8(value) || memchr(value.p, 0, value.n))
      return fail(req, E_MALFORMED, NULL, "a path segment must be UTF-8 text without NUL");
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
    return E_NOT_FOUND;
  *ret_allow = buf_view(&allow);
  return E_METHOD;
}

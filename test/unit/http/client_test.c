/* The HTTP client against a server of raw sockets that answers well, badly, late or never. Each test is a process of
 * its own, with its own loop, pool and servers. */
#include "http/client.h"

#include "rt/clock.h"
#include "rt/fiber.h"
#include "rt/loop.h"
#include "unit/unit.h"

#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define REQUEST_MAX 8192
#define SECOND      1000000

/* ---- the server: one thread per connection, what it does is said by the path ---- */

typedef struct Server {
  int fd;
  char url[64];
  bool closes_at_once;
  atomic_int accepted, closed, requests;
} Server;

typedef struct Peer {
  Server *server;
  int fd;
  int count; /* requests of this connection */
  char request[REQUEST_MAX + 1];
} Peer;

static void say(Peer *p, const char *text) {
  for (size_t sent = 0, n = strlen(text); sent < n;) {
    ssize_t part = send(p->fd, text + sent, n - sent, MSG_NOSIGNAL);
    if (part <= 0)
      return;
    sent += (size_t)part;
  }
}

/* Reads one request, head and body. False when the client closed. */
static bool listen_to(Peer *p) {
  size_t n = 0;
  for (;;) {
    ssize_t part = recv(p->fd, p->request + n, REQUEST_MAX - n, 0);
    if (part <= 0)
      return false;
    n += (size_t)part;
    p->request[n] = '\0';
    const char *end = strstr(p->request, "\r\n\r\n");
    const char *length = strstr(p->request, "Content-Length: ");
    if (end && n >= (size_t)(end + 4 - p->request) + (length ? strtoul(length + 16, NULL, 10) : 0))
      return true;
  }
}

static void say_echo(Peer *p) {
  char head[128];
  snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n",
           strlen(p->request));
  say(p, head);
  say(p, p->request);
}

static void say_much(Peer *p, size_t size, bool chunked) {
  char head[128];
  char *body = malloc(size + 1);
  memset(body, 'x', size);
  body[size] = '\0';
  if (chunked)
    snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%zx\r\n", size);
  else
    snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", size);
  say(p, head);
  say(p, body);
  if (chunked)
    say(p, "\r\n0\r\n\r\n");
  free(body);
}

static const struct {
  const char *path, *answer;
  bool goes_on; /* else the connection is closed behind it */
} plain_answers[] = {
    {"/ok", "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", true},
    {"/empty", "HTTP/1.1 204 No Content\r\n\r\n", true},
    {"/refused", "HTTP/1.1 422 Unprocessable\r\nContent-Type: application/problem+json\r\nContent-Length: 1\r\n\r\n7",
     true},
    {"/chunked",
     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nLocation: no\r\n\r\n", true},
    {"/interim",
     "HTTP/1.1 103 Early Hints\r\nLink: <early>\r\n\r\nHTTP/1.1 202 Accepted\r\nLOCATION:/order/saga/1 \r\nLink: "
     "<a>\r\n"
     "link: <b>\r\nRetry-After: 3\r\nIdempotent-Replayed: true\r\nX-Other: 1\r\nContent-Length: 0\r\n\r\n",
     true},
    {"/redirect", "HTTP/1.1 307 Temporary Redirect\r\nLocation: /ok\r\nContent-Length: 0\r\n\r\n", true},
    {"/truncated", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc", false},
    {"/truncated_chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc", false},
    {"/truncated_head", "HTTP/1.1 200 OK\r\nContent-Le", false},
    {"/bad_chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n", false},
    {"/garbage", "lorem ipsum dolor sit amet\r\n\r\nconsectetur", false},
    {"/bad_length", "HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\nabc", false},
    {"/closes", "", false},
    {"/until_close", "HTTP/1.1 200 OK\r\n\r\nabc", false},
    {"/ok_and_closes", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false},
};

static bool is_path(const Peer *p, const char *path) {
  const char *at = strchr(p->request, ' ');
  size_t n = strlen(path);
  return at && strncmp(at + 1, path, n) == 0 && strchr(" ?", at[1 + n]);
}

/* False when the connection is to be closed. */
static bool answer(Peer *p) {
  for (size_t i = 0; i < sizeof(plain_answers) / sizeof(plain_answers[0]); i++) {
    if (is_path(p, plain_answers[i].path)) {
      say(p, plain_answers[i].answer);
      return plain_answers[i].goes_on;
    }
  }
  if (is_path(p, "/echo"))
    say_echo(p);
  else if (is_path(p, "/limit"))
    say_much(p, HTTP_BODY_MAX, false);
  else if (is_path(p, "/too_large"))
    say_much(p, HTTP_BODY_MAX + 1, false);
  else if (is_path(p, "/too_large_chunked"))
    say_much(p, HTTP_BODY_MAX + 1, true);
  else if (is_path(p, "/stalls"))
    say(p, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc");
  else if (is_path(p, "/first_only") && p->count == 1)
    say(p, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  else
    return is_path(p, "/never");
  return true;
}

static void *serve_peer(void *arg) {
  Peer *p = arg;
  while (!p->server->closes_at_once && listen_to(p)) {
    p->count++;
    p->server->requests++;
    if (!answer(p))
      break;
  }
  close(p->fd);
  p->server->closed++;
  free(p);
  return NULL;
}

static void *serve(void *arg) {
  Server *s = arg;
  for (int fd; (fd = accept(s->fd, NULL, NULL)) >= 0;) {
    Peer *p = calloc(1, sizeof(*p));
    pthread_t thread;
    p->server = s;
    p->fd = fd;
    s->accepted++;
    if (pthread_create(&thread, NULL, serve_peer, p) != 0)
      abort();
    pthread_detach(thread);
  }
  return NULL;
}

static void bind_server(Server *s) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t n = sizeof(address);
  s->fd = socket(AF_INET, SOCK_STREAM, 0);
  if (s->fd < 0 || bind(s->fd, (struct sockaddr *)&address, n) < 0 ||
      getsockname(s->fd, (struct sockaddr *)&address, &n) < 0)
    abort();
  snprintf(s->url, sizeof(s->url), "http://127.0.0.1:%d", ntohs(address.sin_port));
}

static void start_server(Server *s) {
  pthread_t thread;
  bind_server(s);
  if (listen(s->fd, 512) < 0 || pthread_create(&thread, NULL, serve, s) != 0)
    abort();
  pthread_detach(thread);
}

/* ---- running a test ---- */

static int failures;

#define EXPECT(e)        (failures += !CHECK(e))
#define EXPECT_INT(a, b) (failures += !CHECK_INT(a, b))
#define EXPECT_STR(a, b) (failures += !CHECK_STR(a, b))

static void (*test_body)(void);

static void run_body(void *arg) {
  (void)arg;
  test_body();
  loop_stop();
}

static void in_loop(void (*body)(void)) {
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    test_body = body;
    signal(SIGPIPE, SIG_IGN);
    loop_init();
    fiber_start("test", run_body, NULL);
    loop_run();
    exit(failures != 0);
  }
  int status = -1;
  CHECK_INT(waitpid(child, &status, 0), child);
  CHECK_INT(status, 0);
}

static HttpRequest request(Arena *a, const char *method, const char *path) {
  return (HttpRequest){
      .arena = a, .method = str_from(method), .path = str_from(path), .deadline_us = clock_now_us() + 10 * SECOND};
}

static int call(Server *s, Arena *a, const char *method, const char *path, HttpReply *reply) {
  HttpRequest r = request(a, method, path);
  return http_client_call(s->url, &r, reply);
}

static const char *find(const HttpReply *reply, const char *name, int nth) {
  for (int i = 0; i < reply->header_count; i++)
    if (str_eq(reply->headers[i].name, str_from(name)) && nth-- == 0)
      return reply->headers[i].value.p;
  return NULL;
}

/* Lets the loop turn until the server's threads have got so far; bounded by the test's own timeout. */
static void wait_for(atomic_int *count, int value) {
  while (*count < value)
    if (fiber_sleep(1000) < 0)
      abort();
}

/* ---- the tests ---- */

static Server server;

static void answers(void) {
  SCOPED_ARENA a = arena_new();
  HttpReply reply;
  start_server(&server);
  EXPECT_INT(call(&server, a, "GET", "/ok", &reply), 0);
  EXPECT_INT(reply.status, 200);
  EXPECT_STR(reply.content_type, "application/json");
  EXPECT_STR(reply.body, "{}");
  EXPECT_INT(call(&server, a, "POST", "/refused", &reply), 0);
  EXPECT_INT(reply.status, 422);
  EXPECT_STR(reply.content_type, "application/problem+json");
  EXPECT_STR(reply.body, "7");
  EXPECT_INT(call(&server, a, "DELETE", "/empty", &reply), 0);
  EXPECT_INT(reply.status, 204);
  EXPECT_STR(reply.body, "");
  EXPECT_INT(call(&server, a, "GET", "/chunked", &reply), 0);
  EXPECT_STR(reply.body, "abcde");
  EXPECT_INT(reply.header_count, 0);
  EXPECT_INT(call(&server, a, "GET", "/redirect", &reply), 0);
  EXPECT_INT(reply.status, 307);
  EXPECT_STR(find(&reply, "location", 0), "/ok");
  EXPECT_INT(server.accepted, 1);
  EXPECT_INT(call(&server, a, "GET", "/until_close", &reply), 0);
  EXPECT_STR(reply.body, "abc");
}

TEST(answers_come_whole_over_one_connection) {
  in_loop(answers);
}

static void kept_headers(void) {
  SCOPED_ARENA a = arena_new();
  HttpReply reply;
  start_server(&server);
  EXPECT_INT(call(&server, a, "POST", "/interim", &reply), 0);
  EXPECT_INT(reply.status, 202);
  EXPECT_INT(reply.header_count, 5);
  EXPECT_STR(find(&reply, "location", 0), "/order/saga/1");
  EXPECT_STR(find(&reply, "link", 0), "<a>");
  EXPECT_STR(find(&reply, "link", 1), "<b>");
  EXPECT_STR(find(&reply, "retry-after", 0), "3");
  EXPECT_STR(find(&reply, "idempotent-replayed", 0), "true");
  EXPECT(reply.content_type == NULL);
}

TEST(headers_of_use_are_kept_and_interim_ones_forgotten) {
  in_loop(kept_headers);
}

static void sent_request(void) {
  SCOPED_ARENA a = arena_new();
  HttpReply reply;
  start_server(&server);
  HttpRequest r = request(a, "POST", "/echo");
  r.query = STR("a=%20b");
  r.body = STR("{\"x\":1}");
  r.headers[0] = (HttpHeader){STR("idempotency-key"), STR("k-1")};
  r.headers[1] = (HttpHeader){STR("x-empty"), STR("")};
  r.headers[2] = (HttpHeader){STR("content-length"), STR("77")};
  r.headers[3] = (HttpHeader){STR("host"), STR("elsewhere")};
  r.header_count = 4;
  EXPECT_INT(http_client_call(server.url, &r, &reply), 0);
  const char *text = arena_cstr(a, reply.body);
  EXPECT(strncmp(text, "POST /echo?a=%20b HTTP/1.1\r\n", 28) == 0);
  EXPECT(strstr(text, "\r\nidempotency-key: k-1\r\n") != NULL);
  EXPECT(strstr(text, "\r\nx-empty:\r\n") != NULL);
  EXPECT(strstr(text, "\r\nContent-Type: application/json\r\n") != NULL);
  EXPECT(strstr(text, "\r\nContent-Length: 7\r\n") != NULL);
  EXPECT(strstr(text, ": 77") == NULL && strstr(text, "elsewhere") == NULL && strstr(text, "Expect") == NULL);
  EXPECT(strstr(text, "\r\n\r\n{\"x\":1}") != NULL);
  EXPECT(strstr(text, "traceparent") == NULL);
}

/* The fiber's own, unless the caller says another. */
static void sent_trace(void) {
  SCOPED_ARENA a = arena_new();
  HttpReply reply;
  start_server(&server);
  HttpRequest r = request(a, "POST", "/echo");
  FiberContext *context = fiber_context();
  context->trace = (Trace){.trace_id = "4bf92f3577b34da6a3ce929d0e0e4736", .span_id = "00f067aa0ba902b7", .flags = 1};
  EXPECT_INT(http_client_call(server.url, &r, &reply), 0);
  EXPECT(strstr(arena_cstr(a, reply.body),
                "\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n") != NULL);
  EXPECT(strstr(arena_cstr(a, reply.body), "tracestate") == NULL);
  snprintf(context->tracestate, TRACESTATE_TEXT, "rojo=00f067aa0ba902b7 , congo=t61");
  EXPECT_INT(http_client_call(server.url, &r, &reply), 0);
  EXPECT(strstr(arena_cstr(a, reply.body), "\r\ntracestate: rojo=00f067aa0ba902b7 , congo=t61\r\n") != NULL);
  r.headers[r.header_count++] = (HttpHeader){STR("traceparent"), STR("given")};
  EXPECT_INT(http_client_call(server.url, &r, &reply), 0);
  EXPECT(strstr(arena_cstr(a, reply.body), "\r\ntraceparent: given\r\n") != NULL);
  EXPECT(strstr(arena_cstr(a, reply.body), "4bf92f35") == NULL);
  EXPECT(strstr(arena_cstr(a, reply.body), "tracestate") == NULL);
  *context = (FiberContext){0};
}

TEST(a_request_carries_the_trace) {
  in_loop(sent_trace);
}

static int64_t sent_timeout(HttpRequest r) {
  static const char name[] = "\r\nx-request-timeout-ms: ";
  HttpReply reply;
  EXPECT_INT(http_client_call(server.url, &r, &reply), 0);
  const char *text = arena_cstr(r.arena, reply.body), *at = strcasestr(text, name);
  EXPECT(!at || !strcasestr(at + 1, name));
  return at ? strtoll(at + strlen(name), NULL, 10) : -1;
}

static void sent_timeouts(void) {
  SCOPED_ARENA a = arena_new();
  start_server(&server);
  HttpRequest r = request(a, "PUT", "/echo");
  int64_t ms = sent_timeout(r);
  EXPECT(ms > 5000 && ms <= 10000);
  r.headers[r.header_count++] = (HttpHeader){STR("x-request-timeout-ms"), STR("600000")}; /* as it came to the caller */
  ms = sent_timeout(r);
  EXPECT(ms > 5000 && ms <= 10000);
  r.header_count = 0;
  r.deadline_us = FIBER_FOREVER;
  EXPECT_INT(sent_timeout(r), -1);
}

TEST(a_request_carries_what_is_left_of_its_deadline) {
  in_loop(sent_timeouts);
}

TEST(a_request_goes_out_as_it_is) {
  in_loop(sent_request);
}

static void sent_without_body(void) {
  SCOPED_ARENA a = arena_new();
  HttpReply reply;
  start_server(&server);
  EXPECT_INT(call(&server, a, "PUT", "/echo/../echo/%2e", &reply), E_UNKNOWN); /* no such path here: it closes */
  EXPECT_INT(call(&server, a, "PUT", "/echo", &reply), 0);
  const char *text = arena_cstr(a, reply.body);
  EXPECT(strstr(text, "\r\nContent-Length: 0\r\n") != NULL && strstr(text, "Content-Type") == NULL);
  EXPECT_INT(call(&server, a, "DELETE", "/echo", &reply), 0);
  EXPECT(strncmp(reply.body.p, "DELETE /echo ", 13) == 0);
  HttpRequest big = request(a, "POST", "/echo");
  char *body = arena_alloc(a, 5000); /* where curl by itself would ask with "Expect: 100-continue" */
  memset(body, 'b', 5000);
  big.body = (Str){body, 5000};
  EXPECT_INT(http_client_call(server.url, &big, &reply), 0);
  EXPECT(strstr(arena_cstr(a, reply.body), "Expect") == NULL && reply.body.n > 5000);
}

TEST(requests_without_and_with_a_long_body) {
  in_loop(sent_without_body);
}

static void broken_answers(void) {
  static const char *const paths[] = {"/truncated", "/truncated_chunk", "/truncated_head", "/bad_chunk",
                                      "/garbage",   "/bad_length",      "/closes"};
  SCOPED_ARENA a = arena_new();
  start_server(&server);
  for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
    HttpReply reply = {.status = 7};
    int rc = call(&server, a, "POST", paths[i], &reply);
    if (rc != E_UNKNOWN)
      printf("# %s\n", paths[i]);
    EXPECT_INT(rc, E_UNKNOWN);
    EXPECT_INT(reply.status, 7);
  }
  Server rude = {.closes_at_once = true};
  HttpReply reply;
  start_server(&rude);
  EXPECT_INT(call(&rude, a, "POST", "/ok", &reply), E_UNKNOWN);
  EXPECT_INT(call(&server, a, "GET", "/ok", &reply), 0);
}

TEST(no_whole_answer_is_unknown) {
  in_loop(broken_answers);
}

static void sizes(void) {
  SCOPED_ARENA a = arena_new();
  HttpReply reply;
  start_server(&server);
  EXPECT_INT(call(&server, a, "GET", "/limit", &reply), 0);
  EXPECT_INT(reply.body.n, HTTP_BODY_MAX);
  EXPECT_INT(call(&server, a, "GET", "/too_large", &reply), E_TOO_LARGE);
  EXPECT_INT(call(&server, a, "GET", "/too_large_chunked", &reply), E_TOO_LARGE);
}

TEST(an_answer_is_bounded) {
  in_loop(sizes);
}

static void unreachable(void) {
  SCOPED_ARENA a = arena_new();
  HttpReply reply;
  Server refusing = {0}; /* bound, so nobody else has the port, but not listening */
  bind_server(&refusing);
  EXPECT_INT(call(&refusing, a, "POST", "/ok", &reply), E_UNAVAILABLE);
  HttpRequest r = request(a, "POST", "/ok");
  EXPECT_INT(http_client_call("http://name.invalid:80", &r, &reply), E_UNAVAILABLE);
}

TEST(not_connected_is_unavailable) {
  in_loop(unreachable);
}

/* A queue of unaccepted connections that is full: more are neither taken nor refused. */
static void connect_timeout(void) {
  SCOPED_ARENA a = arena_new();
  HttpReply reply;
  Server full = {0};
  bind_server(&full);
  struct sockaddr_in address;
  socklen_t n = sizeof(address);
  if (listen(full.fd, 0) < 0 || getsockname(full.fd, (struct sockaddr *)&address, &n) < 0)
    abort();
  for (int i = 0; i < 4; i++) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (connect(fd, (struct sockaddr *)&address, n) < 0 && errno != EINPROGRESS)
      abort();
  }
  HttpRequest r = request(a, "POST", "/ok");
  r.deadline_us = clock_now_us() + SECOND / 10;
  EXPECT_INT(http_client_call(full.url, &r, &reply), E_TIMEOUT);
  EXPECT_INT(call(&full, a, "POST", "/ok", &reply), E_UNAVAILABLE);
}

TEST(a_connection_that_does_not_come_about_is_unavailable) {
  in_loop(connect_timeout);
}

static void deadlines(void) {
  SCOPED_ARENA a = arena_new();
  HttpReply reply;
  start_server(&server);
  static const char *const paths[] = {"/never", "/stalls"};
  for (int i = 0; i < 2; i++) {
    HttpRequest r = request(a, "POST", paths[i]);
    r.deadline_us = clock_now_us() + SECOND / 20;
    EXPECT_INT(http_client_call(server.url, &r, &reply), E_TIMEOUT);
    EXPECT(clock_now_us() >= r.deadline_us);
    wait_for(&server.closed, i + 1); /* its connection is not used again */
  }
  HttpRequest late = request(a, "POST", "/ok");
  late.deadline_us = clock_now_us() - 1;
  EXPECT_INT(http_client_call(server.url, &late, &reply), E_TIMEOUT);
  EXPECT_INT(call(&server, a, "POST", "/ok", &reply), 0);
}

TEST(a_deadline_ends_the_wait_and_the_connection) {
  in_loop(deadlines);
}

static int cancelled_with;

static void call_never(void *arg) {
  (void)arg;
  SCOPED_ARENA a = arena_new();
  HttpReply reply;
  cancelled_with = call(&server, a, "POST", "/never", &reply);
}

static void cancellation(void) {
  start_server(&server);
  Fiber *f = fiber_start("caller", call_never, NULL);
  wait_for(&server.requests, 1);
  fiber_cancel(f);
  wait_for(&server.closed, 1);
  EXPECT_INT(cancelled_with, E_CANCELED);
  EXPECT_INT(fiber_count(), 1);
}

TEST(a_cancelled_fiber_leaves_nothing_behind) {
  in_loop(cancellation);
}

static void bad_requests(void) {
  SCOPED_ARENA a = arena_new();
  HttpReply reply;
  start_server(&server);
  EXPECT_INT(call(&server, a, "GET", "/ok\r\nX: 1", &reply), E_MALFORMED);
  EXPECT_INT(call(&server, a, "GET", "ok", &reply), E_MALFORMED);
  EXPECT_INT(call(&server, a, "GET /\r\n", "/ok", &reply), E_MALFORMED);
  HttpRequest r = request(a, "GET", "/ok");
  r.headers[0] = (HttpHeader){STR("x-a"), STR("1\r\nx-b: 2")};
  r.header_count = 1;
  EXPECT_INT(http_client_call(server.url, &r, &reply), E_MALFORMED);
  HttpRequest lost = request(a, "GET", "/ok");
  EXPECT_INT(http_client_call("gopher://127.0.0.1:1", &lost, &reply), E_MALFORMED);
  EXPECT_INT(server.accepted, 0);
}

TEST(what_cannot_be_sent_is_refused) {
  in_loop(bad_requests);
}

static void pool_broken(void) {
  SCOPED_ARENA a = arena_new();
  HttpReply reply;
  start_server(&server);
  EXPECT_INT(call(&server, a, "POST", "/first_only", &reply), 0);
  EXPECT_INT(call(&server, a, "POST", "/first_only", &reply), E_UNKNOWN);
  EXPECT_INT(server.requests, 2); /* it was not sent again behind the caller's back */
  EXPECT_INT(call(&server, a, "POST", "/first_only", &reply), 0);
  HttpRequest keyed = request(a, "POST", "/first_only");
  keyed.headers[0] = (HttpHeader){STR("idempotency-key"), STR("k")};
  keyed.header_count = 1;
  EXPECT_INT(http_client_call(server.url, &keyed, &reply), 0);
  EXPECT_INT(server.requests, 5);
  EXPECT_INT(call(&server, a, "GET", "/first_only", &reply), 0);
  EXPECT_INT(server.requests, 7);
}

TEST(a_pooled_connection_breaking_repeats_only_what_is_safe) {
  in_loop(pool_broken);
}

static void pool_closed(void) {
  SCOPED_ARENA a = arena_new();
  HttpReply reply;
  start_server(&server);
  for (int i = 1; i <= 20; i++) {
    EXPECT_INT(call(&server, a, "POST", "/ok_and_closes", &reply), 0);
    wait_for(&server.closed, i);
  }
  EXPECT_INT(server.requests, 20);
}

TEST(a_connection_the_server_closed_meanwhile_is_not_used) {
  in_loop(pool_closed);
}

static void pool_idle(void) {
  SCOPED_ARENA a = arena_new();
  HttpReply reply;
  start_server(&server);
  EXPECT_INT(call(&server, a, "POST", "/ok", &reply), 0);
  EXPECT_INT(call(&server, a, "POST", "/ok", &reply), 0);
  EXPECT_INT(server.accepted, 1);
  EXPECT_INT(fiber_sleep(4 * SECOND + SECOND / 10), 0);
  EXPECT_INT(call(&server, a, "POST", "/ok", &reply), 0);
  EXPECT_INT(server.accepted, 2);
}

TEST(a_connection_that_idled_for_long_is_not_used) {
  in_loop(pool_idle);
}

enum { CALLERS = 100, ROUNDS = 5 };
static int finished, good;
static Fiber *all_done;

static void call_often(void *arg) {
  (void)arg;
  SCOPED_ARENA a = arena_new();
  for (int i = 0; i < ROUNDS; i++) {
    HttpReply reply;
    good += call(&server, a, "POST", "/chunked", &reply) == 0 && str_eq(reply.body, STR("abcde"));
    arena_reset(a);
  }
  if (++finished == CALLERS)
    fiber_wake(all_done);
}

static void many(void) {
  start_server(&server);
  all_done = fiber_current();
  for (int i = 0; i < CALLERS; i++)
    EXPECT(fiber_start("caller", call_often, NULL) != NULL);
  while (finished < CALLERS)
    EXPECT_INT(fiber_wait("callers", clock_now_us() + 30 * SECOND), 0);
  EXPECT_INT(good, CALLERS * ROUNDS);
  EXPECT(server.accepted < CALLERS * ROUNDS / 2);
}

TEST(many_at_once_share_the_pool) {
  in_loop(many);
}

/* HTTP/1.1 over h2o. Everything a handler sees is copied out of h2o's buffers before its fiber first waits, and the
 * link between the two is cut when either side is done. */
#include "http/server.h"

#include "http/metrics.h"
#include "http/problem.h"
#include "log/log.h"
#include "rt/clock.h"
#include "rt/fiber.h"
#include "rt/loop.h"

#include <arpa/inet.h>
#include <assert.h>
#include <h2o.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEADERS_MAX (32 * 1024) /* bytes of all header fields together */
#define TARGET_MAX  (8 * 1024)
#define BACKLOG     1024
#define REFUSED_LOG (10 * SECONDS) /* between two lines about refused connections */

typedef struct Exchange { /* one request and its response */
  HttpRequest request;
  HttpReply reply;
  struct Link *link;
} Exchange;

typedef struct Link { /* lives in h2o's request pool */
  h2o_req_t *req;
  Exchange *exchange; /* NULL once the fiber is done */
} Link;

typedef struct OwnError { /* stands in for the text of an error that h2o itself responds with */
  h2o_ostream_t super;
  h2o_iovec_t body;
} OwnError;

typedef struct Connection {
  uv_tcp_t tcp; /* first: libuv hands it over */
  h2o_socket_t *socket;
  bool reserve, served; /* beyond the maximum; and its response was not a refusal */
} Connection;

static struct {
  HttpServerConfig config;
  h2o_globalconf_t conf;
  h2o_context_t context;
  h2o_accept_ctx_t accept;
  uv_tcp_t listener;
  Arena *spare[64];
  int spare_count;
  int connections;
  Connection *reserve[HTTP_RESERVE]; /* the oldest first */
  int reserve_count;
  int refused; /* connections, since the last line about them */
  int64_t refused_logged_us;
  int in_flight; /* until the handler is through: a slow reader must not keep others out */
  int unsent;    /* until h2o has written the whole response */
  bool draining; /* each response closes its connection */
  bool closed;   /* no request is begun any more */
  Fiber *drainer;
} server;

static Arena *take_arena(void) {
  return server.spare_count > 0 ? server.spare[--server.spare_count] : arena_new();
}

static void give_arena(Arena *a) {
  if (server.spare_count == 64 || arena_size(a) > 256 * 1024) {
    arena_free(a);
    return;
  }
  arena_reset(a);
  server.spare[server.spare_count++] = a;
}

static Str copy(Arena *a, h2o_iovec_t v) {
  return arena_str(a, (Str){v.base ? v.base : "", v.len});
}

static void wake_drainer(void) {
  if (server.draining && server.in_flight + server.unsent == 0)
    fiber_wake(server.drainer);
}

static void on_gone(void *p) {
  Link *link = p;
  assert(server.unsent > 0);
  server.unsent--;
  if (link->exchange)
    link->exchange->link = NULL;
  wake_drainer();
}

static void add_header(h2o_req_t *req, Str name, Str value) {
  h2o_iovec_t n = h2o_strdup(&req->pool, name.p, name.n), v = h2o_strdup(&req->pool, value.p, value.n);
  h2o_add_header_by_str(&req->pool, &req->res.headers, n.base, n.len, 1, NULL, v.base, v.len);
}

static void send_reply(h2o_req_t *req, const HttpReply *reply) {
  static h2o_generator_t generator;
  req->res.status = reply->status;
  req->res.reason = h2o_strdup(&req->pool, http_reason(reply->status).p, http_reason(reply->status).n).base;
  add_header(req, STR("content-type"), str_from(reply->content_type ? reply->content_type : "application/json"));
  for (int i = 0; i < reply->header_count; i++)
    add_header(req, reply->headers[i].name, reply->headers[i].value);
  if (server.draining)
    req->http1_is_persistent = 0;
  bool head = h2o_memis(req->input.method.base, req->input.method.len, H2O_STRLIT("HEAD"));
  h2o_iovec_t body = h2o_strdup(&req->pool, reply->body.p, reply->body.n);
  req->res.content_length = body.len;
  h2o_start_response(req, &generator);
  h2o_send(req, &body, head ? 0 : 1, H2O_SEND_STATE_FINAL);
}

static void handle(void *arg) {
  Exchange *x = arg;
  server.config.handler(&x->request, &x->reply);
  if (x->link) {
    x->link->exchange = NULL;
    send_reply(x->link->req, &x->reply);
  }
  give_arena(x->request.arena);
  assert(server.in_flight > 0);
  server.in_flight--;
  wake_drainer();
}

/* h2o takes these fields out of req->headers, so the head itself is read: how long a body is must be said exactly once
 * (RFC 9112 §6.3), or two readers of the same bytes could see different requests. */
static bool is_ambiguous(h2o_req_t *req) {
  const h2o_buffer_t *input = req->conn->callbacks->get_socket(req->conn)->input;
  Str rest = {input->bytes, input->size};
  int lengths = 0, encodings = 0;
  bool bad = false;
  for (Str line = str_cut(&rest, '\n'); rest.p && str_trim(line).n > 0; line = str_cut(&rest, '\n')) {
    Str value = line;
    Str name = str_cut(&value, ':');
    if (str_eq_nocase(name, STR("content-length"))) {
      int64_t n;
      lengths++;
      bad |= str_to_int(str_trim(value), &n) < 0 || n < 0;
    } else if (str_eq_nocase(name, STR("transfer-encoding"))) {
      encodings++;
      bad |= !str_eq_nocase(str_trim(value), STR("chunked"));
    }
  }
  return bad || lengths + encodings > 1;
}

static size_t headers_size(const h2o_req_t *req) {
  size_t n = 0;
  for (size_t i = 0; i < req->headers.size; i++)
    n += req->headers.entries[i].name->len + req->headers.entries[i].value.len + 4;
  return n;
}

static void copy_headers(Arena *a, const h2o_req_t *req, HttpRequest *out) {
  size_t n = req->headers.size < HTTP_HEADERS ? req->headers.size : HTTP_HEADERS;
  for (size_t i = 0; i < n; i++)
    out->headers[i] = (HttpHeader){copy(a, *req->headers.entries[i].name), copy(a, req->headers.entries[i].value)};
  out->header_count = (int)n;
}

static void fill_request(const h2o_req_t *req, HttpRequest *out) {
  Arena *a = out->arena;
  out->method = copy(a, req->input.method);
  Str target = copy(a, req->input.path);
  out->query = target;
  out->path = str_cut(&out->query, '?');
  out->body = req->entity.base ? copy(a, req->entity) : (Str){0};
  copy_headers(a, req, out);
  out->deadline_us = http_deadline(out, clock_now_us(), server.config.request_us);
}

static bool is_served_at_once(const h2o_req_t *req) {
  Str target = {req->input.path.base, req->input.path.len};
  Str method = {req->input.method.base, req->input.method.len};
  return server.config.at_once && server.config.at_once(method, str_cut(&target, '?'));
}

/* Of a request on one of the connections beyond the maximum; NULL: it came on another. */
static Connection *reserve_of(h2o_req_t *req) {
  if (server.reserve_count == 0)
    return NULL;
  const h2o_socket_t *socket = req->conn->callbacks->get_socket(req->conn);
  for (int i = 0; i < server.reserve_count; i++)
    if (server.reserve[i]->socket == socket)
      return server.reserve[i];
  return NULL;
}

/* 0, or why the request is not even looked at. */
static int admit(h2o_req_t *req, bool at_once, const char **ret_detail) {
  if (server.closed) {
    *ret_detail = "the process is shutting down";
    return E_UNAVAILABLE;
  }
  if (is_ambiguous(req)) {
    *ret_detail = "the length of the body must be given exactly once";
    return E_MALFORMED;
  }
  if (headers_size(req) > HEADERS_MAX || req->headers.size > HTTP_HEADERS) {
    *ret_detail = "at most 32 header fields of 32 KiB together";
    return E_HEADERS;
  }
  if (req->input.path.len > TARGET_MAX) {
    *ret_detail = "the request target is longer than 8 KiB";
    return E_MALFORMED;
  }
  Connection *reserve = reserve_of(req);
  if (reserve) {
    req->http1_is_persistent = 0;
    reserve->served |= at_once;
  }
  if (reserve && !at_once) {
    *ret_detail = "too many connections";
    return E_BUSY;
  }
  if (server.in_flight >= server.config.max_in_flight && !at_once) {
    *ret_detail = "too many requests in flight";
    return E_BUSY;
  }
  return 0;
}

static void count_refused_request(const h2o_req_t *req, int status) {
  server.config.refused((Str){req->input.method.base ? req->input.method.base : "", req->input.method.len}, status);
}

static void refuse(h2o_req_t *req, int code, const char *detail) {
  Arena *a = take_arena();
  HttpReply reply;
  problem_reply(a, &(Problem){.code = code, .detail = str_from(detail)}, &reply);
  if (code == E_MALFORMED)
    req->http1_is_persistent = 0;
  count_refused_request(req, reply.status);
  send_reply(req, &reply);
  give_arena(a);
}

static int on_request(h2o_handler_t *self, h2o_req_t *req) {
  (void)self;
  Link *link = h2o_mem_alloc_shared(&req->pool, sizeof(*link), on_gone);
  *link = (Link){.req = req};
  server.unsent++;
  const char *detail = NULL;
  bool at_once = is_served_at_once(req);
  int rc = admit(req, at_once, &detail);
  if (rc < 0) {
    refuse(req, rc, detail);
    return 0;
  }
  Arena *a = take_arena();
  Exchange *x = ARENA_NEW(a, Exchange);
  x->request.arena = a;
  x->link = link;
  fill_request(req, &x->request);
  if (!at_once && !fiber_start("request", handle, x)) {
    give_arena(a);
    refuse(req, E_BUSY, "too many fibers");
    return 0;
  }
  server.in_flight++;
  link->exchange = x;
  if (at_once)
    handle(x);
  return 0;
}

static void send_problem(h2o_ostream_t *self, h2o_req_t *req, h2o_iovec_t *bodies, size_t count,
                         h2o_send_state_t state) {
  (void)bodies;
  (void)count;
  h2o_iovec_t body = ((OwnError *)self)->body;
  h2o_ostream_send_next(self, req, &body, 1, state);
}

/* What h2o refuses by itself, a body too long above all, it says in plain text. Ours are problems, every one. */
static void on_setup_response(h2o_filter_t *self, h2o_req_t *req, h2o_ostream_t **slot) {
  (void)self;
  ssize_t at = h2o_find_header(&req->res.headers, H2O_TOKEN_CONTENT_TYPE, -1);
  static const Str plain = STR("text/plain; charset=utf-8");
  if (req->res.status < 400 || at < 0 ||
      !str_eq((Str){req->res.headers.entries[at].value.base, req->res.headers.entries[at].value.len}, plain)) {
    h2o_setup_next_ostream(req, slot);
    return;
  }
  SCOPED_ARENA arena = arena_new();
  HttpReply reply;
  bool large = req->res.status == 413;
  count_refused_request(req, req->res.status);
  problem_reply(
      arena, &(Problem){.code = large ? E_TOO_LARGE : E_MALFORMED, .detail = large ? STR("at most 1 MiB") : (Str){0}},
      &reply);
  req->res.headers.entries[at].value = h2o_strdup(&req->pool, reply.content_type, SIZE_MAX);
  OwnError *stream = (OwnError *)h2o_add_ostream(req, sizeof(*stream), slot);
  stream->super.do_send = send_problem;
  stream->body = h2o_strdup(&req->pool, reply.body.p, reply.body.n);
  req->res.content_length = stream->body.len;
  h2o_setup_next_ostream(req, &stream->super.next);
}

static void count_refused(void) {
  http_metrics_connection_refused();
  server.refused++;
  int64_t now_us = clock_now_us();
  if (server.refused_logged_us && now_us - server.refused_logged_us < REFUSED_LOG)
    return;
  LOG(WARN, "http", "client connections refused: %d, as there are %d (MAX_CONNECTIONS)", server.refused,
      server.config.max_connections);
  server.refused = 0;
  server.refused_logged_us = now_us;
}

static void leave_reserve(Connection *connection) {
  int i = 0;
  while (i < server.reserve_count && server.reserve[i] != connection)
    i++;
  if (i == server.reserve_count)
    return;
  server.reserve_count--;
  memmove(&server.reserve[i], &server.reserve[i + 1], sizeof(server.reserve[0]) * (size_t)(server.reserve_count - i));
}

static void on_close(uv_handle_t *handle) {
  Connection *connection = (Connection *)(void *)handle;
  assert(server.connections > 0);
  server.connections--;
  if (connection->reserve && !connection->served)
    count_refused();
  leave_reserve(connection);
  free(connection);
}

/* The oldest makes room: a probe has its response within a moment, so what is still there is no probe. */
static void enter_reserve(Connection *connection) {
  uv_os_fd_t fd;
  assert(server.reserve_count <= HTTP_RESERVE);
  if (server.reserve_count == HTTP_RESERVE) {
    if (uv_fileno((const uv_handle_t *)server.reserve[0], &fd) == 0)
      shutdown(fd, SHUT_RDWR); /* h2o reads the end, and closes it */
    leave_reserve(server.reserve[0]);
  }
  server.reserve[server.reserve_count++] = connection;
}

/* The kernel ends a connection whose reader has taken nothing for that long; h2o has no such bound. */
static void bound_writing(const uv_tcp_t *connection) {
  uv_os_fd_t fd;
  unsigned ms = (unsigned)(server.config.idle_us / 1000);
  if (uv_fileno((const uv_handle_t *)connection, &fd) == 0)
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
}

static void stop_accepting(void) {
  if (!uv_is_closing((uv_handle_t *)&server.listener))
    uv_close((uv_handle_t *)&server.listener, NULL);
}

static void on_connection(uv_stream_t *listener, int status) {
  if (status == UV_EINVAL) { /* the supervisor has shut the socket down: libuv would ask it again for ever */
    stop_accepting();
    return;
  }
  if (status < 0) {
    LOG(WARN, "http", "cannot accept: %s", uv_strerror(status));
    return;
  }
  Connection *connection = calloc(1, sizeof(*connection));
  if (!connection || uv_tcp_init(listener->loop, &connection->tcp) < 0)
    die("out of memory for a connection");
  server.connections++;
  connection->reserve = server.connections > server.config.max_connections;
  if (uv_accept(listener, (uv_stream_t *)&connection->tcp) < 0 ||
      server.connections > server.config.max_connections + 2 * HTTP_RESERVE) {
    uv_close((uv_handle_t *)&connection->tcp, on_close);
    return;
  }
  uv_tcp_nodelay(&connection->tcp, 1);
  bound_writing(&connection->tcp);
  connection->socket = h2o_uv_socket_create((uv_stream_t *)&connection->tcp, on_close);
  if (connection->reserve)
    enter_reserve(connection);
  h2o_accept(&server.accept, connection->socket);
}

int http_listen(const char *host, int port, int *ret_fd) {
  char service[16];
  snprintf(service, sizeof(service), "%d", port);
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found;
  if (getaddrinfo(host, service, &hints, &found) != 0) {
    errno = EADDRNOTAVAIL;
    return E_SYSTEM;
  }
  int on = 1;
  int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  bool ok = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
            bind(fd, found->ai_addr, found->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0;
  freeaddrinfo(found);
  if (!ok) {
    int saved = errno;
    if (fd >= 0)
      close(fd);
    errno = saved;
    return E_SYSTEM;
  }
  *ret_fd = fd;
  return 0;
}

int http_server_start(const HttpServerConfig *config) {
  server.config = *config;
  h2o_config_init(&server.conf);
  server.conf.server_name = h2o_iovec_init(H2O_STRLIT("skald"));
  server.conf.max_request_entity_size = HTTP_BODY_MAX;
  server.conf.http1.req_timeout = (uint64_t)config->idle_us / 1000;
  server.conf.http1.upgrade_to_http2 = 0;
  h2o_hostconf_t *host = h2o_config_register_host(&server.conf, h2o_iovec_init(H2O_STRLIT("default")), 65535);
  h2o_pathconf_t *path = h2o_config_register_path(host, "/", 0);
  h2o_create_handler(path, sizeof(h2o_handler_t))->on_req = on_request;
  h2o_create_filter(path, sizeof(h2o_filter_t))->on_setup_ostream = on_setup_response;
  h2o_create_filter(&host->fallback_path, sizeof(h2o_filter_t))->on_setup_ostream =
      on_setup_response; /* before a path is known */
  h2o_context_init(&server.context, loop_uv(), &server.conf);
  server.accept = (h2o_accept_ctx_t){.ctx = &server.context, .hosts = server.conf.hosts};
  if (uv_tcp_init(loop_uv(), &server.listener) < 0 || uv_tcp_open(&server.listener, config->listen_fd) < 0 ||
      uv_listen((uv_stream_t *)&server.listener, BACKLOG, on_connection) < 0)
    return E_SYSTEM;
  return 0;
}

int http_server_in_flight(void) {
  return server.in_flight;
}

void http_server_drain(int64_t close_us, int64_t deadline_us) {
  server.draining = true;
  if (fiber_sleep(close_us - clock_now_us()) < 0)
    LOG(WARN, "http", "drain cut short");
  server.drainer = fiber_current();
  fiber_yield(); /* one more pass of the loop takes in clients that have already connected */
  stop_accepting();
  server.closed = true;
  h2o_context_request_shutdown(&server.context);
  int rc = 0;
  while (server.in_flight + server.unsent > 0 && rc == 0)
    rc = fiber_wait("drain", deadline_us);
  if (server.in_flight + server.unsent > 0)
    LOG(WARN, "http", "drain timed out: %d requests still running, %d responses not yet sent", server.in_flight,
        server.unsent);
}

/* The HTTP server: who is let in, what is refused, and how it ends. */
#include "http/server.h"

#include "http/connection.h"
#include "http/metrics.h"
#include "log/log.h"
#include "rt/clock.h"
#include "rt/fiber.h"
#include "rt/loop.h"

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG     1024
#define ACCEPTS_MAX 64             /* connections in one pass of the loop; the others wait in the kernel */
#define LOG_US      (10 * SECONDS) /* between two lines about the same trouble */

static struct {
  HttpServerConfig config;
  uv_tcp_t listener;
  int accepted;   /* in this pass of the loop */
  bool accepting; /* more wait for the next pass */
  int connections;
  HttpConnection *reserve[HTTP_RESERVE]; /* the oldest first */
  int reserve_count;
  int refused; /* connections, since the last line about them */
  int64_t refused_logged_us, accept_logged_us;
  int in_flight; /* until the handler is through: a slow reader must not keep others out */
  bool draining; /* each response closes its connection */
  bool closed;   /* no request is begun any more */
  Fiber *drainer;
} server;

static void wake_drainer(void) {
  if (server.draining && server.in_flight + connections_unsent() == 0)
    fiber_wake(server.drainer);
}

/* ---- requests ---- */

static void handle(void *arg) {
  HttpExchange *x = arg;
  server.config.handler(&x->request, &x->reply);
  if (x->connection)
    connection_respond(x->connection, &x->reply);
  exchange_free(x);
  assert(server.in_flight > 0);
  server.in_flight--;
  wake_drainer();
}

static bool is_served_at_once(Str method, Str path) {
  return server.config.at_once && server.config.at_once(method, path);
}

static int on_head(HttpConnection *c, Str method, Str path, const char **ret_detail) {
  if (server.closed) {
    *ret_detail = "the process is shutting down";
    return E_UNAVAILABLE;
  }
  if (!c->reserve)
    return 0;
  c->last = true;
  if (!is_served_at_once(method, path)) {
    *ret_detail = "too many connections";
    return E_BUSY;
  }
  c->served = true;
  return 0;
}

static void on_request(HttpConnection *c, HttpExchange *x) {
  bool at_once = is_served_at_once(x->request.method, x->request.path);
  if (server.in_flight >= server.config.max_in_flight && !at_once) {
    connection_refuse(c, E_BUSY, "too many requests in flight");
    return;
  }
  x->request.deadline_us = http_deadline(&x->request, clock_now_us(), server.config.request_us);
  if (!at_once && !fiber_start("request", handle, x)) {
    connection_refuse(c, E_BUSY, "too many fibers");
    return;
  }
  server.in_flight++;
  if (at_once)
    handle(x);
}

/* ---- connections ---- */

static bool may_log(int64_t *logged_us) {
  int64_t now_us = clock_now_us();
  if (*logged_us && now_us - *logged_us < LOG_US)
    return false;
  *logged_us = now_us;
  return true;
}

static void count_refused(void) {
  http_metrics_connection_refused();
  server.refused++;
  if (!may_log(&server.refused_logged_us))
    return;
  LOG(WARN, "http", "client connections refused: %d, as there are %d (MAX_CONNECTIONS)", server.refused,
      server.config.max_connections);
  server.refused = 0;
}

static void leave_reserve(HttpConnection *c) {
  int i = 0;
  while (i < server.reserve_count && server.reserve[i] != c)
    i++;
  if (i == server.reserve_count)
    return;
  server.reserve_count--;
  memmove(&server.reserve[i], &server.reserve[i + 1], sizeof(server.reserve[0]) * (size_t)(server.reserve_count - i));
}

static void on_closed(HttpConnection *c) {
  assert(server.connections > 0);
  server.connections--;
  if (c->reserve && !c->served)
    count_refused();
  leave_reserve(c);
}

/* The oldest makes room: a probe has its response within a moment, so what is still there is no probe. */
static void enter_reserve(HttpConnection *c) {
  assert(server.reserve_count <= HTTP_RESERVE);
  if (server.reserve_count == HTTP_RESERVE) {
    HttpConnection *oldest = server.reserve[0];
    leave_reserve(oldest);
    connection_close(oldest);
  }
  server.reserve[server.reserve_count++] = c;
}

static void stop_accepting(void) {
  if (!uv_is_closing((uv_handle_t *)&server.listener))
    uv_close((uv_handle_t *)&server.listener, NULL);
  server.accepting = false;
}

static void accept_one(void) {
  HttpConnection *c = connection_new();
  server.accepted++;
  server.connections++;
  c->reserve = server.connections > server.config.max_connections;
  if (uv_accept((uv_stream_t *)&server.listener, (uv_stream_t *)&c->tcp) < 0 ||
      server.connections > server.config.max_connections + 2 * HTTP_RESERVE) {
    connection_close(c);
    return;
  }
  if (c->reserve)
    enter_reserve(c);
  connection_begin(c);
}

static void on_connection(uv_stream_t *listener, int status) {
  (void)listener;
  if (status == UV_EINVAL) { /* the supervisor has shut the socket down: libuv would ask it again for ever */
    stop_accepting();
    return;
  }
  if (status < 0) {
    if (may_log(&server.accept_logged_us))
      LOG(WARN, "http", "cannot accept: %s", uv_strerror(status));
    return;
  }
  if (server.accepted < ACCEPTS_MAX)
    accept_one();
  else
    server.accepting = true; /* libuv asks for no more until this one is accepted */
}

static void accept_again(void *arg) {
  (void)arg;
  server.accepted = 0;
  if (server.accepting) {
    server.accepting = false;
    accept_one();
  }
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
  const ConnectionEvents events = {
      .head = on_head, .request = on_request, .refused = config->refused, .sent = wake_drainer, .closed = on_closed};
  connections_init(&events, config->idle_us);
  loop_before_poll(accept_again, NULL);
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
  connections_are_last(true);
  if (fiber_sleep(close_us - clock_now_us()) < 0)
    LOG(WARN, "http", "drain cut short");
  server.drainer = fiber_current();
  for (int i = 0; i == 0 || (server.accepting && i <= BACKLOG / ACCEPTS_MAX); i++)
    fiber_yield(); /* one more pass of the loop, or a few, takes in clients that have already connected */
  stop_accepting();
  server.closed = true;
  int rc = 0;
  while (server.in_flight + connections_unsent() > 0 && rc == 0)
    rc = fiber_wait("drain", deadline_us);
  if (server.in_flight + connections_unsent() > 0)
    LOG(WARN, "http", "drain timed out: %d requests still running, %d responses not yet sent", server.in_flight,
        connections_unsent());
}

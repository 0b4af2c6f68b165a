/* The server's process, and reading responses. */
#include "unit/http/server_process.h"

#include "http/metrics.h"
#include "metrics/metrics.h"
#include "rt/clock.h"
#include "rt/fiber.h"
#include "rt/loop.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECONDS_MAX 60

/* ---- the server ---- */

static HttpServerConfig config;

static void echo(HttpRequest *request, HttpReply *reply) {
  Str path = request->path, query = request->query;
  int64_t n;
  *reply = (HttpReply){.status = 200, .content_type = "text/plain"};
  if (str_starts(path, STR("/sleep")))
    (void)!fiber_sleep(200 * MILLISECONDS);
  if (str_starts(path, STR("/bytes/")) && str_to_int((Str){path.p + 7, path.n - 7}, &n) == 0)
    reply->body = (Str){arena_alloc(request->arena, (size_t)n), (size_t)n};
  else
    reply->body = arena_printf(request->arena, "%.*s %.*s%s%.*s %.*s", STR_FMT(request->method), STR_FMT(path),
                               query.p ? "?" : "", STR_FMT(query), STR_FMT(request->body));
}

static bool is_probe(Str method, Str path) {
  (void)method;
  return str_starts(path, STR("/livez"));
}

static void ignore_refusal(Str method, int status) {
  (void)method;
  (void)status;
}

static void drain(void *arg) {
  (void)arg;
  http_server_drain(clock_now_us(), clock_now_us() + 5 * SECONDS);
  loop_stop();
}

static void on_terminate(void) {
  if (!fiber_start("drain", drain, NULL))
    die("no fiber for the drain");
}

static void start(void *arg) {
  (void)arg;
  if (http_server_start(&config) < 0)
    die("the server cannot listen");
}

_Noreturn static void serve(void) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  signal(SIGPIPE, SIG_IGN);
  alarm(SECONDS_MAX);
  metrics_worker(0);
  loop_init();
  loop_on_terminate(on_terminate);
  if (!fiber_start("start", start, NULL))
    die("no fiber for the server");
  loop_run();
  exit(0);
}

void server_start(Server *server, HttpServerConfig wanted) {
  struct sockaddr_in address;
  socklen_t n = sizeof(address);
  config = wanted;
  if (http_listen("127.0.0.1", 0, &config.listen_fd) < 0 ||
      getsockname(config.listen_fd, (struct sockaddr *)&address, &n) != 0)
    die("no socket for the server");
  config.handler = config.handler ? config.handler : echo;
  config.refused = ignore_refusal;
  config.at_once = is_probe;
  config.max_connections = config.max_connections ? config.max_connections : 1000;
  config.max_in_flight = config.max_in_flight ? config.max_in_flight : 1000;
  config.request_us = 10 * SECONDS;
  config.idle_us = config.idle_us ? config.idle_us : 10 * SECONDS;
  static bool registered;
  if (!registered) {
    metrics_init(1);
    http_metrics_init(NULL);
  }
  registered = true;
  server->port = ntohs(address.sin_port);
  server->pid = fork();
  if (server->pid == 0)
    serve();
  close(config.listen_fd);
}

int server_stop(Server *server, int number) {
  int status = -1;
  kill(server->pid, number);
  waitpid(server->pid, &status, 0);
  return status;
}

/* ---- the client ---- */

int client_connect(const Server *server) {
  struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_port = htons((uint16_t)server->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
    die("cannot connect to the server: %s", strerror(errno));
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  return fd;
}

void client_send(int fd, Str bytes, size_t part) {
  for (size_t at = 0; at < bytes.n;) {
    size_t n = bytes.n - at < part ? bytes.n - at : part;
    ssize_t sent = send(fd, bytes.p + at, n, MSG_NOSIGNAL);
    if (sent < 0)
      return;
    at += (size_t)sent;
  }
}

Str client_receive(Arena *arena, int fd, bool shut, int ms) {
  char bytes[16384];
  Buf all = {.arena = arena};
  if (shut)
    shutdown(fd, SHUT_WR);
  int64_t end_us = clock_now_us() + ms * MILLISECONDS;
  for (;;) {
    int64_t left_us = end_us - clock_now_us();
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    ssize_t n = left_us > 0 && poll(&ready, 1, (int)(left_us / 1000) + 1) > 0 ? recv(fd, bytes, sizeof(bytes), 0) : 0;
    if (n <= 0)
      return all.n ? buf_view(&all) : STR("");
    buf_add(&all, bytes, (size_t)n);
  }
}

static Str field_of(Str head, const char *name) {
  while (head.p) {
    Str line = str_cut(&head, '\n');
    Str found = str_cut(&line, ':');
    if (str_eq_nocase(found, str_from(name)))
      return str_trim(line);
  }
  return (Str){0};
}

Responses read_responses(Str bytes, bool of_head) {
  Responses r = {.rest = bytes};
  while (r.count < 64) {
    const char *end = memmem(r.rest.p, r.rest.n, "\r\n\r\n", 4);
    if (!end || !str_starts(r.rest, STR("HTTP/1.1 ")))
      return r;
    Str head = {r.rest.p, (size_t)(end + 4 - r.rest.p)};
    int64_t status = 0, length = 0;
    (void)!str_to_int((Str){head.p + 9, 3}, &status);
    (void)!str_to_int(field_of(head, "content-length"), &length);
    length = of_head || status < 200 ? 0 : length;
    if (r.rest.n - head.n < (size_t)length)
      return r;
    if (status < 200) {
      r.rest = (Str){end + 4, r.rest.n - head.n};
      continue;
    }
    r.head[r.count] = head;
    r.status[r.count] = (int)status;
    r.body[r.count] = (Str){end + 4, (size_t)length};
    r.is_problem[r.count] = str_eq(field_of(head, "content-type"), STR("application/problem+json"));
    r.says_close[r.count++] = str_eq(field_of(head, "connection"), STR("close"));
    r.rest = (Str){end + 4 + length, r.rest.n - head.n - (size_t)length};
  }
  return r;
}

Responses exchange(Arena *arena, const Server *server, Str bytes, size_t part) {
  int fd = client_connect(server);
  client_send(fd, bytes, part);
  Str got = client_receive(arena, fd, true, 5000);
  close(fd);
  return read_responses(got, false);
}

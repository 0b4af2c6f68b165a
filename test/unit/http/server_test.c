/* The server with clients that are slow, greedy, silent or gone; its limits and its drain. */
#include "http/server.h"

#include "rt/clock.h"
#include "unit/http/server_process.h"
#include "unit/unit.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define GET(target) "GET " target " HTTP/1.1\r\nHost: a\r\n\r\n"
#define FOREVER_MS  8000
#define CUT_MS      7000 /* a client with 0.4 s is cut by then on any machine */
#define SECOND_MS   1000

static int64_t ms_since(int64_t began_us) {
  return (clock_now_us() - began_us) / MILLISECONDS;
}

/* Sends it and waits until the server closes; how long that took. */
static int64_t closed_after(Arena *arena, const Server *server, Str bytes, Responses *ret) {
  int64_t began_us = clock_now_us();
  int fd = client_connect(server);
  client_send(fd, bytes, SIZE_MAX);
  *ret = read_responses(client_receive(arena, fd, false, FOREVER_MS), false);
  close(fd);
  return ms_since(began_us);
}

TEST(a_response_has_its_fields) {
  SCOPED_ARENA arena = arena_new();
  Server server;
  server_start(&server, (HttpServerConfig){0});
  Responses got = exchange(arena, &server, STR(GET("/x") "HEAD /x HTTP/1.0\r\n\r\n"), SIZE_MAX);
  CHECK_INT(got.count, 1); /* HEAD's has a length and no body */
  Str head = got.head[0];
  CHECK(memmem(head.p, head.n, "\r\ndate: ", 8) && memmem(head.p, head.n, " GMT\r\n", 6));
  CHECK(memmem(head.p, head.n, "\r\nconnection: keep-alive\r\n", 26));
  CHECK(memmem(head.p, head.n, "\r\ncontent-length: 7\r\n", 21));
  CHECK(memmem(head.p, head.n, "\r\ncontent-type: text/plain\r\n", 28));
  CHECK(!memmem(head.p, head.n, "server:", 7));
  Responses of_head = read_responses(got.rest, true);
  CHECK_INT(of_head.count, 1);
  CHECK(of_head.says_close[0]);
  CHECK_INT(of_head.rest.n, 0);
  CHECK(memmem(of_head.head[0].p, of_head.head[0].n, "\r\ncontent-length: 8\r\n", 21));
  CHECK_INT(server_stop(&server, SIGTERM), 0);
}

TEST(silent_and_slow_clients_are_cut) {
  static const Str slow[] = {STR(""),
                             STR("GET /x HT"),
                             STR("GET /x HTTP/1.1\r\nHost: a\r\nX: y"),
                             STR("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc"),
                             STR("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab"),
                             STR(GET("/x"))};
  Server server;
  server_start(&server, (HttpServerConfig){.idle_us = 400 * MILLISECONDS});
  for (size_t i = 0; i < sizeof(slow) / sizeof(slow[0]); i++) {
    SCOPED_ARENA arena = arena_new();
    Responses got;
    int64_t took_ms = closed_after(arena, &server, slow[i], &got);
    CHECK(took_ms >= 300 && took_ms < CUT_MS);
    CHECK_INT(got.count, i == 5);
  }
  CHECK_INT(server_stop(&server, SIGTERM), 0);
}

/* A byte now and then buys no more time. */
TEST(drips_are_cut) {
  static const Str drips = STR("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n");
  SCOPED_ARENA arena = arena_new();
  Server server;
  server_start(&server, (HttpServerConfig){.idle_us = 400 * MILLISECONDS});
  for (int of_body = 0; of_body < 2; of_body++) {
    int fd = client_connect(&server);
    int64_t began_us = clock_now_us();
    client_send(fd, of_body ? drips : STR("GET /x HTTP/1.1\r\n"), SIZE_MAX);
    ssize_t n = -1;
    while (n != 0 && ms_since(began_us) < CUT_MS) {
      client_send(fd, STR("a"), 1);
      n = client_receive(arena, fd, false, 50).n ? -1 : recv(fd, &(char){0}, 1, MSG_DONTWAIT) == 0 ? 0 : -1;
      if (send(fd, "a", 1, MSG_NOSIGNAL) < 0)
        n = 0;
    }
    CHECK(ms_since(began_us) < CUT_MS);
    close(fd);
  }
  CHECK_INT(server_stop(&server, SIGTERM), 0);
}

TEST(a_client_that_takes_nothing_is_cut) {
  SCOPED_ARENA arena = arena_new();
  Server server;
  server_start(&server, (HttpServerConfig){.idle_us = 400 * MILLISECONDS});
  int fd = client_connect(&server);
  client_send(fd, STR(GET("/bytes/30000000")), SIZE_MAX);
  Responses probe;
  closed_after(arena, &server, STR("GET /livez HTTP/1.0\r\n\r\n"), &probe); /* others are served meanwhile */
  CHECK_INT(probe.status[0], 200);
  int64_t began_us = clock_now_us();
  while (send(fd, "a", 1, MSG_NOSIGNAL) > 0 && ms_since(began_us) < CUT_MS)
    poll(NULL, 0, 20);
  CHECK(ms_since(began_us) < CUT_MS);
  close(fd);
  CHECK_INT(server_stop(&server, SIGTERM), 0);
}

TEST(a_client_that_reads_gets_it_all) {
  SCOPED_ARENA arena = arena_new();
  Server server;
  server_start(&server, (HttpServerConfig){.idle_us = 400 * MILLISECONDS});
  Responses got = exchange(arena, &server, STR(GET("/bytes/30000000") GET("/next")), SIZE_MAX);
  CHECK_INT(got.count, 2);
  CHECK_INT(got.body[0].n, 30000000);
  CHECK_STR(got.body[1], "GET /next ");
  CHECK_INT(server_stop(&server, SIGTERM), 0);
}

TEST(pipelined_requests_have_their_responses_in_order) {
  SCOPED_ARENA arena = arena_new();
  Server server;
  server_start(&server, (HttpServerConfig){0});
  Buf bytes = {.arena = arena};
  for (int i = 0; i < 40; i++) /* at once, by a fiber, and by one that waits */
    buf_printf(&bytes, "GET /%s/%d HTTP/1.1\r\nHost: a\r\n\r\n", i % 2 ? "livez" : i == 20 ? "sleep" : "x", i);
  Responses got = exchange(arena, &server, buf_view(&bytes), SIZE_MAX);
  CHECK_INT(got.count, 40);
  for (int i = 0; i < got.count; i++)
    CHECK(str_eq(got.body[i], arena_printf(arena, "GET /%s/%d ", i % 2 ? "livez" : i == 20 ? "sleep" : "x", i)));
  CHECK_INT(server_stop(&server, SIGTERM), 0);
}

TEST(a_long_pipeline_has_all_its_responses) {
  enum { REQUESTS = 3000 };
  SCOPED_ARENA arena = arena_new();
  Server server;
  server_start(&server, (HttpServerConfig){0});
  Buf bytes = {.arena = arena};
  for (int i = 0; i < REQUESTS; i++)
    buf_cstr(&bytes, GET("/livez"));
  int fd = client_connect(&server), count = 0;
  client_send(fd, buf_view(&bytes), SIZE_MAX);
  Str rest = client_receive(arena, fd, true, FOREVER_MS);
  for (Str line = str_cut(&rest, '\n'); rest.p; line = str_cut(&rest, '\n'))
    count +=
        str_eq(str_trim(line), STR("GET /livez HTTP/1.1 200 OK")) || str_eq(str_trim(line), STR("HTTP/1.1 200 OK"));
  CHECK_INT(count, REQUESTS);
  close(fd);
  CHECK_INT(server_stop(&server, SIGTERM), 0);
}

/* While a request has no response, what follows it stays in the kernel, and so with the client. */
TEST(pipelined_bytes_are_not_hoarded) {
  static char many[64 * 1024];
  SCOPED_ARENA arena = arena_new();
  Server server;
  server_start(&server, (HttpServerConfig){.idle_us = 30 * SECONDS});
  int fd = client_connect(&server), size = 16 * 1024;
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
  client_send(fd, STR("GET /bytes/30000000 HTTP/1.1\r\nHost: a\r\n\r\nPOST /x HTTP/1.1\r\nHost: a\r\n"), SIZE_MAX);
  client_send(fd, STR("Content-Length: 1000000\r\n\r\n"), SIZE_MAX);
  size_t taken = 0;
  for (int idle = 0; idle < 20;) {
    ssize_t n = send(fd, many, sizeof(many), MSG_NOSIGNAL | MSG_DONTWAIT);
    taken += n > 0 ? (size_t)n : 0;
    idle = n > 0 ? 0 : idle + 1;
    if (n <= 0)
      poll(NULL, 0, 10);
    if (taken > 32 * 1024 * 1024)
      break;
  }
  CHECK(taken < 16 * 1024 * 1024); /* the kernel's buffers; the server's own share is 32 KiB */
  (void)arena;
  close(fd);
  CHECK_INT(server_stop(&server, SIGTERM), 0);
}

TEST(a_vanished_client_harms_nobody) {
  SCOPED_ARENA arena = arena_new();
  Server server;
  server_start(&server, (HttpServerConfig){0});
  static const struct linger reset = {1, 0};
  for (int i = 0; i < 50; i++) {
    int fd = client_connect(&server);
    client_send(fd, i % 2 ? STR(GET("/x") GET("/sleep")) : STR(GET("/x") "POST /x HTTP/1.1\r\nHost: a\r\nContent-Le"),
                SIZE_MAX);
    CHECK(recv(fd, &(char){0}, 1, 0) == 1); /* now the second request is handled, or its rest awaited */
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    close(fd);
  }
  Responses got = exchange(arena, &server, STR(GET("/sleep") GET("/x")), SIZE_MAX);
  CHECK_INT(got.count, 2);
  CHECK_INT(server_stop(&server, SIGTERM), 0);
}

/* What a client is still sending when it is refused must not reset the connection: on its way a reset can destroy the
 * response. */
TEST(a_refused_client_reads_an_end_and_no_reset) {
  SCOPED_ARENA arena = arena_new();
  Server server;
  server_start(&server, (HttpServerConfig){0});
  Buf bytes = {.arena = arena};
  buf_cstr(&bytes, "GET /x HTTP/1.1\r\nHost: a\r\nX: ");
  for (int i = 0; i < 100000; i++)
    buf_cstr(&bytes, "yyyyyyyyyy");
  int fd = client_connect(&server);
  client_send(fd, buf_view(&bytes), SIZE_MAX);
  shutdown(fd, SHUT_WR);
  char got[4096];
  ssize_t first = recv(fd, got, sizeof(got), MSG_PEEK), n = first;
  CHECK(first > 0 && str_starts((Str){got, (size_t)first}, STR("HTTP/1.1 431 ")));
  while (n > 0)
    n = recv(fd, got, sizeof(got), 0);
  CHECK_INT(n, 0);
  close(fd);
  CHECK_INT(server_stop(&server, SIGTERM), 0);
}

TEST(a_half_closed_client_has_its_response) {
  SCOPED_ARENA arena = arena_new();
  Server server;
  server_start(&server, (HttpServerConfig){0});
  Responses got = exchange(arena, &server, STR(GET("/sleep") GET("/x")), SIZE_MAX);
  CHECK_INT(got.count, 2);
  CHECK_STR(got.body[0], "GET /sleep ");
  CHECK_INT(exchange(arena, &server, STR("GET /x HTTP/1.1\r\nHost: a\r\n"), SIZE_MAX).count, 0);
  CHECK_INT(server_stop(&server, SIGTERM), 0);
}

TEST(a_client_that_waits_is_told_to_go_on) {
  static const Str go_on = STR("HTTP/1.1 100 Continue\r\n\r\n");
  static const Str head = STR("POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nConnection: close\r\n");
  SCOPED_ARENA arena = arena_new();
  Server server;
  server_start(&server, (HttpServerConfig){0});
  int fd = client_connect(&server);
  char first[64];
  client_send(fd, head, SIZE_MAX);
  client_send(fd, STR("Content-Length: 3\r\n\r\n"), SIZE_MAX);
  ssize_t n = recv(fd, first, go_on.n, MSG_WAITALL);
  CHECK_STR(((Str){first, n > 0 ? (size_t)n : 0}), go_on);
  client_send(fd, STR("abc"), SIZE_MAX);
  Responses got = read_responses(client_receive(arena, fd, false, FOREVER_MS), false);
  CHECK_INT(got.count, 1);
  CHECK_STR(got.body[0], "POST /x abc");
  close(fd);
  fd = client_connect(&server); /* refused: the body is never asked for */
  client_send(fd, head, SIZE_MAX);
  client_send(fd, STR("Content-Length: 1048577\r\n\r\n"), SIZE_MAX);
  Str refusal = client_receive(arena, fd, false, FOREVER_MS);
  CHECK(str_starts(refusal, STR("HTTP/1.1 413 ")));
  got = read_responses(refusal, false);
  CHECK_INT(got.count, 1);
  CHECK_INT(got.status[0], 413);
  close(fd);
  CHECK_INT(server_stop(&server, SIGTERM), 0);
}

TEST(too_many_in_flight_are_refused) {
  SCOPED_ARENA arena = arena_new();
  Server server;
  server_start(&server, (HttpServerConfig){.max_in_flight = 1});
  int fd = client_connect(&server);
  client_send(fd, STR("GET /sleep HTTP/1.0\r\n\r\n"), SIZE_MAX);
  Responses got;
  do /* the other one's bytes may still be on their way */
    got = exchange(arena, &server, STR(GET("/x") GET("/livez")), SIZE_MAX);
  while (got.count == 2 && got.status[0] == 200 && recv(fd, &(char){0}, 1, MSG_DONTWAIT | MSG_PEEK) <= 0);
  CHECK_INT(got.count, 2);
  CHECK_INT(got.status[0], 503);
  CHECK(got.is_problem[0] && !got.says_close[0]);
  CHECK_INT(got.status[1], 200);
  CHECK_INT(read_responses(client_receive(arena, fd, false, FOREVER_MS), false).count, 1);
  close(fd);
  CHECK_INT(server_stop(&server, SIGTERM), 0);
}

TEST(beyond_the_maximum_only_probes_are_served) {
  SCOPED_ARENA arena = arena_new();
  Server server;
  server_start(&server, (HttpServerConfig){.max_connections = 1, .idle_us = 60 * SECONDS});
  int first = client_connect(&server);
  client_send(first, STR(GET("/x")), SIZE_MAX);
  CHECK(recv(first, &(char){0}, 1, 0) == 1); /* it has its place */
  Responses got;
  CHECK(closed_after(arena, &server, STR(GET("/livez") GET("/livez")), &got) < 5 * SECOND_MS);
  CHECK_INT(got.count, 1);
  CHECK_INT(got.status[0], 200);
  CHECK(got.says_close[0]);
  closed_after(arena, &server, STR(GET("/x")), &got);
  CHECK_INT(got.count, 1);
  CHECK_INT(got.status[0], 503);
  CHECK(got.says_close[0] && got.is_problem[0]);
  int64_t took_ms = closed_after(arena, &server, STR(""), &got); /* and whoever says nothing has 2 s */
  CHECK(took_ms >= SECOND_MS && took_ms < 6 * SECOND_MS);
  close(first);
  CHECK_INT(server_stop(&server, SIGTERM), 0);
}

TEST(a_drain_ends_what_was_begun) {
  SCOPED_ARENA arena = arena_new();
  Server server;
  server_start(&server, (HttpServerConfig){0});
  int busy = client_connect(&server), idle = client_connect(&server);
  client_send(idle, STR(GET("/x")), SIZE_MAX);
  CHECK(recv(idle, &(char){0}, 1, 0) == 1);
  client_send(busy, STR(GET("/x") GET("/sleep")), SIZE_MAX);
  CHECK(recv(busy, &(char){0}, 1, 0) == 1); /* and the second is being handled, or is in the kernel */
  kill(server.pid, SIGTERM);
  Str rest = client_receive(arena, busy, false, FOREVER_MS);
  CHECK(memmem(rest.p, rest.n, "connection: close", 17));
  CHECK(memmem(rest.p, rest.n, "GET /sleep ", 11));
  close(busy);
  close(idle);
  CHECK_INT(server_stop(&server, SIGTERM), 0);
}

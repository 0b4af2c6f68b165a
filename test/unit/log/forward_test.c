/* The forwarder against a scripted peer on the loopback device. Time is the real one, and can be skipped. */
#include "log/forward.h"

#include "metrics/metrics.h"
#include "unit/until.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#define ID_BYTES  36
#define REPORTS   16
#define CHUNK_MAX (64 * 1024)
#define QUEUE_MAX (16 * CHUNK_MAX)

/* ---- rt/clock, moved on by tests ---- */

static int64_t skipped_us;

static int64_t read_us(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec * SECONDS + now.tv_nsec / 1000;
}

int64_t clock_now_us(void) {
  return read_us(CLOCK_MONOTONIC) + skipped_us;
}

int64_t clock_unix_us(void) {
  return read_us(CLOCK_REALTIME) + skipped_us;
}

int64_t clock_unix_ns(void) {
  return clock_unix_us() * 1000;
}

int64_t clock_unix_ms(void) {
  return clock_unix_us() / 1000;
}

/* ---- the peer ---- */

static struct {
  int listener, socket; /* -1: none */
  char address[32];
  char *received; /* on this connection, since the last take() */
  size_t n;
  char reports[REPORTS][256];
  int report_count;
  Metric *forwarded, *lost, *connected;
} peer = {.listener = -1, .socket = -1};

static void on_report(LogLevel level, const char *text) {
  CHECK(level == LOG_INFO || level == LOG_WARN);
  if (peer.report_count < REPORTS)
    snprintf(peer.reports[peer.report_count++], sizeof(peer.reports[0]), "%s", text);
}

static const char *last_report(void) {
  return peer.report_count > 0 ? peer.reports[peer.report_count - 1] : "";
}

static void peer_listen(void) {
  if (listen(peer.listener, 16) < 0)
    die("listen: %s", strerror(errno));
}

/* A port of its own; nobody listens yet. */
static void open_peer(void) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof(at);
  peer.listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (bind(peer.listener, (struct sockaddr *)&at, size) < 0 ||
      getsockname(peer.listener, (struct sockaddr *)&at, &size) < 0)
    die("no port for the peer: %s", strerror(errno));
  snprintf(peer.address, sizeof(peer.address), "127.0.0.1:%d", ntohs(at.sin_port));
  peer.received = malloc(2 * QUEUE_MAX);
  metrics_init(1);
  log_forward_to(peer.address, "the.tag", on_report);
  peer.forwarded = metric_new(METRIC_COUNTER, "skald_log_forwarded_total", "", "");
  peer.lost = metric_new(METRIC_COUNTER, "skald_log_dropped_total", "", "output=\"forward\"");
  peer.connected = metric_new(METRIC_GAUGE, "skald_log_forward_connected", "", "");
}

static int64_t shown(const Metric *metric) {
  return (int64_t)metric_value(metric);
}

static bool peer_accepts(void) {
  peer.socket = accept4(peer.listener, NULL, NULL, SOCK_NONBLOCK);
  peer.n = 0;
  return peer.socket >= 0;
}

static void peer_closes(void) {
  close(peer.socket);
  peer.socket = -1;
}

/* Where the id of a whole chunk stands at the end of what was received; NULL: it is not whole yet. */
static const char *chunk_id(void) {
  static const char mark[] = "\xa5"
                             "chunk\xd9\x24"; /* a text of 36 bytes follows */
  ssize_t got = recv(peer.socket, peer.received + peer.n, 2 * QUEUE_MAX - peer.n, 0);
  peer.n += got > 0 ? (size_t)got : 0;
  size_t tail = sizeof(mark) - 1 + ID_BYTES;
  if (peer.n < tail || memcmp(peer.received + peer.n - tail, mark, sizeof(mark) - 1) != 0)
    return NULL;
  return peer.received + peer.n - ID_BYTES;
}

typedef struct Chunk {
  char id[ID_BYTES + 1];
  int lines, first, last; /* the numbers of its lines, which must follow each other */
  size_t size;
} Chunk;

/* Waits for the next whole chunk. */
static Chunk take(void) {
  Chunk c = {.first = -1};
  UNTIL(chunk_id());
  memcpy(c.id, chunk_id(), ID_BYTES);
  c.size = peer.n;
  const char *at = peer.received, *end = peer.received + peer.n;
  CHECK(memmem(at, peer.n, "the.tag", 7) != NULL);
  for (; (at = memmem(at, (size_t)(end - at), "line ", 5)); at++) {
    int number = (int)strtol(at + 5, NULL, 10);
    CHECK(c.lines == 0 || number == c.last + 1);
    c.first = c.lines++ == 0 ? number : c.first;
    c.last = number;
  }
  peer.n = 0;
  return c;
}

static void acknowledge(const char *id) {
  char bytes[64] = "\x81\xa3"
                   "ack\xd9\x24";
  size_t n = strlen(bytes);
  memcpy(bytes + n, id, ID_BYTES);
  CHECK_INT(send(peer.socket, bytes, n + ID_BYTES, 0), n + ID_BYTES);
}

static void add_lines(int first, int count, size_t padding) {
  SCOPED_ARENA arena = arena_new();
  LogRecord record = {.level = LOG_INFO, .logger = "test", .thread = "main", .time = {.tv_sec = 1}};
  for (int i = first; i < first + count; i++) {
    Buf json = {.arena = arena};
    buf_printf(&json, "line %d;", i);
    for (size_t k = 0; k < padding; k++)
      buf_char(&json, '.');
    log_forward_add(&record, buf_view(&json));
  }
}

static void open_connected(void) {
  open_peer();
  peer_listen();
  log_forward_run();
  UNTIL(peer_accepts());
}

LOOP_TEST(lines_are_counted_as_forwarded_when_they_are_acknowledged) {
  open_connected();
  add_lines(1, 3, 0);
  Chunk c = take();
  CHECK_INT(c.lines, 3);
  CHECK_INT(c.first, 1);
  add_lines(4, 2, 0);
  for (int turns = 0; turns < 50;)
    turn(&turns);
  CHECK(!chunk_id()); /* the next one waits for the word on this one */
  CHECK_INT(shown(peer.forwarded), 0);
  acknowledge(c.id);
  Chunk next = take();
  CHECK_INT(shown(peer.forwarded), 3);
  CHECK_INT(shown(peer.connected), 1);
  CHECK_INT(next.first, 4);
  CHECK_INT(next.lines, 2);
  CHECK(memcmp(next.id, c.id, ID_BYTES) != 0);
  acknowledge(next.id);
  UNTIL(shown(peer.forwarded) == 5);
  CHECK_INT(peer.report_count, 0);
}

/* Whether it was stored is not known, so it goes again, and its id lets the peer see that. */
LOOP_TEST(a_chunk_that_was_not_acknowledged_goes_again_under_its_id) {
  open_connected();
  add_lines(1, 2, 0);
  Chunk c = take();
  add_lines(3, 1, 0);
  peer_closes();
  UNTIL(peer_accepts());
  Chunk again = take();
  CHECK_STR(again.id, c.id);
  CHECK_INT(again.first, 1);
  CHECK_INT(again.lines, 2);
  acknowledge(again.id);
  Chunk next = take();
  CHECK_INT(next.first, 3);
  acknowledge(next.id);
  UNTIL(shown(peer.forwarded) == 3);
  CHECK_INT(peer.report_count, 2);
  CHECK(strstr(peer.reports[0], "cannot forward to"));
  CHECK(strstr(peer.reports[1], "forwarding to"));
}

LOOP_TEST(an_acknowledgement_of_another_chunk_is_none) {
  open_connected();
  add_lines(1, 1, 0);
  Chunk c = take();
  acknowledge("00000000-0000-0000-0000-000000000000");
  UNTIL(shown(peer.connected) == 0 && peer.report_count > 0);
  CHECK(strstr(last_report(), "the response is not an acknowledgement"));
  peer_closes();
  UNTIL(peer_accepts());
  CHECK_STR(take().id, c.id);
  CHECK_INT(shown(peer.forwarded), 0);
}

LOOP_TEST(a_peer_that_never_acknowledges_is_given_up) {
  open_connected();
  add_lines(1, 1, 0);
  Chunk c = take();
  skipped_us += 9 * SECONDS;
  for (int turns = 0; turns < 20;)
    turn(&turns);
  CHECK_INT(peer.report_count, 0);
  skipped_us += 2 * SECONDS;
  UNTIL(peer.report_count == 1);
  CHECK(strstr(last_report(), "acknowledge: timed out"));
  peer_closes();
  UNTIL(peer_accepts());
  CHECK_STR(take().id, c.id);
}

LOOP_TEST(a_full_queue_loses_new_lines_and_counts_them) {
  enum { LINES = 2000 };
  open_peer(); /* nobody listens */
  log_forward_run();
  UNTIL(peer.report_count == 1);
  CHECK(strstr(last_report(), "cannot forward to"));
  add_lines(1, LINES, 900);
  int lost = (int)shown(peer.lost), kept = LINES - lost;
  CHECK(kept > 1000 && kept < QUEUE_MAX / 900);
  peer_listen();
  skipped_us += 20 * SECONDS;
  UNTIL(peer_accepts());
  for (int seen = 0; seen < kept;) {
    Chunk c = take();
    CHECK_INT(c.first, seen + 1); /* the oldest are kept */
    CHECK(c.size < CHUNK_MAX + 256);
    seen += c.lines;
    acknowledge(c.id);
  }
  UNTIL(shown(peer.forwarded) == kept);
  UNTIL(peer.report_count == 3);
  char want[128];
  snprintf(want, sizeof(want), "%d lines were not forwarded: the queue was full", lost);
  CHECK_STR(last_report(), want);
  CHECK_INT(shown(peer.lost), lost);
  add_lines(1, 1, 0); /* and there is room again */
  acknowledge(take().id);
  UNTIL(shown(peer.forwarded) == kept + 1);
  CHECK_INT(peer.report_count, 3); /* told once */
}

/* The chunk under way is closed: what is added to it now would never be sent. */
LOOP_TEST(what_comes_while_a_chunk_is_under_way_goes_into_the_next) {
  open_connected();
  for (int i = 1; i <= 20; i++) {
    add_lines(2 * i - 1, 1, 0);
    Chunk c = take();
    add_lines(2 * i, 1, 0);
    CHECK_INT(c.first, 2 * i - 1);
    acknowledge(c.id);
    Chunk next = take();
    CHECK_INT(next.first, 2 * i);
    acknowledge(next.id);
  }
  UNTIL(shown(peer.forwarded) == 40);
}

LOOP_TEST(an_idle_connection_that_ends_is_replaced_before_lines_come) {
  open_connected();
  peer_closes();
  UNTIL(peer_accepts());
  CHECK_INT(peer.report_count, 1);
  add_lines(1, 1, 0);
  Chunk c = take();
  CHECK_INT(c.first, 1);
  acknowledge(c.id);
  UNTIL(peer.report_count == 2);
  CHECK_INT(shown(peer.forwarded), 1);
}

LOOP_TEST(a_peer_that_is_down_is_retried_with_a_growing_backoff) {
  open_connected();
  int64_t full_us = 250 * MILLISECONDS;
  for (int i = 0; i < 9; i++) {
    int64_t closed_us = clock_now_us();
    peer_closes();
    UNTIL((skipped_us += 20 * MILLISECONDS) && peer_accepts());
    CHECK(clock_now_us() - closed_us >= full_us / 2);
    full_us = full_us * 2 < 15 * SECONDS ? full_us * 2 : 15 * SECONDS;
  }
  CHECK_INT(peer.report_count, 1); /* it has been down all the time */
}

static bool drained;

static void drain(void *arg) {
  const int64_t *within_us = arg;
  log_forward_drain(clock_now_us() + *within_us);
  drained = true;
}

/* Returns how long it took. */
static int64_t drain_within(int64_t us) {
  int64_t began_us = clock_now_us();
  drained = false;
  fiber_start("drain", drain, &us);
  UNTIL(drained);
  return clock_now_us() - began_us;
}

LOOP_TEST(the_drain_waits_for_the_last_acknowledgement) {
  open_connected();
  add_lines(1, 1, 0);
  Chunk c = take();
  acknowledge(c.id);
  CHECK(drain_within(30 * SECONDS) < 10 * SECONDS);
  CHECK_INT(shown(peer.forwarded), 1);
  CHECK(drain_within(30 * SECONDS) < 10 * SECONDS); /* nothing waits */
  CHECK_INT(peer.report_count, 0);
}

LOOP_TEST(the_drain_gives_up_at_its_deadline_and_says_what_is_lost) {
  open_connected();
  add_lines(1, 2, 0);
  take();
  add_lines(3, 3, 0);
  CHECK(drain_within(300 * MILLISECONDS) >= 300 * MILLISECONDS);
  CHECK_STR(last_report(), "5 lines were not forwarded before the end");
}

LOOP_TEST(what_a_parent_queued_is_its_childs_to_send) {
  open_peer();
  add_lines(1, 3, 0);
  log_forward_given();
  peer_listen();
  log_forward_run();
  UNTIL(peer_accepts());
  add_lines(4, 1, 0);
  Chunk c = take();
  CHECK_INT(c.first, 4);
  CHECK_INT(c.lines, 1);
}

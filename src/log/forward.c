/* The queue is a ring of chunks, each with an id that it keeps however often it is sent; the first is the one under
 * way, the last the one being filled. */
#include "log/forward.h"

#include "base/backoff.h"
#include "log/fluent.h"
#include "metrics/metrics.h"
#include "rt/clock.h"
#include "rt/config.h"
#include "rt/fd.h"
#include "rt/fiber.h"
#include "rt/random.h"
#include "rt/resolve.h"

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNKS         16
#define CHUNK_BYTES    (64 * 1024)
#define GATHER_US      (20 * MILLISECONDS) /* lines of so long a time are sent together */
#define RESOLVE_US     (10 * SECONDS)
#define CONNECT_US     (5 * SECONDS)  /* for one address */
#define ACK_US         (10 * SECONDS) /* from the first byte of a chunk to its acknowledgement */
#define RETRY_FIRST_US (250 * MILLISECONDS)
#define RETRY_MAX_US   (15 * SECONDS)
#define RESPONSE_MAX   512

typedef struct Chunk {
  Buf entries;
  int lines;
  char id[UUID_TEXT];
} Chunk;

static struct {
  const char *address; /* NULL: nobody */
  Str tag;
  char host[256], port[8];
  Chunk chunks[CHUNKS];
  int first, count;
  bool sending; /* the first chunk is under way, so nothing is added to it */
  Buf entry, message;
  uint64_t dropped, reported;
  Fiber *fiber, *drainer;
  bool idle;  /* the fiber waits for lines */
  int socket; /* -1: none */
  Fd *watch;
  bool down; /* as last logged */
  char reason[320];
  Metric *forwarded, *lost, *connected;
  LogForwardReport *report;
} f = {.socket = -1};

static void register_metrics(void) {
  f.forwarded = metric_new(METRIC_COUNTER, "skald_log_forwarded_total", "Log lines that LOG_FORWARD acknowledged", "");
  f.lost = metric_new(METRIC_COUNTER, "skald_log_dropped_total", "Log lines lost, by where they should have gone",
                      "output=\"forward\"");
  f.connected = metric_new(METRIC_GAUGE, "skald_log_forward_connected", "Workers whose lines LOG_FORWARD takes", "");
}

void log_forward_to(const char *address, const char *tag, LogForwardReport *report_to) {
  Str host;
  int64_t port;
  register_metrics();
  if (!address)
    return;
  f.report = report_to;
  if (config_address(str_from(address), &host, &port) < 0 || host.n >= sizeof(f.host))
    die("LOG_FORWARD is no address: %s", address); /* the option's type has let it through */
  f.address = address;
  f.tag = str_from(tag);
  snprintf(f.host, sizeof(f.host), "%.*s", STR_FMT(host));
  snprintf(f.port, sizeof(f.port), "%d", (int)port);
}

bool log_forward_on(void) {
  return f.address != NULL;
}

static Chunk *chunk_at(int i) {
  return &f.chunks[(f.first + i) % CHUNKS];
}

/* The chunk with room for so many more bytes; NULL: the queue is full. */
static Chunk *chunk_with_room(size_t n) {
  Chunk *last = f.count > (f.sending ? 1 : 0) ? chunk_at(f.count - 1) : NULL;
  if (last && last->entries.n + n <= CHUNK_BYTES)
    return last;
  if (f.count == CHUNKS)
    return NULL;
  Chunk *fresh = chunk_at(f.count++);
  buf_clear(&fresh->entries);
  fresh->lines = 0;
  return fresh;
}

void log_forward_add(const LogRecord *record, Str json) {
  buf_clear(&f.entry);
  fluent_entry(&f.entry, record, json);
  Chunk *c = chunk_with_room(f.entry.n);
  if (!c) {
    f.dropped++;
    metric_add(f.lost, 1);
    return;
  }
  buf_str(&c->entries, buf_view(&f.entry));
  c->lines++;
  if (f.idle)
    fiber_wake(f.fiber);
}

void log_forward_given(void) {
  f.count = 0;
}

static void close_connection(void) {
  fd_unwatch(f.watch);
  f.watch = NULL;
  if (f.socket >= 0)
    close(f.socket);
  f.socket = -1;
}

/* The socket's error, with its words kept for the log. */
static int broken(const char *what, int error) {
  snprintf(f.reason, sizeof(f.reason), "%s: %s", what, strerror(error));
  return E_UNAVAILABLE;
}

static int timed_out(const char *what, int rc) {
  if (rc == E_TIMEOUT)
    snprintf(f.reason, sizeof(f.reason), "%s: timed out", what);
  return rc;
}

static int wait_connected(void) {
  int64_t deadline_us = clock_now_us() + CONNECT_US;
  struct sockaddr_storage peer;
  for (;;) {
    int error = 0;
    socklen_t n = sizeof(error), size = sizeof(peer);
    getsockopt(f.socket, SOL_SOCKET, SO_ERROR, &error, &n);
    if (error)
      return broken("connect", error);
    if (getpeername(f.socket, (struct sockaddr *)&peer, &size) == 0)
      return E_OK;
    TRY(timed_out("connect", fd_wait(f.watch, FD_WRITABLE, "log: connect", deadline_us)));
  }
}

static int connect_to(const struct addrinfo *a) {
  f.socket = socket(a->ai_family, a->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, a->ai_protocol);
  if (f.socket < 0)
    return broken("socket", errno);
  f.watch = fd_watch(f.socket);
  if (!f.watch)
    return broken("socket", EMFILE);
  if (connect(f.socket, a->ai_addr, a->ai_addrlen) < 0 && errno != EINPROGRESS)
    return broken("connect", errno);
  return wait_connected();
}

static int open_connection(void) {
  struct addrinfo *found = NULL;
  int rc = resolve(f.host, f.port, clock_now_us() + RESOLVE_US, &found);
  if (rc < 0)
    snprintf(f.reason, sizeof(f.reason), "could not resolve host \"%s\"%s", f.host,
             rc == E_TIMEOUT ? ": no response from the name server" : "");
  for (const struct addrinfo *a = found; a; a = a->ai_next) {
    rc = connect_to(a);
    if (rc == E_OK || rc == E_CANCELED)
      break;
    close_connection();
  }
  resolve_free(found);
  return rc;
}

static int write_all(Str bytes, int64_t deadline_us) {
  while (bytes.n > 0) {
    ssize_t n = send(f.socket, bytes.p, bytes.n, MSG_NOSIGNAL);
    if (n >= 0)
      bytes = (Str){bytes.p + n, bytes.n - (size_t)n};
    else if (errno == EAGAIN)
      TRY(timed_out("send", fd_wait(f.watch, FD_WRITABLE, "log: send", deadline_us)));
    else if (errno != EINTR)
      return broken("send", errno);
  }
  return E_OK;
}

/* The number of bytes received; 0: none yet. */
static int receive(char *out, size_t max) {
  ssize_t n = recv(f.socket, out, max, 0);
  if (n > 0)
    return (int)n;
  if (n < 0 && (errno == EAGAIN || errno == EINTR))
    return 0;
  return n < 0 ? broken("receive", errno) : broken("receive", EPIPE);
}

static int read_ack(Str id, int64_t deadline_us) {
  char response[RESPONSE_MAX];
  size_t n = 0;
  for (;;) {
    int got = receive(response + n, sizeof(response) - n);
    TRY(got);
    n += (size_t)got;
    int rc = n > 0 ? fluent_ack((Str){response, n}, id) : 0;
    if (rc < 0 || n == sizeof(response)) {
      snprintf(f.reason, sizeof(f.reason), "the response is not an acknowledgement");
      return E_UNAVAILABLE;
    }
    if (rc > 0)
      return E_OK;
    if (got == 0)
      TRY(timed_out("acknowledge", fd_wait(f.watch, FD_READABLE, "log: acknowledgement", deadline_us)));
  }
}

static int send_chunk(Chunk *c) {
  int64_t deadline_us = clock_now_us() + ACK_US;
  if (!f.sending)
    uuid_format(uuid_new(), c->id);
  f.sending = true;
  buf_clear(&f.message);
  fluent_head(&f.message, f.tag, c->entries.n);
  buf_str(&f.message, buf_view(&c->entries));
  fluent_tail(&f.message, c->lines, str_from(c->id));
  TRY(write_all(buf_view(&f.message), deadline_us));
  TRY(read_ack(str_from(c->id), deadline_us));
  assert(c == chunk_at(0) && f.count > 0);
  metric_add(f.forwarded, c->lines);
  f.first = (f.first + 1) % CHUNKS;
  f.count--;
  f.sending = false;
  return E_OK;
}

__attribute__((format(printf, 2, 3))) static void report(LogLevel level, const char *format, ...) {
  char text[512];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof(text), format, args);
  va_end(args);
  f.report(level, text);
}

static void log_up(void) {
  metric_set(f.connected, 1);
  if (f.down)
    report(LOG_INFO, "forwarding to %s again", f.address);
  f.down = false;
}

static void log_down(void) {
  metric_set(f.connected, 0);
  if (!f.down)
    report(LOG_WARN, "cannot forward to %s, retrying: %s", f.address, f.reason);
  f.down = true;
}

static void log_lost(void) {
  if (f.reported == f.dropped)
    return;
  uint64_t lost = f.dropped - f.reported;
  f.reported = f.dropped;
  report(LOG_WARN, "%llu lines were not forwarded: the queue was full", (unsigned long long)lost);
}

/* An idle connection is read, so that its end is seen. */
static int wait_for_lines(void) {
  while (f.count == 0) {
    fiber_wake(f.drainer);
    char unexpected[64];
    TRY(receive(unexpected, sizeof(unexpected)));
    f.idle = true;
    int rc = fd_wait(f.watch, FD_READABLE, "log: lines", FIBER_FOREVER);
    f.idle = false;
    TRY(rc);
  }
  return f.drainer || f.count > 1 ? E_OK : fiber_sleep(GATHER_US);
}

/* Until the connection ends. */
static int forward_lines(bool *ret_any) {
  TRY(open_connection());
  for (;;) {
    TRY(wait_for_lines());
    TRY(send_chunk(chunk_at(0)));
    *ret_any = true;
    log_up();
    log_lost();
  }
}

static void forward(void *arg) {
  (void)arg;
  int attempts = 0;
  for (int rc = E_OK; rc != E_CANCELED;) {
    bool any = false;
    rc = forward_lines(&any);
    close_connection();
    if (any)
      attempts = 0;
    log_down();
    if (rc != E_CANCELED)
      rc = fiber_sleep(backoff_us(attempts++, RETRY_FIRST_US, RETRY_MAX_US, random_u64()));
  }
}

void log_forward_run(void) {
  if (!f.address)
    return;
  f.fiber = fiber_start("log forward", forward, NULL);
  if (!f.fiber)
    die("no fiber for the log's forwarder"); /* at start there is room for it, or the limit is a defect */
}

void log_forward_drain(int64_t deadline_us) {
  f.drainer = fiber_current();
  for (int rc = E_OK; f.fiber && f.count > 0 && rc == E_OK;)
    rc = fiber_wait("log: drain", deadline_us);
  f.drainer = NULL;
  int left = 0;
  for (int i = 0; i < f.count; i++)
    left += chunk_at(i)->lines;
  if (left > 0)
    report(LOG_WARN, "%d lines were not forwarded before the end", left);
}

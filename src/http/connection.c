/* Connections over libuv. Nothing here waits: callbacks and fibers move a connection from state to state. */
#include "http/connection.h"

#include "http/parser.h"
#include "http/problem.h"
#include "rt/clock.h"
#include "rt/loop.h"

#include <assert.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define READ_SIZE     (64 * 1024) /* bytes of one read of a body; of what may be pipelined a quarter */
#define PIPELINED_MAX (16 * 1024) /* read ahead while a request has no response: this, and one read's */
#define HEAD_US       (30 * SECONDS)
#define PROBE_US      (2 * SECONDS) /* for a head on a connection beyond the maximum */
#define BODY_US       (30 * SECONDS)
#define WRITE_US      (30 * SECONDS) /* in which the client must take something */
#define WRITE_RATE    (4 * 1024)     /* bytes a second that it must take on the whole, beyond WRITE_US */
#define END_US        (2 * SECONDS)
#define TURN_MAX      16 /* pipelined requests of one connection before others have their turn */
#define TICK_MS       200
#define ARENAS        64           /* kept for the next requests */
#define ARENA_KEPT    (256 * 1024) /* bytes; larger ones are given back */

typedef struct Write {
  uv_write_t request; /* first */
  bool response;
  char bytes[];
} Write;

static struct {
  ConnectionEvents events;
  int64_t wait_us[WAITS];
  HttpConnection *first[WAITS], *newest[WAITS]; /* each list is sorted by due time, as its duration is fixed */
  uv_timer_t ticks;
  uv_idle_t no_sleep; /* active: somebody waits for a turn */
  bool last;
  int unsent;
  Arena *spare[ARENAS];
  int spare_count;
  Buf head; /* of the response being written */
  char date[40];
  time_t date_of;
  char read[READ_SIZE]; /* shared: what is not read at once is copied */
} all;

static Arena *take_arena(void) {
  return all.spare_count > 0 ? all.spare[--all.spare_count] : arena_new();
}

static void give_arena(Arena *a) {
  if (all.spare_count == ARENAS || arena_size(a) > ARENA_KEPT) {
    arena_free(a);
    return;
  }
  arena_reset(a);
  all.spare[all.spare_count++] = a;
}

void exchange_free(HttpExchange *x) {
  buf_free(&x->body);
  give_arena(x->request.arena);
}

/* ---- waiting ---- */

static void wait_none(HttpConnection *c) {
  if (c->wait == WAITS)
    return;
  *(c->previous ? &c->previous->next : &all.first[c->wait]) = c->next;
  *(c->next ? &c->next->previous : &all.newest[c->wait]) = c->previous;
  c->wait = WAITS;
}

static void wait_for(HttpConnection *c, HttpWait wait) {
  wait_none(c);
  c->wait = wait;
  c->due_us = clock_now_us() + all.wait_us[wait];
  c->next = NULL;
  c->previous = all.newest[wait];
  *(c->previous ? &c->previous->next : &all.first[wait]) = c;
  all.newest[wait] = c;
}

/* A client that takes its response gets more time for it, up to that for its size. */
static void look_at_writing(HttpConnection *c) {
  size_t queued = uv_stream_get_write_queue_size((uv_stream_t *)&c->tcp);
  if (queued >= c->queued || clock_now_us() >= c->write_end_us) {
    connection_close(c);
    return;
  }
  c->queued = queued;
  wait_for(c, WAIT_WRITE);
}

static void on_tick(uv_timer_t *timer) {
  (void)timer;
  int64_t now_us = clock_now_us();
  bool any = false;
  for (HttpWait wait = 0; wait < WAIT_TURN; wait++) {
    while (all.first[wait] && all.first[wait]->due_us <= now_us)
      if (wait == WAIT_WRITE)
        look_at_writing(all.first[wait]);
      else
        connection_close(all.first[wait]);
    any |= all.first[wait] != NULL;
  }
  if (!any)
    uv_timer_stop(&all.ticks);
}

static void tick(void) {
  if (!uv_is_active((uv_handle_t *)&all.ticks) && uv_timer_start(&all.ticks, on_tick, TICK_MS, TICK_MS) < 0)
    die("no timer for connections");
}

static void on_idle(uv_idle_t *idle) {
  (void)idle; /* it counts by being active: the next poll only looks */
}

static void wait_for_turn(HttpConnection *c) {
  wait_for(c, WAIT_TURN);
  uv_idle_start(&all.no_sleep, on_idle);
}

static void wait_in_time(HttpConnection *c, HttpWait wait) {
  wait_for(c, wait);
  tick();
}

/* ---- the end ---- */

static void settle(HttpConnection *c) {
  if (!c->owes)
    return;
  c->owes = false;
  assert(all.unsent > 0);
  all.unsent--;
  all.events.sent();
}

static void on_closed(uv_handle_t *handle) {
  HttpConnection *c = (HttpConnection *)(void *)handle;
  all.events.closed(c);
  buf_free(&c->input);
  free(c);
}

void connection_close(HttpConnection *c) {
  if (c->state == CONNECTION_CLOSED)
    return;
  bool handled = c->state == CONNECTION_HANDLER;
  c->state = CONNECTION_CLOSED;
  wait_none(c);
  if (c->exchange && handled)
    c->exchange->connection = NULL;
  else if (c->exchange)
    exchange_free(c->exchange);
  c->exchange = NULL;
  settle(c);
  uv_close((uv_handle_t *)&c->tcp, on_closed);
}

/* ---- reading ---- */

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf);

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf) {
  (void)suggested;
  const HttpConnection *c = (const HttpConnection *)(void *)handle;
  *buf = uv_buf_init(all.read, c->state == CONNECTION_BODY || c->state == CONNECTION_END ? READ_SIZE : READ_SIZE / 4);
}

static void read_on(HttpConnection *c) {
  c->paused = false;
  if (uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read) < 0)
    connection_close(c);
}

static void pause_reading(HttpConnection *c) {
  if (!c->paused)
    uv_read_stop((uv_stream_t *)&c->tcp);
  c->paused = true;
}

static void on_shut_down(uv_shutdown_t *request, int status) {
  (void)status;
  free(request);
}

/* Behind the last response: the client may still be sending, and closing at once would reset the connection, which can
 * destroy the response on its way. */
static void end(HttpConnection *c) {
  uv_shutdown_t *request = malloc(sizeof(*request));
  if (c->ended || !request || uv_shutdown(request, (uv_stream_t *)&c->tcp, on_shut_down) < 0) {
    free(request);
    connection_close(c);
    return;
  }
  c->state = CONNECTION_END;
  wait_in_time(c, WAIT_END);
  if (c->paused)
    read_on(c);
}

static void begin_request(HttpConnection *c) {
  framing_begin(&c->framing);
  c->state = CONNECTION_HEAD;
  c->is_head = false;
}

static void owe(HttpConnection *c) {
  assert(!c->owes);
  c->owes = true;
  all.unsent++;
}

static void refuse(HttpConnection *c, Str method, int code, const char *detail);

/* Before the request is complete. */
static void refuse_bytes(HttpConnection *c, Str method, int code, const char *detail) {
  if (!c->owes)
    owe(c);
  refuse(c, method, code, detail);
}

static void write_bytes(HttpConnection *c, Str head, Str body, bool response);

static int admit(HttpConnection *c, Str method, Str path, const char **ret_detail) {
  Framing *f = &c->framing;
  if (f->expects_unknown) {
    *ret_detail = "the only expectation that can be met is 100-continue";
    return E_EXPECTATION;
  }
  if (f->coded && framing_has_body(f)) {
    *ret_detail = "the body's Content-Encoding is not supported: send it as it is";
    return E_MEDIA;
  }
  int rc = framing_begin_body(f, HTTP_BODY_MAX);
  *ret_detail = f->detail;
  return rc < 0 ? rc : all.events.head(c, method, path, ret_detail);
}

static HttpExchange *exchange_new(HttpConnection *c) {
  Arena *arena = take_arena();
  HttpExchange *x = ARENA_NEW(arena, HttpExchange);
  x->request.arena = arena;
  x->connection = c;
  return x;
}

static void hand_over(HttpConnection *c) {
  HttpExchange *x = c->exchange;
  bool has_body = c->framing.chunked || c->framing.length >= 0;
  x->request.body = x->body.n ? buf_view(&x->body) : has_body ? STR("") : (Str){0};
  c->state = CONNECTION_HANDLER;
  wait_none(c);
  owe(c);
  all.events.request(c, x);
}

static void await_body(HttpConnection *c, bool some_came) {
  static const Str go_on = STR("HTTP/1.1 100 Continue\r\n\r\n");
  c->state = CONNECTION_BODY;
  wait_in_time(c, WAIT_BODY);
  if (c->framing.expects && !some_came)
    write_bytes(c, go_on, (Str){0}, false);
}

/* Returns the bytes read; 0: all that came is the beginning of a head, or it was refused. */
static size_t read_head(HttpConnection *c, Str bytes) {
  Framing *f = &c->framing;
  ssize_t n = framing_head(f, bytes);
  if (n < 0) {
    refuse_bytes(c, framing_method(f, bytes.p), (int)n, f->detail);
    return 0;
  }
  if (n == 0) {
    if (c->wait == WAIT_IDLE)
      wait_in_time(c, WAIT_HEAD);
    return 0;
  }
  c->is_head = str_eq(framing_method(f, bytes.p), STR("HEAD"));
  c->last |= all.last || !framing_keeps_alive(f);
  HttpExchange *x = c->exchange = exchange_new(c);
  char *head = arena_copy(x->request.arena, bytes.p, (size_t)n);
  const char *detail = "the request cannot be parsed";
  int rc = http_parse_head(f, head, (size_t)n, &x->request, &x->parser);
  if (rc == 0)
    rc = admit(c, x->request.method, x->request.path, &detail);
  if (rc < 0)
    refuse_bytes(c, x->request.method, rc, detail);
  else if (framing_body_is_complete(f))
    hand_over(c);
  else
    await_body(c, bytes.n > (size_t)n);
  return (size_t)n;
}

static size_t read_body(HttpConnection *c, Str bytes) {
  Framing *f = &c->framing;
  HttpExchange *x = c->exchange;
  ssize_t n = framing_body(f, bytes);
  const char *detail = n < 0 ? f->detail : "the body cannot be parsed";
  int rc = n < 0 ? (int)n : http_parse_body(x->parser, (Str){bytes.p, (size_t)n}, &x->body);
  if (rc == 0 && http_parse_is_complete(x->parser) != framing_body_is_complete(f))
    rc = E_MALFORMED;
  if (rc < 0) {
    refuse_bytes(c, x->request.method, rc, detail);
    return 0;
  }
  if (framing_body_is_complete(f))
    hand_over(c);
  return (size_t)n;
}

/* What is left of the bytes is kept for later; of what is read already nothing is. */
static void keep(HttpConnection *c, Str rest) {
  bool wanted = c->state != CONNECTION_CLOSED && !c->last && rest.n > 0;
  if (!wanted) {
    buf_free(&c->input);
  } else if (c->input.n > 0) {
    memmove(c->input.p, rest.p, rest.n);
    c->input.n = rest.n;
  } else {
    buf_add(&c->input, rest.p, rest.n);
  }
}

static bool reads(const HttpConnection *c) {
  return c->state == CONNECTION_HEAD || c->state == CONNECTION_BODY;
}

/* Reads requests as long as they have their responses at once, a few in a turn: others wait too. Returns the bytes that
 * were read. */
static size_t read_requests(HttpConnection *c, Str bytes, bool *ret_turn_over) {
  size_t used = 0;
  int responded = 0;
  while (reads(c) && used < bytes.n && responded < TURN_MAX) {
    Str rest = {bytes.p + used, bytes.n - used};
    size_t n = c->state == CONNECTION_HEAD ? read_head(c, rest) : read_body(c, rest);
    if (n == 0)
      break;
    used += n;
    responded += c->state == CONNECTION_HEAD;
  }
  *ret_turn_over = responded == TURN_MAX && c->state == CONNECTION_HEAD && used < bytes.n;
  return used;
}

/* bytes: what came now; absent: look at what was kept. */
static void consume(HttpConnection *c, Str bytes) {
  bool turn_over;
  c->busy = true;
  if (c->input.n > 0) {
    if (bytes.n > 0)
      buf_add(&c->input, bytes.p, bytes.n);
    bytes = buf_view(&c->input);
  }
  size_t used = read_requests(c, bytes, &turn_over);
  keep(c, used < bytes.n ? (Str){bytes.p + used, bytes.n - used} : (Str){0});
  c->busy = false;
  if (turn_over)
    wait_for_turn(c);
  else if (reads(c) && c->ended)
    connection_close(c);
}

static bool reads_now(const HttpConnection *c) {
  return reads(c) && c->wait != WAIT_TURN;
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf) {
  HttpConnection *c = (HttpConnection *)(void *)stream;
  if (n == 0)
    return;
  if (n < 0) {
    c->ended = true;
    if (n != UV_EOF || reads_now(c) || c->state == CONNECTION_END)
      connection_close(c);
    else
      pause_reading(c);
    return;
  }
  Str bytes = {buf->base, (size_t)n};
  if (reads_now(c)) {
    consume(c, bytes);
  } else if (c->state != CONNECTION_END) {
    buf_add(&c->input, bytes.p, bytes.n);
    if (c->input.n >= PIPELINED_MAX)
      pause_reading(c);
  }
}

/* In the loop, before it sleeps: those that have their response and may go on, each once. */
static void take_turns(void *arg) {
  (void)arg;
  const HttpConnection *last = all.newest[WAIT_TURN];
  uv_idle_stop(&all.no_sleep);
  for (bool more = last != NULL; more;) {
    HttpConnection *c = all.first[WAIT_TURN];
    more = c != last;
    wait_in_time(c, c->input.n > 0 ? WAIT_HEAD : WAIT_IDLE);
    consume(c, (Str){0});
    if (reads_now(c) && c->paused)
      read_on(c);
  }
}

/* ---- writing ---- */

static void response_written(HttpConnection *c) {
  settle(c);
  if (c->last || all.last) {
    end(c);
    return;
  }
  begin_request(c);
  if (!c->busy && (c->input.n > 0 || c->ended || c->paused))
    wait_for_turn(c);
  else
    wait_in_time(c, WAIT_IDLE);
}

static void on_written(uv_write_t *request, int status) {
  Write *w = (Write *)(void *)request;
  HttpConnection *c = (HttpConnection *)(void *)request->handle;
  bool response = w->response;
  free(w);
  if (c->state == CONNECTION_CLOSED)
    return;
  if (status < 0)
    connection_close(c);
  else if (response)
    response_written(c);
}

static void queue(HttpConnection *c, Str head, Str body, size_t written, bool response) {
  size_t n = head.n + body.n - written, of_head = written < head.n ? head.n - written : 0;
  Write *w = malloc(sizeof(*w) + n);
  if (!w)
    die("out of memory for a response of %zu bytes", n);
  w->response = response;
  if (of_head)
    memcpy(w->bytes, head.p + head.n - of_head, of_head);
  if (n > of_head)
    memcpy(w->bytes + of_head, body.p + body.n - (n - of_head), n - of_head);
  uv_buf_t buf = uv_buf_init(w->bytes, (unsigned)n);
  if (uv_write(&w->request, (uv_stream_t *)&c->tcp, &buf, 1, on_written) < 0) {
    free(w);
    connection_close(c);
    return;
  }
  if (!response)
    return;
  c->queued = n;
  c->write_end_us = clock_now_us() + all.wait_us[WAIT_WRITE] + (int64_t)(n / WRITE_RATE) * SECONDS;
  wait_in_time(c, WAIT_WRITE);
}

static void write_bytes(HttpConnection *c, Str head, Str body, bool response) {
  uv_buf_t bufs[] = {uv_buf_init((char *)(uintptr_t)head.p, (unsigned)head.n),
                     uv_buf_init((char *)(uintptr_t)body.p, (unsigned)body.n)};
  int n = uv_try_write((uv_stream_t *)&c->tcp, bufs, body.n ? 2 : 1);
  if (n < 0 && n != UV_EAGAIN)
    connection_close(c);
  else if (n < 0 || (size_t)n < head.n + body.n)
    queue(c, head, body, n < 0 ? 0 : (size_t)n, response);
  else if (response)
    response_written(c);
}

/* RFC 9110 §5.6.7; made once a second. */
static Str date(void) {
  time_t now = (time_t)(clock_unix_us() / SECONDS);
  struct tm tm;
  if (now != all.date_of && gmtime_r(&now, &tm)) {
    strftime(all.date, sizeof(all.date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
    all.date_of = now;
  }
  return str_from(all.date);
}

static void field(Str name, Str value) {
  buf_str(&all.head, name);
  buf_cstr(&all.head, ": ");
  for (size_t i = 0; i < value.n; i++)
    assert(value.p[i] != '\r' && value.p[i] != '\n'); /* nothing in a response may begin another line */
  buf_str(&all.head, value);
  buf_cstr(&all.head, "\r\n");
}

static void number_field(Str name, size_t value) {
  char digits[24];
  snprintf(digits, sizeof(digits), "%zu", value);
  field(name, str_from(digits));
}

static Str render_head(const HttpReply *reply, bool last) {
  Buf *b = &all.head;
  buf_clear(b);
  buf_cstr(b, "HTTP/1.1 ");
  buf_int(b, reply->status);
  buf_char(b, ' ');
  buf_str(b, http_reason(reply->status));
  buf_cstr(b, "\r\n");
  field(STR("date"), date());
  field(STR("connection"), last ? STR("close") : STR("keep-alive"));
  number_field(STR("content-length"), reply->body.n);
  field(STR("content-type"), str_from(reply->content_type ? reply->content_type : "application/json"));
  for (int i = 0; i < reply->header_count; i++)
    field(reply->headers[i].name, reply->headers[i].value);
  buf_cstr(b, "\r\n");
  return buf_view(b);
}

void connection_respond(HttpConnection *c, const HttpReply *reply) {
  assert(c->owes && c->state != CONNECTION_CLOSED);
  c->exchange = NULL;
  c->state = CONNECTION_WRITTEN;
  c->last |= all.last;
  write_bytes(c, render_head(reply, c->last), c->is_head ? (Str){0} : reply->body, true);
}

/* method: as far as it is known, for the statistics. */
static void refuse(HttpConnection *c, Str method, int code, const char *detail) {
  HttpExchange *x = c->exchange;
  Arena *arena = take_arena();
  HttpReply reply;
  problem_reply(arena, &(Problem){.code = code, .detail = str_from(detail)}, &reply);
  bool whole = c->state == CONNECTION_HANDLER; /* the next request begins where this one ends */
  c->last |= !whole;
  all.events.refused(method.p ? method : STR(""), reply.status);
  connection_respond(c, &reply);
  if (x)
    exchange_free(x);
  give_arena(arena);
}

void connection_refuse(HttpConnection *c, int code, const char *detail) {
  assert(c->state == CONNECTION_HANDLER);
  refuse(c, c->exchange->request.method, code, detail);
}

/* ---- the beginning ---- */

/* The kernel ends a connection whose client acknowledges nothing for that long. */
static void bound_writing(const uv_tcp_t *tcp) {
  uv_os_fd_t fd;
  unsigned ms = (unsigned)(all.wait_us[WAIT_WRITE] / MILLISECONDS);
  if (uv_fileno((const uv_handle_t *)tcp, &fd) == 0)
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
}

HttpConnection *connection_new(void) {
  HttpConnection *c = calloc(1, sizeof(*c));
  if (!c || uv_tcp_init(loop_uv(), &c->tcp) < 0)
    die("out of memory for a connection");
  c->wait = WAITS;
  return c;
}

void connection_begin(HttpConnection *c) {
  uv_tcp_nodelay(&c->tcp, 1);
  bound_writing(&c->tcp);
  begin_request(c);
  wait_in_time(c, c->reserve ? WAIT_PROBE : WAIT_HEAD);
  read_on(c);
}

int connections_unsent(void) {
  return all.unsent;
}

void connections_are_last(bool yes) {
  all.last = yes;
}

void connections_init(const ConnectionEvents *events, int64_t idle_us) {
  const int64_t longest_us[WAITS] = {[WAIT_IDLE] = idle_us, [WAIT_HEAD] = HEAD_US,   [WAIT_PROBE] = PROBE_US,
                                     [WAIT_BODY] = BODY_US, [WAIT_WRITE] = WRITE_US, [WAIT_END] = END_US};
  all.events = *events;
  for (HttpWait wait = 0; wait < WAITS; wait++)
    all.wait_us[wait] = longest_us[wait] < idle_us ? longest_us[wait] : idle_us;
  if (uv_timer_init(loop_uv(), &all.ticks) < 0 || uv_idle_init(loop_uv(), &all.no_sleep) < 0)
    die("no timer for connections");
  loop_before_poll(take_turns, NULL);
}

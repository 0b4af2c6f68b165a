/* libcurl on the loop: its sockets are uv_poll handles, its one timer a uv_timer. Its callbacks only gather what came
 * and wake the caller's fiber; everything else, the removal of a transfer above all, happens in that fiber. */
#include "http/client.h"

#include "http/span.h"
#include "rt/clock.h"
#include "rt/fiber.h"
#include "rt/loop.h"

#include <assert.h>
#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#define SPARE            64 /* easy handles kept for the next calls */
#define CONNECT_MS       2000L
#define IDLE_S           3L /* libcurl counts whole seconds; servers close what idles after 5 s or more */
#define HEADER_VALUE_MAX 8192

typedef struct Call { /* on the stack of the waiting fiber */
  Fiber *fiber;
  const HttpRequest *request;
  CURL *easy;
  struct curl_slist *headers;
  Buf body;
  HttpReply reply;
  bool repeatable; /* may be sent a second time */
  bool has_head;   /* the response's head is complete */
  bool too_large;
  bool done;
  CURLcode outcome;
} Call;

typedef struct Watch { /* one socket of curl's */
  uv_poll_t poll;
  curl_socket_t fd;
} Watch;

static struct {
  CURLM *multi;
  uv_timer_t timer;
  CURL *spare[SPARE];
  int spare_count;
} client;

static void require(bool ok) {
  if (!ok)
    die("out of memory, or a defect in the use of libcurl or libuv");
}

static void finish_calls(void) {
  int left;
  for (CURLMsg *m; (m = curl_multi_info_read(client.multi, &left)) != NULL;) {
    char *owner = NULL;
    curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &owner);
    Call *call = (Call *)(void *)owner;
    call->outcome = m->data.result;
    call->done = true;
    fiber_wake(call->fiber);
  }
}

static void act(curl_socket_t fd, int events) {
  int running;
  require(curl_multi_socket_action(client.multi, fd, events, &running) == CURLM_OK);
  finish_calls();
}

static void on_poll(uv_poll_t *poll, int status, int events) {
  const Watch *w = poll->data;
  int flags = status < 0 ? CURL_CSELECT_ERR : 0;
  if (events & UV_READABLE)
    flags |= CURL_CSELECT_IN;
  if (events & UV_WRITABLE)
    flags |= CURL_CSELECT_OUT;
  act(w->fd, flags);
}

static void on_timer(uv_timer_t *timer) {
  (void)timer;
  act(CURL_SOCKET_TIMEOUT, 0);
}

static void on_watch_closed(uv_handle_t *handle) {
  free(handle->data);
}

static Watch *watch_new(curl_socket_t fd) {
  Watch *w = calloc(1, sizeof(*w));
  require(w != NULL);
  w->fd = fd;
  require(uv_poll_init_socket(loop_uv(), &w->poll, fd) == 0);
  w->poll.data = w;
  curl_multi_assign(client.multi, fd, w);
  return w;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *assigned) {
  (void)easy;
  (void)arg;
  Watch *w = assigned;
  if (what == CURL_POLL_REMOVE) {
    if (w) {
      curl_multi_assign(client.multi, fd, NULL);
      uv_close((uv_handle_t *)&w->poll, on_watch_closed);
    }
    return 0;
  }
  if (!w)
    w = watch_new(fd);
  int events = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
  require(uv_poll_start(&w->poll, events, on_poll) == 0);
  return 0;
}

static int on_timeout_changed(CURLM *multi, long timeout_ms, void *arg) {
  (void)multi;
  (void)arg;
  if (timeout_ms < 0) {
    uv_timer_stop(&client.timer);
    return 0;
  }
  uv_update_time(loop_uv()); /* a timer counts from the loop's own idea of now, which may be old */
  require(uv_timer_start(&client.timer, on_timer, (uint64_t)timeout_ms, 0) == 0);
  return 0;
}

static void start_once(void) {
  if (client.multi)
    return;
  require(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK);
  client.multi = curl_multi_init();
  require(client.multi != NULL && uv_timer_init(loop_uv(), &client.timer) == 0);
  curl_multi_setopt(client.multi, CURLMOPT_SOCKETFUNCTION, on_socket);
  curl_multi_setopt(client.multi, CURLMOPT_TIMERFUNCTION, on_timeout_changed);
  curl_multi_setopt(client.multi, CURLMOPT_PIPELINING, CURLPIPE_NOTHING);
  curl_multi_setopt(client.multi, CURLMOPT_MAX_HOST_CONNECTIONS, (long)HTTP_CLIENT_CONNECTIONS);
  curl_multi_setopt(client.multi, CURLMOPT_MAXCONNECTS, (long)HTTP_CLIENT_CONNECTIONS);
}

static size_t on_body(char *bytes, size_t size, size_t count, void *arg) {
  Call *call = arg;
  size_t n = size * count;
  if (n > HTTP_BODY_MAX - call->body.n) {
    call->too_large = true;
    return 0;
  }
  buf_add(&call->body, bytes, n);
  return n;
}

static void keep_header(Call *call, Str name, Str value) {
  static const char *const kept[] = {"location", "link", "retry-after", "idempotent-replayed"};
  Arena *arena = call->request->arena;
  if (str_eq_nocase(name, STR("content-type")))
    call->reply.content_type = arena_cstr(arena, value);
  for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
    if (str_eq_nocase(name, str_from(kept[i])) && call->reply.header_count < 8)
      http_reply_header(&call->reply, str_from(kept[i]), arena_str(arena, value));
}

static size_t on_header(char *bytes, size_t size, size_t count, void *arg) {
  Call *call = arg;
  Str value = {bytes, size * count};
  if (str_starts(value, STR("HTTP/"))) { /* what came before was an interim response */
    call->reply = (HttpReply){0};
    call->has_head = false;
    return size * count;
  }
  call->has_head |= str_trim(value).n == 0;
  Str name = str_cut(&value, ':');
  value = str_trim(value);
  bool is_trailer = call->body.n > 0;
  if (value.p && value.n <= HEADER_VALUE_MAX && !is_trailer)
    keep_header(call, name, value);
  return size * count;
}

/* curl sends a request again when a pooled connection closes before the response, whatever the method: it can't know
 * that the server had not begun to work on it. */
static int on_connected(void *arg, char *ip, char *local_ip, int port, int local_port) {
  (void)ip;
  (void)local_ip;
  (void)port;
  (void)local_port;
  const Call *call = arg;
  long sent = 0;
  curl_easy_getinfo(call->easy, CURLINFO_REQUEST_SIZE, &sent);
  return sent > 0 && !call->repeatable ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

static bool is_one_of(Str text, const char *const *list) {
  for (; *list; list++)
    if (str_eq_nocase(text, str_from(*list)))
      return true;
  return false;
}

static bool has_control(Str s) {
  for (size_t i = 0; i < s.n; i++)
    if (((unsigned char)s.p[i] < 0x20 && s.p[i] != '\t') || s.p[i] == 0x7f)
      return true;
  return false;
}

static void add_header(Call *call, const char *line) {
  struct curl_slist *longer = curl_slist_append(call->headers, line);
  require(longer != NULL);
  call->headers = longer;
}

/* Made for each connection anew: framing is curl's business (RFC 9110 §7.6.1), the timeout is this call's own. */
static const char *const hop[] = {
    "connection", "content-length",    "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding",
    "upgrade",    HTTP_TIMEOUT_HEADER, NULL};

static void pass_trace(Call *call) {
  const HttpRequest *r = call->request;
  char traceparent[TRACEPARENT_TEXT];
  if (http_header(r, STR("traceparent")).p || !span_traceparent(traceparent))
    return;
  add_header(call, arena_printf(r->arena, "traceparent: %s", traceparent).p);
  Str state = span_tracestate();
  if (state.n)
    add_header(call, arena_printf(r->arena, "tracestate: %.*s", STR_FMT(state)).p);
}

static void pass_timeout(Call *call) {
  const HttpRequest *r = call->request;
  if (r->deadline_us == FIBER_FOREVER)
    return;
  int64_t left_us = r->deadline_us - clock_now_us();
  Str line = arena_printf(r->arena, HTTP_TIMEOUT_HEADER ": %lld", (long long)(left_us > 0 ? left_us / 1000 : 0));
  add_header(call, line.p);
}

static int pass_headers(Call *call) {
  const HttpRequest *r = call->request;
  for (int i = 0; i < r->header_count; i++) {
    HttpHeader h = r->headers[i];
    if (is_one_of(h.name, hop))
      continue;
    if (h.name.n == 0 || has_control(h.name) || has_control(h.value))
      return E_MALFORMED;
    /* curl takes "Name:" as "send no such header" and "Name;" as an empty one */
    const char *format = h.value.n ? "%.*s: %.*s" : "%.*s;%.*s";
    add_header(call, arena_printf(r->arena, format, STR_FMT(h.name), STR_FMT(h.value)).p);
  }
  pass_trace(call);
  pass_timeout(call);
  add_header(call, "Expect:");
  if (!http_header(r, STR("content-type")).p)
    add_header(call, r->body.p ? "Content-Type: application/json" : "Content-Type:");
  return 0;
}

static int set_url(const Call *call, const char *base_url) {
  const HttpRequest *r = call->request;
  size_t n = strlen(base_url);
  while (n && base_url[n - 1] == '/')
    n--;
  if (!str_starts(str_from(base_url), STR("http://")) && !str_starts(str_from(base_url), STR("https://")))
    return E_MALFORMED;
  if (r->path.n == 0 || r->path.p[0] != '/' || has_control(r->path) || has_control(r->query))
    return E_MALFORMED;
  Str url = arena_printf(r->arena, "%.*s%.*s%s%.*s", (int)n, base_url, STR_FMT(r->path), r->query.p ? "?" : "",
                         STR_FMT(r->query));
  curl_easy_setopt(call->easy, CURLOPT_URL, url.p);
  return 0;
}

/* The options every call has. */
static void set_common(CURL *easy) {
  curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_PROXY, ""); /* not the environment's */
  curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
  curl_easy_setopt(easy, CURLOPT_USERAGENT, "skald");
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
  curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, IDLE_S);
#if CURL_AT_LEAST_VERSION(7, 87, 0)
  curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L); /* a removal waits for no name resolution that still runs */
#endif
}

static void set_method(const Call *call) {
  static const char *const with_body[] = {"POST", "PUT", "PATCH", NULL};
  const HttpRequest *r = call->request;
  if (str_eq(r->method, STR("HEAD"))) {
    curl_easy_setopt(call->easy, CURLOPT_NOBODY, 1L);
    return;
  }
  if (r->body.p || is_one_of(r->method, with_body)) {
    curl_easy_setopt(call->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->body.n);
    curl_easy_setopt(call->easy, CURLOPT_POSTFIELDS, r->body.p ? r->body.p : "");
  }
  curl_easy_setopt(call->easy, CURLOPT_CUSTOMREQUEST, arena_cstr(r->arena, r->method));
}

static void set_callbacks(Call *call) {
  CURL *easy = call->easy;
  curl_easy_setopt(easy, CURLOPT_PRIVATE, call);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, call);
  curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt(easy, CURLOPT_HEADERDATA, call);
  curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_connected);
  curl_easy_setopt(easy, CURLOPT_PREREQDATA, call);
}

static CURL *take_easy(void) {
  CURL *easy = client.spare_count > 0 ? client.spare[--client.spare_count] : curl_easy_init();
  require(easy != NULL);
  return easy;
}

static void give_easy(CURL *easy) {
  if (client.spare_count == SPARE) {
    curl_easy_cleanup(easy);
    return;
  }
  curl_easy_reset(easy);
  client.spare[client.spare_count++] = easy;
}

static int prepare(Call *call, const char *base_url) {
  static const char *const safe[] = {"GET", "HEAD", "OPTIONS", NULL};
  const HttpRequest *r = call->request;
  if (has_control(r->method) || r->method.n == 0)
    return E_MALFORMED;
  call->repeatable = is_one_of(r->method, safe) || http_header(r, STR("idempotency-key")).p != NULL;
  set_common(call->easy);
  set_callbacks(call);
  set_method(call);
  TRY(set_url(call, base_url));
  TRY(pass_headers(call));
  curl_easy_setopt(call->easy, CURLOPT_HTTPHEADER, call->headers);
  return 0;
}

/* What curl's outcome means to a caller that must know whether the request may have been done. */
static int judge(const Call *call) {
  long sent = 0;
  if (call->outcome == CURLE_OK)
    return call->has_head ? 0 : E_UNKNOWN; /* curl is content with a head that was cut off */
  if (call->too_large)
    return E_TOO_LARGE;
  curl_easy_getinfo(call->easy, CURLINFO_REQUEST_SIZE, &sent);
  if (sent > 0)
    return E_UNKNOWN;
  return call->outcome == CURLE_URL_MALFORMAT ? E_MALFORMED : E_UNAVAILABLE;
}

/* Removing a transfer that still runs closes its connection; from then on curl knows nothing of the call. */
static int transfer(Call *call) {
  require(curl_multi_add_handle(client.multi, call->easy) == CURLM_OK);
  int rc = 0;
  while (!call->done && rc == 0)
    rc = fiber_wait("http response", call->request->deadline_us);
  int outcome = call->done ? judge(call) : rc;
  require(curl_multi_remove_handle(client.multi, call->easy) == CURLM_OK);
  return outcome;
}

int http_client_call(const char *base_url, const HttpRequest *request, HttpReply *reply) {
  assert(fiber_current());
  start_once();
  Call call = {.fiber = fiber_current(), .request = request, .easy = take_easy(), .body = {.arena = request->arena}};
  int rc = prepare(&call, base_url);
  if (rc == 0)
    rc = transfer(&call);
  if (rc == 0) {
    long status = 0;
    curl_easy_getinfo(call.easy, CURLINFO_RESPONSE_CODE, &status);
    call.reply.status = (int)status;
    call.reply.body = buf_view(&call.body);
    *reply = call.reply;
  }
  give_easy(call.easy);
  curl_slist_free_all(call.headers);
  return rc;
}

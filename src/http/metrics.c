/* Tables of series, by method and outcome. */
#include "http/metrics.h"

#include "base/err.h"
#include "metrics/metrics.h"
#include "rt/clock.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Those of RFC 9110 and RFC 5789; the last stands for all others. */
static const char *const methods[] = {"GET",     "PUT",   "POST",    "DELETE", "HEAD",
                                      "OPTIONS", "PATCH", "CONNECT", "TRACE",  "_OTHER"};
enum { GET, PUT, HEAD = 4, OTHER = 9, METHODS };

/* All that this program responds with. */
static const int statuses[] = {200, 202, 400, 404, 405, 409, 413, 414, 415, 417, 422, 424, 431, 500, 503, 504, 505};
enum { STATUSES = sizeof(statuses) / sizeof(statuses[0]) };

/* What others respond with, a proxy between us and them too; behind these stand two places for the rest. */
static const int peer_statuses[] = {200, 201, 202, 204, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405,
                                    408, 409, 410, 413, 415, 422, 424, 425, 429, 431, 500, 501, 502, 503, 504};
enum { PEER_STATUSES = sizeof(peer_statuses) / sizeof(peer_statuses[0]), REST = PEER_STATUSES, REST_FAILED, RESPONSES };

static const struct {
  int code;
  const char *name;
} failures[] = {{E_UNAVAILABLE, "unavailable"},
                {E_UNKNOWN, "unknown"},
                {E_TIMEOUT, "timeout"},
                {E_CANCELED, "canceled"},
                {E_OK, "other"}};
enum { FAILURES = sizeof(failures) / sizeof(failures[0]), OUTCOMES = RESPONSES + FAILURES };

struct HttpSeries {
  Metric *by[METHODS][OUTCOMES]; /* a route has the first STATUSES of them */
};

static const MetricBuckets ktor_buckets = {
    {0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20}};

static const MetricFamily served = {.type = METRIC_HISTOGRAM,
                                    .name = "http_server_request_duration_seconds",
                                    .help = "Duration of served requests by route template.",
                                    .counted = &ktor_buckets,
                                    .sparse = true,
                                    .keeps_max = true};
static const MetricFamily served_ktor = {.type = METRIC_HISTOGRAM,
                                         .name = "ktor_http_server_requests_seconds",
                                         .help = "Duration of served requests under Ktor's name.",
                                         .buckets = &ktor_buckets,
                                         .sparse = true};
static const MetricFamily longest_ktor = {.type = METRIC_MAX,
                                          .name = "ktor_http_server_requests_seconds_max",
                                          .help = "The longest request of the last one to two minutes.",
                                          .sparse = true};
static const MetricFamily called = {.type = METRIC_HISTOGRAM,
                                    .name = "http_client_request_duration_seconds",
                                    .help = "Duration of calls until the complete response or the failure.",
                                    .sparse = true};

static struct {
  const char *address;
  char *standard[STATUSES], *ktor[STATUSES], *client[OUTCOMES]; /* label texts */
  Metric *active[METHODS], *active_ktor, *refused_connections;
  HttpSeries *other;
} http;

static char *text(const char *format, ...) __attribute__((format(printf, 1, 2)));

static char *text(const char *format, ...) {
  va_list args;
  va_start(args, format);
  char *out;
  if (vasprintf(&out, format, args) < 0)
    die("out of memory for a metric's labels");
  va_end(args);
  return out;
}

static void make_texts(void) {
  for (int i = 0; i < STATUSES; i++) {
    int s = statuses[i];
    http.standard[i] = s >= 500 ? text("http_response_status_code=\"%d\",url_scheme=\"http\",error_type=\"%d\"", s, s)
                                : text("http_response_status_code=\"%d\",url_scheme=\"http\"", s);
    http.ktor[i] = text("status=\"%d\",throwable=\"n/a\"", s);
  }
}

static void make_peer_texts(void) {
  for (int i = 0; i < PEER_STATUSES; i++) {
    int s = peer_statuses[i];
    http.client[i] = s >= 400 ? text("http_response_status_code=\"%d\",error_type=\"%d\"", s, s)
                              : text("http_response_status_code=\"%d\"", s);
  }
  http.client[REST] = text("http_response_status_code=\"_OTHER\"");
  http.client[REST_FAILED] = text("http_response_status_code=\"_OTHER\",error_type=\"_OTHER\"");
  for (int i = 0; i < FAILURES; i++)
    http.client[RESPONSES + i] = text("error_type=\"%s\"", failures[i].name);
}

static int method_of(Str name) {
  for (int i = 0; i < OTHER; i++)
    if (str_eq(name, str_from(methods[i])))
      return i;
  return OTHER;
}

Str http_metrics_method(Str method) {
  return str_from(methods[method_of(method)]);
}

/* One that is not in the table counts as the first of its class. */
static int status_index(int status) {
  int same_class = STATUSES - 1;
  for (int i = STATUSES - 1; i >= 0; i--) {
    if (statuses[i] == status)
      return i;
    if (statuses[i] / 100 == status / 100)
      same_class = i;
  }
  return same_class;
}

static void add_ktor(const Metric *m, const char *path, int method, int status) {
  char *labels = text("address=\"%s\",method=\"%s\",route=\"%s\"", http.address, methods[method], path);
  metric_view(m, &served_ktor, labels, http.ktor[status]);
  metric_view(m, &longest_ktor, labels, http.ktor[status]);
  free(labels);
}

static void add_method(HttpSeries *series, const char *path, const char *ktor_path, int method) {
  char *labels = text("http_request_method=\"%s\",http_route=\"%s\"", methods[method], path);
  for (int i = 0; i < STATUSES; i++) {
    series->by[method][i] = metric_in(&served, labels, http.standard[i]);
    if (http.address)
      add_ktor(series->by[method][i], ktor_path, method, i);
  }
  free(labels);
}

static HttpSeries *series_new(void) {
  HttpSeries *series = calloc(1, sizeof(*series));
  if (!series)
    die("out of memory for the metrics of a route");
  return series;
}

void http_metrics_init(const char *address) {
  http.address = address;
  make_texts();
  make_peer_texts();
  for (int i = 0; i < METHODS; i++) {
    char *labels = text("http_request_method=\"%s\",url_scheme=\"http\"", methods[i]);
    http.active[i] = metric_new(METRIC_GAUGE, "http_server_active_requests", "Requests in progress.", labels);
    free(labels);
  }
  if (address)
    http.active_ktor =
        metric_new(METRIC_GAUGE, "ktor_http_server_requests_active", "Requests in progress under Ktor's name.", "");
  http.refused_connections = metric_new(METRIC_COUNTER, "skald_http_connections_refused_total",
                                        "Client connections refused at the maximum number of connections.", "");
  http.other = series_new();
  for (int i = 0; i < METHODS; i++)
    add_method(http.other, "_OTHER", "n/a", i);
}

HttpSeries *http_metrics_route(const char *path, const char *method) {
  HttpSeries *series = series_new();
  int i = method_of(str_from(method));
  add_method(series, path, path, i);
  if (i == GET)
    add_method(series, path, path, HEAD);
  return series;
}

HttpSeries *http_metrics_other(void) {
  return http.other;
}

/* With nothing in it that a label's text must not hold. */
static char *label_text(Str value) {
  char *out = text("%.*s", STR_FMT(value));
  for (char *c = out; *c; c++)
    if (*c == '"' || *c == '\\' || *c == '\n')
      *c = '_';
  return out;
}

/* http://host:port/… cut up; a colon within brackets belongs to an address of IPv6. */
static char *peer_labels(const char *base_url, const char *method) {
  Str rest = str_from(base_url), scheme = str_cut(&rest, ':');
  while (rest.n && rest.p[0] == '/')
    rest = (Str){rest.p + 1, rest.n - 1};
  Str host = str_cut(&rest, '/');
  for (size_t i = host.n; i-- > 0;)
    if (host.p[i] == '@') { /* a name and a password are nobody's label */
      host = (Str){host.p + i + 1, host.n - i - 1};
      break;
    }
  Str port = str_eq(scheme, STR("https")) ? STR("443") : STR("80");
  for (size_t i = host.n; i-- > 0 && host.p[i] != ']';)
    if (host.p[i] == ':') {
      port = (Str){host.p + i + 1, host.n - i - 1};
      host.n = i;
    }
  char *address = label_text(host), *number = label_text(port), *kind = label_text(scheme);
  char *labels = text("http_request_method=\"%s\",server_address=\"%s\",server_port=\"%s\",url_scheme=\"%s\"", method,
                      address, number, kind);
  free(address);
  free(number);
  free(kind);
  return labels;
}

HttpSeries *http_metrics_peer(const char *base_url) {
  static const int used[] = {GET, PUT, OTHER};
  HttpSeries *series = series_new();
  for (size_t i = 0; i < sizeof(used) / sizeof(used[0]); i++) {
    char *labels = peer_labels(base_url, methods[used[i]]);
    for (int k = 0; k < OUTCOMES; k++)
      series->by[used[i]][k] = metric_in(&called, labels, http.client[k]);
    free(labels);
  }
  return series;
}

static void count_active(int method, double by) {
  metric_add(http.active[method], by);
  if (http.active_ktor)
    metric_add(http.active_ktor, by);
}

static void observe(const HttpSeries *series, int method, int outcome, int64_t began_us) {
  assert(method >= 0 && method < METHODS && outcome >= 0 && outcome < OUTCOMES);
  if (!series->by[method][outcome])
    method = OTHER;
  metric_observe(series->by[method][outcome], (double)(clock_now_us() - began_us) / 1e6);
}

HttpTimer http_metrics_begin(Str method) {
  HttpTimer timer = {method_of(method), clock_now_us()};
  count_active(timer.method, 1);
  return timer;
}

void http_metrics_end(const HttpTimer *timer, const HttpSeries *route, int status) {
  count_active(timer->method, -1);
  observe(route, timer->method, status_index(status), timer->began_us);
}

void http_metrics_refused(Str method, int status) {
  observe(http.other, method_of(method), status_index(status), clock_now_us());
}

void http_metrics_connection_refused(void) {
  metric_add(http.refused_connections, 1);
}

static int response_index(int status) {
  for (int i = 0; i < PEER_STATUSES; i++)
    if (peer_statuses[i] == status)
      return i;
  return status >= 400 ? REST_FAILED : REST;
}

static int failure_index(int rc) {
  int i = 0;
  while (failures[i].code != rc && failures[i].code != E_OK)
    i++;
  return RESPONSES + i;
}

void http_metrics_called(const HttpSeries *peer, Str method, int rc, int status, int64_t began_us) {
  observe(peer, method_of(method), rc < 0 ? failure_index(rc) : response_index(status), began_us);
}

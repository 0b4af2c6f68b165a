/* Which series a request, or a call, is counted in. */
#include "http/metrics.h"

#include "base/err.h"
#include "metrics/metrics.h"
#include "rt/clock.h"
#include "unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static HttpSeries *route, *peer, *tls;

static void setup(void) {
  if (route)
    return;
  metrics_init(1);
  http_metrics_init("127.0.0.1:80");
  route = http_metrics_route("/a/{id}", "GET");
  peer = http_metrics_peer("http://pay\"ment:8080/base");
  tls = http_metrics_peer("https://[::1]");
  metrics_worker(0);
}

/* The value of a sample, 0 when it is not shown. */
static double sample(const char *text) {
  static Buf out;
  buf_clear(&out);
  metrics_render(&out);
  buf_char(&out, '\0');
  const char *at = strstr(out.p, text);
  return at ? strtod(at + strlen(text), NULL) : 0;
}

static void serve(const HttpSeries *series, const char *method, int status) {
  HttpTimer timer = http_metrics_begin(str_from(method));
  http_metrics_end(&timer, series, status);
}

#define SERVED "http_server_request_duration_seconds_count{http_request_method="

TEST(requests_by_method_and_status) {
  setup();
  CHECK(sample("\n" SERVED) == 0);
  serve(route, "GET", 200);
  serve(route, "HEAD", 200);
  serve(route, "GET", 503);
  CHECK(sample(SERVED "\"GET\",http_route=\"/a/{id}\",http_response_status_code=\"200\",url_scheme=\"http\"} ") == 1);
  CHECK(sample(SERVED "\"HEAD\",http_route=\"/a/{id}\",http_response_status_code=\"200\",url_scheme=\"http\"} ") == 1);
  CHECK(sample(SERVED "\"GET\",http_route=\"/a/{id}\",http_response_status_code=\"503\",url_scheme=\"http\","
                      "error_type=\"503\"} ") == 1);
}

TEST(what_is_not_known_has_a_place) {
  setup();
  serve(http_metrics_other(), "BREW", 404);
  serve(http_metrics_other(), "", 499);
  http_metrics_refused((Str){"POST", 4}, 413);
  CHECK(sample(SERVED "\"_OTHER\",http_route=\"_OTHER\",http_response_status_code=\"404\",url_scheme=\"http\"} ") == 1);
  CHECK(sample(SERVED "\"_OTHER\",http_route=\"_OTHER\",http_response_status_code=\"400\",url_scheme=\"http\"} ") == 1);
  CHECK(sample(SERVED "\"POST\",http_route=\"_OTHER\",http_response_status_code=\"413\",url_scheme=\"http\"} ") == 1);
}

TEST(the_same_under_the_names_of_ktor) {
  setup();
  HttpTimer timer = http_metrics_begin(STR("GET"));
  timer.began_us -= 1000;
  http_metrics_end(&timer, route, 404);
  CHECK(sample("ktor_http_server_requests_seconds_count{address=\"127.0.0.1:80\",method=\"GET\",route=\"/a/{id}\","
               "status=\"404\",throwable=\"n/a\"} ") == 1);
  CHECK(sample("ktor_http_server_requests_seconds_max{address=\"127.0.0.1:80\",method=\"GET\",route=\"/a/{id}\","
               "status=\"404\",throwable=\"n/a\"} ") > 0);
}

TEST(active_while_it_runs) {
  setup();
  static const char active[] = "http_server_active_requests{http_request_method=\"PUT\",url_scheme=\"http\"} ";
  HttpTimer timer = http_metrics_begin(STR("PUT"));
  CHECK(sample(active) == 1);
  CHECK(sample("\nktor_http_server_requests_active ") == 1);
  http_metrics_end(&timer, http_metrics_other(), 200);
  CHECK(sample(active) == 0);
  CHECK(sample("\nktor_http_server_requests_active ") == 0);
}

#define CALLED "http_client_request_duration_seconds_count{http_request_method="

TEST(calls_by_peer_and_outcome) {
  setup();
  http_metrics_called(peer, STR("PUT"), E_OK, 200, clock_now_us());
  http_metrics_called(peer, STR("PUT"), E_OK, 409, clock_now_us());
  http_metrics_called(peer, STR("PATCH"), E_OK, 418, clock_now_us());
  http_metrics_called(peer, STR("GET"), E_OK, 206, clock_now_us());
  http_metrics_called(peer, STR("GET"), E_TIMEOUT, 0, clock_now_us());
  http_metrics_called(tls, STR("GET"), E_TOO_LARGE, 0, clock_now_us());
#define PAYMENT ",server_address=\"pay_ment\",server_port=\"8080\",url_scheme=\"http\","
  CHECK(sample(CALLED "\"PUT\"" PAYMENT "http_response_status_code=\"200\"} ") == 1);
  CHECK(sample(CALLED "\"PUT\"" PAYMENT "http_response_status_code=\"409\",error_type=\"409\"} ") == 1);
  CHECK(sample(CALLED "\"_OTHER\"" PAYMENT "http_response_status_code=\"_OTHER\",error_type=\"_OTHER\"} ") == 1);
  CHECK(sample(CALLED "\"GET\"" PAYMENT "http_response_status_code=\"_OTHER\"} ") == 1);
  CHECK(sample(CALLED "\"GET\"" PAYMENT "error_type=\"timeout\"} ") == 1);
  CHECK(sample(CALLED "\"GET\",server_address=\"[::1]\",server_port=\"443\",url_scheme=\"https\","
                      "error_type=\"other\"} ") == 1);
}

/* Each of them as docs/metrics.md lists it, and not as another of its class. */
TEST(a_peers_statuses_are_told_apart) {
  static const int listed[] = {200, 201, 202, 204, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405,
                               408, 409, 410, 413, 415, 422, 424, 425, 429, 431, 500, 501, 502, 503, 504};
  setup();
  for (size_t i = 0; i < sizeof(listed) / sizeof(listed[0]); i++) {
    char one[256], error[32] = "";
    if (listed[i] >= 400)
      snprintf(error, sizeof(error), ",error_type=\"%d\"", listed[i]);
    snprintf(one, sizeof(one), CALLED "\"GET\"" PAYMENT "http_response_status_code=\"%d\"%s} ", listed[i], error);
    http_metrics_called(peer, STR("GET"), E_OK, listed[i], clock_now_us());
    CHECK(sample(one) == 1);
  }
}

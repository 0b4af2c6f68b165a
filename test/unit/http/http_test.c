/* Requests as values: headers, query, percent-decoding, reason phrases. */
#include "http/http.h"

#include "unit/unit.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static Str query(Arena *a, const char *text, Str name) {
  HttpRequest r = {.arena = a, .query = str_from(text)};
  return http_query(&r, name);
}

TEST(headers_are_found_by_name) {
  HttpRequest r = {.headers = {{STR("accept"), STR("*/*")}, {STR("x-empty"), STR("")}}, .header_count = 2};
  CHECK_STR(http_header(&r, STR("accept")), "*/*");
  CHECK_STR(http_header(&r, STR("Accept")), "*/*");
  CHECK_STR(http_header(&r, STR("x-empty")), "");
  CHECK(http_header(&r, STR("accep")).p == NULL);
}

TEST(tokens_of_a_list) {
  CHECK_STR(str_trim(STR(" \t a b \r\n")), "a b");
  CHECK_STR(str_trim(STR(" ")), "");
  CHECK(http_has_token(STR("wait=10, Respond-Async"), STR("respond-async")));
  CHECK(http_has_token(STR("respond-async"), STR("respond-async")));
  CHECK(!http_has_token(STR("no-respond-async,"), STR("respond-async")));
  CHECK(!http_has_token((Str){0}, STR("respond-async")));
}

TEST(query_values) {
  SCOPED_ARENA a = arena_new();
  CHECK_STR(query(a, "page_size=10&page_token=7", STR("page_token")), "7");
  CHECK_STR(query(a, "page_size=10&page_token=7", STR("page_size")), "10");
  CHECK_STR(query(a, "a=1&a=2", STR("a")), "1");
  CHECK_STR(query(a, "a=b=c", STR("a")), "b=c");
  CHECK_STR(query(a, "a=", STR("a")), "");
  CHECK_STR(query(a, "x&a&y", STR("a")), "");
  CHECK(query(a, "ab=1&&=2", STR("a")).p == NULL);
  CHECK(query(a, "", STR("a")).p == NULL);
  CHECK(query(a, NULL, STR("a")).p == NULL);
}

TEST(query_is_decoded) {
  SCOPED_ARENA a = arena_new();
  CHECK_STR(query(a, "state=a%20b+c%2Bd", STR("state")), "a b c+d");
  CHECK_STR(query(a, "%73tate=x", STR("state")), "x");
  CHECK_STR(query(a, "state=%C3%84", STR("state")), "\xc3\x84");
  CHECK_STR(query(a, "state=50%", STR("state")), "50%");
  CHECK_STR(query(a, "%zz=1&state=2", STR("state")), "2");
}

TEST(percent_decoding) {
  SCOPED_ARENA a = arena_new();
  Str out;
  CHECK_INT(http_percent_decode(a, STR("a%2Fb%2fc+d"), &out), 0);
  CHECK_STR(out, "a/b/c+d");
  CHECK_INT(http_percent_decode(a, STR(""), &out), 0);
  CHECK_STR(out, "");
}

TEST(bad_percent_encoding_is_refused_and_changes_nothing) {
  SCOPED_ARENA a = arena_new();
  static const char *const bad[] = {"%", "%2", "a%", "%g0", "%0g", "%-1", "%00", "%FF", "%ED%A0%80", "a\xff"};
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    Str out = STR("as before");
    CHECK_INT(http_percent_decode(a, str_from(bad[i]), &out), E_MALFORMED);
    CHECK_STR(out, "as before");
  }
}

TEST(only_2xx_is_done_and_only_a_final_4xx_refused) {
  for (int status = -1; status <= 1000; status++) {
    HttpOutcome want = HTTP_UNKNOWN;
    if (status / 100 == 2)
      want = HTTP_DONE;
    else if (status / 100 == 4 && status != 408 && status != 425 && status != 429)
      want = HTTP_REFUSED;
    CHECK_INT(http_outcome(status), want);
  }
}

static int64_t deadline(const char *header) {
  HttpRequest r = {.headers = {{STR("x-request-timeout-ms"), str_from(header)}}, .header_count = 1};
  return http_deadline(&r, 1000000, 15000000);
}

TEST(a_caller_shortens_the_deadline_and_never_extends_it) {
  HttpRequest without = {0};
  CHECK_INT(http_deadline(&without, 1000000, 15000000), 16000000);
  CHECK_INT(deadline("250"), 1250000);
  CHECK_INT(deadline("0"), 1000000);
  CHECK_INT(deadline("15000"), 16000000);
  CHECK_INT(deadline("15001"), 16000000);
  CHECK_INT(deadline("9223372036854775807"), 16000000);
}

TEST(a_timeout_that_is_no_number_is_ignored) {
  static const char *const bad[] = {"", "-1", "1.5", "2s", " 250", "99999999999999999999", "1,2"};
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
    CHECK_INT(deadline(bad[i]), 16000000);
}

/* A caller reads our own errors by their status: what may have been done must not look like a refusal. */
TEST(errors_that_leave_it_open_are_no_refusals) {
  static const int open[] = {E_BUSY, E_UNAVAILABLE, E_UNKNOWN, E_TIMEOUT, E_CANCELED, E_FENCED, E_SYSTEM, E_INTERNAL};
  for (size_t i = 0; i < sizeof(open) / sizeof(open[0]); i++)
    CHECK_INT(http_outcome(err_info(open[i])->status), HTTP_UNKNOWN);
  static const int final[] = {E_MALFORMED, E_FIELD, E_NOT_FOUND, E_CONFLICT, E_REFUSED, E_KEY_REUSED, E_RANGE};
  for (size_t i = 0; i < sizeof(final) / sizeof(final[0]); i++)
    CHECK_INT(http_outcome(err_info(final[i])->status), HTTP_REFUSED);
}

TEST(reasons) {
  CHECK_STR(http_reason(200), "OK");
  CHECK_STR(http_reason(424), "Failed Dependency");
  CHECK_STR(http_reason(505), "HTTP Version Not Supported");
  CHECK_STR(http_reason(299), "");
}

TEST(eight_reply_headers_and_no_more) {
  HttpReply reply = {0};
  for (int i = 0; i < 8; i++)
    http_reply_header(&reply, STR("link"), STR("x"));
  CHECK_INT(reply.header_count, 8);
  pid_t child = fork();
  if (child == 0) {
    http_reply_header(&reply, STR("link"), STR("x"));
    _exit(0);
  }
  int status = 0;
  CHECK_INT(waitpid(child, &status, 0), child);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

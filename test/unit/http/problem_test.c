/* Problems out, and what their readers take from them. */
#include "http/problem.h"

#include "unit/unit.h"

static void check_body(const Problem *problem, const char *body) {
  SCOPED_ARENA a = arena_new();
  HttpReply reply;
  problem_reply(a, problem, &reply);
  CHECK_STR(reply.body, body);
  CHECK_INT(reply.status, err_info(problem->code)->status);
  CHECK_STR(reply.content_type, "application/problem+json");
}

TEST(members_of_a_problem) {
  check_body(&(Problem){.code = E_NOT_FOUND},
             "{\"type\":\"urn:skald:problem:not-found\",\"title\":\"There is no such object.\",\"status\":404}");
  check_body(&(Problem){.code = E_FIELD, .detail = STR("a \"b\""), .pointer = STR("/a~1b"), .title = STR("t")},
             "{\"type\":\"urn:skald:problem:invalid-field\",\"title\":\"t\",\"status\":422,"
             "\"detail\":\"a \\\"b\\\"\",\"pointer\":\"/a~1b\"}");
  check_body(&(Problem){.code = E_FIELD, .pointer = STR(""), .title = STR("t")}, /* the whole body */
             "{\"type\":\"urn:skald:problem:invalid-field\",\"title\":\"t\",\"status\":422,\"pointer\":\"\"}");
}

TEST(a_status_of_its_own_takes_the_place_of_the_number) {
  check_body(&(Problem){.code = E_DEPENDENCY, .title = STR("t"), .members = STR("\"status\":\"failed\",\"step\":1")},
             "{\"type\":\"urn:skald:problem:rolled-back\",\"title\":\"t\",\"status\":\"failed\",\"step\":1}");
}

TEST(only_what_can_be_retried_says_when) {
  SCOPED_ARENA a = arena_new();
  for (int code = E_INTERNAL; code < 0; code++) {
    HttpReply reply;
    problem_reply(a, &(Problem){.code = code}, &reply);
    CHECK_INT(reply.header_count, err_info(code)->retry);
  }
}

TEST(the_text_of_a_problem_is_its_detail_or_title) {
  SCOPED_ARENA a = arena_new();
  CHECK_STR(problem_text(a, STR("{\"title\":\"t\",\"detail\":\"d\"}")), "d");
  CHECK_STR(problem_text(a, STR("{\"title\":\"t\",\"detail\":5}")), "t");
  CHECK_STR(problem_text(a, STR("{\"x\":1}")), "{\"x\":1}");
  CHECK_STR(problem_text(a, STR("<html>")), "<html>");
  CHECK_STR(problem_text(a, STR("\xff")), "a response that is not text");
}

TEST(a_long_text_is_cut_between_characters) {
  SCOPED_ARENA a = arena_new();
  Buf b = {.arena = a};
  for (int i = 0; i < 200; i++)
    buf_str(&b, STR("\xd0\xb6"));
  buf_char(&b, '!');
  Str text = problem_text(a, buf_view(&b));
  CHECK(text.n >= 298 && text.n <= 300 && str_is_utf8(text));
}

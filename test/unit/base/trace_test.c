/* traceparent, strictly by the W3C recommendation "Trace Context", level 1. */
#include "base/trace.h"

#include "unit/unit.h"

#include <stdio.h>
#include <string.h>

#define TRACE "4bf92f3577b34da6a3ce929d0e0e4736"
#define SPAN  "00f067aa0ba902b7"

static void check_taken(const char *text, int flags) {
  Trace trace = {0};
  CHECK_INT(trace_parse(str_from(text), &trace), E_OK);
  CHECK_STR(trace.trace_id, TRACE);
  CHECK_STR(trace.span_id, SPAN);
  CHECK_INT(trace.flags, flags);
}

static void check_refused(Str text) {
  Trace trace = {.trace_id = "untouched"};
  if (!CHECK_INT(trace_parse(text, &trace), E_MALFORMED))
    fprintf(stderr, "# taken: %.*s\n", STR_FMT(text));
  CHECK_STR(trace.trace_id, "untouched");
}

TEST(version_00_and_back) {
  check_taken("00-" TRACE "-" SPAN "-01", 1);
  check_taken("00-" TRACE "-" SPAN "-00", 0);
  Trace trace = {.trace_id = TRACE, .span_id = SPAN, .flags = 1};
  char text[TRACEPARENT_TEXT];
  trace_format(&trace, text);
  CHECK_STR(text, "00-" TRACE "-" SPAN "-01");
  trace.flags = 0;
  trace_format(&trace, text);
  CHECK_STR(text, "00-" TRACE "-" SPAN "-00");
}

/* Flags that this level does not know are not passed on. */
TEST(only_the_sampled_flag_is_kept) {
  check_taken("00-" TRACE "-" SPAN "-ff", 1);
  check_taken("00-" TRACE "-" SPAN "-02", 0);
}

TEST(a_later_version_may_be_longer) {
  check_taken("01-" TRACE "-" SPAN "-01", 1);
  check_taken("cc-" TRACE "-" SPAN "-01-what-the-future-will-be-like", 1);
  check_taken("01-" TRACE "-" SPAN "-01-", 1);
  check_refused(STR("01-" TRACE "-" SPAN "-01x"));
  check_refused(STR("01-" TRACE "-" SPAN "-01.what"));
}

TEST(what_is_not_a_traceparent) {
  static const char *const bad[] = {
      "",
      "00",
      "00-" TRACE "-" SPAN,
      "00-" TRACE "-" SPAN "-",
      "00-" TRACE "-" SPAN "-0",
      "00-" TRACE "-" SPAN "-01-",
      "00-" TRACE "-" SPAN "-011",
      "00-" TRACE "-" SPAN "-0g",
      "00-" TRACE "-" SPAN "-0A",
      "00-" TRACE "_" SPAN "-01",
      "00_" TRACE "-" SPAN "-01",
      "00-" TRACE "-" SPAN "_01",
      "ff-" TRACE "-" SPAN "-01",
      "0-0" TRACE "-" SPAN "-01",
      "0x-" TRACE "-" SPAN "-01",
      "00-00000000000000000000000000000000-" SPAN "-01",
      "00-" TRACE "-0000000000000000-01",
      "00-4BF92F3577B34DA6A3CE929D0E0E4736-" SPAN "-01",
      "00-" TRACE "-00F067AA0BA902B7-01",
      "00-4bf92f3577b34da6a3ce929d0e0e473-" SPAN "-011",
      "00-4bf92f3577b34da6a3ce929d0e0e473 -" SPAN "-01",
      " 00-" TRACE "-" SPAN "-01",
      "00-" TRACE "-" SPAN "-01 ",
      TRACE,
  };
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
    check_refused(str_from(bad[i]));
  check_refused((Str){0});
}

/* No byte of it may be any other. */
TEST(every_byte_counts) {
  const char good[] = "00-" TRACE "-" SPAN "-01";
  static const char never[] = {'\0', ' ', '/', ':', '`', 'g', 'F', '\x7f', '\x80', '\xff'};
  for (size_t i = 0; i < sizeof(good) - 1; i++)
    for (size_t k = 0; k < sizeof(never); k++) {
      char text[sizeof(good)];
      memcpy(text, good, sizeof(good));
      text[i] = never[k];
      check_refused((Str){text, sizeof(text) - 1});
    }
  for (size_t n = 0; n < sizeof(good) - 1; n++)
    check_refused((Str){good, n});
}

TEST(tracestates_to_be_passed_on) {
  static const char *const good[] = {"congo=t61rcWkgMzE",
                                     "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
                                     "a=1 ,\tb_-*/9= x!~<>\"",
                                     "0tenant@system=1",
                                     ",,a=1,,",
                                     "a@b-c/9=@ @"};
  for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
    if (!CHECK(tracestate_valid(str_from(good[i]))))
      fprintf(stderr, "# refused: %s\n", good[i]);
  static const char *const bad[] = {
      "",      ",",      " ",       "a",      "a=",     "=1",         "a =1",
      "A=1",   "1=1",    "a=1,a=2", "a=\x01", "a=\x7f", "a=\xc3\xa4", "a=1,b",
      "a=1=",  "a= ",    "@b=1",    "a@=1",   "a@1=1",  "a@b@c=1",    "a@abcdefghijklmno=1",
      "a.b=1", "a\tb=1",
  };
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
    if (!CHECK(!tracestate_valid(str_from(bad[i]))))
      fprintf(stderr, "# taken: %s\n", bad[i]);
  CHECK(!tracestate_valid((Str){0}));
  CHECK(!tracestate_valid(STR("a\0b=1")));
}

/* members: so many of one letter and one digit, the last value longer so that all come to size bytes */
static bool takes_tracestate(int members, size_t size) {
  char text[600];
  size_t n = 0;
  for (int i = 0; i < members; i++)
    n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%c%d=1", i ? "," : "", 'a' + i / 10, i % 10);
  for (int i = 0; n < size; i++)
    n += (size_t)snprintf(text + n, sizeof(text) - n, i % 200 ? "2" : ",y%d=", i);
  return tracestate_valid((Str){text, n});
}

TEST(tracestates_are_bounded) {
  CHECK(takes_tracestate(32, 0));
  CHECK(!takes_tracestate(33, 0));
  CHECK(takes_tracestate(1, 512));
  CHECK(!takes_tracestate(1, 513));
}

TEST(ids_from_random_bytes) {
  const uint8_t bytes[16] = {0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6,
                             0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36};
  const uint8_t zeros[16] = {0};
  char trace_id[TRACE_ID_TEXT], span_id[SPAN_ID_TEXT];
  trace_id_from(bytes, trace_id);
  span_id_from(bytes, span_id);
  CHECK_STR(trace_id, TRACE);
  CHECK_STR(span_id, "4bf92f3577b34da6");
  trace_id_from(zeros, trace_id);
  span_id_from(zeros, span_id);
  CHECK(trace_id_valid(str_from(trace_id)));
  CHECK_STR(span_id, "0000000000000001");
}

TEST(a_stored_trace_id_is_checked) {
  CHECK(trace_id_valid(STR(TRACE)));
  CHECK(!trace_id_valid(STR("4bf92f3577b34da6a3ce929d0e0e473")));
  CHECK(!trace_id_valid(STR("4bf92f3577b34da6a3ce929d0e0e47366")));
  CHECK(!trace_id_valid(STR("00000000000000000000000000000000")));
  CHECK(!trace_id_valid(STR("4BF92F3577B34DA6A3CE929D0E0E4736")));
  CHECK(!trace_id_valid((Str){0}));
}

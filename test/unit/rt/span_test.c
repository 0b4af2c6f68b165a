/* The current fiber's place in its trace. */
#include "rt/span.h"

#include "rt/fiber.h"
#include "unit/unit.h"

#define TRACE "4bf92f3577b34da6a3ce929d0e0e4736"
#define SPAN  "00f067aa0ba902b7"

static void begin(void) {
  *fiber_context() = (FiberContext){0};
}

static bool is_fresh(void) {
  const Trace *t = &fiber_context()->trace;
  return trace_id_valid(str_from(t->trace_id)) && !str_eq(str_from(t->trace_id), STR(TRACE)) &&
         str_from(t->span_id).n == 16;
}

TEST(a_received_trace_goes_on_under_a_span_of_its_own) {
  char text[TRACEPARENT_TEXT];
  begin();
  CHECK(!span_traceparent(text));
  span_receive(STR("00-" TRACE "-" SPAN "-01"));
  CHECK_STR(fiber_context()->trace.trace_id, TRACE);
  CHECK(!str_eq(str_from(fiber_context()->trace.span_id), STR(SPAN)));
  CHECK(span_traceparent(text));
  Trace passed;
  CHECK_INT(trace_parse(str_from(text), &passed), E_OK);
  CHECK_STR(passed.trace_id, TRACE);
  CHECK_STR(passed.span_id, fiber_context()->trace.span_id);
  CHECK_INT(passed.flags, TRACE_SAMPLED);
}

TEST(without_one_a_trace_begins) {
  begin();
  span_receive(STR("00-" TRACE "-" SPAN));
  CHECK(is_fresh());
  CHECK_INT(fiber_context()->trace.flags, 0);
}

TEST(two_headers_count_as_none) {
  HttpRequest request = {.header_count = 1};
  request.headers[0] = (HttpHeader){STR("traceparent"), STR("00-" TRACE "-" SPAN "-01")};
  begin();
  span_receive_request(&request);
  CHECK_STR(fiber_context()->trace.trace_id, TRACE);
  request.headers[request.header_count++] = request.headers[0];
  span_receive_request(&request);
  CHECK(is_fresh());
}

TEST(a_stored_trace_is_resumed) {
  begin();
  span_resume(STR(TRACE));
  CHECK_STR(fiber_context()->trace.trace_id, TRACE);
  span_resume(STR("something else"));
  CHECK(is_fresh());
}

TEST(a_component_gets_a_span_of_the_trace_there_is) {
  begin();
  span_begin("order");
  CHECK(is_fresh());
  CHECK_STR(fiber_context()->component, "order");
  span_resume(STR(TRACE));
  Trace outer = fiber_context()->trace;
  span_begin("payment");
  CHECK_STR(fiber_context()->trace.trace_id, TRACE);
  CHECK(!str_eq(str_from(outer.span_id), str_from(fiber_context()->trace.span_id)));
  begin();
}

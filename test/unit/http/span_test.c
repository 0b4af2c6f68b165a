/* The current fiber's place in its trace. */
#include "http/span.h"

#include "rt/fiber.h"
#include "unit/unit.h"

#include <string.h>

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

static Str receive_with(Str traceparent, Str first, Str second) {
  HttpRequest request = {.header_count = 3};
  request.headers[0] = (HttpHeader){STR("tracestate"), first};
  request.headers[1] = (HttpHeader){STR("traceparent"), traceparent};
  request.headers[2] = (HttpHeader){STR("tracestate"), second};
  request.header_count -= !second.p;
  span_receive_request(&request);
  return span_tracestate();
}

TEST(tracestate_comes_with_its_traceparent) {
  static const Str parent = STR("00-" TRACE "-" SPAN "-01");
  char most[TRACESTATE_TEXT] = "";
  memset(most, 'x', sizeof(most) - 1);
  most[1] = most[258] = '=';
  most[256] = ',';
  begin();
  CHECK_STR(receive_with(parent, STR("congo=t61 , rojo=0"), (Str){0}), "congo=t61 , rojo=0");
  span_begin("payment");
  CHECK_STR(span_tracestate(), "congo=t61 , rojo=0");
  CHECK_STR(receive_with(parent, STR("congo=t61"), STR("rojo=0")), "congo=t61,rojo=0");
  CHECK_STR(receive_with(parent, str_from(most), (Str){0}), "");
  most[257] = 'y';
  CHECK_STR(receive_with(parent, str_from(most), (Str){0}), str_from(most));
  CHECK_STR(receive_with(parent, str_from(most), STR("a=1")), "");
  CHECK_STR(receive_with(parent, STR("congo=t61"), STR("Rojo=0")), "");
  CHECK_STR(receive_with(STR("00-" TRACE), STR("congo=t61"), (Str){0}), "");
  CHECK_STR(receive_with(parent, STR("congo=t61"), (Str){0}), "congo=t61");
  span_receive(parent);
  CHECK_STR(span_tracestate(), "");
  CHECK_STR(receive_with(parent, STR("congo=t61"), (Str){0}), "congo=t61");
  span_resume(STR(TRACE));
  CHECK_STR(span_tracestate(), "");
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

/* The current fiber's place in its trace. */
#include "rt/span.h"

#include "rt/fiber.h"
#include "rt/random.h"

#include <string.h>

static void new_trace(Trace *trace) {
  uint8_t random[16];
  random_bytes(random, sizeof(random));
  *trace = (Trace){0};
  trace_id_from(random, trace->trace_id);
}

static void new_span(Trace *trace) {
  uint8_t random[8];
  random_bytes(random, sizeof(random));
  span_id_from(random, trace->span_id);
}

void span_receive(Str traceparent) {
  Trace *trace = &fiber_context()->trace;
  if (trace_parse(traceparent, trace) < 0)
    new_trace(trace);
  new_span(trace);
}

void span_receive_request(const HttpRequest *request) {
  Str found = {0};
  int count = 0;
  for (int i = 0; i < request->header_count; i++)
    if (str_eq(request->headers[i].name, STR("traceparent"))) {
      found = request->headers[i].value;
      count++;
    }
  span_receive(count == 1 ? found : (Str){0});
}

void span_resume(Str trace_id) {
  Trace *trace = &fiber_context()->trace;
  new_trace(trace);
  if (trace_id_valid(trace_id))
    memcpy(trace->trace_id, trace_id.p, trace_id.n);
  new_span(trace);
}

void span_begin(const char *component) {
  FiberContext *context = fiber_context();
  context->component = component;
  if (!context->trace.trace_id[0])
    new_trace(&context->trace);
  new_span(&context->trace);
}

bool span_traceparent(char out[TRACEPARENT_TEXT]) {
  const Trace *trace = &fiber_context()->trace;
  if (!trace->trace_id[0])
    return false;
  trace_format(trace, out);
  return true;
}

/* The current fiber's place in its trace. */
#include "http/span.h"

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

/* Whether the trace is that of the caller. */
static bool receive(Str traceparent) {
  FiberContext *context = fiber_context();
  bool is_callers = trace_parse(traceparent, &context->trace) == E_OK;
  if (!is_callers)
    new_trace(&context->trace);
  new_span(&context->trace);
  context->tracestate[0] = '\0';
  return is_callers;
}

void span_receive(Str traceparent) {
  (void)receive(traceparent);
}

/* Several headers are one list, cut up (RFC 9110 §5.3). */
static void receive_state(const HttpRequest *request) {
  char text[TRACESTATE_TEXT];
  size_t n = 0;
  for (int i = 0; i < request->header_count; i++) {
    Str value = request->headers[i].value;
    if (!str_eq(request->headers[i].name, STR("tracestate")))
      continue;
    if (n + (n > 0) + value.n >= sizeof(text))
      return;
    if (n > 0)
      text[n++] = ',';
    memcpy(text + n, value.p, value.n);
    n += value.n;
  }
  if (!tracestate_valid((Str){text, n}))
    return;
  char *out = fiber_context()->tracestate;
  memcpy(out, text, n);
  out[n] = '\0';
}

void span_receive_request(const HttpRequest *request) {
  Str found = {0};
  int count = 0;
  for (int i = 0; i < request->header_count; i++)
    if (str_eq(request->headers[i].name, STR("traceparent"))) {
      found = request->headers[i].value;
      count++;
    }
  if (receive(count == 1 ? found : (Str){0}))
    receive_state(request);
}

void span_resume(Str trace_id) {
  Trace *trace = &fiber_context()->trace;
  new_trace(trace);
  fiber_context()->tracestate[0] = '\0';
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

Str span_tracestate(void) {
  return str_from(fiber_context()->tracestate);
}

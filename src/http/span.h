/* Spans: the share of a trace that one service does. The current fiber's context holds trace and span; the log writes
 * them on every line, and calls pass them on. Nothing is exported: a span's begin, end and parent would be known here.
 */
#ifndef SKALD_HTTP_SPAN_H
#define SKALD_HTTP_SPAN_H

#include "base/trace.h"
#include "http/http.h"

/* The fiber's work belongs to this trace from now on, or to a new one when traceparent is absent or none. */
void span_receive(Str traceparent);
/* The same for what came over HTTP: two headers count as none. With a traceparent comes its tracestate, unless that is
 * malformed or longer than 512 bytes. */
void span_receive_request(const HttpRequest *request);
/* Goes on with a trace known by its id alone; an invalid one begins a new trace. */
void span_resume(Str trace_id);
/* The fiber's work becomes this component's, under a new span of its trace. */
void span_begin(const char *component);
/* The header for the next service; false: the fiber has no trace. */
bool span_traceparent(char out[TRACEPARENT_TEXT]);
Str span_tracestate(void); /* and with it this, as it came; empty: nothing */

#endif

/* Trace: which distributed trace a piece of work belongs to, as the header traceparent says it, and what others have to
 * say of that in tracestate (W3C Trace Context, level 1). An id is kept as text, since logs, rows and headers all want
 * that. */
#ifndef SKALD_BASE_TRACE_H
#define SKALD_BASE_TRACE_H

#include "base/err.h"
#include "base/str.h"

#define TRACE_ID_TEXT    33 /* with the zero behind it, as the next two */
#define SPAN_ID_TEXT     17
#define TRACEPARENT_TEXT 56
#define TRACESTATE_TEXT  513 /* the 512 bytes that every hop should pass on at least (§3.3.1.5) */

typedef struct Trace {
  char trace_id[TRACE_ID_TEXT]; /* "" : none */
  char span_id[SPAN_ID_TEXT];   /* of the work in hand; from a header the caller's, which is ours to be the child of */
  uint8_t flags;                /* bit 0: sampled */
} Trace;

#define TRACE_SAMPLED 1

/* Takes version 00 exactly, and of a later version what it has in common with it. E_MALFORMED: *ret is unchanged, and
 * the work begins a trace of its own. */
MUST_CHECK int trace_parse(Str traceparent, Trace *ret);
/* Version 00. Needs both ids. */
void trace_format(const Trace *trace, char out[TRACEPARENT_TEXT]);
/* A tracestate to be passed on as it is: at most 32 members (§3.3.1), no key twice, no longer than we keep. */
bool tracestate_valid(Str tracestate);
bool trace_id_valid(Str id); /* 32 lower-case hexadecimal digits, not all of them 0 */
/* From random bytes; all zero, which is no id, becomes another one. */
void trace_id_from(const uint8_t random[16], char out[TRACE_ID_TEXT]);
void span_id_from(const uint8_t random[8], char out[SPAN_ID_TEXT]);

#endif

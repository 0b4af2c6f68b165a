/* The Fluent forward protocol, version 1: messages as bytes. A chunk is one message in PackedForward mode, which asks
 * for an acknowledgement by the chunk's id. */
#ifndef SKALD_LOG_FLUENT_H
#define SKALD_LOG_FLUENT_H

#include "log/record.h"

/* One entry, to be put behind those before it: the time, and a record as logback's appender for Fluentd makes it: the
 * JSON line as message, with logger, thread and level. */
void fluent_entry(Buf *out, const LogRecord *record, Str json);
/* What stands before and behind the entries of a chunk. size: their bytes. */
void fluent_head(Buf *out, Str tag, size_t size);
void fluent_tail(Buf *out, int entries, Str id);
/* 1: it acknowledges id. 0: there must be more to come. E_MALFORMED: anything else. */
MUST_CHECK int fluent_ack(Str response, Str id);

#endif

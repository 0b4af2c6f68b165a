/* Debezium's change event envelope as JSON, read back. */
#ifndef SKALD_CDC_ENVELOPE_H
#define SKALD_CDC_ENVELOPE_H

#include "json/json.h"

typedef struct Envelope {
  char op;                         /* c u d r t m; 0: nothing changed, a tombstone or a heartbeat */
  Str schema, table;               /* absent when the source does not say */
  int64_t lsn;                     /* 0: not said */
  int64_t tx_id;                   /* 0: not said */
  int64_t commit_us;               /* since 1970; 0: not said */
  const JsonValue *before, *after; /* objects, or NULL */
} Envelope;

/* Takes the value with and without its schema, of every Debezium version since 2.3; an absent value is a tombstone.
 * The result points into the arena. E_MALFORMED: not JSON, or not an envelope.
 * schema: NULL, or what the last such call left there, at first an empty Buf: the bytes in front of its payload. Nearly
 * all of a topic's records begin with the same, mostly ten times as long as the payload, which are then not parsed
 * again. */
MUST_CHECK int envelope_parse(Arena *arena, Str value, Buf *schema, Envelope *ret);

#endif

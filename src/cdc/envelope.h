/* Debezium's change event envelope as JSON: built from a decoded row, and read back. */
#ifndef SKALD_CDC_ENVELOPE_H
#define SKALD_CDC_ENVELOPE_H

#include "cdc/pgoutput.h"
#include "rt/json.h"

/* The source block: where a change stands. */
typedef struct EnvelopeSource {
  Str version; /* of the connector that reads */
  Str name;    /* topic prefix */
  Str database;
  uint64_t lsn;             /* of the change */
  uint64_t last_commit_lsn; /* end of the transaction before it; 0: not known yet */
  int64_t commit_us;        /* since 1970 */
  uint32_t xid;
  Str origin; /* absent: a change made here */
  uint64_t origin_lsn;
} EnvelopeSource;

/* Writes the value payload without schema, in the field order of Debezium 3.5. before and after may be NULL; op is one
 * of c u d t. Columns are written by their type: numbers as numbers with PostgreSQL's own digits, so that numeric stays
 * exact; uuid, json, enum and all types without a form of their own as text; date, time and timestamp as days and
 * (milli- or) microseconds, timestamptz as ISO-8601 in UTC, bytea as base64. */
void envelope_build(Buf *out, const EnvelopeSource *source, const PgoRelation *relation, char op,
                    const PgoTuple *before, const PgoTuple *after, int64_t now_us);

typedef struct Envelope {
  char op;                         /* c u d r t m; 0: nothing changed, a tombstone or a heartbeat */
  Str schema, table;               /* absent when the source does not say */
  int64_t lsn;                     /* 0: not said */
  int64_t tx_id;                   /* 0: not said */
  int64_t commit_us;               /* since 1970; 0: not said */
  const JsonValue *before, *after; /* objects, or NULL */
} Envelope;

/* Takes the value with and without its schema, of every Debezium version since 2.3; an absent value is a tombstone.
 * The result points into the arena. E_MALFORMED: not JSON, or not an envelope. */
MUST_CHECK int envelope_parse(Arena *arena, Str value, Envelope *ret);

#endif

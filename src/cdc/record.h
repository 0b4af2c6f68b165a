/* Records: a changed row as the key and the value that Debezium's PostgreSQL connector would put into Kafka. What does
 * not change from row to row, schemas above all, is made once for each version of a table. */
#ifndef SKALD_CDC_RECORD_H
#define SKALD_CDC_RECORD_H

#include "cdc/column.h"

typedef struct RecordStyle {
  Str prefix; /* of topics; the connector's logical name */
  Decimals decimals;
  bool schemas;     /* each key and value carries its schema */
  Str trace_column; /* it becomes a header and is in no value; absent: none */
  Str key_columns;  /* Debezium's message.key.columns, with names for patterns: schema.table:column,…;… */
} RecordStyle;

/* The source block: where a change stands. */
typedef struct RecordSource {
  Str database;
  uint64_t lsn;             /* of the change */
  uint64_t last_commit_lsn; /* end of the transaction before it; 0: not known yet */
  int64_t commit_us;        /* since 1970 */
  uint32_t xid;
  Str origin; /* absent: a change made here */
  uint64_t origin_lsn;
} RecordSource;

/* What the stream does not say about a table. */
typedef struct RecordFacts {
  const Str *key; /* primary key, in its order */
  int key_count;
  const ColumnFacts *columns; /* one for each of the relation's, in their order; NULL: all optional, no defaults */
} RecordFacts;

typedef struct RecordTable RecordTable;

/* Lives in the arena, which must not be reset before it. E_FIELD: a column's type is not known, or key_columns names
 * one that is not there; the reason in *error. */
MUST_CHECK int record_table_new(Arena *arena, const RecordStyle *style, const PgoRelation *relation,
                                const RecordFacts *facts, RecordTable **ret, Str *error);
Str record_topic(const RecordTable *table); /* zero-terminated */
/* What stands in the row's trace column; absent: nothing. */
Str record_trace(const RecordTable *table, const PgoTuple *row);
bool record_has_key(const RecordTable *table); /* without one keys are null */

/* The key of a row, and what a header says of it. E_RANGE: as record_value. */
MUST_CHECK int record_key(Buf *out, const RecordTable *table, const PgoTuple *row);
MUST_CHECK int record_key_header(Buf *out, const RecordTable *table, const PgoTuple *row);
/* The value of a change, in the field order of Debezium 3.5; op is one of c u d t. Either row may be NULL; a create
 * does not show before, nor a delete after. An unchanged value that was not sent is taken from before. out is empty or
 * holds an earlier value of the same table, which this one takes the place of: the schema, most of it, stays. E_RANGE:
 * a value that has no form in JSON; *ret_column tells whose, and out is empty. */
MUST_CHECK int record_value(Buf *out, const RecordTable *table, const RecordSource *source, char op,
                            const PgoTuple *before, const PgoTuple *after, int64_t now_ns, Str *ret_column);

/* A heartbeat's topic, key and value. */
Str record_heartbeat_topic(Arena *arena, const RecordStyle *style);
void record_heartbeat(Buf *key, Buf *value, const RecordStyle *style, int64_t now_ms);

#endif

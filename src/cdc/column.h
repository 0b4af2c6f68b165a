/* Columns: how each of PostgreSQL's types becomes a field of Kafka Connect, as Debezium's connector does it with its
 * default settings: schema, value, what NULL and a default become. */
#ifndef SKALD_CDC_COLUMN_H
#define SKALD_CDC_COLUMN_H

#include "base/buf.h"
#include "base/err.h"
#include "cdc/pgoutput.h"

typedef enum Decimals { /* Debezium's decimal.handling.mode, and one of ours */
                        DECIMALS_DOUBLE,
                        DECIMALS_STRING,
                        DECIMALS_PRECISE,
                        DECIMALS_EXACT, /* JSON numbers of PostgreSQL's own digits, and whatever has no form as text:
                                           refuses nothing */
} Decimals;

/* What the replication stream does not say about a column. */
typedef struct ColumnFacts {
  bool required;      /* NOT NULL */
  Str default_source; /* pg_get_expr of the default; absent: none */
  Str type_name;      /* for people; absent: not known */
} ColumnFacts;

typedef struct Column {
  Str name;
  Str label;  /* "name": */
  Str null;   /* the JSON that stands for NULL */
  Str schema; /* the field's schema, its name included */
  Decimals decimals;
  int32_t modifier;
  const struct ColumnType *type; /* NULL: not known, sent as text */
} Column;

bool column_type_known(uint32_t type, int32_t modifier, Decimals decimals);
/* Everything lives in the arena, except what type and decimals say. A type not known becomes text. */
void column_prepare(Arena *arena, const PgoColumn *column, const ColumnFacts *facts, Decimals decimals, Column *ret);
/* A cell that is not NULL; 'u' becomes Debezium's placeholder. E_RANGE: the value has no form in JSON, or an unchanged
 * one was not sent and its type has no placeholder; nothing was written. Never with DECIMALS_EXACT. */
MUST_CHECK int column_write(Buf *out, const Column *column, const PgoCell *cell);
/* The same as Connect's SimpleHeaderConverter writes it, whose texts have no escapes but for quote and backslash. */
MUST_CHECK int column_write_header(Buf *out, const Column *column, const PgoCell *cell);
/* A JSON string with the bytes that Jackson gives it. */
void column_write_text(Buf *out, Str text);

#endif

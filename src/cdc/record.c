/* Rows to Debezium's records: precomputed text around the values. */
#include "cdc/record.h"

#include <string.h>

#define CONNECTOR_VERSION "1.0.0" /* in every event's source block */

struct RecordTable {
  Str topic;
  int count;
  Column *columns;
  int shown_count;
  int *shown; /* positions in columns of those that values have */
  int trace;  /* position of the trace column; -1: none */
  int key_count;
  int *key;                     /* positions in columns */
  Str key_head, key_tail;       /* around the key's payload */
  Str value_head, value_tail;   /* around the value's payload */
  Str source_head, source_name; /* members that never change */
};

/* Debezium's description of its source block, of transactions and of the envelope's own fields. */
static const char source_schema[] =
    "{\"type\":\"struct\",\"fields\":[{\"type\":\"string\",\"optional\":false,\"field\":\"version\"},"
    "{\"type\":\"string\",\"optional\":false,\"field\":\"connector\"},"
    "{\"type\":\"string\",\"optional\":false,\"field\":\"name\"},"
    "{\"type\":\"int64\",\"optional\":false,\"field\":\"ts_ms\"},"
    "{\"type\":\"string\",\"optional\":true,\"name\":\"io.debezium.data.Enum\",\"version\":1,\"parameters\":{"
    "\"allowed\":"
    "\"true,first,first_in_data_collection,last_in_data_collection,last,false,incremental\"},\"default\":\"false\","
    "\"field\":\"snapshot\"},"
    "{\"type\":\"string\",\"optional\":false,\"field\":\"db\"},"
    "{\"type\":\"string\",\"optional\":true,\"field\":\"sequence\"},"
    "{\"type\":\"int64\",\"optional\":true,\"field\":\"ts_us\"},"
    "{\"type\":\"int64\",\"optional\":true,\"field\":\"ts_ns\"},"
    "{\"type\":\"string\",\"optional\":false,\"field\":\"schema\"},"
    "{\"type\":\"string\",\"optional\":false,\"field\":\"table\"},"
    "{\"type\":\"int64\",\"optional\":true,\"field\":\"txId\"},"
    "{\"type\":\"int64\",\"optional\":true,\"field\":\"lsn\"},"
    "{\"type\":\"int64\",\"optional\":true,\"field\":\"xmin\"},"
    "{\"type\":\"string\",\"optional\":true,\"field\":\"origin\"},"
    "{\"type\":\"int64\",\"optional\":true,\"field\":\"origin_lsn\"}],"
    "\"optional\":false,\"name\":\"io.debezium.connector.postgresql.Source\",\"version\":1,\"field\":\"source\"},"
    "{\"type\":\"struct\",\"fields\":[{\"type\":\"string\",\"optional\":false,\"field\":\"id\"},"
    "{\"type\":\"int64\",\"optional\":false,\"field\":\"total_order\"},"
    "{\"type\":\"int64\",\"optional\":false,\"field\":\"data_collection_order\"}],"
    "\"optional\":true,\"name\":\"event.block\",\"version\":1,\"field\":\"transaction\"},"
    "{\"type\":\"string\",\"optional\":false,\"field\":\"op\"},"
    "{\"type\":\"int64\",\"optional\":true,\"field\":\"ts_ms\"},"
    "{\"type\":\"int64\",\"optional\":true,\"field\":\"ts_us\"},"
    "{\"type\":\"int64\",\"optional\":true,\"field\":\"ts_ns\"}],";

static Str sanitized_topic(Arena *arena, Str name) {
  char *topic = arena_alloc(arena, name.n + 1);
  for (size_t i = 0; i < name.n; i++) {
    char c = name.p[i];
    bool allowed = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || memchr("._-", c, 3);
    topic[i] = allowed ? c : '_';
  }
  return (Str){topic, name.n};
}

static int find_column(const RecordTable *t, Str name) {
  for (int i = 0; i < t->count; i++)
    if (str_eq(t->columns[i].name, name))
      return i;
  return -1;
}

static Str trimmed(Str s) {
  while (s.n > 0 && s.p[0] == ' ')
    s = (Str){s.p + 1, s.n - 1};
  while (s.n > 0 && s.p[s.n - 1] == ' ')
    s.n--;
  return s;
}

/* The columns that message.key.columns names for this table; absent: none. */
static Str chosen_key(Str rules, const PgoRelation *relation) {
  while (rules.p) {
    Str columns = str_cut(&rules, ';');
    Str table = trimmed(str_cut(&columns, ':'));
    Str schema = str_cut(&table, '.');
    if (columns.p && str_eq(schema, relation->schema) && str_eq(table, relation->name))
      return columns;
  }
  return (Str){0};
}

static int add_key_column(RecordTable *t, Str name) {
  int position = find_column(t, name);
  if (position < 0 || t->key_count == t->count)
    return E_FIELD;
  t->key[t->key_count++] = position;
  return E_OK;
}

static int choose_key(Arena *arena, RecordTable *t, Str rules, const PgoRelation *relation, const RecordFacts *facts,
                      Str *error) {
  t->key = ARENA_ARRAY(arena, int, (size_t)t->count + 1);
  Str chosen = chosen_key(rules, relation);
  for (int i = 0; !chosen.p && i < facts->key_count; i++)
    if (find_column(t, facts->key[i]) >= 0) /* else it was not published, or is younger than this change */
      TRY(add_key_column(t, facts->key[i]));
  while (chosen.p) {
    Str name = trimmed(str_cut(&chosen, ','));
    if (add_key_column(t, name) < 0) {
      *error = arena_printf(arena, "the key columns name %.*s twice or table %.*s.%.*s has no such column",
                            STR_FMT(name), STR_FMT(relation->schema), STR_FMT(relation->name));
      return E_FIELD;
    }
  }
  return E_OK;
}

static int prepare_columns(Arena *arena, RecordTable *t, const RecordStyle *style, const PgoRelation *relation,
                           const RecordFacts *facts, Str *error) {
  static const ColumnFacts nothing = {0};
  t->count = relation->count;
  t->columns = ARENA_ARRAY(arena, Column, (size_t)t->count + 1);
  for (int i = 0; i < t->count; i++) {
    const PgoColumn *column = &relation->columns[i];
    const ColumnFacts *known = facts->columns ? &facts->columns[i] : &nothing;
    if (!column_type_known(column->type, column->modifier, style->decimals)) {
      *error = arena_printf(arena, "table %.*s.%.*s, column %.*s: values of type %.*s (oid %u) cannot be sent",
                            STR_FMT(relation->schema), STR_FMT(relation->name), STR_FMT(column->name),
                            STR_FMT(known->type_name), column->type);
      return E_FIELD;
    }
    column_prepare(arena, column, known, style->decimals, &t->columns[i]);
  }
  return E_OK;
}

static void choose_shown(Arena *arena, RecordTable *t, Str trace_column) {
  t->trace = trace_column.p ? find_column(t, trace_column) : -1;
  t->shown = ARENA_ARRAY(arena, int, (size_t)t->count + 1);
  for (int i = 0; i < t->count; i++)
    if (i != t->trace)
      t->shown[t->shown_count++] = i;
}

static void add_fields(Buf *out, const Column *columns, const int *positions, int count) {
  buf_cstr(out, "{\"type\":\"struct\",\"fields\":[");
  for (int i = 0; i < count; i++) {
    if (i > 0)
      buf_char(out, ',');
    buf_str(out, columns[positions[i]].schema);
  }
  buf_cstr(out, "],");
}

static void add_row_schema(Buf *out, const RecordTable *t, const char *field) {
  add_fields(out, t->columns, t->shown, t->shown_count);
  buf_printf(out, "\"optional\":true,\"name\":\"%.*s.Value\",\"field\":\"%s\"},", STR_FMT(t->topic), field);
}

static void add_schemas(Arena *arena, RecordTable *t) {
  Buf key = {.arena = arena}, value = {.arena = arena};
  buf_cstr(&key, "{\"schema\":");
  add_fields(&key, t->columns, t->key, t->key_count);
  buf_printf(&key, "\"optional\":false,\"name\":\"%.*s.Key\"},\"payload\":", STR_FMT(t->topic));
  buf_cstr(&value, "{\"schema\":{\"type\":\"struct\",\"fields\":[");
  add_row_schema(&value, t, "before");
  add_row_schema(&value, t, "after");
  buf_cstr(&value, source_schema);
  buf_printf(&value, "\"optional\":false,\"name\":\"%.*s.Envelope\",\"version\":2},\"payload\":", STR_FMT(t->topic));
  t->key_head = buf_view(&key);
  t->value_head = buf_view(&value);
  t->key_tail = t->value_tail = STR("}");
}

static void add_member(Buf *out, const char *label, Str text) {
  buf_char(out, '"');
  buf_cstr(out, label);
  buf_cstr(out, "\":");
  column_write_text(out, text);
  buf_char(out, ',');
}

static void prepare_source(Arena *arena, RecordTable *t, Str prefix, const PgoRelation *relation) {
  Buf head = {.arena = arena}, name = {.arena = arena};
  buf_cstr(&head, "\"source\":{\"version\":\"" CONNECTOR_VERSION "\",\"connector\":\"postgresql\",");
  add_member(&head, "name", prefix);
  buf_cstr(&head, "\"ts_ms\":");
  add_member(&name, "schema", relation->schema);
  add_member(&name, "table", relation->name);
  t->source_head = buf_view(&head);
  t->source_name = buf_view(&name);
}

int record_table_new(Arena *arena, const RecordStyle *style, const PgoRelation *relation, const RecordFacts *facts,
                     RecordTable **ret, Str *error) {
  RecordTable *t = ARENA_NEW(arena, RecordTable);
  Str name =
      arena_printf(arena, "%.*s.%.*s.%.*s", STR_FMT(style->prefix), STR_FMT(relation->schema), STR_FMT(relation->name));
  t->topic = sanitized_topic(arena, name);
  TRY(prepare_columns(arena, t, style, relation, facts, error));
  TRY(choose_key(arena, t, style->key_columns, relation, facts, error));
  choose_shown(arena, t, style->trace_column);
  prepare_source(arena, t, style->prefix, relation);
  if (style->schemas)
    add_schemas(arena, t);
  *ret = t;
  return E_OK;
}

Str record_topic(const RecordTable *table) {
  return table->topic;
}

bool record_has_key(const RecordTable *table) {
  return table->key_count > 0;
}

Str record_trace(const RecordTable *t, const PgoTuple *row) {
  const PgoCell *cell = t->trace >= 0 && row && t->trace < row->count ? &row->cells[t->trace] : NULL;
  return cell && cell->kind == 't' ? cell->text : (Str){0};
}

typedef int CellWriter(Buf *out, const Column *column, const PgoCell *cell);

static int write_cell(Buf *out, const Column *column, const PgoCell *cell, CellWriter *write) {
  buf_str(out, column->label);
  if (cell && cell->kind != 'n')
    return write(out, column, cell);
  buf_str(out, column->null);
  return E_OK;
}

static const PgoCell *cell_of(const PgoTuple *row, int i) {
  return row && i < row->count ? &row->cells[i] : NULL;
}

/* An unchanged value that was not sent is the old row's, where that has one. */
static const PgoCell *sent_cell(const PgoTuple *row, const PgoTuple *old, int i) {
  const PgoCell *cell = cell_of(row, i), *before = cell_of(old, i);
  return cell && cell->kind == 'u' && before && before->kind == 't' ? before : cell;
}

static int write_row(Buf *out, const RecordTable *t, const char *label, const PgoTuple *row, const PgoTuple *old,
                     Str *ret_column) {
  buf_cstr(out, label);
  if (!row) {
    buf_cstr(out, "null,");
    return E_OK;
  }
  buf_char(out, '{');
  for (int k = 0; k < t->shown_count; k++) {
    int i = t->shown[k];
    if (k > 0)
      buf_char(out, ',');
    int rc = write_cell(out, &t->columns[i], sent_cell(row, old, i), column_write);
    if (rc < 0)
      *ret_column = t->columns[i].name;
    TRY(rc);
  }
  buf_cstr(out, "},");
  return E_OK;
}

static int write_key(Buf *out, const RecordTable *t, const PgoTuple *row, CellWriter *write) {
  for (int i = 0; i < t->key_count; i++) {
    buf_char(out, i > 0 ? ',' : '{');
    TRY(write_cell(out, &t->columns[t->key[i]], cell_of(row, t->key[i]), write));
  }
  buf_char(out, '}');
  return E_OK;
}

int record_key(Buf *out, const RecordTable *t, const PgoTuple *row) {
  size_t before = out->n;
  buf_str(out, t->key_head);
  int rc = write_key(out, t, row, column_write);
  if (rc < 0)
    out->n = before;
  TRY(rc);
  buf_str(out, t->key_tail);
  return E_OK;
}

int record_key_header(Buf *out, const RecordTable *t, const PgoTuple *row) {
  size_t before = out->n;
  int rc = write_key(out, t, row, column_write_header);
  if (rc < 0)
    out->n = before;
  return rc;
}

static void add_times(Buf *out, int64_t ns) {
  buf_cstr(out, "\"ts_us\":");
  buf_int(out, ns / 1000);
  buf_cstr(out, ",\"ts_ns\":");
  buf_int(out, ns);
}

static void add_sequence(Buf *out, const RecordSource *s) {
  buf_cstr(out, "\"sequence\":\"[");
  if (s->last_commit_lsn) {
    buf_cstr(out, "\\\"");
    buf_int(out, (int64_t)s->last_commit_lsn);
    buf_cstr(out, "\\\",\\\"");
  } else {
    buf_cstr(out, "null,\\\"");
  }
  buf_int(out, (int64_t)s->lsn);
  buf_cstr(out, "\\\"]\",");
}

static void add_source(Buf *out, const RecordTable *t, const RecordSource *s) {
  buf_str(out, t->source_head);
  buf_int(out, s->commit_us / 1000);
  buf_cstr(out, ",\"snapshot\":\"false\",");
  add_member(out, "db", s->database);
  add_sequence(out, s);
  add_times(out, s->commit_us * 1000);
  buf_char(out, ',');
  buf_str(out, t->source_name);
  buf_cstr(out, "\"txId\":");
  buf_int(out, s->xid);
  buf_cstr(out, ",\"lsn\":");
  buf_int(out, (int64_t)s->lsn);
  buf_cstr(out, ",\"xmin\":null,");
  add_member(out, "origin", s->origin);
  buf_cstr(out, "\"origin_lsn\":");
  if (s->origin.p)
    buf_int(out, (int64_t)s->origin_lsn);
  else
    buf_cstr(out, "null");
  buf_cstr(out, "},");
}

/* The schema is copied once for many values: from 2 kB on glibc copies by `rep movsb`, which some processors do twenty
 * times slower when the target stands a few bytes behind the source in its page. */
static void begin_value(Buf *out, const RecordTable *t) {
  if (out->n < t->value_head.n) {
    buf_clear(out);
    buf_str(out, t->value_head);
  }
  out->n = t->value_head.n;
}

int record_value(Buf *out, const RecordTable *t, const RecordSource *source, char op, const PgoTuple *before,
                 const PgoTuple *after, int64_t now_ns, Str *ret_column) {
  begin_value(out, t);
  buf_char(out, '{');
  int rc = write_row(out, t, "\"before\":", op == 'c' ? NULL : before, NULL, ret_column);
  if (rc == E_OK)
    rc = write_row(out, t, "\"after\":", op == 'd' ? NULL : after, before, ret_column);
  if (rc < 0) {
    buf_clear(out);
    return rc;
  }
  add_source(out, t, source);
  buf_cstr(out, "\"transaction\":null,\"op\":\"");
  buf_char(out, op);
  buf_cstr(out, "\",\"ts_ms\":");
  buf_int(out, now_ns / 1000000);
  buf_char(out, ',');
  add_times(out, now_ns);
  buf_char(out, '}');
  buf_str(out, t->value_tail);
  return E_OK;
}

Str record_heartbeat_topic(Arena *arena, const RecordStyle *style) {
  return sanitized_topic(arena, arena_printf(arena, "__debezium-heartbeat.%.*s", STR_FMT(style->prefix)));
}

void record_heartbeat(Buf *key, Buf *value, const RecordStyle *style, int64_t now_ms) {
  if (style->schemas) {
    buf_cstr(key, "{\"schema\":{\"type\":\"struct\",\"fields\":[{\"type\":\"string\",\"optional\":false,"
                  "\"field\":\"serverName\"}],\"optional\":false,"
                  "\"name\":\"io.debezium.connector.common.ServerNameKey\",\"version\":1},\"payload\":");
    buf_cstr(value, "{\"schema\":{\"type\":\"struct\",\"fields\":[{\"type\":\"int64\",\"optional\":false,"
                    "\"field\":\"ts_ms\"}],\"optional\":false,"
                    "\"name\":\"io.debezium.connector.common.Heartbeat\",\"version\":1},\"payload\":");
  }
  buf_cstr(key, "{\"serverName\":");
  column_write_text(key, style->prefix);
  buf_cstr(key, style->schemas ? "}}" : "}");
  buf_cstr(value, "{\"ts_ms\":");
  buf_int(value, now_ms);
  buf_cstr(value, style->schemas ? "}}" : "}");
}

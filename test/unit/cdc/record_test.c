/* Whole records, byte by byte as Debezium 3.5 writes them: values and keys with and without schema, heartbeats. */
#include "cdc/envelope.h"
#include "cdc/record.h"
#include "cdc/samples.h"
#include "unit.h"

#define NUMERIC_38_2 (((38 << 16) | 2) + 4)

static PgoColumn history_columns[] = {{STR("id"), 1043, -1, true},
                                      {STR("billing_id"), 1043, -1, false},
                                      {STR("sum"), 1700, NUMERIC_38_2, false},
                                      {STR("last_value_wallet"), 1700, NUMERIC_38_2, false},
                                      {STR("current_value_wallet"), 1700, NUMERIC_38_2, false},
                                      {STR("type_operation"), 1043, -1, false},
                                      {STR("status"), 1043, -1, false}};
enum { COLUMNS = sizeof(history_columns) / sizeof(history_columns[0]) };

static const PgoRelation history = {
    .id = 1, .schema = STR("billing"), .name = STR("history_billings"), .count = COLUMNS, .columns = history_columns};

static PgoCell purchase_cells[COLUMNS] = {{'t', STR(SAMPLE_ID)}, {'t', STR(SAMPLE_ACCOUNT)}, {'t', STR("123.45")},
                                          {'t', STR("1000.00")}, {'t', STR("876.55")},       {'t', STR("BUY")},
                                          {'t', STR("SUCCESS")}};
static const PgoTuple purchase = {COLUMNS, purchase_cells};

static PgoCell old_key_cells[COLUMNS] = {{'t', STR("old")}, {'n', {0}}, {'n', {0}}, {'n', {0}},
                                         {'n', {0}},        {'n', {0}}, {'n', {0}}};
static const PgoTuple old_key = {COLUMNS, old_key_cells};

static const RecordSource source = {.database = STR("billing_db"),
                                    .lsn = 314477488,
                                    .last_commit_lsn = 306218576,
                                    .commit_us = INT64_C(1790710562903499),
                                    .xid = 65249};
#define NOW_NS INT64_C(1790710563391393044)

/* The id is required, as its primary key makes it. */
static RecordTable *table_of(Arena *arena, const char *key_columns, bool schemas) {
  static const Str primary_key[] = {STR("id")};
  static const ColumnFacts columns[COLUMNS] = {{.required = true}};
  RecordStyle style = {.prefix = STR("postgres"), .schemas = schemas, .key_columns = str_from(key_columns)};
  RecordTable *table = NULL;
  Str error = {0};
  CHECK_INT(record_table_new(arena, &style, &history, &(RecordFacts){primary_key, 1, columns}, &table, &error), E_OK);
  return table;
}

static Str value_of(Arena *arena, const RecordTable *table, char op, const PgoTuple *before, const PgoTuple *after) {
  Buf out = {.arena = arena};
  Str column = {0};
  CHECK_INT(record_value(&out, table, &source, op, before, after, NOW_NS, &column), E_OK);
  return buf_view(&out);
}

static Str key_of(Arena *arena, const RecordTable *table, const PgoTuple *row) {
  Buf out = {.arena = arena};
  CHECK_INT(record_key(&out, table, row), E_OK);
  return buf_view(&out);
}

static Str header_of(Arena *arena, const RecordTable *table, const PgoTuple *row) {
  Buf out = {.arena = arena};
  CHECK_INT(record_key_header(&out, table, row), E_OK);
  return buf_view(&out);
}

/* The relay names its own version; everything else is Debezium's. */
#define OURS SAMPLE_NEW("1.0.0", SAMPLE_ORIGIN)

TEST(a_value_without_schema) {
  SCOPED_ARENA arena = arena_new();
  RecordTable *table = table_of(arena, NULL, false);
  CHECK_STR(value_of(arena, table, 'c', NULL, &purchase), OURS);
  CHECK_STR(record_topic(table), "postgres.billing.history_billings");
}

/* clang-format off */
#define MEMBER(type, optional, name) "{\"type\":\"" type "\",\"optional\":" optional ",\"field\":\"" name "\"}"
#define ROW \
  "{\"type\":\"struct\",\"fields\":[" MEMBER("string", "false", "id") "," MEMBER("string", "true", "billing_id") "," \
  MEMBER("double", "true", "sum") "," MEMBER("double", "true", "last_value_wallet") "," \
  MEMBER("double", "true", "current_value_wallet") "," MEMBER("string", "true", "type_operation") "," \
  MEMBER("string", "true", "status") "],\"optional\":true,\"name\":\"postgres.billing.history_billings.Value\","
#define SNAPSHOT \
  "{\"type\":\"string\",\"optional\":true,\"name\":\"io.debezium.data.Enum\",\"version\":1,\"parameters\":" \
  "{\"allowed\":\"true,first,first_in_data_collection,last_in_data_collection,last,false,incremental\"}," \
  "\"default\":\"false\",\"field\":\"snapshot\"}"
#define SOURCE \
  "{\"type\":\"struct\",\"fields\":[" MEMBER("string", "false", "version") "," \
  MEMBER("string", "false", "connector") "," MEMBER("string", "false", "name") "," \
  MEMBER("int64", "false", "ts_ms") "," SNAPSHOT "," MEMBER("string", "false", "db") "," \
  MEMBER("string", "true", "sequence") "," MEMBER("int64", "true", "ts_us") "," MEMBER("int64", "true", "ts_ns") "," \
  MEMBER("string", "false", "schema") "," MEMBER("string", "false", "table") "," MEMBER("int64", "true", "txId") "," \
  MEMBER("int64", "true", "lsn") "," MEMBER("int64", "true", "xmin") "," MEMBER("string", "true", "origin") "," \
  MEMBER("int64", "true", "origin_lsn") "],\"optional\":false," \
  "\"name\":\"io.debezium.connector.postgresql.Source\",\"version\":1,\"field\":\"source\"}"
#define BLOCK \
  "{\"type\":\"struct\",\"fields\":[" MEMBER("string", "false", "id") "," MEMBER("int64", "false", "total_order") "," \
  MEMBER("int64", "false", "data_collection_order") "],\"optional\":true,\"name\":\"event.block\",\"version\":1," \
  "\"field\":\"transaction\"}"
#define ENVELOPE \
  "{\"type\":\"struct\",\"fields\":[" ROW "\"field\":\"before\"}," ROW "\"field\":\"after\"}," SOURCE "," BLOCK "," \
  MEMBER("string", "false", "op") "," MEMBER("int64", "true", "ts_ms") "," MEMBER("int64", "true", "ts_us") "," \
  MEMBER("int64", "true", "ts_ns") "],\"optional\":false," \
  "\"name\":\"postgres.billing.history_billings.Envelope\",\"version\":2}"
/* clang-format on */

TEST(a_value_with_schema) {
  SCOPED_ARENA arena = arena_new();
  CHECK_STR(value_of(arena, table_of(arena, NULL, true), 'c', NULL, &purchase),
            "{\"schema\":" ENVELOPE ",\"payload\":" OURS "}");
}

TEST(keys) {
  SCOPED_ARENA arena = arena_new();
  RecordTable *plain = table_of(arena, NULL, false), *schema = table_of(arena, NULL, true);
  CHECK_STR(key_of(arena, plain, &purchase), "{\"id\":\"" SAMPLE_ID "\"}");
  CHECK_STR(header_of(arena, schema, &purchase), "{\"id\":\"" SAMPLE_ID "\"}");
  CHECK_STR(key_of(arena, schema, &purchase),
            "{\"schema\":{\"type\":\"struct\",\"fields\":[" MEMBER(
                "string", "false",
                "id") "],\"optional\":false,"
                      "\"name\":\"postgres.billing.history_billings.Key\"},\"payload\":{\"id\":\"" SAMPLE_ID "\"}}");
}

TEST(keys_of_chosen_columns) {
  SCOPED_ARENA arena = arena_new();
  RecordTable *account = table_of(arena, "s.other:x; billing.history_billings:billing_id", false);
  CHECK_STR(key_of(arena, account, &purchase), "{\"billing_id\":\"" SAMPLE_ACCOUNT "\"}");
  CHECK_STR(key_of(arena, account, &old_key), "{\"billing_id\":null}");
  RecordTable *two = table_of(arena, "billing.history_billings:status, id", false);
  CHECK_STR(key_of(arena, two, &purchase), "{\"status\":\"SUCCESS\",\"id\":\"" SAMPLE_ID "\"}");
  RecordTable *elsewhere = table_of(arena, "other.history_billings:status", false);
  CHECK_STR(key_of(arena, elsewhere, &purchase), "{\"id\":\"" SAMPLE_ID "\"}");
}

/* Connect escapes less in a header than in a record. */
TEST(keys_in_headers) {
  SCOPED_ARENA arena = arena_new();
  RecordTable *table = table_of(arena, "billing.history_billings:id,sum,billing_id", true);
  PgoCell cells[COLUMNS] = {{'t', STR("a\"\\\n\xf0\x9f\x98\x80")}, {'n', {0}}, {'t', STR("2.50")}};
  CHECK_STR(header_of(arena, table, &(PgoTuple){COLUMNS, cells}),
            "{\"id\":\"a\\\"\\\\\n\xf0\x9f\x98\x80\",\"sum\":2.5,\"billing_id\":null}");
}

TEST(a_key_column_that_is_not_there) {
  SCOPED_ARENA arena = arena_new();
  RecordStyle style = {.prefix = STR("p"), .key_columns = STR("billing.history_billings:account")};
  RecordTable *table = NULL;
  Str error = {0};
  CHECK_INT(record_table_new(arena, &style, &history, &(RecordFacts){0}, &table, &error), E_FIELD);
  CHECK_STR(error, "the key columns name account twice or table billing.history_billings has no such column");
}

TEST(a_table_without_key) {
  SCOPED_ARENA arena = arena_new();
  RecordStyle style = {.prefix = STR("p")};
  RecordTable *table = NULL;
  Str error = {0};
  CHECK_INT(record_table_new(arena, &style, &history, &(RecordFacts){0}, &table, &error), E_OK);
  CHECK(!record_has_key(table));
  CHECK(record_has_key(table_of(arena, NULL, false)));
}

/* As the row of an operation is published with its trace: what readers of the value get does not change by it. */
TEST(the_trace_column_is_in_no_value_and_no_schema) {
  SCOPED_ARENA arena = arena_new();
  PgoColumn columns[COLUMNS + 1];
  PgoCell cells[COLUMNS + 1];
  for (int i = 0; i <= COLUMNS; i++) { /* the trace at place 2 */
    columns[i] = i == 2 ? (PgoColumn){STR("traceparent"), 25, -1, false} : history_columns[i > 2 ? i - 1 : i];
    cells[i] = i == 2 ? (PgoCell){'t', STR("00-ab")} : purchase_cells[i > 2 ? i - 1 : i];
  }
  PgoRelation relation = {.schema = history.schema, .name = history.name, .count = COLUMNS + 1, .columns = columns};
  PgoTuple row = {COLUMNS + 1, cells};
  static const Str primary_key[] = {STR("id")};
  const ColumnFacts facts[COLUMNS + 1] = {{.required = true}};
  RecordStyle style = {.prefix = STR("postgres"), .schemas = true, .trace_column = STR("traceparent")};
  RecordTable *table = NULL;
  Str error = {0};
  CHECK_INT(record_table_new(arena, &style, &relation, &(RecordFacts){primary_key, 1, facts}, &table, &error), E_OK);
  const RecordTable *plain = table_of(arena, NULL, true);
  CHECK_STR(value_of(arena, table, 'c', NULL, &row), value_of(arena, plain, 'c', NULL, &purchase));
  CHECK_STR(key_of(arena, table, &row), key_of(arena, plain, &purchase));
  CHECK_STR(record_trace(table, &row), "00-ab");
  cells[2] = (PgoCell){'n', {0}};
  CHECK(record_trace(table, &row).p == NULL && record_trace(table, NULL).p == NULL);
  CHECK(record_trace(plain, &purchase).p == NULL);
}

TEST(a_type_that_is_not_known_is_refused_by_name) {
  SCOPED_ARENA arena = arena_new();
  PgoColumn columns[] = {{STR("id"), 2950, -1, true}, {STR("place"), 600, -1, false}};
  PgoRelation relation = {.schema = STR("s"), .name = STR("t"), .count = 2, .columns = columns};
  const ColumnFacts facts[] = {{.required = true}, {.type_name = STR("point")}};
  RecordStyle style = {.prefix = STR("p")};
  RecordTable *table = NULL;
  Str error = {0};
  CHECK_INT(record_table_new(arena, &style, &relation, &(RecordFacts){.columns = facts}, &table, &error), E_FIELD);
  CHECK_STR(error, "table s.t, column place: values of type point (oid 600) cannot be sent");
  style.decimals = DECIMALS_EXACT;
  CHECK_INT(record_table_new(arena, &style, &relation, &(RecordFacts){0}, &table, &error), E_OK);
}

static void check_rows(char op, const PgoTuple *before, const PgoTuple *after, const char *expected) {
  SCOPED_ARENA arena = arena_new();
  Str value = value_of(arena, table_of(arena, NULL, false), op, before, after);
  CHECK_STR(((Str){value.p, str_from(expected).n}), expected);
  Envelope e = {0};
  CHECK_INT(envelope_parse(arena, value, NULL, &e), E_OK);
  CHECK_INT(e.op, op);
}

#define OLD_ROW                                                                                                        \
  "{\"id\":\"old\",\"billing_id\":null,\"sum\":null,\"last_value_wallet\":null,\"current_value_wallet\":null,"         \
  "\"type_operation\":null,\"status\":null}"

TEST(rows_by_operation) {
  check_rows('u', NULL, &purchase, "{\"before\":null,\"after\":" SAMPLE_ROW ",\"source\"");
  check_rows('u', &purchase, &purchase, "{\"before\":" SAMPLE_ROW ",\"after\":" SAMPLE_ROW ",\"source\"");
  check_rows('d', &old_key, &purchase, "{\"before\":" OLD_ROW ",\"after\":null,\"source\"");
  check_rows('c', &old_key, &purchase, "{\"before\":null,\"after\":" SAMPLE_ROW ",\"source\"");
  check_rows('t', NULL, NULL, "{\"before\":null,\"after\":null,\"source\"");
}

TEST(a_required_column_that_was_not_sent) {
  PgoCell cells[COLUMNS] = {{'n', {0}}, {'n', {0}}, {'n', {0}}, {'n', {0}}, {'n', {0}}, {'n', {0}}, {'t', STR("S")}};
  check_rows('d', &(PgoTuple){COLUMNS, cells}, NULL, "{\"before\":{\"id\":\"\",\"billing_id\":null,");
}

TEST(an_unchanged_value_is_taken_from_the_old_row) {
  PgoCell cells[COLUMNS];
  for (int i = 0; i < COLUMNS; i++)
    cells[i] = purchase_cells[i];
  cells[1] = (PgoCell){'u', {0}};
  PgoTuple row = {COLUMNS, cells};
  check_rows('u', NULL, &row,
             "{\"before\":null,\"after\":{\"id\":\"" SAMPLE_ID
             "\",\"billing_id\":\"__debezium_unavailable_value\",\"sum\"");
  check_rows('c', &purchase, &row, "{\"before\":null,\"after\":" SAMPLE_ROW ",");
}

TEST(a_value_that_cannot_be_sent_leaves_nothing_behind) {
  SCOPED_ARENA arena = arena_new();
  PgoCell cells[COLUMNS];
  for (int i = 0; i < COLUMNS; i++)
    cells[i] = purchase_cells[i];
  cells[2] = (PgoCell){'t', STR("much")};
  RecordTable *table = table_of(arena, NULL, true);
  Buf out = {.arena = arena};
  Str column = {0};
  CHECK_INT(record_value(&out, table, &source, 'c', NULL, &purchase, NOW_NS, &column), E_OK);
  CHECK_INT(record_value(&out, table, &source, 'c', NULL, &(PgoTuple){COLUMNS, cells}, NOW_NS, &column), E_RANGE);
  CHECK_STR(buf_view(&out), "");
  CHECK_STR(column, "sum");
}

static void check_next(bool schemas) {
  SCOPED_ARENA arena = arena_new();
  RecordTable *table = table_of(arena, NULL, schemas);
  Buf out = {.arena = arena};
  Str column = {0};
  CHECK_INT(record_value(&out, table, &source, 'u', &purchase, &purchase, NOW_NS, &column), E_OK);
  CHECK_INT(record_value(&out, table, &source, 'c', NULL, &purchase, NOW_NS, &column), E_OK);
  CHECK_STR(buf_view(&out), value_of(arena, table, 'c', NULL, &purchase));
}

TEST(a_value_takes_the_place_of_an_earlier_one) {
  check_next(false);
  check_next(true);
}

TEST(a_value_stands_in_a_buffer_that_held_one_of_another_table) {
  SCOPED_ARENA arena = arena_new();
  RecordTable *with_schema = table_of(arena, NULL, true), *without = table_of(arena, NULL, false);
  Buf out = {.arena = arena};
  Str column = {0};
  CHECK_INT(record_value(&out, without, &source, 'c', NULL, &purchase, NOW_NS, &column), E_OK);
  buf_clear(&out);
  CHECK_INT(record_value(&out, with_schema, &source, 'c', NULL, &purchase, NOW_NS, &column), E_OK);
  CHECK_STR(buf_view(&out), value_of(arena, with_schema, 'c', NULL, &purchase));
}

TEST(the_first_transaction_and_a_foreign_one) {
  SCOPED_ARENA arena = arena_new();
  RecordSource foreign = source;
  foreign.last_commit_lsn = 0;
  foreign.origin = STR("elsewhere");
  foreign.origin_lsn = 7;
  Buf out = {.arena = arena};
  Str column = {0};
  RecordTable *table = table_of(arena, NULL, false);
  CHECK_INT(record_value(&out, table, &foreign, 't', NULL, NULL, NOW_NS, &column), E_OK);
  CHECK_STR(buf_view(&out),
            "{\"before\":null,\"after\":null,\"source\":{\"version\":\"1.0.0\",\"connector\":\"postgresql\","
            "\"name\":\"postgres\",\"ts_ms\":1790710562903,\"snapshot\":\"false\",\"db\":\"billing_db\","
            "\"sequence\":\"[null,\\\"314477488\\\"]\",\"ts_us\":1790710562903499,\"ts_ns\":1790710562903499000,"
            "\"schema\":\"billing\",\"table\":\"history_billings\",\"txId\":65249,\"lsn\":314477488,\"xmin\":null,"
            "\"origin\":\"elsewhere\",\"origin_lsn\":7},\"transaction\":null,\"op\":\"t\",\"ts_ms\":1790710563391,"
            "\"ts_us\":1790710563391393,\"ts_ns\":1790710563391393044}");
}

TEST(topics_have_only_kafka_s_characters) {
  SCOPED_ARENA arena = arena_new();
  PgoRelation relation = {.schema = STR("my schema"), .name = STR("t\xc3\xa9/x-1"), .count = 0};
  RecordStyle style = {.prefix = STR("a.b")};
  RecordTable *table = NULL;
  Str error = {0};
  CHECK_INT(record_table_new(arena, &style, &relation, &(RecordFacts){0}, &table, &error), E_OK);
  CHECK_STR(record_topic(table), "a.b.my_schema.t___x-1");
}

TEST(heartbeats) {
  SCOPED_ARENA arena = arena_new();
  RecordStyle style = {.prefix = STR("postgres")};
  Buf key = {.arena = arena}, value = {.arena = arena};
  record_heartbeat(&key, &value, &style, 1790710563391);
  CHECK_STR(record_heartbeat_topic(arena, &style), "__debezium-heartbeat.postgres");
  CHECK_STR(buf_view(&key), "{\"serverName\":\"postgres\"}");
  CHECK_STR(buf_view(&value), "{\"ts_ms\":1790710563391}");
  buf_clear(&key);
  buf_clear(&value);
  style.schemas = true;
  record_heartbeat(&key, &value, &style, 1);
  CHECK_STR(
      buf_view(&key),
      "{\"schema\":{\"type\":\"struct\",\"fields\":[" MEMBER(
          "string", "false",
          "serverName") "],"
                        "\"optional\":false,\"name\":\"io.debezium.connector.common.ServerNameKey\",\"version\":1},"
                        "\"payload\":{\"serverName\":\"postgres\"}}");
  CHECK_STR(buf_view(&value),
            "{\"schema\":{\"type\":\"struct\",\"fields\":[" MEMBER(
                "int64", "false",
                "ts_ms") "],"
                         "\"optional\":false,\"name\":\"io.debezium.connector.common.Heartbeat\",\"version\":1},"
                         "\"payload\":{\"ts_ms\":1}}");
}

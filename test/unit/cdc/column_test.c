/* One column at a time: the value, the schema, and what NULL becomes, for each of PostgreSQL's types. */
#include "cdc/column.h"
#include "unit.h"

#define NUMERIC(precision, scale) ((((precision) << 16) | (scale)) + 4)

static Column prepared(Arena *arena, uint32_t type, int32_t modifier, Decimals decimals, ColumnFacts facts) {
  PgoColumn described = {.name = STR("v"), .type = type, .modifier = modifier};
  Column column;
  column_prepare(arena, &described, &facts, decimals, &column);
  return column;
}

/* expected NULL: the value is refused. */
static void check_as(Decimals decimals, uint32_t type, int32_t modifier, const char *text, const char *expected) {
  SCOPED_ARENA arena = arena_new();
  Column column = prepared(arena, type, modifier, decimals, (ColumnFacts){0});
  Buf out = {.arena = arena};
  int rc = column_write(&out, &column, &(PgoCell){'t', str_from(text)});
  CHECK_INT(rc, expected ? E_OK : E_RANGE);
  CHECK_STR(buf_view(&out), expected ? expected : "");
}

static void check(uint32_t type, int32_t modifier, const char *text, const char *expected) {
  check_as(DECIMALS_DOUBLE, type, modifier, text, expected);
}

TEST(integers_keep_their_digits) {
  check(21, -1, "-32768", "-32768");
  check(23, -1, "-7", "-7");
  check(20, -1, "9223372036854775807", "9223372036854775807");
  check(26, -1, "4294967295", "4294967295");
  check(23, -1, "x", NULL);
  check(23, -1, "", NULL);
}

TEST(numeric_as_java_double) {
  check(1700, -1, "0", "0.0");
  check(1700, -1, "0.00", "0.0");
  check(1700, -1, "123.45", "123.45");
  check(1700, -1, "-0.10", "-0.1");
  check(1700, -1, "1000.00", "1000.0");
  check(1700, -1, "0.001", "0.001");
  check(1700, -1, "0.00099", "9.9E-4");
  check(1700, -1, "9999999.5", "9999999.5");
  check(1700, -1, "10000000", "1.0E7");
  check(1700, -1, "12345678.90", "1.23456789E7");
  check(1700, -1, "9007199254740993.01", "9.007199254740994E15");
  check(1700, -1, "123456789012345678901234567890.12", "1.2345678901234568E29");
  check(1700, -1, "999999999999999999999999999999999999.99", "1.0E36");
  check(1700, -1, "0.1000000000000000055511151231257827", "0.1");
  check(1700, -1, "NaN", "\"NaN\"");
  check(1700, -1, "-Infinity", "\"-Infinity\"");
  check(1700, -1, "1.", NULL);
  check(1700, -1, "+1", NULL);
}

TEST(numeric_beyond_double) {
  char text[402] = "1";
  for (int i = 1; i < 401; i++)
    text[i] = '0';
  check(1700, -1, text, "\"Infinity\"");
  text[300] = 0;
  check(1700, -1, text, "1.0E299");
}

TEST(numeric_as_text) {
  check_as(DECIMALS_STRING, 1700, NUMERIC(38, 2), "-12.50", "\"-12.50\"");
  check_as(DECIMALS_STRING, 1700, NUMERIC(38, 2), "5", "\"5.00\"");
  check_as(DECIMALS_STRING, 1700, -1, "0.10000", "\"0.10000\"");
  check_as(DECIMALS_STRING, 1700, -1, "NaN", "\"NAN\"");
  check_as(DECIMALS_STRING, 1700, -1, "-Infinity", "\"NEGATIVE_INFINITY\"");
}

TEST(numeric_as_bytes) {
  check_as(DECIMALS_PRECISE, 1700, NUMERIC(38, 2), "0.00", "\"AA==\"");
  check_as(DECIMALS_PRECISE, 1700, NUMERIC(38, 2), "1.27", "\"fw==\"");
  check_as(DECIMALS_PRECISE, 1700, NUMERIC(38, 2), "1.28", "\"AIA=\"");
  check_as(DECIMALS_PRECISE, 1700, NUMERIC(38, 2), "-1.28", "\"gA==\"");
  check_as(DECIMALS_PRECISE, 1700, NUMERIC(38, 2), "-1.29", "\"/38=\"");
  check_as(DECIMALS_PRECISE, 1700, NUMERIC(38, 2), "123.45", "\"MDk=\"");
  check_as(DECIMALS_PRECISE, 1700, NUMERIC(38, 2), "5", "\"AfQ=\""); /* 500 of the scale's units */
  check_as(DECIMALS_PRECISE, 1700, NUMERIC(38, 2), "99999999999999999999999999999999999.99",
           "\"B4XuENXaRtkA9Daf/////w==\"");
  check_as(DECIMALS_PRECISE, 1700, -1, "120.500", "{\"scale\":1,\"value\":\"BLU=\"}");
  check_as(DECIMALS_PRECISE, 1700, -1, "-3", "{\"scale\":0,\"value\":\"/Q==\"}");
  check_as(DECIMALS_PRECISE, 1700, NUMERIC(38, 2), "NaN", NULL);
}

TEST(numeric_with_its_own_digits) {
  check_as(DECIMALS_EXACT, 1700, -1, "123456789012345678901234567890.10", "123456789012345678901234567890.10");
  check_as(DECIMALS_EXACT, 1700, -1, "NaN", "\"NaN\"");
  check_as(DECIMALS_EXACT, 1700, -1, "25:00", "\"25:00\"");
  check_as(DECIMALS_EXACT, 1700, -1, "007", "\"007\"");
  check_as(DECIMALS_EXACT, 600, -1, "(1,2)", "\"(1,2)\"");
  check_as(DECIMALS_EXACT, 1082, -1, "soon", "\"soon\"");
}

TEST(floats_in_java_form) {
  check(701, -1, "1e+20", "1.0E20");
  check(701, -1, "-0", "-0.0");
  check(701, -1, "5e-324", "5.0E-324");
  check(701, -1, "0.1", "0.1");
  check(701, -1, "-Infinity", "\"-Infinity\"");
  check(700, -1, "3.4028235e+38", "3.4028235E38");
  check(700, -1, "100000", "100000.0");
}

TEST(texts_have_jackson_s_escapes) {
  check(25, -1, "a\"b\\c\n\x1f\xc3\xa9", "\"a\\\"b\\\\c\\n\\u001F\xc3\xa9\"");
  check(25, -1, "x\xf0\x9f\x98\x80y", "\"x\\uD83D\\uDE00y\"");
  check(1042, 14, "ab        ", "\"ab        \"");
  check(2950, -1, "6f1c0e1e-2f2b-4b1e-9a53-0d9f0f6c9a11", "\"6f1c0e1e-2f2b-4b1e-9a53-0d9f0f6c9a11\"");
  check(3802, -1, "{\"a\": 1}", "\"{\\\"a\\\": 1}\"");
  check(16, -1, "t", "true");
  check(16, -1, "f", "false");
  check(16, -1, "true", NULL);
}

TEST(times_by_their_precision) {
  check(1082, -1, "2030-05-26", "22060");
  check(1082, -1, "1969-12-31", "-1");
  check(1082, -1, "0044-03-15 BC", "-735160");
  check(1082, -1, "5874897-12-31", "2145042905");
  check(1082, -1, "2030-02-30", NULL);
  check(1083, -1, "16:00:00.5", "57600500000");
  check(1083, 3, "16:00:00.5", "57600500");
  check(1083, -1, "24:00:00", "86400000000");
  check(1114, -1, "1970-01-02 00:00:00.000001", "86400000001");
  check(1114, 3, "1970-01-02 00:00:00.123", "86400123");
  check(1114, 3, "1969-12-31 23:59:59.999", "-1");
  check(1114, -1, "294246-12-31 23:59:59.999999", "9223371244799999999");
  check(1114, -1, "294276-12-31 23:59:59.999999", NULL); /* microseconds since 1970 do not reach it */
  check(1114, -1, "infinity", "9223372036854775807");
  check(1114, -1, "-infinity", "-9223372036854775808");
  check(1114, 3, "infinity", "9223372036825200000");
  check(1082, -1, "infinity", "2146033979");
  check(1082, -1, "-infinity", "-2147472691");
}

TEST(times_with_zone) {
  check(1184, -1, "2026-05-26 16:00:00+00", "\"2026-05-26T16:00:00.000000Z\"");
  check(1184, -1, "2026-05-26 16:00:00.1234+00", "\"2026-05-26T16:00:00.123400Z\"");
  check(1184, 3, "2026-05-26 16:00:00.12+00", "\"2026-05-26T16:00:00.120Z\"");
  check(1184, 0, "2026-05-26 16:00:00+00", "\"2026-05-26T16:00:00Z\"");
  check(1184, -1, "infinity", "\"infinity\"");
  check(1184, 0, "12026-05-26 16:00:00+00", "\"+12026-05-26T16:00:00Z\"");
  check(1184, 0, "0002-05-26 16:00:00+00 BC", "\"-0001-05-26T16:00:00Z\"");
  check(1184, -1, "2026-05-26 16:00:00+02", NULL);
}

TEST(bytes_become_base64) {
  check(17, -1, "\\x", "\"\"");
  check(17, -1, "\\x66", "\"Zg==\"");
  check(17, -1, "\\x666f", "\"Zm8=\"");
  check(17, -1, "\\x666f6f", "\"Zm9v\"");
  check(17, -1, "\\xfffefd00", "\"//79AA==\"");
  check(17, -1, "\\x6", NULL);
}

static void check_unchanged(uint32_t type, const char *expected) {
  SCOPED_ARENA arena = arena_new();
  Column column = prepared(arena, type, -1, DECIMALS_DOUBLE, (ColumnFacts){0});
  Buf out = {.arena = arena};
  CHECK_INT(column_write(&out, &column, &(PgoCell){'u', {0}}), expected ? E_OK : E_RANGE);
  CHECK_STR(buf_view(&out), expected ? expected : "");
}

TEST(unchanged_values_that_were_not_sent) {
  check_unchanged(25, "\"__debezium_unavailable_value\"");
  check_unchanged(3802, "\"__debezium_unavailable_value\"");
  check_unchanged(17, "\"X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==\"");
  check_unchanged(1700, NULL);
}

static void check_null(uint32_t type, int32_t modifier, bool required, const char *source, const char *null,
                       const char *schema) {
  SCOPED_ARENA arena = arena_new();
  ColumnFacts facts = {.required = required, .default_source = str_from(source)};
  Column column = prepared(arena, type, modifier, DECIMALS_DOUBLE, facts);
  CHECK_STR(column.null, null);
  CHECK_STR(column.schema, schema);
}

#define PLAIN(type, optional) "{\"type\":\"" type "\",\"optional\":" optional ",\"field\":\"v\"}"
#define NAMED(type, optional, name)                                                                                    \
  "{\"type\":\"" type "\",\"optional\":" optional ",\"name\":\"" name "\",\"version\":1,\"field\":\"v\"}"

TEST(what_null_becomes) {
  check_null(25, -1, false, NULL, "null", PLAIN("string", "true"));
  check_null(25, -1, true, NULL, "\"\"", PLAIN("string", "false"));
  check_null(16, -1, true, NULL, "false", PLAIN("boolean", "false"));
  check_null(1700, NUMERIC(38, 2), true, NULL, "0.0", PLAIN("double", "false"));
  check_null(2950, -1, true, NULL, "\"\"", NAMED("string", "false", "io.debezium.data.Uuid"));
  check_null(1083, 3, false, NULL, "null", NAMED("int32", "true", "io.debezium.time.Time"));
  check_null(1083, -1, false, NULL, "null", NAMED("int64", "true", "io.debezium.time.MicroTime"));
  check_null(1114, 3, false, NULL, "null", NAMED("int64", "true", "io.debezium.time.Timestamp"));
  check_null(1114, 6, true, NULL, "0", NAMED("int64", "false", "io.debezium.time.MicroTimestamp"));
  check_null(1184, -1, true, NULL, "\"1970-01-01T00:00:00Z\"",
             NAMED("string", "false", "io.debezium.time.ZonedTimestamp"));
}

#define WITH_DEFAULT(type, optional, value)                                                                            \
  "{\"type\":\"" type "\",\"optional\":" optional ",\"default\":" value ",\"field\":\"v\"}"

TEST(defaults_as_debezium_reads_them) {
  check_null(23, -1, true, "nextval('s.t_id_seq'::regclass)", "0", WITH_DEFAULT("int32", "false", "0"));
  check_null(23, -1, false, "'-5'::integer", "-5", WITH_DEFAULT("int32", "true", "-5"));
  check_null(23, -1, false, "(1 + 2)", "null", PLAIN("int32", "true"));
  check_null(25, -1, false, "'it''s'::text", "\"it's\"", WITH_DEFAULT("string", "true", "\"it's\""));
  check_null(25, -1, false, "NULL::text", "null", PLAIN("string", "true"));
  check_null(16, -1, true, "true", "true", WITH_DEFAULT("boolean", "false", "true"));
  check_null(1700, NUMERIC(10, 2), true, "0", "0.0", WITH_DEFAULT("double", "false", "0.0"));
  check_null(1184, -1, true, "now()", "\"1970-01-01T00:00:00.000000Z\"",
             "{\"type\":\"string\",\"optional\":false,\"name\":\"io.debezium.time.ZonedTimestamp\",\"version\":1,"
             "\"default\":\"1970-01-01T00:00:00.000000Z\",\"field\":\"v\"}");
  check_null(17, -1, false, "'\\x00'::bytea", "null", PLAIN("bytes", "true"));
}

TEST(schemas_of_decimals) {
  SCOPED_ARENA arena = arena_new();
  CHECK_STR(prepared(arena, 1700, NUMERIC(38, 2), DECIMALS_PRECISE, (ColumnFacts){0}).schema,
            "{\"type\":\"bytes\",\"optional\":true,\"name\":\"org.apache.kafka.connect.data.Decimal\",\"version\":1,"
            "\"parameters\":{\"scale\":\"2\",\"connect.decimal.precision\":\"38\"},\"field\":\"v\"}");
  CHECK_STR(prepared(arena, 1700, -1, DECIMALS_PRECISE, (ColumnFacts){.required = true}).schema,
            "{\"type\":\"struct\",\"fields\":[{\"type\":\"int32\",\"optional\":false,\"field\":\"scale\"},"
            "{\"type\":\"bytes\",\"optional\":false,\"field\":\"value\"}],\"optional\":false,"
            "\"name\":\"io.debezium.data.VariableScaleDecimal\",\"version\":1,\"doc\":\"Variable scaled decimal\","
            "\"field\":\"v\"}");
  CHECK_STR(prepared(arena, 1700, NUMERIC(38, 2), DECIMALS_STRING, (ColumnFacts){0}).schema, PLAIN("string", "true"));
}

TEST(types_that_are_not_known) {
  CHECK(!column_type_known(600, -1, DECIMALS_DOUBLE));
  CHECK(!column_type_known(1009, -1, DECIMALS_PRECISE));
  CHECK(column_type_known(600, -1, DECIMALS_EXACT));
  CHECK(column_type_known(1700, NUMERIC(5, 0x7fe), DECIMALS_DOUBLE)); /* numeric(5,-2) */
  CHECK(!column_type_known(1700, NUMERIC(5, 0x7fe), DECIMALS_PRECISE));
}

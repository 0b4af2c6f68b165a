/* The envelope: what is built can be read, and every form that Debezium ever wrote is understood. */
#include "cdc/envelope.h"
#include "cdc/samples.h"
#include "unit.h"

#include <string.h>

static void check_purchase(const char *json, int64_t commit_us) {
  SCOPED_ARENA arena = arena_new();
  Envelope e = {0};
  CHECK_INT(envelope_parse(arena, str_from(json), &e), E_OK);
  CHECK_INT(e.op, 'c');
  CHECK_STR(e.schema, "billing");
  CHECK_STR(e.table, "history_billings");
  CHECK_INT(e.lsn, 314477488);
  CHECK_INT(e.tx_id, 65249);
  CHECK_INT(e.commit_us, commit_us);
  CHECK(e.before == NULL);
  const JsonValue *id = json_get(e.after, STR("id")), *sum = json_get(e.after, STR("sum"));
  CHECK(id && sum);
  if (id && sum) {
    CHECK_STR(id->text, SAMPLE_ID);
    CHECK_STR(sum->text, "123.45");
  }
}

TEST(every_version_without_schema) {
  check_purchase(SAMPLE_2_3, INT64_C(1790710562903000));
  check_purchase(SAMPLE_2_5, INT64_C(1790710562903000));
  check_purchase(SAMPLE_2_7, INT64_C(1790710562903499));
  check_purchase(SAMPLE_3_0, INT64_C(1790710562903499));
  check_purchase(SAMPLE_3_5, INT64_C(1790710562903499));
}

TEST(every_version_with_schema) {
  check_purchase(SAMPLE_WITH_SCHEMA("1", SAMPLE_2_3), INT64_C(1790710562903000));
  check_purchase(SAMPLE_WITH_SCHEMA("1", SAMPLE_2_5), INT64_C(1790710562903000));
  check_purchase(SAMPLE_WITH_SCHEMA("2", SAMPLE_2_7), INT64_C(1790710562903499));
  check_purchase(SAMPLE_WITH_SCHEMA("2", SAMPLE_3_0), INT64_C(1790710562903499));
  check_purchase(SAMPLE_WITH_SCHEMA("2", SAMPLE_3_5), INT64_C(1790710562903499));
  check_purchase("{\"schema\":null,\"payload\":" SAMPLE_3_5 "}", INT64_C(1790710562903499));
}

TEST(what_changes_nothing_has_no_op) {
  static const char *const texts[] = {NULL, "null", "{\"ts_ms\":1790710562903}",
                                      "{\"schema\":{\"type\":\"struct\"},\"payload\":{\"ts_ms\":1}}",
                                      "{\"schema\":null,\"payload\":null}"};
  for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
    SCOPED_ARENA arena = arena_new();
    Envelope e = {.op = 'x'};
    CHECK_INT(envelope_parse(arena, str_from(texts[i]), &e), E_OK);
    CHECK_INT(e.op, 0);
  }
}

TEST(what_is_no_envelope_is_refused) {
  static const char *const texts[] = {"",
                                      "{",
                                      "[]",
                                      "17",
                                      "\"c\"",
                                      "{}",
                                      "{\"op\":\"c\"}",
                                      "{\"op\":\"c\",\"source\":1}",
                                      "{\"op\":\"cc\",\"source\":{}}",
                                      "{\"op\":\"x\",\"source\":{}}",
                                      "{\"op\":1,\"source\":{}}",
                                      "{\"schema\":{},\"payload\":[]}",
                                      "{\"payload\":" SAMPLE_3_5 "}",
                                      SAMPLE_ROW,
                                      "{\"op\":\"c\",\"source\":{}} {}"};
  for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
    SCOPED_ARENA arena = arena_new();
    Envelope e = {.op = 'x'};
    CHECK_INT(envelope_parse(arena, str_from(texts[i]), &e), E_MALFORMED);
    CHECK_INT(e.op, 'x');
  }
}

TEST(a_delete_has_only_its_before) {
  SCOPED_ARENA arena = arena_new();
  Envelope e = {0};
  Str text =
      STR("{\"before\":{\"id\":\"1\"},\"after\":null,\"source\":{\"lsn\":null,\"snapshot\":false},\"op\":\"d\"}");
  CHECK_INT(envelope_parse(arena, text, &e), E_OK);
  CHECK_INT(e.op, 'd');
  CHECK(e.before != NULL);
  CHECK(e.after == NULL);
  CHECK(e.schema.p == NULL);
  CHECK_INT(e.lsn, 0);
}

static Str build_cell(Arena *arena, uint32_t type, int32_t modifier, PgoCell cell) {
  PgoColumn column = {.name = STR("v"), .type = type, .modifier = modifier};
  PgoRelation relation = {.schema = STR("s"), .name = STR("t"), .count = 1, .columns = &column};
  PgoTuple row = {1, &cell};
  EnvelopeSource source = {.version = STR("1"), .name = STR("n"), .database = STR("d")};
  Buf out = {.arena = arena};
  envelope_build(&out, &source, &relation, 'c', NULL, &row, 0);
  Str text = buf_view(&out), head = STR("{\"before\":null,\"after\":{\"v\":");
  CHECK(str_starts(text, head));
  const char *end = memmem(text.p, text.n, "},\"source\"", 10);
  CHECK(end != NULL);
  return end ? (Str){text.p + head.n, (size_t)(end - text.p) - head.n} : text;
}

static void check_cell(uint32_t type, int32_t modifier, const char *text, const char *expected) {
  SCOPED_ARENA arena = arena_new();
  CHECK_STR(build_cell(arena, type, modifier, (PgoCell){'t', str_from(text)}), expected);
}

TEST(numbers_keep_their_digits) {
  check_cell(23, -1, "-7", "-7");
  check_cell(20, -1, "9223372036854775807", "9223372036854775807");
  check_cell(1700, -1, "123456789012345678901234567890.10", "123456789012345678901234567890.10");
  check_cell(701, -1, "1e+20", "1e+20");
  check_cell(1700, -1, "NaN", "\"NaN\"");
  check_cell(701, -1, "-Infinity", "\"-Infinity\"");
  check_cell(23, -1, "007", "\"007\"");
}

TEST(texts_are_escaped) {
  check_cell(25, -1, "a\"b\\c\n\xc3\xa9", "\"a\\\"b\\\\c\\n\xc3\xa9\"");
  check_cell(2950, -1, SAMPLE_ID, "\"" SAMPLE_ID "\"");
  check_cell(16, -1, "t", "true");
  check_cell(16, -1, "f", "false");
}

TEST(times_by_their_precision) {
  check_cell(1082, -1, "2030-05-26", "22060");
  check_cell(1083, -1, "16:00:00.5", "57600500000");
  check_cell(1083, 3, "16:00:00.5", "57600500");
  check_cell(1114, -1, "1970-01-02 00:00:00.000001", "86400000001");
  check_cell(1114, 3, "1970-01-02 00:00:00.123", "86400123");
  check_cell(1114, -1, "infinity", "\"infinity\"");
  check_cell(1184, -1, "2026-05-26 16:00:00+00", "\"2026-05-26T16:00:00.000000Z\"");
  check_cell(1184, -1, "2026-05-26 16:00:00.1234+00", "\"2026-05-26T16:00:00.123400Z\"");
}

TEST(bytes_become_base64) {
  check_cell(17, -1, "\\x", "\"\"");
  check_cell(17, -1, "\\x66", "\"Zg==\"");
  check_cell(17, -1, "\\x666f", "\"Zm8=\"");
  check_cell(17, -1, "\\x666f6f", "\"Zm9v\"");
  check_cell(17, -1, "\\xfffefd00", "\"//79AA==\"");
  check_cell(17, -1, "\\x6", "\"\\\\x6\"");
}

TEST(null_and_unchanged_values) {
  SCOPED_ARENA arena = arena_new();
  CHECK_STR(build_cell(arena, 25, -1, (PgoCell){'n', {0}}), "null");
  CHECK_STR(build_cell(arena, 25, -1, (PgoCell){'u', {0}}), "\"__debezium_unavailable_value\"");
}

TEST(a_built_envelope_has_debezium_s_field_order) {
  SCOPED_ARENA arena = arena_new();
  PgoColumn columns[] = {{STR("id"), 2950, -1, true}, {STR("sum"), 1700, -1, false}};
  PgoRelation relation = {.schema = STR("billing"), .name = STR("history"), .count = 2, .columns = columns};
  PgoCell cells[] = {{'t', STR(SAMPLE_ID)}, {'t', STR("1.50")}};
  PgoTuple row = {2, cells};
  EnvelopeSource source = {.version = STR("1.0.0"),
                           .name = STR("postgres"),
                           .database = STR("billing_db"),
                           .lsn = 314477488,
                           .last_commit_lsn = 306218576,
                           .commit_us = INT64_C(1790710562903499),
                           .xid = 4294967295};
  Buf out = {.arena = arena};
  envelope_build(&out, &source, &relation, 'c', NULL, &row, INT64_C(1790710563391393));
  CHECK_STR(buf_view(&out),
            "{\"before\":null,\"after\":{\"id\":\"" SAMPLE_ID "\",\"sum\":1.50},\"source\":{\"version\":\"1.0.0\","
            "\"connector\":\"postgresql\",\"name\":\"postgres\",\"ts_ms\":1790710562903,\"snapshot\":\"false\","
            "\"db\":\"billing_db\",\"sequence\":\"[\\\"306218576\\\",\\\"314477488\\\"]\","
            "\"ts_us\":1790710562903499,\"ts_ns\":1790710562903499000,\"schema\":\"billing\",\"table\":\"history\","
            "\"txId\":4294967295,\"lsn\":314477488,\"xmin\":null,\"origin\":null,\"origin_lsn\":null},"
            "\"transaction\":null,\"op\":\"c\",\"ts_ms\":1790710563391,\"ts_us\":1790710563391393,"
            "\"ts_ns\":1790710563391393000}");
  Envelope e = {0};
  CHECK_INT(envelope_parse(arena, buf_view(&out), &e), E_OK);
  CHECK_INT(e.tx_id, 4294967295);
  CHECK_INT(e.commit_us, INT64_C(1790710562903499));
}

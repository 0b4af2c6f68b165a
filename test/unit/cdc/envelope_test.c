/* The envelope: every form that Debezium ever wrote is understood. */
#include "cdc/envelope.h"
#include "cdc/samples.h"
#include "unit.h"

#include <string.h>

static void check_purchase(const char *json, int64_t commit_us) {
  SCOPED_ARENA arena = arena_new();
  Envelope e = {0};
  CHECK_INT(envelope_parse(arena, str_from(json), NULL, &e), E_OK);
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
    CHECK_INT(envelope_parse(arena, str_from(texts[i]), NULL, &e), E_OK);
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
    CHECK_INT(envelope_parse(arena, str_from(texts[i]), NULL, &e), E_MALFORMED);
    CHECK_INT(e.op, 'x');
  }
}

TEST(a_delete_has_only_its_before) {
  SCOPED_ARENA arena = arena_new();
  Envelope e = {0};
  Str text =
      STR("{\"before\":{\"id\":\"1\"},\"after\":null,\"source\":{\"lsn\":null,\"snapshot\":false},\"op\":\"d\"}");
  CHECK_INT(envelope_parse(arena, text, NULL, &e), E_OK);
  CHECK_INT(e.op, 'd');
  CHECK(e.before != NULL);
  CHECK(e.after == NULL);
  CHECK(e.schema.p == NULL);
  CHECK_INT(e.lsn, 0);
}

TEST(a_schema_is_remembered_with_all_that_stands_before_the_payload) {
  static const char front[] = "{\"schema\":{\"a\":1},\"payload\":";
  static const struct {
    const char *behind;
    size_t remembered;
  } values[] = {
      {"{\"op\":\"c\",\"source\":{}}}", sizeof(front) - 1},
      {"{\"\\u006fp\":\"c\",\"source\":{}}}", 0},
      {"{\"op\":\"c\",\"source\":{}},\"more\":{}}", 0},
  };
  for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
    SCOPED_ARENA arena = arena_new();
    Buf schema = {.arena = arena};
    Envelope e = {0};
    Str value = arena_printf(arena, "%s%s", front, values[i].behind);
    CHECK_INT(envelope_parse(arena, value, &schema, &e), E_OK);
    CHECK_INT(schema.n, values[i].remembered);
    CHECK(memcmp(schema.n > 0 ? schema.p : "", front, schema.n) == 0);
  }
}

/* What is remembered of one value decides nothing about the next. */
TEST(a_schema_that_comes_again_is_skipped) {
  static const struct {
    const char *text;
    int rc;
    char op;
  } values[] = {
      {"{\"schema\":{\"a\":1},\"payload\":{\"op\":\"c\",\"source\":{}}}", E_OK, 'c'},
      {"{\"schema\":{\"a\":1},\"payload\":{\"op\":\"d\",\"source\":{\"x\":{}}}}", E_OK, 'd'},
      {"{\"schema\":{\"a\":1},\"payload\":{\"op\":\"u\",\"source\":{}}} ", E_OK, 'u'},
      {"{\"schema\":{\"a\":1},\"payload\":{\"op\":\"u\",\"source\":{}},\"payload\":1}", E_MALFORMED, 0},
      {"{\"schema\":{\"a\":1},\"payload\":{\"op\":\"u\",\"source\":{}},\"more\":{}}", E_OK, 'u'},
      {"{\"schema\":{\"a\":1},\"payload\":{\"op\":\"r\",\"source\":{}}}", E_OK, 'r'},
      {"{\"schema\":{\"a\":1},\"payload\":{\"op\":\"r\",\"source\":{}}", E_MALFORMED, 0},
      {"{\"schema\":{\"a\":1},\"payload\":null}", E_OK, 0},
      {"{\"schema\":{\"a\":2},\"payload\":{\"op\":\"t\",\"source\":{}}}", E_OK, 't'},
      {"{\"schema\":{\"a\":2},\"payloae\":{\"op\":\"t\",\"source\":{}}}", E_MALFORMED, 0},
      {"{\"op\":\"c\",\"source\":{}}", E_OK, 'c'},
      {NULL, E_OK, 0},
      {"{\"payload\":{\"op\":\"c\",\"source\":{}},\"schema\":{}}", E_OK, 'c'},
      {"{\"schema\":{\"a\":2},\"payload\":{\"\\u006fp\":\"c\",\"source\":{}}}", E_OK, 'c'},
  };
  Buf schema = {0};
  for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
    for (int twice = 0; twice < 2; twice++) {
      SCOPED_ARENA arena = arena_new();
      Envelope e = {0};
      CHECK_INT(envelope_parse(arena, str_from(values[i].text), &schema, &e), values[i].rc);
      CHECK_INT(e.op, values[i].op);
    }
  buf_free(&schema);
}

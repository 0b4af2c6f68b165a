/* Array literals, as PostgreSQL's manual has them. A real one reads them in the system tests of the services. */
#include "db/array.h"
#include "unit/unit.h"

static Str array_of(Arena *arena, const DbValue *values, int count) {
  DbArray a = db_array(arena);
  for (int i = 0; i < count; i++)
    db_array_add(&a, values[i]);
  return db_array_end(&a).text;
}

#define ARRAY(...)                                                                                                     \
  array_of(arena, (const DbValue[]){__VA_ARGS__}, (int)(sizeof((const DbValue[]){__VA_ARGS__}) / sizeof(DbValue)))
#define TEXT(literal) V_TEXT(STR(literal))

TEST(an_array_without_elements) {
  SCOPED_ARENA arena = arena_new();
  CHECK_STR(array_of(arena, NULL, 0), "{}");
}

TEST(an_array_is_a_text_value) {
  SCOPED_ARENA arena = arena_new();
  DbArray a = db_array(arena);
  CHECK_INT(db_array_end(&a).type, F_TEXT);
}

TEST(what_needs_no_quotes_has_none) {
  SCOPED_ARENA arena = arena_new();
  Uuid id;
  CHECK_INT(uuid_parse(STR("01890a5d-ac96-774b-bcce-b302099a8057"), &id), 0);
  CHECK_STR(ARRAY(V_INT(1), V_INT(-20), V_INT(INT64_MAX)), "{1,-20,9223372036854775807}");
  CHECK_STR(ARRAY(V_UUID(id), V_UUID(id)),
            "{01890a5d-ac96-774b-bcce-b302099a8057,01890a5d-ac96-774b-bcce-b302099a8057}");
  CHECK_STR(ARRAY(V_BOOL(true), V_BOOL(false)), "{t,f}");
  CHECK_STR(ARRAY(V_MONEY(12345)), "{123.45}");
}

TEST(text_is_always_quoted) {
  SCOPED_ARENA arena = arena_new();
  CHECK_STR(ARRAY(TEXT("phone")), "{\"phone\"}");
  CHECK_STR(ARRAY(TEXT(""), TEXT(" ")), "{\"\",\" \"}");
  CHECK_STR(ARRAY(TEXT("a,b"), TEXT("{c}"), TEXT("}")), "{\"a,b\",\"{c}\",\"}\"}");
}

TEST(quotes_and_backslashes_are_escaped) {
  SCOPED_ARENA arena = arena_new();
  CHECK_STR(ARRAY(TEXT("say \"hi\"")), "{\"say \\\"hi\\\"\"}");
  CHECK_STR(ARRAY(TEXT("back\\slash"), TEXT("\\")), "{\"back\\\\slash\",\"\\\\\"}");
}

TEST(an_absent_value_is_null_and_the_word_is_not) {
  SCOPED_ARENA arena = arena_new();
  CHECK_STR(ARRAY(V_TEXT((Str){0}), TEXT("NULL"), TEXT("null")), "{NULL,\"NULL\",\"null\"}");
  const Uuid nil = {{0}};
  CHECK_STR(ARRAY(V_UUID(nil), V_TIME(LOCALTIME_NONE)), "{NULL,NULL}");
}

TEST(a_text_that_ends_with_a_brace_does_not_end_the_array) {
  SCOPED_ARENA arena = arena_new();
  CHECK_STR(ARRAY(TEXT("a}"), TEXT("b")), "{\"a}\",\"b\"}");
}

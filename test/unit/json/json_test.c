/* json_parse: what is JSON and what is not, the tree, and the pointer and sentence of each refusal. */
#include "json/json.h"

#include "unit/unit.h"

#include <string.h>

static const Str absent = {0};

static const JsonValue *parsed(Arena *a, Str text) {
  JsonValue *root = NULL;
  JsonError error = {0};
  if (!CHECK_INT(json_parse(a, text, &root, &error), 0)) {
    CHECK_STR(text, "");
    CHECK_STR(error.detail, "");
  }
  return root;
}

static void check_refuses(Str text, int code, Str pointer, const char *detail) {
  SCOPED_ARENA a = arena_new();
  JsonValue untouched, *root = &untouched;
  JsonError error = {0};
  bool ok = CHECK_INT(json_parse(a, text, &root, &error), code);
  ok = CHECK_STR(error.pointer, pointer) && ok;
  ok = CHECK(str_starts(error.detail, str_from(detail))) && ok;
  CHECK(root == &untouched);
  if (!ok) {
    CHECK_STR(text.n < 200 ? text : STR("(long)"), "");
    CHECK_STR(error.detail, detail);
  }
  CHECK_INT(json_parse(a, text, &root, NULL), code);
}

TEST(scalars) {
  static const struct {
    const char *text;
    JsonType type;
    const char *value;
  } rows[] = {
      {"null", JSON_NULL, NULL},
      {"true", JSON_TRUE, NULL},
      {"false", JSON_FALSE, NULL},
      {" 12 ", JSON_NUMBER, "12"},
      {"-0.10e+5", JSON_NUMBER, "-0.10e+5"},
      {"\"\"", JSON_STRING, ""},
      {"\"a b\"", JSON_STRING, "a b"},
      {"[]", JSON_ARRAY, NULL},
      {"\t\r\n{ }\n", JSON_OBJECT, NULL},
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
    SCOPED_ARENA a = arena_new();
    const JsonValue *v = parsed(a, str_from(rows[i].text));
    CHECK_INT(v->type, rows[i].type);
    CHECK_STR(v->text, rows[i].value);
    CHECK(v->first == NULL && v->next == NULL && v->name.p == NULL);
  }
}

TEST(the_tree_keeps_order_and_names) {
  SCOPED_ARENA a = arena_new();
  const JsonValue *v = parsed(a, STR("{\"b\":[1,{\"x\":null},[]],\"a\":{},\"\":\"s\"}"));
  const JsonValue *b = v->first, *second = b->next, *third = second->next;
  CHECK_STR(b->name, "b");
  CHECK_INT(b->type, JSON_ARRAY);
  CHECK_STR(b->first->text, "1");
  CHECK_STR(b->first->name, absent);
  CHECK_STR(b->first->next->first->name, "x");
  CHECK_INT(b->first->next->next->type, JSON_ARRAY);
  CHECK(b->first->next->next->next == NULL);
  CHECK_STR(second->name, "a");
  CHECK(second->first == NULL);
  CHECK_STR(third->name, "");
  CHECK_STR(third->text, "s");
  CHECK(third->next == NULL);
}

TEST(members_by_name) {
  SCOPED_ARENA a = arena_new();
  const JsonValue *v = parsed(a, STR("{\"a\":1,\"ab\":2,\"k\\u0065y\":3}"));
  CHECK_STR(json_get(v, STR("ab"))->text, "2");
  CHECK_STR(json_get(v, STR("key"))->text, "3");
  CHECK(json_get(v, STR("A")) == NULL);
  CHECK(json_get(v, STR("")) == NULL);
  CHECK(json_get(NULL, STR("a")) == NULL);
  CHECK(json_get(v->first, STR("a")) == NULL);
}

TEST(numbers_keep_their_text) {
  SCOPED_ARENA a = arena_new();
  static const char *const texts[] = {"0",         "-0", "0.1", "1E400", "123456789012345678901234567890.000",
                                      "1.50e-000", "1e5"};
  for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
    CHECK_STR(parsed(a, str_from(texts[i]))->text, texts[i]);
    CHECK_STR(parsed(a, arena_printf(a, "[%s]", texts[i]))->first->text, texts[i]);
  }
}

TEST(escapes_are_decoded) {
  static const struct {
    const char *json;
    const char *text;
  } rows[] = {
      {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t"},
      {"\"\\u0041\\u00e9\\u20AC\"", "A\xc3\xa9\xe2\x82\xac"},
      {"\"\\ud83d\\uDE00\"", "\xf0\x9f\x98\x80"},
      {"\"\\uD800\\uDC00\\uDBFF\\uDFFF\"", "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"},
      {"\"\\\\u0000\\\\ud800\"", "\\u0000\\ud800"},
      {"\"\\u005cu0000\"", "\\u0000"},
      {"\"\xd0\xb6\xf0\x9f\x98\x80\"", "\xd0\xb6\xf0\x9f\x98\x80"},
      {"\"\\uffff\\u007f\"", "\xef\xbf\xbf\x7f"},
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
    SCOPED_ARENA a = arena_new();
    CHECK_STR(parsed(a, str_from(rows[i].json))->text, rows[i].text);
  }
}

TEST(the_tree_needs_neither_the_text_nor_other_strings) {
  SCOPED_ARENA a = arena_new();
  char text[] = "{\"pl\\u0061in\":\"one\",\"b\":\"tw\\u006f\",\"c\":\"thr\\u0065e\",\"d\":4}";
  const JsonValue *v = parsed(a, str_from(text));
  memset(text, 'X', sizeof(text) - 1);
  CHECK_STR(json_get(v, STR("plain"))->text, "one");
  CHECK_STR(json_get(v, STR("b"))->text, "two");
  CHECK_STR(json_get(v, STR("c"))->text, "three");
  CHECK_STR(json_get(v, STR("d"))->text, "4");
}

static const char *const no_json[] = {
    "{",
    "[",
    "\"",
    "\"abc",
    "{\"a\"",
    "{\"a\":",
    "{\"a\":1",
    "[1",
    "[1,",
    "nul",
    "tru",
    "truex",
    "-",
    "01",
    "1.",
    ".5",
    "+1",
    "1e",
    "0x1",
    "NaN",
    "Infinity",
    "'a'",
    "{a:1}",
    "{'a':1}",
    "{1:1}",
    "[1,]",
    "{\"a\":1,}",
    "[,1]",
    "[1 2]",
    "{\"a\" 1}",
    "{\"a\":1 \"b\":2}",
    "]",
    "}",
    "[}",
    "{]",
    "1 2",
    "{} {}",
    "[]x",
    "null,",
    "// c\n1",
    "/* c */1",
    "1 // c",
    " ",
    "\n",
    "\"\\x41\"",
    "\"\\u12\"",
    "\"\\u12g4\"",
    "\"\\\"",
    "\"\t\"",
    "\"\n\"",
    "\"\x01\"",
    "\\u0000",
    "\xef\xbb\xbf\xef\xbb\xbf{}",
    "{\xef\xbb\xbf}",
    "\"\\ud83d",
    "\"\\ud83d\\",
    "\"\\u",
    "[\"a\":1]",
    "\"a\" \"b\"",
    "1:2",
};

TEST(what_is_no_json_has_no_pointer) {
  for (size_t i = 0; i < sizeof(no_json) / sizeof(*no_json); i++)
    check_refuses(str_from(no_json[i]), E_MALFORMED, absent, "The text is not JSON near byte ");
}

TEST(a_byte_order_mark_at_the_start_is_ignored) {
  SCOPED_ARENA a = arena_new();
  CHECK_STR(json_get(parsed(a, STR("\xef\xbb\xbf{\"a\":\"\\u0062\"}")), STR("a"))->text, "b");
  check_refuses(STR("\xef\xbb\xbf"), E_MALFORMED, absent, "The JSON text is empty.");
  check_refuses(STR("\xef\xbb\xbf[1,]"), E_MALFORMED, absent,
                "The text is not JSON near byte 7: "); /* its bytes count */
}

TEST(other_encodings_are_named) {
  static const Str texts[] = {STR("\xff\xfe{\0}\0"),
                              STR("\xfe\xff\0{\0}"),
                              STR("\0\0\xfe\xff\0\0\0{\0\0\0}"),
                              STR("\xff\xfe\0\0{\0\0\0}\0\0\0"),
                              STR("{\0}\0"),
                              STR("\0\0\0{\0\0\0}"),
                              STR("{}\0"),
                              STR("\"a\0b\"")};
  for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
    check_refuses(texts[i], E_MALFORMED, absent,
                  i < 4 ? "The JSON text begins with a byte order mark of UTF-16 or UTF-32; it must be UTF-8."
                        : "The JSON text has zero bytes; it must be UTF-8, not UTF-16 or UTF-32.");
}

TEST(empty_text) {
  check_refuses(STR(""), E_MALFORMED, absent, "The JSON text is empty.");
  check_refuses(absent, E_MALFORMED, absent, "The JSON text is empty.");
}

TEST(only_four_characters_are_white_space) {
  const char *detail = "The JSON text has a control character.";
  check_refuses(STR("\f1"), E_MALFORMED, absent, detail);
  check_refuses(STR("[1,\v2]"), E_MALFORMED, absent, detail);
  check_refuses(STR("\"\f\""), E_MALFORMED, absent, detail);
  check_refuses(STR("1\xc2\xa0"), E_MALFORMED, absent, "The text is not JSON near byte ");
  check_refuses(STR("\xe2\x80\xa8"
                    "1"),
                E_MALFORMED, absent, "The text is not JSON near byte ");
}

TEST(what_is_no_utf8) {
  static const char *const bad[] = {"\"\xff\"",         "\"\xc0\xaf\"",         "\"\xe0\x80\xaf\"",
                                    "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"", "\"\xc3\"",
                                    "{\"\x80\":1}"};
  for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
    check_refuses(str_from(bad[i]), E_MALFORMED, absent, "The JSON text is not UTF-8 at byte ");
}

TEST(the_byte_of_a_syntax_error_is_told) {
  SCOPED_ARENA a = arena_new();
  JsonValue *root;
  JsonError error;
  CHECK_INT(json_parse(a, STR("{\"a\":1,\"b\":tru}"), &root, &error), E_MALFORMED);
  CHECK_STR(error.detail, "The text is not JSON near byte 14: a word must be true, false or null.");
  CHECK_INT(json_parse(a, STR("{\"a\":\"\xd0\xb6\xd0\"}"), &root, &error), E_MALFORMED);
  CHECK_STR(error.detail, "The JSON text is not UTF-8 at byte 9.");
}

TEST(a_syntax_error_is_explained) {
  static const struct {
    const char *text, *reason;
  } cases[] = {
      {"{\"a\":1", "it ends too early"},
      {"{\"a\":tr", "a word must be true, false or null"},
      {"{} x", "nothing may follow the value"},
      {"[,1]", "a value must stand here"},
      {"{a:1}", "this character cannot begin a value; texts stand in double quotes"},
      {"{1:1}", "a key must be text in double quotes"},
      {"{\"a\" 1}", "a colon must stand between a key and its value"},
      {"{\"a\":1 \"b\":2}", "a comma or a closing brace must follow a member"},
      {"[1 2]", "a comma or a closing bracket must follow an element"},
      {"{'a':1}", "this character cannot begin a value; texts stand in double quotes"},
      {"[nul]", "a word must be true, false or null"},
      {"[1.]", "a digit must follow the decimal point"},
      {"[1e]", "a digit must follow the exponent"},
      {"[-]", "a digit must follow the minus sign"},
      {"[1 /* one */]", "comments are not allowed"},
      {"[\"\\x41\"]", "a backslash must be followed by one of \" \\ / b f n r t u"},
      {"[\"\\u12g4\"]", "\\u must be followed by four hexadecimal digits"},
      {"[\"\n\"]", "a control character in a text must be written as an escape"},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    SCOPED_ARENA a = arena_new();
    JsonValue *root;
    JsonError error;
    CHECK_INT(json_parse(a, str_from(cases[i].text), &root, &error), E_MALFORMED);
    str_cut(&error.detail, ':');
    CHECK_STR(str_trim(error.detail), arena_printf(a, "%s.", cases[i].reason));
  }
}

TEST(the_same_key_twice) {
  const char *detail = "An object has the same key twice.";
  check_refuses(STR("{\"a\":1,\"a\":1}"), E_MALFORMED, STR("/a"), detail);
  check_refuses(STR("{\"a\":1,\"b\":[0,{\"x\":1,\"y\":{},\"x\":2}]}"), E_MALFORMED, STR("/b/1/x"), detail);
  check_refuses(STR("{\"a\":1,\"\\u0061\":1}"), E_MALFORMED, STR("/a"), detail);
  check_refuses(STR("{\"\":1,\"\":1}"), E_MALFORMED, STR("/"), detail);
  check_refuses(STR("{\"a/b~c\":1,\"a/b~c\":1}"), E_MALFORMED, STR("/a~1b~0c"), detail);
  SCOPED_ARENA a = arena_new();
  parsed(a, STR("[{\"a\":1},{\"a\":1,\"A\":1,\"b\":{\"a\":1}}]"));
}

/* {"k0":0,"k1":1,…} and at the end, when again ≥ 0, that key once more. */
static Str many_keys(Arena *a, int count, int again) {
  Buf b = {.arena = a};
  buf_char(&b, '{');
  for (int i = 0; i < count; i++)
    buf_printf(&b, "%s\"k%d\":%d", i ? "," : "", i, i);
  if (again >= 0)
    buf_printf(&b, ",\"k%d\":null", again);
  buf_char(&b, '}');
  return buf_view(&b);
}

TEST(the_same_key_twice_among_many) {
  SCOPED_ARENA a = arena_new();
  static const int counts[] = {14, 15, 16, 17, 18, 40000};
  for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
    int count = counts[i];
    const JsonValue *v = parsed(a, many_keys(a, count, -1));
    CHECK(v && json_get(v, arena_printf(a, "k%d", count - 1)) != NULL);
    check_refuses(many_keys(a, count, 3), E_MALFORMED, STR("/k3"), "An object has the same key twice.");
    check_refuses(many_keys(a, count, count - 1), E_MALFORMED, arena_printf(a, "/k%d", count - 1),
                  "An object has the same key twice.");
  }
}

static void repeat(Buf *b, const char *piece, int times) {
  for (int i = 0; i < times; i++)
    buf_cstr(b, piece);
}

static Str nested(Arena *a, const char *open, const char *close, int levels) {
  Buf b = {.arena = a};
  repeat(&b, open, levels);
  buf_cstr(&b, "1");
  repeat(&b, close, levels);
  return buf_view(&b);
}

static Str repeated(Arena *a, const char *piece, int times) {
  Buf b = {.arena = a};
  repeat(&b, piece, times);
  return buf_view(&b);
}

TEST(depth_up_to_the_limit) {
  SCOPED_ARENA a = arena_new();
  const JsonValue *v = parsed(a, nested(a, "[", "]", JSON_DEPTH));
  int levels = 0;
  for (; v && v->type == JSON_ARRAY; v = v->first)
    levels++;
  CHECK_INT(levels, JSON_DEPTH);
  parsed(a, nested(a, "{\"a\":", "}", JSON_DEPTH));
  parsed(a, arena_printf(a, "[%.*s,%.*s]", STR_FMT(nested(a, "[", "]", JSON_DEPTH - 1)),
                         STR_FMT(nested(a, "[", "]", JSON_DEPTH - 1))));
}

TEST(depth_beyond_the_limit) {
  SCOPED_ARENA a = arena_new();
  const char *detail = "The JSON text is nested too deeply.";
  check_refuses(nested(a, "[", "]", JSON_DEPTH + 1), E_MALFORMED, repeated(a, "/0", JSON_DEPTH), detail);
  check_refuses(nested(a, "{\"a\":", "}", JSON_DEPTH + 1), E_MALFORMED, repeated(a, "/a", JSON_DEPTH), detail);
  check_refuses(repeated(a, "[", 10000), E_MALFORMED, repeated(a, "/0", JSON_DEPTH), detail);
  check_refuses(repeated(a, "{\"a\":", 500000), E_MALFORMED, repeated(a, "/a", JSON_DEPTH), detail);
}

TEST(the_number_of_values_is_bounded) {
  SCOPED_ARENA a = arena_new();
  Buf fits = {.arena = a}, over = {.arena = a};
  buf_char(&fits, '[');
  repeat(&fits, "0,", JSON_VALUES - 2);
  buf_str(&over, buf_view(&fits));
  buf_cstr(&fits, "0]");
  buf_cstr(&over, "0,0]");
  parsed(a, buf_view(&fits));
  check_refuses(buf_view(&over), E_TOO_LARGE, arena_printf(a, "/%d", JSON_VALUES - 1),
                "The JSON text has too many values.");
}

TEST(texts_that_can_not_be_stored) {
  const char *zero = "A text must not contain the character U+0000.", *half = "A text has half of a surrogate pair.";
  check_refuses(STR("\"\\u0000\""), E_FIELD, STR(""), zero);
  check_refuses(STR("{\"a\":\"x\",\"b\":[\"y\",\"a\\u0000b\"]}"), E_FIELD, STR("/b/1"), zero);
  check_refuses(STR("{\"a\":{\"k\\u0000\":1}}"), E_FIELD, STR("/a"), zero);
  check_refuses(STR("{\"a\":\"\\ud800\"}"), E_MALFORMED, STR("/a"), half);
  check_refuses(STR("{\"a\":\"\\udc00\"}"), E_MALFORMED, STR("/a"), half);
  check_refuses(STR("{\"a\":\"\\ud800\\ud800\"}"), E_MALFORMED, STR("/a"), half);
  check_refuses(STR("{\"a\":\"\\uDBFFx\"}"), E_MALFORMED, STR("/a"), half);
  check_refuses(STR("{\"a\":\"\\ud83d\\u0041\"}"), E_MALFORMED, STR("/a"), half);
  check_refuses(STR("{\"a\":\"\\ud83d\\n\"}"), E_MALFORMED, STR("/a"), half);
  check_refuses(STR("{\"a\":\"\\ud83d\\ude00\\ude00\"}"), E_MALFORMED, STR("/a"), half);
  check_refuses(STR("{\"\\ud800\":1}"), E_MALFORMED, STR(""), half);
  check_refuses(STR("[\"\\\\\\u0000\"]"), E_FIELD, STR("/0"), zero);
}

TEST(a_syntax_error_before_a_bad_escape_comes_first) {
  check_refuses(STR("[1,,\"\\u0000\"]"), E_MALFORMED, absent, "The text is not JSON near byte ");
  check_refuses(STR("[\"a\",\"b\\u0000\"x"), E_FIELD, STR("/1"), "A text must not contain");
}

TEST(a_refused_text_may_be_large) {
  SCOPED_ARENA a = arena_new();
  Str text = arena_printf(a, "[\"%.*s\",x]", STR_FMT(repeated(a, "\\n", 500000)));
  check_refuses(text, E_MALFORMED, absent, "The text is not JSON near byte 1000005: this character");
}

/* Buf: growth in both kinds of memory, numbers, big-endian integers and JSON strings. */
#include "base/buf.h"

#include "unit/unit.h"

static void fill(Buf *b) {
  for (int i = 0; i < 1000; i++)
    buf_int(b, i % 10);
  CHECK_INT((int64_t)b->n, 1000);
  bool intact = true;
  for (size_t i = 0; i < b->n; i++)
    intact = intact && b->p[i] == (char)('0' + i % 10);
  CHECK(intact);
}

TEST(grows_in_an_arena) {
  SCOPED_ARENA a = arena_new();
  Buf b = {.arena = a};
  fill(&b);
}

TEST(grows_in_the_heap) {
  Buf b = {0};
  fill(&b);
  buf_clear(&b);
  CHECK_INT((int64_t)b.n, 0);
  size_t cap = b.cap;
  fill(&b);
  CHECK_INT((int64_t)b.cap, (int64_t)cap);
  buf_free(&b);
  CHECK(b.p == NULL && b.cap == 0 && b.n == 0);
}

TEST(reserve_makes_room_at_once) {
  Buf b = {0};
  buf_reserve(&b, 10000);
  const char *p = b.p;
  for (int i = 0; i < 10000; i++)
    buf_char(&b, 'x');
  CHECK(b.p == p);
  buf_free(&b);
}

TEST(an_empty_buf_is_an_empty_string) {
  Buf b = {0};
  CHECK_STR(buf_view(&b), "");
  buf_add(&b, NULL, 0);
  buf_str(&b, (Str){0});
  CHECK_STR(buf_view(&b), "");
  buf_free(&b);
}

TEST(pieces_in_order) {
  SCOPED_ARENA a = arena_new();
  Buf b = {.arena = a};
  buf_str(&b, STR("a\0b"));
  buf_cstr(&b, "-cd");
  buf_char(&b, '-');
  buf_add(&b, "xyz", 2);
  CHECK_STR(buf_view(&b), STR("a\0b-cd-xy"));
}

TEST(integers) {
  static const struct {
    int64_t value;
    const char *text;
  } rows[] = {
      {0, "0"},
      {7, "7"},
      {10, "10"},
      {-1, "-1"},
      {1234567, "1234567"},
      {INT64_MAX, "9223372036854775807"},
      {INT64_MIN, "-9223372036854775808"},
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
    SCOPED_ARENA a = arena_new();
    Buf b = {.arena = a};
    buf_int(&b, rows[i].value);
    CHECK_STR(buf_view(&b), rows[i].text);
  }
}

TEST(printf_grows) {
  Buf b = {0};
  buf_printf(&b, "%s", "");
  buf_printf(&b, "%d/", 5);
  buf_printf(&b, "%300d", 7);
  buf_printf(&b, "|%s", "end");
  CHECK_INT((int64_t)b.n, 306);
  CHECK(str_starts(buf_view(&b), STR("5/  ")));
  CHECK_STR(((Str){b.p + b.n - 5, 5}), "7|end");
  buf_free(&b);
}

TEST(printf_into_the_last_free_byte) {
  for (int width = 120; width < 136; width++) {
    Buf b = {0};
    buf_reserve(&b, 1);
    buf_printf(&b, "%*d", width, 1);
    CHECK_INT((int64_t)b.n, width);
    CHECK_INT(b.p[b.n - 1], '1');
    buf_free(&b);
  }
}

TEST(big_endian) {
  SCOPED_ARENA a = arena_new();
  Buf b = {.arena = a};
  buf_be16(&b, 0x0102);
  buf_be32(&b, UINT32_C(0xFFFEFDFC));
  buf_be64(&b, UINT64_C(0x1122334455667788));
  CHECK_STR(buf_view(&b), STR("\x01\x02\xff\xfe\xfd\xfc\x11\x22\x33\x44\x55\x66\x77\x88"));
}

TEST(json_strings) {
  static const struct {
    Str raw;
    const char *json;
  } rows[] = {
      {{NULL, 0}, "null"},
      {STR(""), "\"\""},
      {STR("plain /text\x7f"), "\"plain /text\x7f\""},
      {STR("\"\\"), "\"\\\"\\\\\""},
      {STR("\b\t\n\f\r"), "\"\\b\\t\\n\\f\\r\""},
      {STR("\0\x01\x1f"), "\"\\u0000\\u0001\\u001F\""},
      {STR("\xd0\xb6 \xe2\x82\xac \xf0\x9f\x98\x80"), "\"\xd0\xb6 \xe2\x82\xac \xf0\x9f\x98\x80\""},
      {STR("a\xff"
           "b"),
       "\"a\\ufffdb\""},
      {STR("\xe2\x82"), "\"\\ufffd\\ufffd\""},
      {STR("\xed\xa0\x80"), "\"\\ufffd\\ufffd\\ufffd\""},
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
    SCOPED_ARENA a = arena_new();
    Buf b = {.arena = a};
    buf_json_string(&b, rows[i].raw);
    CHECK_STR(buf_view(&b), rows[i].json);
  }
}

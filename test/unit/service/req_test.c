/* What handlers do with a request, over a scripted database. */
#include "service/req.h"

#include "service/db_double.c"

typedef struct Thing {
  Uuid id;
  int64_t n;
} Thing;

static const Field fields[] = {FIELD(Thing, id, F_UUID), FIELD(Thing, n, F_INT), {0}};
static const Sql sql = {"PAGE"};

#define ID "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"

static struct {
  Arena *arena;
  HttpRequest http;
  HttpReply reply;
  Req req;
} world;

static void begin(const char *query) {
  if (world.arena)
    arena_free(world.arena);
  db_reset();
  world.arena = arena_new();
  world.http = (HttpRequest){
      .arena = world.arena, .method = STR("GET"), .path = STR("/t/t"), .query = str_from(query), .deadline_us = 88};
  world.reply = (HttpReply){0};
  world.req = (Req){.http = &world.http, .arena = world.arena, .reply = &world.reply};
}

static int page(FieldType key) {
  return req_page(&world.req, &sql, &V_TEXT(STR("x")), 1, fields, sizeof(Thing), key);
}

TEST(a_page_begins_at_the_start_with_a_hundred) {
  begin(NULL);
  CHECK_INT(page(F_INT), 0);
  CHECK_STR(db_double.sent[0], "PAGE|x|0|100\n");
  CHECK_STR(world.reply.body, "[]");
  CHECK_INT(world.reply.header_count, 0);
  CHECK_INT(db_double.deadline_us, 88);
  begin("");
  CHECK_INT(page(F_UUID), 0);
  CHECK_STR(db_double.sent[0], "PAGE|x|00000000-0000-0000-0000-000000000000|100\n");
}

TEST(a_page_goes_on_behind_its_token) {
  begin("page_size=7&page_token=42");
  CHECK_INT(page(F_INT), 0);
  CHECK_STR(db_double.sent[0], "PAGE|x|42|7\n");
  begin("page_token=" ID);
  CHECK_INT(page(F_UUID), 0);
  CHECK_STR(db_double.sent[0], "PAGE|x|" ID "|100\n");
}

TEST(a_page_has_a_thousand_rows_at_most) {
  begin("page_size=1001");
  CHECK_INT(page(F_INT), 0);
  CHECK_STR(db_double.sent[0], "PAGE|x|0|1000\n");
}

TEST(a_full_page_links_to_the_next) {
  begin("a=1&page_token=3&page_size=1&b=2");
  db_double.script[0] = (DbScript){.rows = 1, .columns = 3, .cells = {ID, "5", "9"}};
  CHECK_INT(page(F_INT), 0);
  CHECK_STR(world.reply.body, "[{\"id\":\"" ID "\",\"n\":5}]");
  CHECK_INT(world.reply.header_count, 1);
  CHECK_STR(world.reply.headers[0].name, "link");
  CHECK_STR(world.reply.headers[0].value, "</t/t?a=1&page_size=1&b=2&page_token=9>; rel=\"next\"");
}

TEST(the_last_page_links_to_none) {
  begin("page_size=2");
  db_double.script[0] = (DbScript){.rows = 1, .columns = 3, .cells = {ID, "5", "9"}};
  CHECK_INT(page(F_INT), 0);
  CHECK_INT(world.reply.header_count, 0);
}

TEST(pages_that_are_none) {
  static const char *const bad[] = {"page_size=0",  "page_size=-1", "page_size=x",   "page_size=",
                                    "page_token=x", "page_token=",  "page_size=1.5", "page_token=0-0"};
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    begin(bad[i]);
    CHECK_INT(page(F_INT), E_MALFORMED);
    CHECK(world.req.detail.p);
    CHECK_INT(db_double.calls, 0);
  }
  begin("page_token=5");
  CHECK_INT(page(F_UUID), E_MALFORMED);
}

static const char *param(const char *text) {
  begin(NULL);
  world.req.params[1] = str_from(text);
  return text;
}

TEST(ids_of_the_path) {
  Uuid id;
  char text[UUID_TEXT];
  param("017F22E2-79B0-7CC3-98C4-DC0C0C07398F");
  CHECK_INT(req_uuid(&world.req, 1, &id), 0);
  uuid_format(id, text);
  CHECK_STR(text, ID);
  param("5");
  CHECK_INT(req_uuid(&world.req, 1, &id), E_MALFORMED);
  CHECK_STR(world.req.detail, "'5' in the path is not a UUID");
  CHECK(!world.req.pointer.p);
}

TEST(sums_of_the_path) {
  Money sum = 7;
  param("12.5");
  CHECK_INT(req_money(&world.req, 1, &sum), 0);
  CHECK_INT(sum, 1250);
  static const struct {
    const char *text;
    int code;
  } bad[] = {{"x", E_MALFORMED}, {"1.001", E_FIELD}, {"0", E_FIELD}, {"-5", E_FIELD}, {"1e30", E_RANGE}};
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    param(bad[i].text);
    CHECK_INT(req_money(&world.req, 1, &sum), bad[i].code);
    CHECK(world.req.detail.p);
    CHECK_INT(sum, 1250);
  }
}

TEST(times_of_the_path) {
  LocalTime time = 7;
  param("2094-01-01T10:00");
  CHECK_INT(req_time(&world.req, 1, &time), 0);
  param("tomorrow");
  CHECK_INT(req_time(&world.req, 1, &time), E_MALFORMED);
}

TEST(texts_of_the_path) {
  Str text = {0};
  param("\xd1\x87 a");
  CHECK_INT(req_text(&world.req, 1, 4, &text), 0);
  CHECK_STR(text, "\xd1\x87 a");
  static const char *const bad[] = {"12345", "a\n", "\xc2\x85", " ", "\xe3\x80\x80"};
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    param(bad[i]);
    CHECK_INT(req_text(&world.req, 1, 4, &text), E_MALFORMED);
    CHECK(world.req.detail.p);
  }
}

TEST(a_row_or_none) {
  Thing thing = {.n = 7};
  begin(NULL);
  CHECK_INT(req_row(&world.req, DB_STMT(&sql, V_INT(1)), fields, &thing), E_NOT_FOUND);
  CHECK_INT(thing.n, 7);
  begin(NULL);
  db_double.script[0] = (DbScript){.rows = 1, .columns = 2, .cells = {ID, "5"}};
  CHECK_INT(req_row(&world.req, DB_STMT(&sql, V_INT(1)), fields, &thing), 0);
  CHECK_INT(thing.n, 5);
  begin(NULL);
  db_double.script[0].rc = E_TIMEOUT;
  CHECK_INT(req_row(&world.req, DB_STMT(&sql, V_INT(1)), fields, &thing), E_TIMEOUT);
}

TEST(a_change_says_whether_there_was_a_row) {
  begin(NULL);
  CHECK_INT(req_touch(&world.req, DB_STMT(&sql, V_INT(1))), 0);
  CHECK_STR(world.reply.body, "{\"status\":false}");
  begin(NULL);
  db_double.script[0].affected = 1;
  CHECK_INT(req_touch(&world.req, DB_STMT(&sql, V_INT(1))), 0);
  CHECK_STR(world.reply.body, "{\"status\":true}");
  CHECK_INT(world.reply.status, 200);
  CHECK_STR(world.reply.content_type, "application/json");
}

TEST(responses_are_rendered_at_once) {
  begin(NULL);
  Thing thing = {.n = 5};
  reply_object(&world.req, 202, fields, &thing);
  thing.n = 6;
  CHECK_INT(world.reply.status, 202);
  CHECK_STR(world.reply.body, "{\"id\":null,\"n\":5}");
}

TEST(the_last_failure_counts) {
  begin(NULL);
  CHECK_INT(fail(&world.req, E_FIELD, "/a", "%d is too much", 5), E_FIELD);
  CHECK_STR(world.req.pointer, "/a");
  CHECK_STR(world.req.detail, "5 is too much");
  CHECK_INT(fail(&world.req, E_REFUSED, NULL, NULL), E_REFUSED);
  CHECK(!world.req.pointer.p && !world.req.detail.p);
}

/* json_read and json_write: every type and bound of a field table, the exact pointer of what is wrong, both ways. */
#include "json/json.h"

#include "unit/unit.h"

#include <string.h>

typedef struct Line {
  Uuid id;
  Str item;
  int64_t amount;
  Money price;
  LocalTime due;
} Line;

typedef struct Order {
  Uuid id;
  Str status;
  bool gift;
  LocalTime timeDelivery;
  Uuid billingId;
  List contents;
  Str secret;
  Str extra;
  int64_t plain;
} Order;

static const Field line_fields[] = {
    FIELD(Line, id, F_UUID, .flags = FIELD_OUT),
    FIELD(Line, item, F_TEXT, .min = 1, .max = 8),
    FIELD(Line, amount, F_INT, .flags = FIELD_OPTIONAL, .min = 1, .max = 1000),
    FIELD(Line, price, F_MONEY, .min = 1, .max = 1000000),
    FIELD(Line, due, F_TIME, .flags = FIELD_OPTIONAL),
    {0},
};

static const char *const statuses[] = {"PENDING", "SUCCESS", NULL};

static const Field order_fields[] = {
    FIELD(Order, id, F_UUID, .flags = FIELD_OUT),
    FIELD(Order, status, F_TEXT, .values = statuses),
    FIELD(Order, gift, F_BOOL),
    FIELD(Order, timeDelivery, F_TIME),
    FIELD(Order, billingId, F_UUID, .flags = FIELD_OPTIONAL),
    FIELD(Order, contents, F_LIST, .fields = line_fields, .size = sizeof(Line), .min = 1, .max = 3),
    FIELD(Order, secret, F_TEXT, .flags = FIELD_HIDDEN | FIELD_OPTIONAL),
    FIELD(Order, extra, F_JSON),
    FIELD(Order, plain, F_INT),
    {0},
};

#define LINE  "{\"item\":\"phone\",\"price\":123.45}"
#define GOOD  "\"status\":\"PENDING\",\"gift\":true,\"timeDelivery\":\"2030-05-26T16:00:00\""
#define LINES "\"contents\":[" LINE "]"
#define PLAIN "\"plain\":0"
#define ID    "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"

static void check_read_refuses(const char *text, int code, const char *pointer, const char *detail) {
  SCOPED_ARENA a = arena_new();
  Order order, before;
  memset(&order, 0x5A, sizeof(order));
  before = order;
  JsonError error = {0};
  bool ok = CHECK_INT(json_read(a, str_from(text), order_fields, &order, &error), code);
  ok = CHECK_STR(error.pointer, pointer) && ok;
  ok = CHECK_STR(error.detail, detail) && ok;
  if (!ok)
    CHECK_STR(text, "");
  CHECK_INT(memcmp(&order, &before, sizeof(order)), 0);
  CHECK_INT(json_read(a, str_from(text), order_fields, &order, NULL), code);
}

TEST(a_whole_struct_is_read) {
  SCOPED_ARENA a = arena_new();
  Order order = {.plain = 5};
  JsonError error = {0};
  Str text = STR("{\"unknown\":{\"x\":[]},\"id\":42,\"extra\":[1]," GOOD ",\"billingId\":\"" ID "\",\"secret\":\"s\","
                 "\"contents\":[{\"item\":\"\\u0430\",\"amount\":7,\"price\":1e2,\"due\":\"2030-01-01T00:00\"}," LINE
                 "],\"plain\":-9223372036854775808}");
  if (!CHECK_INT(json_read(a, text, order_fields, &order, &error), 0)) {
    CHECK_STR(error.detail, "");
    return;
  }
  CHECK(uuid_is_nil(order.id));
  CHECK_STR(order.status, "PENDING");
  CHECK(order.gift);
  CHECK_INT(order.timeDelivery, INT64_C(1906041600000000));
  CHECK(!uuid_is_nil(order.billingId));
  CHECK_STR(order.secret, "s");
  CHECK(order.extra.p == NULL);
  CHECK_INT(order.plain, INT64_MIN);
  CHECK_INT((int64_t)order.contents.count, 2);
  const Line *lines = order.contents.items;
  CHECK_STR(lines[0].item, "\xd0\xb0");
  CHECK_INT(lines[0].amount, 7);
  CHECK_INT(lines[0].price, 10000);
  CHECK(lines[0].due != LOCALTIME_NONE);
  CHECK_STR(lines[1].item, "phone");
  CHECK_INT(lines[1].amount, 0);
  CHECK_INT(lines[1].price, 12345);
  CHECK_INT(lines[1].due, LOCALTIME_NONE);
}

TEST(optional_members_keep_what_they_had) {
  SCOPED_ARENA a = arena_new();
  Order order = {.secret = STR("kept"), .billingId = {.b = {9}}, .id = {.b = {8}}};
  CHECK_INT(json_read(a, STR("{" GOOD "," LINES "," PLAIN ",\"secret\":null}"), order_fields, &order, NULL), 0);
  CHECK_STR(order.secret, "kept");
  CHECK_INT(order.billingId.b[0], 9);
  CHECK_INT(order.id.b[0], 8);
}

TEST(missing_and_null) {
  check_read_refuses("{}", E_FIELD, "/status", "status is missing.");
  check_read_refuses("{\"status\":null}", E_FIELD, "/status", "status must not be null.");
  check_read_refuses("{" GOOD "}", E_FIELD, "/contents", "contents is missing.");
  check_read_refuses("{" GOOD ",\"contents\":[{\"item\":\"x\"}]," PLAIN "}", E_FIELD, "/contents/0/price",
                     "price is missing.");
}

TEST(not_an_object) {
  static const char *const texts[] = {"[]", "1", "\"x\"", "null", "true"};
  for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
    check_read_refuses(texts[i], E_MALFORMED, "", "The JSON text must be an object.");
}

TEST(parse_errors_pass_through) {
  check_read_refuses("{\"a\":1,\"a\":2}", E_MALFORMED, "/a", "An object has the same key twice.");
  check_read_refuses("", E_MALFORMED, NULL, "The JSON text is empty.");
}

static void check_line_refuses(const char *line, int code, const char *pointer, const char *detail) {
  SCOPED_ARENA a = arena_new();
  Str text = arena_printf(a, "{" GOOD ",\"contents\":[" LINE ",%s]," PLAIN "}", line);
  check_read_refuses(text.p, code, pointer, detail);
}

TEST(uuids) {
  static const char *const bad[] = {"1", "true", "[]", "{}", "\"\"", "\"x\"", "\"" ID "0\""};
  SCOPED_ARENA a = arena_new();
  for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
    check_read_refuses(arena_printf(a, "{" GOOD ",\"billingId\":%s}", bad[i]).p, E_FIELD, "/billingId",
                       "billingId must be a UUID, as a string.");
  check_read_refuses("{" GOOD ",\"billingId\":\"00000000-0000-0000-0000-000000000000\"}", E_FIELD, "/billingId",
                     "billingId must not be the nil UUID.");
}

TEST(money) {
  const char *at = "/contents/1/price", *bounds = "price must be from 0.01 to 10000.00.";
  check_line_refuses("{\"item\":\"x\",\"price\":\"1\"}", E_FIELD, at, "price must be a number.");
  check_line_refuses("{\"item\":\"x\",\"price\":[]}", E_FIELD, at, "price must be a number.");
  check_line_refuses("{\"item\":\"x\",\"price\":1.234}", E_FIELD, at,
                     "price must be an amount with at most two decimals.");
  check_line_refuses("{\"item\":\"x\",\"price\":1e400}", E_RANGE, at,
                     "price is beyond the amounts that can be stored.");
  check_line_refuses("{\"item\":\"x\",\"price\":0}", E_FIELD, at, bounds);
  check_line_refuses("{\"item\":\"x\",\"price\":-1}", E_FIELD, at, bounds);
  check_line_refuses("{\"item\":\"x\",\"price\":10000.01}", E_FIELD, at, bounds);
}

TEST(integers) {
  const char *at = "/contents/1/amount",
             *whole = "amount must be a whole number, written without fraction and exponent.";
  static const char *const bad[] = {"1.0", "1e2", "0.5", "\"1\"", "true", "{}"};
  SCOPED_ARENA a = arena_new();
  for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
    check_line_refuses(arena_printf(a, "{\"item\":\"x\",\"price\":1,\"amount\":%s}", bad[i]).p, E_FIELD, at, whole);
  check_line_refuses("{\"item\":\"x\",\"price\":1,\"amount\":0}", E_FIELD, at, "amount must be from 1 to 1000.");
  check_line_refuses("{\"item\":\"x\",\"price\":1,\"amount\":1001}", E_FIELD, at, "amount must be from 1 to 1000.");
  check_line_refuses("{\"item\":\"x\",\"price\":1,\"amount\":9223372036854775808}", E_RANGE, at,
                     "amount is beyond the numbers that can be stored.");
}

TEST(texts) {
  const char *at = "/contents/1/item", *length = "item must be 1 to 8 bytes long.";
  check_line_refuses("{\"item\":\"\",\"price\":1}", E_FIELD, at, length);
  check_line_refuses("{\"item\":\"123456789\",\"price\":1}", E_FIELD, at, length);
  check_line_refuses("{\"item\":\"\xd0\xb0\xd0\xb0\xd0\xb0\xd0\xb0\xd0\xb0\",\"price\":1}", E_FIELD, at, length);
  check_line_refuses("{\"item\":5,\"price\":1}", E_FIELD, at, "item must be a string.");
  check_read_refuses("{\"status\":\"pending\"}", E_FIELD, "/status", "status must be one of: PENDING, SUCCESS.");
  check_read_refuses("{\"status\":\"\"}", E_FIELD, "/status", "status must be one of: PENDING, SUCCESS.");
}

TEST(booleans) {
  check_read_refuses("{\"status\":\"SUCCESS\",\"gift\":1}", E_FIELD, "/gift", "gift must be true or false.");
  check_read_refuses("{\"status\":\"SUCCESS\",\"gift\":\"true\"}", E_FIELD, "/gift", "gift must be true or false.");
}

TEST(times) {
  const char *shape = "timeDelivery must be a date and time without zone, such as \"2030-05-26T16:00:00\".";
  const char *none = "timeDelivery is a date or time that does not exist.";
#define WITH_TIME(t) "{\"status\":\"SUCCESS\",\"gift\":false,\"timeDelivery\":" t "}"
  check_read_refuses(WITH_TIME("1906041600"), E_FIELD, "/timeDelivery", shape);
  check_read_refuses(WITH_TIME("\"tomorrow\""), E_FIELD, "/timeDelivery", shape);
  check_read_refuses(WITH_TIME("\"2030-05-26T16:00:00Z\""), E_FIELD, "/timeDelivery", shape);
  check_read_refuses(WITH_TIME("\"2030-02-30T16:00:00\""), E_FIELD, "/timeDelivery", none);
  check_read_refuses(WITH_TIME("\"2030-02-28T25:00:00\""), E_FIELD, "/timeDelivery", none);
}

TEST(lists) {
  const char *count = "contents must have 1 to 3 elements.";
  check_read_refuses("{" GOOD ",\"contents\":{}}", E_FIELD, "/contents", "contents must be a list.");
  check_read_refuses("{" GOOD ",\"contents\":[]}", E_FIELD, "/contents", count);
  check_read_refuses("{" GOOD ",\"contents\":[" LINE "," LINE "," LINE "," LINE "]}", E_FIELD, "/contents", count);
  check_line_refuses("1", E_FIELD, "/contents/1", "A list element must be an object.");
  check_line_refuses("null", E_FIELD, "/contents/1", "A list element must be an object.");
}

typedef struct Person {
  Str name, email, note, item;
} Person;

static const Field person_fields[] = {
    FIELD(Person, name, F_TEXT, .flags = FIELD_OPTIONAL, .min = 1, .max = 20),
    FIELD(Person, email, F_TEXT, .flags = FIELD_OPTIONAL | FIELD_EMAIL, .min = 3, .max = 20),
    FIELD(Person, note, F_TEXT, .flags = FIELD_OPTIONAL),
    FIELD(Person, item, F_TEXT, .flags = FIELD_OPTIONAL | FIELD_STORED, .min = 1, .max = 20),
    {0},
};

/* From a client it is refused with that; what is stored may be so. */
static void check_client_refused(const char *text, const char *pointer, const char *detail) {
  SCOPED_ARENA a = arena_new();
  Person person = {0};
  JsonError error = {0};
  CHECK_INT(json_read_client(a, str_from(text), person_fields, &person, &error), E_FIELD);
  CHECK_STR(error.pointer, pointer);
  CHECK_STR(error.detail, detail);
  CHECK(!person.name.p && !person.email.p);
  CHECK_INT(json_read(a, str_from(text), person_fields, &person, &error), 0);
}

TEST(texts_of_clients_have_no_control_characters_and_are_not_blank) {
  static const char *const control = " must not contain control characters, such as line breaks and tabs.";
  SCOPED_ARENA a = arena_new();
  check_client_refused("{\"name\":\"a\\nb\"}", "/name", arena_printf(a, "name%s", control).p);
  check_client_refused("{\"name\":\"a\\u009b\"}", "/name", arena_printf(a, "name%s", control).p);
  check_client_refused("{\"note\":\"\\t\"}", "/note", arena_printf(a, "note%s", control).p);
  check_client_refused("{\"email\":\"a@b\\r\\nBcc: c@d\"}", "/email", arena_printf(a, "email%s", control).p);
  check_client_refused("{\"name\":\" \\u00a0\"}", "/name", "name must not be blank.");
  check_client_refused("{\"email\":\"nobody\"}", "/email",
                       "email must be an e-mail address, such as \"name@example.org\".");
}

TEST(what_clients_may_send) {
  SCOPED_ARENA a = arena_new();
  Person person = {0};
  CHECK_INT(json_read_client(a, STR("{\"name\":\" a \",\"email\":\"a@b\",\"note\":\" \",\"item\":\"\\n\"}"),
                             person_fields, &person, NULL),
            0);
  CHECK_STR(person.name, " a ");
  CHECK_STR(person.note, " ");
  CHECK_STR(person.item, "\n");
}

TEST(lists_of_clients_are_held_to_it_too) {
  SCOPED_ARENA a = arena_new();
  List list = {0};
  JsonError error = {0};
  CHECK_INT(json_read_client_list(a, STR("[{\"name\":\"a\"},{\"name\":\"\\u0007\"}]"), person_fields, sizeof(Person), 1,
                                  2, &list, &error),
            E_FIELD);
  CHECK_STR(error.pointer, "/1/name");
}

TEST(zero_bounds_are_none) {
  static const Field fields[] = {
      FIELD(Line, price, F_MONEY), FIELD(Line, item, F_TEXT), FIELD(Line, amount, F_INT), {0}};
  SCOPED_ARENA a = arena_new();
  Line line = {0};
  CHECK_INT(json_read(a, STR("{\"price\":-90000000000000000,\"item\":\"\",\"amount\":9223372036854775807}"), fields,
                      &line, NULL),
            0);
  CHECK_INT(line.price, -MONEY_MAX);
  CHECK_STR(line.item, "");
  CHECK_INT(line.amount, INT64_MAX);
}

TEST(a_whole_list_is_read) {
  SCOPED_ARENA a = arena_new();
  List list = {0};
  CHECK_INT(json_read_client_list(a, STR("[" LINE "," LINE "]"), line_fields, sizeof(Line), 1, 2, &list, NULL), 0);
  CHECK_INT((int64_t)list.count, 2);
  CHECK_STR(((Line *)list.items)[1].item, "phone");
  CHECK_INT(json_read_client_list(a, STR("[]"), line_fields, sizeof(Line), 0, 0, &list, NULL), 0);
  CHECK_INT((int64_t)list.count, 0);
}

static void check_list_refuses(const char *text, int code, const char *pointer, const char *detail) {
  SCOPED_ARENA a = arena_new();
  List list = {.count = 42};
  JsonError error = {0};
  CHECK_INT(json_read_client_list(a, str_from(text), line_fields, sizeof(Line), 1, 2, &list, &error), code);
  CHECK_STR(error.pointer, pointer);
  CHECK_STR(error.detail, detail);
  CHECK_INT((int64_t)list.count, 42);
}

TEST(whole_lists_refused) {
  check_list_refuses("{}", E_MALFORMED, "", "The JSON text must be a list.");
  check_list_refuses("[]", E_FIELD, "", "The JSON text must have 1 to 2 elements.");
  check_list_refuses("[" LINE "," LINE "," LINE "]", E_FIELD, "", "The JSON text must have 1 to 2 elements.");
  check_list_refuses("[" LINE ",7]", E_FIELD, "/1", "A list element must be an object.");
  check_list_refuses("[{\"item\":\"x\",\"price\":0.001}]", E_FIELD, "/0/price",
                     "price must be an amount with at most two decimals.");
}

static void check_written(const Order *order, const char *want) {
  SCOPED_ARENA a = arena_new();
  Buf b = {.arena = a};
  json_write(&b, order_fields, order);
  CHECK_STR(buf_view(&b), want);
}

TEST(absent_values_are_written_as_null) {
  check_written(&(Order){.timeDelivery = LOCALTIME_NONE, .secret = STR("hidden")},
                "{\"id\":null,\"status\":null,\"gift\":false,\"timeDelivery\":null,\"billingId\":null,\"contents\":[],"
                "\"extra\":null,\"plain\":0}");
}

TEST(every_type_is_written) {
  Line lines[] = {
      {.item = STR("a\"b"), .amount = -3, .price = 5130, .due = LOCALTIME_NONE},
      {.item = STR(""), .price = -1},
  };
  Order order = {.status = STR("SUCCESS"),
                 .gift = true,
                 .timeDelivery = INT64_C(1906041600000000),
                 .contents = {lines, 2},
                 .extra = STR("{\"raw\":[1]}"),
                 .plain = INT64_MIN};
  CHECK_INT(uuid_parse(STR(ID), &order.id), 0);
  check_written(&order, "{\"id\":\"" ID "\",\"status\":\"SUCCESS\",\"gift\":true,\"timeDelivery\":\"2030-05-26T16:00\","
                        "\"billingId\":null,\"contents\":["
                        "{\"id\":null,\"item\":\"a\\\"b\",\"amount\":-3,\"price\":51.3,\"due\":null},"
                        "{\"id\":null,\"item\":\"\",\"amount\":0,\"price\":-0.01,\"due\":\"1970-01-01T00:00\"}],"
                        "\"extra\":{\"raw\":[1]},\"plain\":-9223372036854775808}");
}

TEST(tables_without_members_to_show) {
  static const Field none[] = {{0}};
  static const Field hidden[] = {FIELD(Line, item, F_TEXT, .flags = FIELD_HIDDEN), {0}};
  SCOPED_ARENA a = arena_new();
  Buf b = {.arena = a};
  Line line = {.item = STR("x")};
  json_write(&b, none, &line);
  json_write(&b, hidden, &line);
  CHECK_STR(buf_view(&b), "{}{}");
}

TEST(a_list_is_written) {
  static const Field fields[] = {FIELD(Line, amount, F_INT), {0}};
  SCOPED_ARENA a = arena_new();
  Buf b = {.arena = a};
  Line lines[] = {{.amount = 1}, {.amount = 2}};
  json_write_list(&b, fields, sizeof(Line), (List){lines, 2});
  json_write_list(&b, fields, sizeof(Line), (List){0});
  CHECK_STR(buf_view(&b), "[{\"amount\":1},{\"amount\":2}][]");
}

TEST(what_is_written_reads_back) {
  SCOPED_ARENA a = arena_new();
  Line line = {.item = STR("\"\n\\\t\xe2\x82\xac"), .amount = 12, .price = 999999, .due = 1}, back = {0};
  Buf b = {.arena = a};
  json_write(&b, line_fields, &line);
  CHECK_INT(json_read(a, buf_view(&b), line_fields, &back, NULL), 0);
  CHECK_STR(back.item, line.item);
  CHECK_INT(back.amount, line.amount);
  CHECK_INT(back.price, line.price);
  CHECK_INT(back.due, line.due);
}

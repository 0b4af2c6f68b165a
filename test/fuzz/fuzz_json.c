/* json_parse and json_read: an accepted text is one whose tree, written and parsed again, is the same tree; a struct
 * that was read obeys its table, and written and read again it is written the same; a refusal leaves everything as it
 * was and says where and why in good UTF-8. */
#include "fuzz/fuzz.h"
#include "json/json.h"

#include <string.h>

typedef struct Line {
  Str item;
  int64_t amount;
  Money price;
} Line;

typedef struct Order {
  Uuid orderId;
  Str status;
  bool gift;
  LocalTime timeDelivery;
  List contents;
} Order;

static const char *const statuses[] = {"PENDING", "SUCCESS", NULL};

static const Field line_fields[] = {
    FIELD(Line, item, F_TEXT, .min = 1, .max = 16),
    FIELD(Line, amount, F_INT, .flags = FIELD_OPTIONAL, .min = 1, .max = 1000),
    FIELD(Line, price, F_MONEY, .flags = FIELD_OPTIONAL),
    {0},
};

static const Field order_fields[] = {
    FIELD(Order, orderId, F_UUID, .flags = FIELD_OPTIONAL),
    FIELD(Order, status, F_TEXT, .flags = FIELD_OPTIONAL, .values = statuses),
    FIELD(Order, gift, F_BOOL, .flags = FIELD_OPTIONAL),
    FIELD(Order, timeDelivery, F_TIME, .flags = FIELD_OPTIONAL),
    FIELD(Order, contents, F_LIST, .fields = line_fields, .size = sizeof(Line), .min = 1, .max = 3),
    {0},
};

static void write_tree(Buf *out, const JsonValue *v);

static void write_members(Buf *out, const JsonValue *container) {
  bool object = container->type == JSON_OBJECT;
  buf_char(out, object ? '{' : '[');
  for (const JsonValue *v = container->first; v; v = v->next) {
    PROPERTY(!v->name.p == !object);
    if (object) {
      PROPERTY(json_get(container, v->name) == v); /* no other member has the name */
      buf_json_string(out, v->name);
      buf_char(out, ':');
    }
    write_tree(out, v);
    if (v->next)
      buf_char(out, ',');
  }
  buf_char(out, object ? '}' : ']');
}

static void write_tree(Buf *out, const JsonValue *v) {
  static const char *const words[] = {[JSON_NULL] = "null", [JSON_FALSE] = "false", [JSON_TRUE] = "true"};
  if (v->type == JSON_OBJECT || v->type == JSON_ARRAY)
    write_members(out, v);
  else if (v->type == JSON_STRING)
    buf_json_string(out, v->text);
  else
    buf_cstr(out, v->type == JSON_NUMBER ? arena_cstr(out->arena, v->text) : words[v->type]);
}

static void check_error(int code, const JsonError *error) {
  PROPERTY(code == E_MALFORMED || code == E_FIELD || code == E_RANGE || code == E_TOO_LARGE);
  PROPERTY(error->detail.n > 0 && str_is_utf8(error->detail));
  PROPERTY(str_is_utf8(error->pointer));
  PROPERTY(error->pointer.n == 0 || error->pointer.p[0] == '/');
}

static bool holds_zero_or_bad_utf8(const JsonValue *v) {
  if (memchr(v->text.n ? v->text.p : "x", 0, v->text.n) || !str_is_utf8(v->text) || !str_is_utf8(v->name))
    return true;
  for (const JsonValue *member = v->first; member; member = member->next)
    if (holds_zero_or_bad_utf8(member))
      return true;
  return false;
}

static void check_parse(Arena *a, Str text) {
  JsonValue untouched, *root = &untouched;
  JsonError error = {0};
  int rc = json_parse(a, text, &root, &error);
  if (rc < 0) {
    PROPERTY(root == &untouched);
    check_error(rc, &error);
    return;
  }
  PROPERTY(str_is_utf8(text) && !holds_zero_or_bad_utf8(root));
  Buf once = {.arena = a}, twice = {.arena = a};
  write_tree(&once, root);
  PROPERTY(json_parse(a, buf_view(&once), &root, &error) == 0);
  write_tree(&twice, root);
  PROPERTY(str_eq(buf_view(&once), buf_view(&twice)));
}

static void check_order(const Order *order) {
  PROPERTY(!order->status.p || str_eq(order->status, STR("PENDING")) || str_eq(order->status, STR("SUCCESS")));
  PROPERTY(order->contents.count >= 1 && order->contents.count <= 3);
  const Line *lines = order->contents.items;
  for (size_t i = 0; i < order->contents.count; i++) {
    PROPERTY(lines[i].item.n >= 1 && lines[i].item.n <= 16);
    PROPERTY(lines[i].amount >= 0 && lines[i].amount <= 1000);
    PROPERTY(lines[i].price <= MONEY_MAX && lines[i].price >= -MONEY_MAX);
  }
}

/* amount 0 stands for "not given", which the table does not take as a value. */
static void give_amounts(const Order *order) {
  Line *lines = order->contents.items;
  for (size_t i = 0; i < order->contents.count; i++)
    if (lines[i].amount == 0)
      lines[i].amount = 1;
}

static void check_read(Arena *a, Str text) {
  Order order, before;
  memset(&order, 0, sizeof(order));
  order.timeDelivery = LOCALTIME_NONE;
  before = order;
  JsonError error = {0};
  int rc = json_read(a, text, order_fields, &order, &error);
  if (rc < 0) {
    PROPERTY(memcmp(&order, &before, sizeof(order)) == 0);
    check_error(rc, &error);
    return;
  }
  check_order(&order);
  give_amounts(&order);
  Buf once = {.arena = a}, twice = {.arena = a};
  json_write(&once, order_fields, &order);
  Order again = before;
  PROPERTY(json_read(a, buf_view(&once), order_fields, &again, &error) == 0);
  json_write(&twice, order_fields, &again);
  PROPERTY(str_eq(buf_view(&once), buf_view(&twice)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static Arena *arena;
  if (!arena)
    arena = arena_new();
  Str text = {(const char *)data, size};
  check_parse(arena, text);
  check_read(arena, text);
  arena_reset(arena);
  List list = {0};
  JsonError error = {0};
  int rc = json_read_client_list(arena, text, line_fields, sizeof(Line), 1, 3, &list, &error);
  if (rc < 0)
    check_error(rc, &error);
  else
    PROPERTY(list.count >= 1 && list.count <= 3);
  arena_reset(arena);
  return 0;
}

/* The texts of notifications, and the rows of Billing's history that they are made from. Pure: values in, text out. */
#include "services/notification_message.h"

static Str placeholder(const Operation *o, Str name) {
  const struct {
    Str name, value;
  } known[] = {
      {STR("operation"), o->type}, {STR("status"), o->status}, {STR("sum"), o->sum}, {STR("wallet"), o->wallet}};
  for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
    if (str_eq(known[i].name, name))
      return known[i].value.p ? known[i].value : STR("an unknown amount");
  return (Str){0};
}

static const char *template_of(const Operation *o) {
  static const struct {
    const char *type, *status, *text;
  } templates[] = {
      {"CREATE", "SUCCESS", "Your account was opened; its wallet holds {wallet}."},
      {"CREATE", "FAILED", "Your account could not be opened."},
      {"REFILL", "SUCCESS", "Your wallet was refilled with {sum} and now holds {wallet}."},
      {"REFILL", "FAILED", "The refill of your wallet with {sum} failed; it holds {wallet}."},
      {"BUY", "SUCCESS", "You paid {sum} from your wallet, which now holds {wallet}."},
      {"BUY", "FAILED", "Your payment of {sum} was refused: your wallet holds {wallet}."},
      {"REFUND", "SUCCESS", "You were refunded {sum}; your wallet now holds {wallet}."},
      {"REFUND", "FAILED", "The refund of {sum} failed; your wallet holds {wallet}."},
  };
  for (size_t i = 0; i < sizeof(templates) / sizeof(templates[0]); i++)
    if (str_eq(o->type, str_from(templates[i].type)) && str_eq(o->status, str_from(templates[i].status)))
      return templates[i].text;
  return "{operation} of {sum}: {status}. Your wallet holds {wallet}.";
}

Str notification_message(Arena *arena, const Operation *o) {
  Buf out = {.arena = arena};
  for (Str rest = str_from(template_of(o)); rest.p;) {
    buf_str(&out, str_cut(&rest, '{'));
    if (rest.p)
      buf_str(&out, placeholder(o, str_cut(&rest, '}')));
  }
  return buf_view(&out);
}

static bool is_null(const JsonValue *value) {
  return !value || value->type == JSON_NULL;
}

static bool read_id(const JsonValue *row, Str name, Uuid *ret) {
  const JsonValue *value = json_get(row, name);
  return value && value->type == JSON_STRING && uuid_parse(value->text, ret) == E_OK && !uuid_is_nil(*ret);
}

static bool read_text(const JsonValue *row, Str name, Str *ret) {
  const JsonValue *value = json_get(row, name);
  if (!value || value->type != JSON_STRING)
    return false;
  *ret = value->text;
  return true;
}

/* A number, or a number as text, depending on the connector's configuration; null leaves *ret absent. A value that
 * Money cannot hold keeps its original digits. */
static bool read_money(Arena *arena, const JsonValue *row, Str name, Str *ret) {
  const JsonValue *value = json_get(row, name);
  if (is_null(value))
    return true;
  if (value->type != JSON_NUMBER && value->type != JSON_STRING)
    return false;
  Money money = 0;
  int rc = money_parse(value->text, &money);
  if (rc == E_MALFORMED)
    return false;
  char text[MONEY_TEXT];
  *ret = rc == E_OK ? arena_str(arena, (Str){text, money_format_prose(money, text)}) : value->text;
  return true;
}

const char *notification_operation_read(Arena *arena, const JsonValue *row, Operation *ret) {
  Operation o = {0};
  Str before = {0};
  if (!row)
    return "the event has no row";
  if (!read_id(row, STR("id"), &o.id))
    return "id is missing or no UUID";
  if (!is_null(json_get(row, STR("billing_id"))) && !read_id(row, STR("billing_id"), &o.billing_id))
    return "billing_id is no UUID";
  if (!read_text(row, STR("type_operation"), &o.type))
    return "type_operation is missing or no text";
  if (!read_text(row, STR("status"), &o.status))
    return "status is missing or no text";
  if (!read_money(arena, row, STR("sum"), &o.sum) || !read_money(arena, row, STR("last_value_wallet"), &before) ||
      !read_money(arena, row, STR("current_value_wallet"), &o.wallet))
    return "an amount is no number";
  if (!o.wallet.p)
    o.wallet = before;
  *ret = o;
  return NULL;
}

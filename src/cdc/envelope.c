/* Reading Debezium's change event envelope. */
#include "cdc/envelope.h"

#include <string.h>

static Str text_of(const JsonValue *object, Str name) {
  const JsonValue *value = json_get(object, name);
  return value && value->type == JSON_STRING ? value->text : (Str){0};
}

static int64_t integer_of(const JsonValue *object, Str name) {
  const JsonValue *value = json_get(object, name);
  int64_t integer = 0;
  if (value && value->type == JSON_NUMBER && str_to_int(value->text, &integer) == E_OK)
    return integer;
  return 0;
}

static const JsonValue *object_of(const JsonValue *object, Str name) {
  const JsonValue *value = json_get(object, name);
  return value && value->type == JSON_OBJECT ? value : NULL;
}

/* ts_us came with version 2.6; before it there are milliseconds only. */
static int64_t commit_time(const JsonValue *source) {
  int64_t us = integer_of(source, STR("ts_us")), ms = 0;
  if (us == 0 && !__builtin_mul_overflow(integer_of(source, STR("ts_ms")), 1000, &ms))
    us = ms;
  return us;
}

static bool is_heartbeat(const JsonValue *payload) {
  return payload->type == JSON_OBJECT && payload->first && !payload->first->next && json_get(payload, STR("ts_ms"));
}

static int read_payload(const JsonValue *payload, Envelope *ret) {
  Envelope e = {0};
  Str op = text_of(payload, STR("op"));
  const JsonValue *source = object_of(payload, STR("source"));
  if (op.n != 1 || !memchr("cudrtm", op.p[0], 6) || !source)
    return E_MALFORMED;
  e.op = op.p[0];
  e.schema = text_of(source, STR("schema"));
  e.table = text_of(source, STR("table"));
  e.lsn = integer_of(source, STR("lsn"));
  e.tx_id = integer_of(source, STR("txId"));
  e.commit_us = commit_time(source);
  e.before = object_of(payload, STR("before"));
  e.after = object_of(payload, STR("after"));
  *ret = e;
  return E_OK;
}

/* Remembers the bytes in front of the payload of a value that has a schema before it and nothing behind it. The tree's
 * names stand in a copy of the value, in the same places unless they have an escape in them. */
static void remember_schema(Buf *schema, Str value, const JsonValue *root) {
  const Str head = STR("{\"schema\":");
  buf_clear(schema);
  const JsonValue *first = root->first, *payload = first ? first->next : NULL;
  if (!str_starts(value, head) || !payload || payload->next || !payload->first)
    return;
  size_t at = (uintptr_t)payload->first->name.p - (uintptr_t)first->name.p; /* from that name, behind {" */
  if (at < value.n - head.n && memcmp(value.p + at, "{\"", 2) == 0)
    buf_add(schema, value.p, at);
}

/* Whether the value begins as remembered, and what follows is a whole payload and the end of the object around it. */
static bool parse_payload(Arena *arena, Str value, const Buf *schema, const JsonValue **ret) {
  if (schema->n == 0 || value.n <= schema->n || memcmp(value.p, schema->p, schema->n) != 0 ||
      value.p[value.n - 1] != '}')
    return false;
  JsonValue *payload = NULL;
  int rc = json_parse(arena, (Str){value.p + schema->n, value.n - schema->n - 1}, &payload, NULL);
  *ret = payload;
  return rc == E_OK;
}

/* NULL, or JSON null: there is none. */
static int find_payload(Arena *arena, Str value, Buf *schema, const JsonValue **ret) {
  *ret = NULL;
  if (!value.p || (schema && parse_payload(arena, value, schema, ret)))
    return E_OK;
  JsonValue *root = NULL;
  TRY(json_parse(arena, value, &root, NULL));
  const JsonValue *payload = json_get(root, STR("schema")) ? json_get(root, STR("payload")) : NULL;
  if (payload && schema)
    remember_schema(schema, value, root);
  *ret = payload ? payload : root;
  return E_OK;
}

int envelope_parse(Arena *arena, Str value, Buf *schema, Envelope *ret) {
  const JsonValue *payload = NULL;
  TRY(find_payload(arena, value, schema, &payload));
  if (!payload || payload->type == JSON_NULL || is_heartbeat(payload)) {
    *ret = (Envelope){0};
    return E_OK;
  }
  return read_payload(payload, ret);
}

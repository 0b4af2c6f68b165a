/* Field tables at work on JSON: from a tree to structs, and from structs to text. */
#include "json/json.h"
#include "json/text.h"

#include <assert.h>
#include <stdarg.h>
#include <string.h>

typedef struct Path { /* where a value stands in the text; chained from the inside out, the whole has no path */
  const struct Path *up;
  const char *name; /* NULL: an element of a list */
  size_t index;
} Path;

typedef struct Reader {
  Arena *arena;
  JsonError *error; /* may be NULL */
  bool client;      /* who wrote the text */
} Reader;

typedef int ReadFn(const Reader *r, const Path *at, const Field *f, const JsonValue *v, void *member);
typedef void WriteFn(Buf *out, const Field *f, const void *member);

static void add_path(Buf *pointer, const Path *at) {
  if (!at)
    return;
  add_path(pointer, at->up); /* as deep as the tables are nested, not the text */
  buf_char(pointer, '/');
  if (at->name)
    buf_cstr(pointer, at->name);
  else
    buf_int(pointer, (int64_t)at->index);
}

/* The sentence begins with the name of what is wrong, format goes on from there. Returns code. */
__attribute__((format(printf, 4, 5))) static int refuse(const Reader *r, const Path *at, int code, const char *format,
                                                        ...) {
  if (!r->error)
    return code;
  va_list args;
  va_start(args, format);
  Str rest = arena_vprintf(r->arena, format, args);
  va_end(args);
  Buf pointer = {.arena = r->arena};
  add_path(&pointer, at);
  const char *subject = !at ? "The JSON text" : at->name ? at->name : "A list element";
  *r->error =
      (JsonError){.pointer = buf_view(&pointer), .detail = arena_printf(r->arena, "%s %.*s.", subject, STR_FMT(rest))};
  return code;
}

static bool is_bounded(const Field *f) {
  return f->min != 0 || f->max != 0;
}

static bool is_within(const Field *f, int64_t value) {
  assert(f->min <= f->max);
  return !is_bounded(f) || (value >= f->min && value <= f->max);
}

static int read_uuid(const Reader *r, const Path *at, const Field *f, const JsonValue *v, void *member) {
  (void)f;
  Uuid id;
  if (v->type != JSON_STRING || uuid_parse(v->text, &id) < 0)
    return refuse(r, at, E_FIELD, "must be a UUID, as a string");
  if (uuid_is_nil(id))
    return refuse(r, at, E_FIELD, "must not be the nil UUID");
  *(Uuid *)member = id;
  return 0;
}

static int read_money(const Reader *r, const Path *at, const Field *f, const JsonValue *v, void *member) {
  if (v->type != JSON_NUMBER)
    return refuse(r, at, E_FIELD, "must be a number");
  Money value;
  int rc = money_parse(v->text, &value);
  if (rc == E_RANGE)
    return refuse(r, at, E_RANGE, "is beyond the amounts that can be stored");
  if (rc < 0)
    return refuse(r, at, E_FIELD, "must be an amount with at most two decimals");
  if (!is_within(f, value)) {
    char low[MONEY_TEXT], high[MONEY_TEXT];
    money_format_prose(f->min, low);
    money_format_prose(f->max, high);
    return refuse(r, at, E_FIELD, "must be from %s to %s", low, high);
  }
  *(Money *)member = value;
  return 0;
}

static bool is_allowed(const char *const *values, Str text) {
  for (; *values; values++)
    if (str_eq(str_from(*values), text))
      return true;
  return false;
}

static int refuse_value(const Reader *r, const Path *at, const char *const *values) {
  Buf list = {.arena = r->arena};
  for (const char *const *v = values; *v; v++) {
    buf_cstr(&list, v == values ? "" : ", ");
    buf_cstr(&list, *v);
  }
  return refuse(r, at, E_FIELD, "must be one of: %.*s", STR_FMT(buf_view(&list)));
}

static int check_client_text(const Reader *r, const Path *at, const Field *f, Str text) {
  if (text_has_control(text))
    return refuse(r, at, E_FIELD, "must not contain control characters, such as line breaks and tabs");
  if (f->min > 0 && text_is_blank(text))
    return refuse(r, at, E_FIELD, "must not be blank");
  if (f->flags & FIELD_EMAIL && !text_is_email(text))
    return refuse(r, at, E_FIELD, "must be an e-mail address, such as \"name@example.org\"");
  return 0;
}

static int read_text(const Reader *r, const Path *at, const Field *f, const JsonValue *v, void *member) {
  if (v->type != JSON_STRING)
    return refuse(r, at, E_FIELD, "must be a string");
  if (!is_within(f, (int64_t)v->text.n))
    return refuse(r, at, E_FIELD, "must be %lld to %lld bytes long", (long long)f->min, (long long)f->max);
  if (f->values && !is_allowed(f->values, v->text))
    return refuse_value(r, at, f->values);
  if (r->client && !(f->flags & FIELD_STORED))
    TRY(check_client_text(r, at, f, v->text));
  *(Str *)member = v->text;
  return 0;
}

static int read_int(const Reader *r, const Path *at, const Field *f, const JsonValue *v, void *member) {
  int64_t value;
  int rc = v->type == JSON_NUMBER ? str_to_int(v->text, &value) : E_MALFORMED;
  if (rc == E_RANGE)
    return refuse(r, at, E_RANGE, "is beyond the numbers that can be stored");
  if (rc < 0)
    return refuse(r, at, E_FIELD, "must be a whole number, written without fraction and exponent");
  if (!is_within(f, value))
    return refuse(r, at, E_FIELD, "must be from %lld to %lld", (long long)f->min, (long long)f->max);
  *(int64_t *)member = value;
  return 0;
}

static int read_bool(const Reader *r, const Path *at, const Field *f, const JsonValue *v, void *member) {
  (void)f;
  if (v->type != JSON_TRUE && v->type != JSON_FALSE)
    return refuse(r, at, E_FIELD, "must be true or false");
  *(bool *)member = v->type == JSON_TRUE;
  return 0;
}

static int read_time(const Reader *r, const Path *at, const Field *f, const JsonValue *v, void *member) {
  (void)f;
  LocalTime time;
  int rc = v->type == JSON_STRING ? localtime_parse(v->text, &time) : E_MALFORMED;
  if (rc == E_FIELD)
    return refuse(r, at, E_FIELD, "is a date or time that does not exist");
  if (rc < 0)
    return refuse(r, at, E_FIELD, "must be a date and time without zone, such as \"2030-05-26T16:00:00\"");
  *(LocalTime *)member = time;
  return 0;
}

static ReadFn read_items;

static void write_uuid(Buf *out, const Field *f, const void *member) {
  (void)f;
  const Uuid *id = member;
  if (uuid_is_nil(*id)) {
    buf_str(out, STR("null"));
    return;
  }
  buf_reserve(out, UUID_TEXT + 2);
  buf_char(out, '"');
  uuid_format(*id, out->p + out->n);
  out->n += UUID_TEXT - 1;
  buf_char(out, '"');
}

static void write_money(Buf *out, const Field *f, const void *member) {
  (void)f;
  buf_reserve(out, MONEY_TEXT);
  out->n += money_format(*(const Money *)member, out->p + out->n);
}

static void write_text(Buf *out, const Field *f, const void *member) {
  (void)f;
  buf_json_string(out, *(const Str *)member);
}

static void write_int(Buf *out, const Field *f, const void *member) {
  (void)f;
  buf_int(out, *(const int64_t *)member);
}

static void write_bool(Buf *out, const Field *f, const void *member) {
  (void)f;
  buf_cstr(out, *(const bool *)member ? "true" : "false");
}

static void write_time(Buf *out, const Field *f, const void *member) {
  (void)f;
  LocalTime time = *(const LocalTime *)member;
  if (time == LOCALTIME_NONE) {
    buf_str(out, STR("null"));
    return;
  }
  buf_reserve(out, LOCALTIME_TEXT + 2);
  buf_char(out, '"');
  out->n += localtime_format(time, out->p + out->n);
  buf_char(out, '"');
}

static void write_items(Buf *out, const Field *f, const void *member) {
  json_write_list(out, f->fields, f->size, *(const List *)member);
}

static void write_json(Buf *out, const Field *f, const void *member) {
  (void)f;
  Str json = *(const Str *)member;
  buf_str(out, json.p ? json : STR("null"));
}

static const struct {
  size_t size;
  ReadFn *read; /* NULL: never read */
  WriteFn *write;
} kinds[] = {
    [F_UUID] = {sizeof(Uuid), read_uuid, write_uuid},   [F_MONEY] = {sizeof(Money), read_money, write_money},
    [F_TEXT] = {sizeof(Str), read_text, write_text},    [F_INT] = {sizeof(int64_t), read_int, write_int},
    [F_BOOL] = {sizeof(bool), read_bool, write_bool},   [F_TIME] = {sizeof(LocalTime), read_time, write_time},
    [F_LIST] = {sizeof(List), read_items, write_items}, [F_JSON] = {sizeof(Str), NULL, write_json},
};

static int read_member(const Reader *r, const Path *up, const Field *f, const JsonValue *object, void *struct_) {
  Path at = {.up = up, .name = f->name};
  const JsonValue *v = json_get(object, str_from(f->name));
  bool given = v && v->type != JSON_NULL;
  if (!given && (f->flags & FIELD_OPTIONAL))
    return 0;
  if (!given)
    return refuse(r, &at, E_FIELD, v ? "must not be null" : "is missing");
  return kinds[f->type].read(r, &at, f, v, (char *)struct_ + f->offset);
}

static int read_members(const Reader *r, const Path *at, const Field *fields, const JsonValue *object, void *struct_) {
  for (const Field *f = fields; f->type != F_END; f++)
    if (!(f->flags & FIELD_OUT) && kinds[f->type].read)
      TRY(read_member(r, at, f, object, struct_));
  return 0;
}

static void clear_times(const Field *fields, void *struct_) {
  for (const Field *f = fields; f->type != F_END; f++)
    if (f->type == F_TIME)
      *(LocalTime *)((char *)struct_ + f->offset) = LOCALTIME_NONE;
}

static int read_items(const Reader *r, const Path *at, const Field *f, const JsonValue *v, void *member) {
  if (v->type != JSON_ARRAY)
    return refuse(r, at, at ? E_FIELD : E_MALFORMED, "must be a list");
  size_t count = 0;
  for (const JsonValue *item = v->first; item; item = item->next)
    count++;
  if (!is_within(f, (int64_t)count))
    return refuse(r, at, E_FIELD, "must have %lld to %lld elements", (long long)f->min, (long long)f->max);
  char *items = arena_alloc(r->arena, count * f->size);
  Path element = {.up = at};
  for (const JsonValue *item = v->first; item; item = item->next, element.index++) {
    char *struct_ = items + element.index * f->size;
    if (item->type != JSON_OBJECT)
      return refuse(r, &element, E_FIELD, "must be an object");
    clear_times(f->fields, struct_);
    TRY(read_members(r, &element, f->fields, item, struct_));
  }
  *(List *)member = (List){.items = items, .count = count};
  return 0;
}

/* How many bytes of the struct the table covers. */
static size_t extent(const Field *fields) {
  size_t end = 0;
  for (const Field *f = fields; f->type != F_END; f++)
    if (f->offset + kinds[f->type].size > end)
      end = f->offset + kinds[f->type].size;
  return end;
}

static int read_object(const Reader *r, Str text, const Field *fields, void *object) {
  JsonValue *root;
  TRY(json_parse(r->arena, text, &root, r->error));
  if (root->type != JSON_OBJECT)
    return refuse(r, NULL, E_MALFORMED, "must be an object");
  size_t bytes = extent(fields);
  void *filled = arena_copy(r->arena, object, bytes); /* the caller's struct stays as it is until all is well */
  TRY(read_members(r, NULL, fields, root, filled));
  memcpy(object, filled, bytes);
  return 0;
}

int json_read(Arena *arena, Str text, const Field *fields, void *object, JsonError *error) {
  return read_object(&(Reader){.arena = arena, .error = error}, text, fields, object);
}

int json_read_client(Arena *arena, Str text, const Field *fields, void *object, JsonError *error) {
  return read_object(&(Reader){.arena = arena, .error = error, .client = true}, text, fields, object);
}

int json_read_client_list(Arena *arena, Str text, const Field *fields, size_t size, int64_t min, int64_t max, List *ret,
                          JsonError *error) {
  const Reader reader = {.arena = arena, .error = error, .client = true};
  const Field whole = {.type = F_LIST, .min = min, .max = max, .fields = fields, .size = size};
  JsonValue *root;
  TRY(json_parse(arena, text, &root, error));
  return read_items(&reader, NULL, &whole, root, ret);
}

void json_write(Buf *out, const Field *fields, const void *object) {
  char separator = '{';
  for (const Field *f = fields; f->type != F_END; f++) {
    if (f->flags & FIELD_HIDDEN)
      continue;
    buf_char(out, separator);
    buf_char(out, '"');
    buf_cstr(out, f->name);
    buf_str(out, STR("\":"));
    kinds[f->type].write(out, f, (const char *)object + f->offset);
    separator = ',';
  }
  if (separator == '{')
    buf_char(out, '{');
  buf_char(out, '}');
}

void json_write_list(Buf *out, const Field *fields, size_t size, List list) {
  buf_char(out, '[');
  for (size_t i = 0; i < list.count; i++) {
    if (i > 0)
      buf_char(out, ',');
    json_write(out, fields, (const char *)list.items + i * size);
  }
  buf_char(out, ']');
}

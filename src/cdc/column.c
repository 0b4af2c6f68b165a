/* The table of types, and how one column's values and schema are written. */
#include "cdc/column.h"

#include "cdc/datetime.h"
#include "cdc/number.h"

#include <string.h>

#define UNAVAILABLE "__debezium_unavailable_value" /* a large value that did not change and was not sent */
#define ZERO_UUID   "00000000-0000-0000-0000-000000000000"
#define NO_SCALE    (-1)

/* Returns false, with nothing written, for a text that is not of its type's form. */
typedef bool CellWriter(Buf *out, const Column *column, Str text);

typedef struct ColumnType {
  uint32_t oid;            /* pg_type.oid, fixed for all servers */
  const char *kind, *name; /* of Kafka Connect; NULL: depends on modifier or mode, or no name */
  const char *zero;        /* what NULL becomes in a NOT NULL column, where only a key was sent */
  CellWriter *write;
  const char *generated;   /* the text that stands for a default that a function makes; NULL: defaults are not shown */
  const char *unavailable; /* NULL: has no placeholder */
} ColumnType;

static bool write_verbatim(Buf *out, const Column *column, Str text) {
  (void)column;
  int64_t value = 0;
  if (str_to_int(text, &value) < 0)
    return false;
  buf_int(out, value);
  return true;
}

static bool write_bool(Buf *out, const Column *column, Str text) {
  (void)column;
  if (!str_eq(text, STR("t")) && !str_eq(text, STR("f")))
    return false;
  buf_cstr(out, text.p[0] == 't' ? "true" : "false");
  return true;
}

static bool write_string(Buf *out, const Column *column, Str text) {
  (void)column;
  column_write_text(out, text);
  return true;
}

static bool write_float(Buf *out, const Column *column, Str text) {
  (void)column;
  return number_write_float(out, text);
}

static int scale_of(int32_t modifier) {
  int scale = modifier < 4 ? 0 : (modifier - 4) & 0x7ff;
  return modifier < 4 ? NO_SCALE : scale >= 0x400 ? scale - 0x800 : scale;
}

static int precision_of(int32_t modifier) {
  return modifier < 4 ? 0 : (modifier - 4) >> 16 & 0xffff;
}

/* Debezium names what is no number by its own constants. */
static bool write_special_decimal(Buf *out, Str text) {
  static const struct {
    Str text, constant;
  } specials[] = {{STR("NaN"), STR("\"NAN\"")},
                  {STR("Infinity"), STR("\"POSITIVE_INFINITY\"")},
                  {STR("-Infinity"), STR("\"NEGATIVE_INFINITY\"")}};
  for (size_t i = 0; i < sizeof(specials) / sizeof(specials[0]); i++)
    if (str_eq(specials[i].text, text)) {
      buf_str(out, specials[i].constant);
      return true;
    }
  return false;
}

static bool write_decimal_text(Buf *out, int scale, Str text) {
  size_t before = out->n;
  buf_char(out, '"');
  if (scale == NO_SCALE)
    buf_str(out, text);
  else if (!number_write_plain(out, text, scale)) {
    out->n = before;
    return write_special_decimal(out, text);
  }
  buf_char(out, '"');
  return true;
}

static bool write_numeric(Buf *out, const Column *column, Str text) {
  int scale = scale_of(column->modifier);
  switch (column->decimals) {
  case DECIMALS_DOUBLE:
    return number_write_double(out, text);
  case DECIMALS_STRING:
    return number_is_plain(text) ? write_decimal_text(out, scale, text) : write_special_decimal(out, text);
  case DECIMALS_PRECISE:
    return scale == NO_SCALE ? number_write_variable(out, text) : number_write_decimal(out, text, scale);
  case DECIMALS_EXACT:
    break;
  }
  if (!number_is_plain(text))
    return false;
  buf_str(out, text);
  return true;
}

/* Milliseconds for a precision of up to three digits, microseconds beyond it or without one. */
static bool is_millis(int32_t modifier) {
  return modifier >= 0 && modifier <= 3;
}

static void write_instant(Buf *out, const Column *column, int64_t us) {
  int64_t rest = us % 1000;
  buf_int(out, is_millis(column->modifier) ? us / 1000 - (rest < 0) : us);
}

/* Infinity has numbers of Debezium's own. */
static bool is_infinity(Str text, bool *ret_negative) {
  *ret_negative = str_eq(text, STR("-infinity"));
  return *ret_negative || str_eq(text, STR("infinity"));
}

static int64_t infinite_instant(bool millis, bool negative) {
  if (millis)
    return negative ? INT64_C(-9223372036832400000) : INT64_C(9223372036825200000);
  return negative ? INT64_MIN : INT64_MAX;
}

static bool write_timestamp(Buf *out, const Column *column, Str text) {
  int64_t us = 0;
  bool negative = false;
  if (is_infinity(text, &negative)) {
    buf_int(out, infinite_instant(is_millis(column->modifier), negative));
    return true;
  }
  if (!datetime_timestamp(text, &us))
    return false;
  write_instant(out, column, us);
  return true;
}

static bool write_date(Buf *out, const Column *column, Str text) {
  (void)column;
  int64_t days = 0;
  bool negative = false;
  if (is_infinity(text, &negative))
    days = negative ? -2147472691 : 2146033979;
  else if (!datetime_date(text, &days))
    return false;
  buf_int(out, days);
  return true;
}

static bool write_time(Buf *out, const Column *column, Str text) {
  int64_t us = 0;
  if (!datetime_time(text, &us))
    return false;
  write_instant(out, column, us);
  return true;
}

static bool write_timestamptz(Buf *out, const Column *column, Str text) {
  bool negative = false;
  if (is_infinity(text, &negative))
    return write_string(out, column, text);
  size_t before = out->n;
  buf_char(out, '"');
  if (!datetime_write_zoned(out, text, column->modifier < 0 ? 6 : column->modifier)) {
    out->n = before;
    return false;
  }
  buf_char(out, '"');
  return true;
}

static int hex_digit(char c) {
  if (c >= '0' && c <= '9')
    return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* PostgreSQL's "\x…" to base64, through a buffer of whole groups of three. */
static bool write_bytea(Buf *out, const Column *column, Str text) {
  (void)column;
  if (!str_starts(text, STR("\\x")) || text.n % 2 != 0)
    return false;
  for (size_t i = 2; i < text.n; i++)
    if (hex_digit(text.p[i]) < 0)
      return false;
  uint8_t bytes[768];
  size_t n = 0;
  buf_char(out, '"');
  for (size_t i = 2; i < text.n; i += 2) {
    bytes[n++] = (uint8_t)(hex_digit(text.p[i]) << 4 | hex_digit(text.p[i + 1]));
    if (n == sizeof(bytes) || i + 2 == text.n) {
      base64_write(out, bytes, n);
      n = 0;
    }
  }
  buf_char(out, '"');
  return true;
}

#define TEXT_TYPE(oid, generated)                                                                                      \
  { oid, "string", NULL, "\"\"", write_string, generated, "\"" UNAVAILABLE "\"" }

static const ColumnType types[] = {
    {16, "boolean", NULL, "false", write_bool, "f", NULL},                                          /* bool */
    {17, "bytes", NULL, "\"\"", write_bytea, NULL, "\"X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==\""}, /* bytea */
    TEXT_TYPE(18, NULL),                                                                            /* "char" */
    TEXT_TYPE(19, NULL),                                                                            /* name */
    {20, "int64", NULL, "0", write_verbatim, "0", NULL},                                            /* int8 */
    {21, "int16", NULL, "0", write_verbatim, "0", NULL},                                            /* int2 */
    {23, "int32", NULL, "0", write_verbatim, "0", NULL},                                            /* int4 */
    TEXT_TYPE(25, ""),                                                                              /* text */
    {26, "int64", NULL, "0", write_verbatim, NULL, NULL},                                           /* oid */
    {114, "string", "io.debezium.data.Json", "\"\"", write_string, "{}", "\"" UNAVAILABLE "\""},    /* json */
    {700, "float", NULL, "0.0", write_float, "0", NULL},                                            /* float4 */
    {701, "double", NULL, "0.0", write_float, "0", NULL},                                           /* float8 */
    TEXT_TYPE(1042, ""),                                                                            /* bpchar */
    TEXT_TYPE(1043, ""),                                                                            /* varchar */
    {1082, "int32", "io.debezium.time.Date", "0", write_date, "1970-01-01", NULL},                  /* date */
    {1083, NULL, NULL, "0", write_time, "00:00:00", NULL},                                          /* time */
    {1114, NULL, NULL, "0", write_timestamp, "1970-01-01 00:00:00", NULL},                          /* timestamp */
    {1184, "string", "io.debezium.time.ZonedTimestamp", "\"1970-01-01T00:00:00Z\"", write_timestamptz,
     "1970-01-01 00:00:00+00", NULL},                                                             /* timestamptz */
    {1700, NULL, NULL, NULL, write_numeric, "0.0", NULL},                                         /* numeric */
    {2950, "string", "io.debezium.data.Uuid", "\"\"", write_string, ZERO_UUID, NULL},             /* uuid */
    {3802, "string", "io.debezium.data.Json", "\"\"", write_string, "{}", "\"" UNAVAILABLE "\""}, /* jsonb */
};

static const ColumnType *find_type(uint32_t oid) {
  for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
    if (types[i].oid == oid)
      return &types[i];
  return NULL;
}

bool column_type_known(uint32_t type, int32_t modifier, Decimals decimals) {
  const ColumnType *found = find_type(type);
  bool scaled = decimals == DECIMALS_STRING || decimals == DECIMALS_PRECISE;
  return decimals == DECIMALS_EXACT ||
         (found && !(found->write == write_numeric && scaled && scale_of(modifier) < NO_SCALE));
}

/* Characters beyond the first plane are written as two escapes, as Jackson does: a key's bytes choose its partition. */
void column_write_text(Buf *out, Str text) {
  bool only_low = true;
  for (size_t i = 0; i < text.n && only_low; i++)
    only_low = (uint8_t)text.p[i] < 0xf0;
  if (only_low) {
    buf_json_string(out, text);
    return;
  }
  Buf whole = {.arena = out->arena};
  buf_json_string(&whole, text);
  for (size_t i = 0; i < whole.n; i++) {
    const uint8_t *c = (const uint8_t *)whole.p + i;
    if (*c < 0xf0 || i + 3 >= whole.n) {
      buf_char(out, whole.p[i]);
      continue;
    }
    uint32_t above = ((c[0] & 7U) << 18 | (c[1] & 63U) << 12 | (c[2] & 63U) << 6 | (c[3] & 63U)) - 0x10000;
    buf_printf(out, "\\u%04X\\u%04X", 0xd800 | (above >> 10 & 0x3ff), 0xdc00 | (above & 0x3ff));
    i += 3;
  }
  if (!out->arena)
    buf_free(&whole);
}

static bool write_cell(Buf *out, const Column *column, const PgoCell *cell) {
  const ColumnType *type = column->type;
  if (cell->kind != 'u')
    return type && type->write(out, column, cell->text);
  if (!type || !type->unavailable)
    return false;
  buf_cstr(out, type->unavailable);
  return true;
}

int column_write(Buf *out, const Column *column, const PgoCell *cell) {
  if (write_cell(out, column, cell))
    return E_OK;
  if (column->decimals != DECIMALS_EXACT)
    return E_RANGE;
  column_write_text(out, cell->kind == 'u' ? STR(UNAVAILABLE) : cell->text);
  return E_OK;
}

int column_write_header(Buf *out, const Column *column, const PgoCell *cell) {
  if (cell->kind != 't' || !column->type || column->type->write != write_string)
    return column_write(out, column, cell);
  buf_char(out, '"');
  for (size_t i = 0; i < cell->text.n; i++) {
    if (cell->text.p[i] == '"' || cell->text.p[i] == '\\')
      buf_char(out, '\\');
    buf_char(out, cell->text.p[i]);
  }
  buf_char(out, '"');
  return E_OK;
}

static bool is_clock(Str source) {
  static const char *const clocks[] = {"current_timestamp", "current_time", "current_date", "localtime",
                                       "localtimestamp"};
  for (size_t i = 0; i < sizeof(clocks) / sizeof(clocks[0]); i++)
    if (str_eq_nocase(source, str_from(clocks[i])))
      return true;
  return false;
}

/* A name, perhaps behind one parenthesis, that is followed by a pair of them. */
static bool is_call(Str source) {
  static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.";
  if (str_starts(source, STR("(")))
    source = (Str){source.p + 1, source.n - 1};
  size_t n = 0;
  while (n < source.n && memchr(letters, source.p[n], sizeof(letters) - 1))
    n++;
  return n > 0 && n < source.n && source.p[n] == '(' && memchr(source.p + n, ')', source.n - n);
}

/* What a default's source says, as Debezium reads it: a function call stands for an empty value of the type, a quoted
 * literal for what is in its first quotes, anything else for itself. Absent: NULL. */
static Str default_text(Arena *arena, const ColumnType *type, Str source) {
  if (str_starts(source, STR("NULL::")))
    return (Str){0};
  if (is_clock(source) || is_call(source))
    return str_from(type->generated);
  Str rest = source;
  (void)str_cut(&rest, '\'');
  if (!rest.p)
    return source;
  Buf literal = {.arena = arena};
  buf_str(&literal, str_cut(&rest, '\''));
  while (rest.n > 0 && rest.p[0] == '\'') { /* two of them stand for one */
    buf_char(&literal, *rest.p);
    rest = (Str){rest.p + 1, rest.n - 1};
    buf_str(&literal, str_cut(&rest, '\''));
  }
  return buf_view(&literal);
}

/* Connect cannot hold a struct as a default. */
static bool is_struct(const Column *column) {
  return column->type && column->type->write == write_numeric && column->decimals == DECIMALS_PRECISE &&
         scale_of(column->modifier) == NO_SCALE;
}

/* Empty without a default that can be shown. */
static Str default_json(Arena *arena, const Column *column, Str source) {
  Buf json = {.arena = arena};
  const ColumnType *type = column->type;
  if (!source.p || !type || !type->generated || is_struct(column))
    return (Str){0};
  Str text = default_text(arena, type, source);
  if (text.p && type->write == write_bool)
    text = str_eq_nocase(text, STR("true")) ? STR("t") : STR("f");
  return text.p && type->write(&json, column, text) ? buf_view(&json) : (Str){0};
}

static void write_zero(Buf *out, const Column *column) {
  if (!column->type)
    buf_cstr(out, "\"\"");
  else if (column->type->zero)
    buf_cstr(out, column->type->zero);
  else if (!write_numeric(out, column, STR("0")))
    buf_cstr(out, "0");
}

typedef struct Form {
  const char *kind, *name;
} Form;

static Form form_of(const Column *column) {
  const ColumnType *type = column->type;
  bool millis = is_millis(column->modifier);
  if (!type)
    return (Form){"string", NULL};
  if (type->write == write_time)
    return millis ? (Form){"int32", "io.debezium.time.Time"} : (Form){"int64", "io.debezium.time.MicroTime"};
  if (type->write == write_timestamp)
    return (Form){"int64", millis ? "io.debezium.time.Timestamp" : "io.debezium.time.MicroTimestamp"};
  if (type->write != write_numeric)
    return (Form){type->kind, type->name};
  if (column->decimals == DECIMALS_STRING)
    return (Form){"string", NULL};
  if (column->decimals != DECIMALS_PRECISE)
    return (Form){"double", NULL};
  return is_struct(column) ? (Form){"struct", "io.debezium.data.VariableScaleDecimal"}
                           : (Form){"bytes", "org.apache.kafka.connect.data.Decimal"};
}

/* The members in the order of Connect's JsonConverter: type, fields, optional, name, version, doc, parameters,
 * default, field. */
static Str schema_of(Arena *arena, const Column *column, bool optional, Str default_value) {
  Form form = form_of(column);
  bool variable = !strcmp(form.kind, "struct");
  Buf out = {.arena = arena};
  buf_printf(&out, "{\"type\":\"%s\",", form.kind);
  if (variable)
    buf_cstr(&out, "\"fields\":[{\"type\":\"int32\",\"optional\":false,\"field\":\"scale\"},"
                   "{\"type\":\"bytes\",\"optional\":false,\"field\":\"value\"}],");
  buf_printf(&out, "\"optional\":%s,", optional ? "true" : "false");
  if (form.name)
    buf_printf(&out, "\"name\":\"%s\",\"version\":1,", form.name);
  if (variable)
    buf_cstr(&out, "\"doc\":\"Variable scaled decimal\",");
  else if (!strcmp(form.kind, "bytes") && form.name)
    buf_printf(&out, "\"parameters\":{\"scale\":\"%d\",\"connect.decimal.precision\":\"%d\"},",
               scale_of(column->modifier), precision_of(column->modifier));
  if (default_value.n > 0) {
    buf_cstr(&out, "\"default\":");
    buf_str(&out, default_value);
    buf_char(&out, ',');
  }
  buf_cstr(&out, "\"field\":");
  column_write_text(&out, column->name);
  buf_char(&out, '}');
  return buf_view(&out);
}

void column_prepare(Arena *arena, const PgoColumn *column, const ColumnFacts *facts, Decimals decimals, Column *ret) {
  Column c = {.name = arena_str(arena, column->name),
              .decimals = decimals,
              .modifier = column->modifier,
              .type = find_type(column->type)};
  Buf label = {.arena = arena}, zero = {.arena = arena};
  column_write_text(&label, c.name);
  buf_char(&label, ':');
  c.label = buf_view(&label);
  Str default_value = default_json(arena, &c, facts->default_source);
  write_zero(&zero, &c);
  c.null = default_value.n > 0 ? default_value : facts->required ? buf_view(&zero) : STR("null");
  c.schema = schema_of(arena, &c, !facts->required, default_value);
  *ret = c;
}

/* Debezium's change event envelope: writing one from a row, reading one back. */
#include "cdc/envelope.h"

#include <string.h>

#define UNAVAILABLE STR("__debezium_unavailable_value") /* a large value that did not change and was not sent */
#define DAY_US      INT64_C(86400000000)

/* A writer gives false for a text that is not of its type's form ("infinity", a year before 1): it is then sent as
 * text. */
typedef bool CellWriter(Buf *out, Str text, int32_t modifier);

static size_t take_digits(Str *rest) {
  size_t n = 0;
  while (n < rest->n && rest->p[n] >= '0' && rest->p[n] <= '9')
    n++;
  *rest = (Str){rest->p + n, rest->n - n};
  return n;
}

static bool take_one_of(Str *rest, Str set) {
  if (rest->n == 0 || !memchr(set.p, rest->p[0], set.n))
    return false;
  *rest = (Str){rest->p + 1, rest->n - 1};
  return true;
}

/* RFC 8259 §6. */
static bool is_json_number(Str s) {
  (void)take_one_of(&s, STR("-"));
  bool zero = s.n > 0 && s.p[0] == '0';
  size_t whole = take_digits(&s);
  if (whole == 0 || (zero && whole > 1))
    return false;
  if (take_one_of(&s, STR(".")) && take_digits(&s) == 0)
    return false;
  if (take_one_of(&s, STR("eE"))) {
    (void)take_one_of(&s, STR("+-"));
    if (take_digits(&s) == 0)
      return false;
  }
  return s.n == 0;
}

static bool write_number(Buf *out, Str text, int32_t modifier) {
  (void)modifier;
  if (!is_json_number(text))
    return false;
  buf_str(out, text);
  return true;
}

static bool write_bool(Buf *out, Str text, int32_t modifier) {
  (void)modifier;
  buf_cstr(out, text.n == 1 && text.p[0] == 't' ? "true" : "false");
  return true;
}

/* Milliseconds for a precision of up to three digits, microseconds beyond it or without one. */
static void write_instant(Buf *out, int64_t us, int32_t precision) {
  buf_int(out, precision >= 0 && precision <= 3 ? us / 1000 : us);
}

static bool write_timestamp(Buf *out, Str text, int32_t modifier) {
  LocalTime time = 0;
  if (localtime_parse(text, &time) < 0)
    return false;
  write_instant(out, time, modifier);
  return true;
}

/* Date and time of day are read as parts of a whole one. */
static bool read_part(const char *head, Str text, const char *tail, LocalTime *ret) {
  char whole[64];
  size_t head_n = strlen(head), tail_n = strlen(tail);
  if (head_n + text.n + tail_n > sizeof(whole))
    return false;
  memcpy(whole, head, head_n);
  memcpy(whole + head_n, text.p, text.n);
  memcpy(whole + head_n + text.n, tail, tail_n);
  return localtime_parse((Str){whole, head_n + text.n + tail_n}, ret) == E_OK;
}

static bool write_date(Buf *out, Str text, int32_t modifier) {
  (void)modifier;
  LocalTime midnight = 0;
  if (!read_part("", text, "T00:00", &midnight))
    return false;
  buf_int(out, midnight / DAY_US);
  return true;
}

static bool write_time(Buf *out, Str text, int32_t modifier) {
  LocalTime time = 0;
  if (!read_part("1970-01-01T", text, "", &time))
    return false;
  write_instant(out, time, modifier);
  return true;
}

/* "2026-05-26 16:00:00.5+00" becomes "2026-05-26T16:00:00.500000Z". */
static bool write_timestamptz(Buf *out, Str text, int32_t modifier) {
  (void)modifier;
  LocalTime time = 0;
  if (text.n < 22 || memcmp(text.p + text.n - 3, "+00", 3) != 0)
    return false;
  Str local = {text.p, text.n - 3};
  if (localtime_parse(local, &time) < 0)
    return false;
  size_t fraction = local.n > 20 ? local.n - 20 : 0;
  buf_printf(out, "\"%.10sT%.8s.%.*s%.*sZ\"", local.p, local.p + 11, (int)fraction, local.p + local.n - fraction,
             fraction < 6 ? (int)(6 - fraction) : 0, "000000");
  return true;
}

static int hex_digit(char c) {
  if (c >= '0' && c <= '9')
    return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte at position i of hexadecimal digits, or 0 behind their end. */
static uint32_t hex_byte(Str hex, size_t i) {
  if (2 * i + 1 >= hex.n)
    return 0;
  return (uint32_t)(hex_digit(hex.p[2 * i]) << 4 | hex_digit(hex.p[2 * i + 1])) & 0xff;
}

static bool is_hex(Str hex) {
  size_t i = 0;
  while (i < hex.n && hex_digit(hex.p[i]) >= 0)
    i++;
  return i == hex.n && hex.n % 2 == 0;
}

/* PostgreSQL's "\x…" to base64 (RFC 4648 §4). */
static bool write_bytea(Buf *out, Str text, int32_t modifier) {
  (void)modifier;
  static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  if (!str_starts(text, STR("\\x")) || !is_hex((Str){text.p + 2, text.n - 2}))
    return false;
  Str hex = {text.p + 2, text.n - 2};
  size_t bytes = hex.n / 2;
  buf_char(out, '"');
  for (size_t i = 0; i < bytes; i += 3) {
    uint32_t triple = hex_byte(hex, i) << 16 | hex_byte(hex, i + 1) << 8 | hex_byte(hex, i + 2);
    for (size_t k = 0; k < 4; k++)
      buf_char(out, i + k > bytes ? '=' : alphabet[triple >> (18 - 6 * k) & 63]);
  }
  buf_char(out, '"');
  return true;
}

static CellWriter *writer_of(uint32_t type) {
  static const struct {
    uint32_t type; /* pg_type.oid, fixed for all servers */
    CellWriter *write;
  } writers[] = {
      {16, write_bool},         /* bool */
      {17, write_bytea},        /* bytea */
      {20, write_number},       /* int8 */
      {21, write_number},       /* int2 */
      {23, write_number},       /* int4 */
      {26, write_number},       /* oid */
      {700, write_number},      /* float4 */
      {701, write_number},      /* float8 */
      {1700, write_number},     /* numeric */
      {1082, write_date},       /* date */
      {1083, write_time},       /* time */
      {1114, write_timestamp},  /* timestamp */
      {1184, write_timestamptz} /* timestamptz */
  };
  for (size_t i = 0; i < sizeof(writers) / sizeof(writers[0]); i++)
    if (writers[i].type == type)
      return writers[i].write;
  return NULL;
}

static void write_cell(Buf *out, const PgoColumn *column, const PgoCell *cell) {
  if (cell->kind == 'n') {
    buf_cstr(out, "null");
    return;
  }
  if (cell->kind == 'u') {
    buf_json_string(out, UNAVAILABLE);
    return;
  }
  CellWriter *write = writer_of(column->type);
  if (!write || !write(out, cell->text, column->modifier))
    buf_json_string(out, cell->text);
}

static void write_row(Buf *out, const char *label, const PgoRelation *relation, const PgoTuple *row) {
  buf_printf(out, "\"%s\":", label);
  if (!row) {
    buf_cstr(out, "null,");
    return;
  }
  buf_char(out, '{');
  for (int i = 0; i < relation->count && i < row->count; i++) {
    if (i > 0)
      buf_char(out, ',');
    buf_json_string(out, relation->columns[i].name);
    buf_char(out, ':');
    write_cell(out, &relation->columns[i], &row->cells[i]);
  }
  buf_cstr(out, "},");
}

static void write_member(Buf *out, const char *label, Str text) {
  buf_printf(out, "\"%s\":", label);
  buf_json_string(out, text);
  buf_char(out, ',');
}

static void write_times(Buf *out, int64_t us) {
  buf_printf(out, "\"ts_us\":%lld,\"ts_ns\":%lld", (long long)us, (long long)us * 1000);
}

static void write_source(Buf *out, const EnvelopeSource *s, const PgoRelation *relation) {
  buf_cstr(out, "\"source\":{");
  write_member(out, "version", s->version);
  write_member(out, "connector", STR("postgresql"));
  write_member(out, "name", s->name);
  buf_printf(out, "\"ts_ms\":%lld,\"snapshot\":\"false\",", (long long)(s->commit_us / 1000));
  write_member(out, "db", s->database);
  if (s->last_commit_lsn)
    buf_printf(out, "\"sequence\":\"[\\\"%llu\\\",\\\"%llu\\\"]\",", (unsigned long long)s->last_commit_lsn,
               (unsigned long long)s->lsn);
  else
    buf_printf(out, "\"sequence\":\"[null,\\\"%llu\\\"]\",", (unsigned long long)s->lsn);
  write_times(out, s->commit_us);
  buf_char(out, ',');
  write_member(out, "schema", relation->schema);
  write_member(out, "table", relation->name);
  buf_printf(out, "\"txId\":%lu,\"lsn\":%llu,\"xmin\":null,", (unsigned long)s->xid, (unsigned long long)s->lsn);
  write_member(out, "origin", s->origin);
  if (s->origin.p)
    buf_printf(out, "\"origin_lsn\":%llu},", (unsigned long long)s->origin_lsn);
  else
    buf_cstr(out, "\"origin_lsn\":null},");
}

void envelope_build(Buf *out, const EnvelopeSource *source, const PgoRelation *relation, char op,
                    const PgoTuple *before, const PgoTuple *after, int64_t now_us) {
  buf_char(out, '{');
  write_row(out, "before", relation, before);
  write_row(out, "after", relation, after);
  write_source(out, source, relation);
  buf_printf(out, "\"transaction\":null,\"op\":\"%c\",\"ts_ms\":%lld,", op, (long long)(now_us / 1000));
  write_times(out, now_us);
  buf_char(out, '}');
}

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

int envelope_parse(Arena *arena, Str value, Envelope *ret) {
  JsonValue *root = NULL;
  if (value.p)
    TRY(json_parse(arena, value, &root, NULL));
  const JsonValue *payload = json_get(root, STR("payload"));
  if (!payload || !json_get(root, STR("schema")))
    payload = root;
  if (!payload || payload->type == JSON_NULL || is_heartbeat(payload)) {
    *ret = (Envelope){0};
    return E_OK;
  }
  return read_payload(payload, ret);
}

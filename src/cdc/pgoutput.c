/* Decoder of logical replication frames and pgoutput messages. */
#include "cdc/pgoutput.h"

#include <string.h>

#define POSTGRES_EPOCH_US INT64_C(946684800000000) /* 2000-01-01 in microseconds since 1970 */
#define COLUMN_MIN        10                       /* bytes: flag, empty name, type, modifier */

/* Reading past the end sets bad and gives zeros, so that a message is checked once, when all of it was read. */
typedef struct Input {
  const uint8_t *p;
  size_t n;
  bool bad;
} Input;

static Str take(Input *in, size_t n) {
  if (in->bad || n > in->n) {
    in->bad = true;
    return (Str){"", 0};
  }
  Str bytes = {(const char *)in->p, n};
  in->p += n;
  in->n -= n;
  return bytes;
}

static uint64_t take_uint(Input *in, size_t width) {
  Str bytes = take(in, width);
  uint64_t value = 0;
  for (size_t i = 0; i < bytes.n; i++)
    value = value << 8 | (uint8_t)bytes.p[i];
  return value;
}

static uint8_t take_u8(Input *in) {
  return (uint8_t)take_uint(in, 1);
}

static uint16_t take_u16(Input *in) {
  return (uint16_t)take_uint(in, 2);
}

static uint32_t take_u32(Input *in) {
  return (uint32_t)take_uint(in, 4);
}

static uint64_t take_u64(Input *in) {
  return take_uint(in, 8);
}

/* Only times that fit into 64 bits of nanoseconds too, as events carry them. */
static int64_t take_time(Input *in) {
  int64_t unix_us = 0, unix_ns = 0;
  if (__builtin_add_overflow((int64_t)take_u64(in), POSTGRES_EPOCH_US, &unix_us) ||
      __builtin_mul_overflow(unix_us, INT64_C(1000), &unix_ns))
    in->bad = true;
  return unix_us;
}

static Str take_string(Input *in) {
  const uint8_t *end = in->n > 0 ? memchr(in->p, 0, in->n) : NULL;
  if (!end) {
    in->bad = true;
    return (Str){"", 0};
  }
  Str text = take(in, (size_t)(end - in->p));
  (void)take_u8(in);
  return text;
}

/* How many items of at least item_min bytes follow; a count the rest of the input cannot hold is refused before
 * anything is made for it. */
static int take_count(Input *in, uint32_t count, size_t item_min) {
  if (in->bad || count > in->n / item_min) {
    in->bad = true;
    return 0;
  }
  return (int)count;
}

static PgoCell take_cell(Input *in) {
  PgoCell cell = {.kind = (char)take_u8(in)};
  if (cell.kind == 't')
    cell.text = take(in, take_u32(in));
  else if (cell.kind != 'n' && cell.kind != 'u')
    in->bad = true;
  return cell;
}

static PgoTuple take_tuple(Input *in, Arena *arena) {
  PgoTuple tuple = {.count = take_count(in, take_u16(in), 1)};
  tuple.cells = tuple.count > 0 ? ARENA_ARRAY(arena, PgoCell, (size_t)tuple.count) : NULL;
  for (int i = 0; i < tuple.count; i++)
    tuple.cells[i] = take_cell(in);
  return tuple;
}

static void decode_begin(Input *in, PgoMessage *m) {
  m->begin.commit_lsn = take_u64(in);
  m->begin.commit_us = take_time(in);
  m->begin.xid = take_u32(in);
}

static void decode_commit(Input *in, PgoMessage *m) {
  (void)take_u8(in); /* flags, none defined */
  m->commit.commit_lsn = take_u64(in);
  m->commit.end_lsn = take_u64(in);
  (void)take_time(in); /* as in BEGIN */
}

static void decode_origin(Input *in, PgoMessage *m) {
  m->origin.lsn = take_u64(in);
  m->origin.name = take_string(in);
}

static void decode_relation(Input *in, Arena *arena, PgoMessage *m) {
  PgoRelation *relation = &m->relation;
  relation->id = take_u32(in);
  relation->schema = take_string(in);
  if (relation->schema.n == 0)
    relation->schema = STR("pg_catalog");
  relation->name = take_string(in);
  relation->identity = (char)take_u8(in);
  relation->count = take_count(in, take_u16(in), COLUMN_MIN);
  relation->columns = relation->count > 0 ? ARENA_ARRAY(arena, PgoColumn, (size_t)relation->count) : NULL;
  for (int i = 0; i < relation->count; i++) {
    PgoColumn *column = &relation->columns[i];
    column->key = take_u8(in) & 1;
    column->name = take_string(in);
    column->type = take_u32(in);
    column->modifier = (int32_t)take_u32(in);
  }
}

/* The name behind a type's oid, which no reader here asks for. */
static void skip_type(Input *in) {
  (void)take_u32(in);
  (void)take_string(in);
  (void)take_string(in);
}

/* INSERT, UPDATE and DELETE: the relation, an old tuple marked K or O where there is one, a fresh one marked N. */
static void decode_change(Input *in, Arena *arena, PgoMessage *m) {
  m->change.relation = take_u32(in);
  char mark = (char)take_u8(in);
  if (m->type != 'I' && (mark == 'K' || mark == 'O')) {
    m->change.old_kind = mark;
    m->change.old = take_tuple(in, arena);
    if (m->type == 'D')
      return;
    mark = (char)take_u8(in);
  }
  if (mark != 'N' || m->type == 'D')
    in->bad = true;
  m->change.fresh = take_tuple(in, arena);
}

static void decode_truncate(Input *in, Arena *arena, PgoMessage *m) {
  uint32_t count = take_u32(in);
  (void)take_u8(in); /* CASCADE and RESTART IDENTITY change nothing for a reader */
  m->truncate.count = take_count(in, count, sizeof(uint32_t));
  m->truncate.relations = m->truncate.count > 0 ? ARENA_ARRAY(arena, uint32_t, (size_t)m->truncate.count) : NULL;
  for (int i = 0; i < m->truncate.count; i++)
    m->truncate.relations[i] = take_u32(in);
}

static void decode_message(Input *in, PgoMessage *m) {
  m->message.transactional = take_u8(in) & 1;
  m->message.lsn = take_u64(in);
  m->message.prefix = take_string(in);
  m->message.content = take(in, take_u32(in));
}

static void decode_body(Input *in, Arena *arena, PgoMessage *m) {
  switch (m->type) {
  case 'B':
    decode_begin(in, m);
    break;
  case 'C':
    decode_commit(in, m);
    break;
  case 'O':
    decode_origin(in, m);
    break;
  case 'R':
    decode_relation(in, arena, m);
    break;
  case 'Y':
    skip_type(in);
    break;
  case 'I':
  case 'U':
  case 'D':
    decode_change(in, arena, m);
    break;
  case 'T':
    decode_truncate(in, arena, m);
    break;
  case 'M':
    decode_message(in, m);
    break;
  default:
    in->bad = true;
  }
}

int pgoutput_decode(Arena *arena, Str payload, PgoMessage *ret) {
  Input in = {(const uint8_t *)payload.p, payload.n, false};
  PgoMessage message = {.type = (char)take_u8(&in)};
  decode_body(&in, arena, &message);
  if (in.bad || in.n > 0)
    return E_MALFORMED;
  *ret = message;
  return E_OK;
}

int pgoutput_frame(Str bytes, PgoFrame *ret) {
  Input in = {(const uint8_t *)bytes.p, bytes.n, false};
  PgoFrame frame = {.type = (char)take_u8(&in)};
  if (frame.type == 'w') {
    frame.start_lsn = take_u64(&in);
    frame.end_lsn = take_u64(&in);
    (void)take_u64(&in); /* the server's clock */
    frame.payload = take(&in, in.n);
  } else if (frame.type == 'k') {
    frame.end_lsn = take_u64(&in);
    (void)take_u64(&in);
    frame.reply = take_u8(&in) & 1;
  } else {
    return E_MALFORMED;
  }
  if (in.bad || in.n > 0)
    return E_MALFORMED;
  *ret = frame;
  return E_OK;
}

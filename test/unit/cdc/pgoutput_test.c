/* The decoder: each kind of message, and no length or count that it would believe. */
#include "base/buf.h"
#include "cdc/pgoutput.h"
#include "unit.h"

#define EPOCH_US INT64_C(946684800000000)

static void put_text(Buf *b, const char *text) {
  buf_add(b, text, str_from(text).n + 1);
}

static void put_cell(Buf *b, const char *text) {
  Str s = str_from(text);
  buf_char(b, 't');
  buf_be32(b, (uint32_t)s.n);
  buf_str(b, s);
}

static void put_relation(Buf *b) {
  buf_char(b, 'R');
  buf_be32(b, 16393);
  put_text(b, "billing");
  put_text(b, "history");
  buf_char(b, 'd');
  buf_be16(b, 2);
  buf_char(b, 1);
  put_text(b, "id");
  buf_be32(b, 2950);
  buf_be32(b, UINT32_MAX);
  buf_char(b, 0);
  put_text(b, "sum");
  buf_be32(b, 1700);
  buf_be32(b, 2490374);
}

static void put_insert(Buf *b) {
  buf_char(b, 'I');
  buf_be32(b, 16393);
  buf_char(b, 'N');
  buf_be16(b, 3);
  put_cell(b, "7");
  buf_char(b, 'n');
  buf_char(b, 'u');
}

static void put_update(Buf *b, char mark) {
  buf_char(b, 'U');
  buf_be32(b, 5);
  if (mark) {
    buf_char(b, mark);
    buf_be16(b, 1);
    put_cell(b, "old");
  }
  buf_char(b, 'N');
  buf_be16(b, 1);
  put_cell(b, "new");
}

TEST(begin_and_commit) {
  SCOPED_ARENA arena = arena_new();
  Buf b = {.arena = arena};
  PgoMessage m;
  buf_char(&b, 'B');
  buf_be64(&b, UINT64_C(0x100000002));
  buf_be64(&b, 5);
  buf_be32(&b, UINT32_MAX);
  CHECK_INT(pgoutput_decode(arena, buf_view(&b), &m), E_OK);
  CHECK_INT(m.type, 'B');
  CHECK(m.begin.commit_lsn == UINT64_C(0x100000002));
  CHECK_INT(m.begin.commit_us, EPOCH_US + 5);
  CHECK(m.begin.xid == UINT32_MAX);
  buf_clear(&b);
  buf_char(&b, 'C');
  buf_char(&b, 0);
  buf_be64(&b, 10);
  buf_be64(&b, 11);
  buf_be64(&b, 5);
  CHECK_INT(pgoutput_decode(arena, buf_view(&b), &m), E_OK);
  CHECK_INT(m.commit.commit_lsn, 10);
  CHECK_INT(m.commit.end_lsn, 11);
}

TEST(relation) {
  SCOPED_ARENA arena = arena_new();
  Buf b = {.arena = arena};
  PgoMessage m;
  put_relation(&b);
  CHECK_INT(pgoutput_decode(arena, buf_view(&b), &m), E_OK);
  CHECK_INT(m.relation.id, 16393);
  CHECK_STR(m.relation.schema, "billing");
  CHECK_STR(m.relation.name, "history");
  CHECK_INT(m.relation.identity, 'd');
  CHECK_INT(m.relation.count, 2);
  CHECK(m.relation.columns[0].key);
  CHECK_INT(m.relation.columns[0].modifier, -1);
  CHECK(!m.relation.columns[1].key);
  CHECK_STR(m.relation.columns[1].name, "sum");
  CHECK_INT(m.relation.columns[1].type, 1700);
  CHECK_INT(m.relation.columns[1].modifier, 2490374);
}

TEST(insert) {
  SCOPED_ARENA arena = arena_new();
  Buf b = {.arena = arena};
  PgoMessage m;
  put_insert(&b);
  CHECK_INT(pgoutput_decode(arena, buf_view(&b), &m), E_OK);
  CHECK_INT(m.change.relation, 16393);
  CHECK_INT(m.change.old_kind, 0);
  CHECK_INT(m.change.fresh.count, 3);
  CHECK_STR(m.change.fresh.cells[0].text, "7");
  CHECK_INT(m.change.fresh.cells[1].kind, 'n');
  CHECK_INT(m.change.fresh.cells[2].kind, 'u');
}

TEST(update_with_and_without_an_old_row) {
  static const char marks[] = {0, 'K', 'O'};
  for (size_t i = 0; i < sizeof(marks); i++) {
    SCOPED_ARENA arena = arena_new();
    Buf b = {.arena = arena};
    PgoMessage m;
    put_update(&b, marks[i]);
    CHECK_INT(pgoutput_decode(arena, buf_view(&b), &m), E_OK);
    CHECK_INT(m.change.old_kind, marks[i]);
    CHECK_INT(m.change.old.count, marks[i] ? 1 : 0);
    CHECK_STR(m.change.fresh.cells[0].text, "new");
  }
}

TEST(delete_has_an_old_row_only) {
  SCOPED_ARENA arena = arena_new();
  Buf b = {.arena = arena};
  PgoMessage m;
  buf_char(&b, 'D');
  buf_be32(&b, 5);
  buf_char(&b, 'K');
  buf_be16(&b, 1);
  put_cell(&b, "old");
  CHECK_INT(pgoutput_decode(arena, buf_view(&b), &m), E_OK);
  CHECK_STR(m.change.old.cells[0].text, "old");
  CHECK_INT(m.change.fresh.count, 0);
  b.p[5] = 'N';
  CHECK_INT(pgoutput_decode(arena, buf_view(&b), &m), E_MALFORMED);
}

TEST(truncate_origin_type_and_message) {
  SCOPED_ARENA arena = arena_new();
  Buf b = {.arena = arena};
  PgoMessage m;
  buf_add(&b, "T\0\0\0\2\1\0\0\0\7\0\0\0\x8", 14);
  CHECK_INT(pgoutput_decode(arena, buf_view(&b), &m), E_OK);
  CHECK_INT(m.truncate.count, 2);
  CHECK_INT(m.truncate.relations[1], 8);
  buf_clear(&b);
  buf_char(&b, 'O');
  buf_be64(&b, 9);
  put_text(&b, "elsewhere");
  CHECK_INT(pgoutput_decode(arena, buf_view(&b), &m), E_OK);
  CHECK_INT(m.origin.lsn, 9);
  CHECK_STR(m.origin.name, "elsewhere");
  CHECK_INT(pgoutput_decode(arena, STR("Y\0\0\0\1public\0mood\0"), &m), E_OK);
  CHECK_INT(m.type, 'Y');
  CHECK_INT(pgoutput_decode(arena, STR("M\1\0\0\0\0\0\0\0\3p\0\0\0\0\2hi"), &m), E_OK);
  CHECK(m.message.transactional);
  CHECK_STR(m.message.prefix, "p");
  CHECK_STR(m.message.content, "hi");
}

/* Every message cut anywhere, and with one byte too many, is refused and leaves the result alone. */
TEST(cut_and_overlong_messages) {
  static void (*const makers[])(Buf *) = {put_relation, put_insert};
  for (size_t i = 0; i < sizeof(makers) / sizeof(makers[0]); i++) {
    SCOPED_ARENA arena = arena_new();
    Buf b = {.arena = arena};
    PgoMessage m = {.type = '?'};
    makers[i](&b);
    for (size_t n = 0; n < b.n; n++)
      CHECK_INT(pgoutput_decode(arena, (Str){b.p, n}, &m), E_MALFORMED);
    buf_char(&b, 0);
    CHECK_INT(pgoutput_decode(arena, buf_view(&b), &m), E_MALFORMED);
    CHECK_INT(m.type, '?');
  }
}

TEST(lengths_are_not_believed) {
  SCOPED_ARENA arena = arena_new();
  PgoMessage m;
  CHECK_INT(pgoutput_decode(arena, STR("I\0\0\0\1N\xff\xff"), &m), E_MALFORMED);
  CHECK_INT(pgoutput_decode(arena, STR("I\0\0\0\1N\0\1t\xff\xff\xff\xffx"), &m), E_MALFORMED);
  CHECK_INT(pgoutput_decode(arena, STR("T\xff\xff\xff\xff\0"), &m), E_MALFORMED);
  CHECK_INT(pgoutput_decode(arena, STR("R\0\0\0\1a\0b\0d\xff\xff"), &m), E_MALFORMED);
  CHECK_INT(pgoutput_decode(arena, STR("M\0\0\0\0\0\0\0\0\0p\0\xff\xff\xff\xff"), &m), E_MALFORMED);
  CHECK_INT(pgoutput_decode(arena, STR("B\0\0\0\0\0\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\1"), &m), E_MALFORMED);
  CHECK_INT(pgoutput_decode(arena, STR("I\0\0\0\1N\0\1b\0\0\0\0"), &m), E_MALFORMED);
  CHECK_INT(pgoutput_decode(arena, STR("?"), &m), E_MALFORMED);
  CHECK_INT(pgoutput_decode(arena, (Str){0}, &m), E_MALFORMED);
  CHECK(arena_size(arena) < 1024);
}

TEST(frames) {
  SCOPED_ARENA arena = arena_new();
  Buf b = {.arena = arena};
  PgoFrame f = {0};
  buf_char(&b, 'w');
  buf_be64(&b, 3);
  buf_be64(&b, 4);
  buf_be64(&b, 5);
  buf_cstr(&b, "payload");
  CHECK_INT(pgoutput_frame(buf_view(&b), &f), E_OK);
  CHECK_INT(f.type, 'w');
  CHECK_INT(f.start_lsn, 3);
  CHECK_INT(f.end_lsn, 4);
  CHECK_STR(f.payload, "payload");
  buf_clear(&b);
  buf_char(&b, 'k');
  buf_be64(&b, 6);
  buf_be64(&b, 7);
  buf_char(&b, 1);
  CHECK_INT(pgoutput_frame(buf_view(&b), &f), E_OK);
  CHECK_INT(f.end_lsn, 6);
  CHECK(f.reply);
  for (size_t n = 0; n < b.n; n++)
    CHECK_INT(pgoutput_frame((Str){b.p, n}, &f), E_MALFORMED);
  buf_char(&b, 0);
  CHECK_INT(pgoutput_frame(buf_view(&b), &f), E_MALFORMED);
  CHECK_INT(pgoutput_frame(STR("z"), &f), E_MALFORMED);
}

/* Values on their way to PostgreSQL and back: field types to its text forms, rows to structs. */
#include "db/pq.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *bind_money(Arena *a, Money value) {
  char text[MONEY_TEXT];
  size_t n = money_format(value, text);
  return arena_cstr(a, (Str){text, n});
}

static const char *bind_int(Arena *a, int64_t value) {
  char *digits = arena_alloc(a, 24);
  snprintf(digits, 24, "%lld", (long long)value);
  return digits;
}

static const char *bind_uuid(Arena *a, Uuid value) {
  if (uuid_is_nil(value))
    return NULL;
  char *text = arena_alloc(a, UUID_TEXT);
  uuid_format(value, text);
  return text;
}

static const char *bind_time(Arena *a, LocalTime value) {
  if (value == LOCALTIME_NONE)
    return NULL;
  char *text = arena_alloc(a, LOCALTIME_TEXT);
  localtime_format(value, text);
  return text;
}

const char *db_text(Arena *a, const DbValue *v) {
  switch (v->type) {
  case F_UUID:
    return bind_uuid(a, v->uuid);
  case F_MONEY:
    return bind_money(a, v->money);
  case F_TEXT:
  case F_JSON:
    return v->text.p ? arena_cstr(a, v->text) : NULL;
  case F_INT:
    return bind_int(a, v->integer);
  case F_BOOL:
    return v->boolean ? "t" : "f";
  case F_TIME:
    return bind_time(a, v->time);
  case F_END:
  case F_LIST:
    break;
  }
  die("a list is no value of a statement");
}

DbBound db_bind(Arena *memory, const DbStmt *statement) {
  const char **values = ARENA_ARRAY(memory, const char *, (size_t)statement->count + 1);
  for (int i = 0; i < statement->count; i++)
    values[i] = db_text(memory, &statement->values[i]);
  return (DbBound){.sql = statement->sql, .values = values, .n = statement->count};
}

static int read_bool(Str cell, bool *ret) {
  if (cell.n != 1 || (cell.p[0] != 't' && cell.p[0] != 'f'))
    return E_INTERNAL;
  *ret = cell.p[0] == 't';
  return 0;
}

static void set_null(FieldType type, void *member) {
  static const size_t sizes[] = {[F_UUID] = sizeof(Uuid),   [F_MONEY] = sizeof(Money), [F_TEXT] = sizeof(Str),
                                 [F_INT] = sizeof(int64_t), [F_BOOL] = sizeof(bool),   [F_JSON] = sizeof(Str)};
  if (type == F_TIME)
    *(LocalTime *)member = LOCALTIME_NONE;
  else
    memset(member, 0, sizes[type]);
}

static int read_cell(Str cell, FieldType type, void *member) {
  switch (type) {
  case F_UUID:
    return uuid_parse(cell, member);
  case F_MONEY:
    return money_parse(cell, member);
  case F_TEXT:
  case F_JSON:
    *(Str *)member = cell;
    return 0;
  case F_INT:
    return str_to_int(cell, member);
  case F_BOOL:
    return read_bool(cell, member);
  case F_TIME:
    return localtime_parse(cell, member);
  case F_END:
  case F_LIST:
    break;
  }
  die("a list is no column of a row");
}

int db_read_row(const DbResult *r, int row, const Field *fields, void *object) {
  int column = 0;
  for (const Field *f = fields; f->type != F_END; f++) {
    if (f->type == F_LIST)
      continue;
    if (column >= r->columns)
      return E_INTERNAL;
    Str cell = db_cell(r, row, column++);
    set_null(f->type, (char *)object + f->offset);
    if (cell.p)
      TRY(read_cell(cell, f->type, (char *)object + f->offset));
  }
  return 0;
}

int db_read_rows(Arena *arena, const DbResult *r, const Field *fields, size_t size, List *ret) {
  List list = {.items = arena_alloc(arena, (size_t)r->rows * size + 1), .count = (size_t)r->rows};
  for (int row = 0; row < r->rows; row++)
    TRY(db_read_row(r, row, fields, (char *)list.items + (size_t)row * size));
  *ret = list;
  return 0;
}

Str db_cell(const DbResult *r, int row, int column) {
  return r->cells[(size_t)row * (size_t)r->columns + (size_t)column];
}

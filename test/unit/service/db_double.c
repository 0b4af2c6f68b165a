/* The database as a test scripts it, at the seam of db/db.h: what each call returns, and a record of what was sent.
 * Included by the tests of the service room, whose own it is; rows are read by the real db/values.c. */
#include "db/db.h"
#include "unit/unit.h"

#include <stdio.h>
#include <string.h>

enum { DB_CALLS = 16, DB_CELLS = 16, DB_TEXT = 4096 };

typedef struct DbScript { /* of one call */
  int rc;
  int statement; /* whose rows these are; the others of a group have none, and change one row each */
  int rows, columns;
  const char *cells[DB_CELLS];
  int64_t affected;
} DbScript;

static struct {
  DbScript script[DB_CALLS];
  int calls;
  int counts[DB_CALLS];         /* statements of each call */
  char sent[DB_CALLS][DB_TEXT]; /* "SQL|value|value\n" of each statement */
  int64_t deadline_us;          /* of the last call */
} db_double;

static void db_reset(void) {
  memset(&db_double, 0, sizeof(db_double));
}

static void record_value(Buf *out, const DbValue *v) {
  char id[UUID_TEXT];
  switch (v->type) {
  case F_UUID:
    uuid_format(v->uuid, id);
    buf_printf(out, "|%s", id);
    break;
  case F_INT:
    buf_printf(out, "|%lld", (long long)v->integer);
    break;
  case F_MONEY:
    buf_printf(out, "|%lld", (long long)v->money);
    break;
  default:
    buf_printf(out, "|%.*s", STR_FMT(v->text));
  }
}

static void record_call(Arena *arena, const DbStmt *statements, int count) {
  Buf out = {.arena = arena};
  for (int i = 0; i < count; i++) {
    buf_cstr(&out, statements[i].sql->text);
    for (int k = 0; k < statements[i].count; k++)
      record_value(&out, &statements[i].values[k]);
    buf_char(&out, '\n');
  }
  snprintf(db_double.sent[db_double.calls], DB_TEXT, "%.*s", STR_FMT(buf_view(&out)));
  db_double.counts[db_double.calls] = count;
}

static void fill_result(Arena *arena, const DbScript *script, DbResult *result) {
  int cells = script->rows * script->columns;
  *result = (DbResult){.rows = script->rows, .columns = script->columns, .affected = script->affected};
  result->cells = ARENA_ARRAY(arena, Str, (size_t)cells + 1);
  for (int i = 0; i < cells; i++)
    result->cells[i] = str_from(script->cells[i]);
}

int db_group(Db *db, Arena *arena, const DbStmt *statements, int count, DbResult *results, int64_t deadline_us) {
  (void)db;
  if (!CHECK(db_double.calls < DB_CALLS))
    return E_INTERNAL;
  db_double.deadline_us = deadline_us;
  record_call(arena, statements, count);
  const DbScript *script = &db_double.script[db_double.calls++];
  if (script->rc < 0)
    return script->rc;
  for (int i = 0; results && i < count; i++)
    if (i == script->statement)
      fill_result(arena, script, &results[i]);
    else
      results[i] = (DbResult){.affected = 1};
  return 0;
}

int db_exec(Db *db, Arena *arena, DbStmt statement, DbResult *result, int64_t deadline_us) {
  return db_group(db, arena, &statement, 1, result, deadline_us);
}

Db *db_new(const char *dsn, const char *name) {
  static char pool;
  (void)dsn;
  (void)name;
  return (Db *)(void *)&pool;
}

void db_start(Db *db, int connections, int batch) {
  (void)db;
  (void)connections;
  (void)batch;
}

bool db_is_up(const Db *db) {
  return db != NULL;
}

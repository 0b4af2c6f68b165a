/* Versions of SQL: cutting scripts, and comparing them with what a database has. */
#include "service/schema.h"

#include "log/log.h"
#include "rt/clock.h"
#include "rt/fiber.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK_TIMEOUT_US (5 * SECONDS)
#define CONNECT_POLL_US  (20 * MILLISECONDS)
#define WATCH_US         (1 * SECONDS)
#define START_US         (500 * MILLISECONDS) /* for so long a request waits for the first check */

/* In the catalog, so that nothing fails where the table is missing. A role that may not read it cannot tell. */
static const Sql find_table = {
    "SELECT has_table_privilege(c.oid, 'SELECT') FROM pg_class c JOIN pg_namespace n "
    "ON n.oid = c.relnamespace WHERE n.nspname = 'public' AND c.relname = 'skald_migration'"};
static const Sql select_versions = {"SELECT module, version FROM public.skald_migration WHERE service = $1"};

typedef struct SchemaWatch {
  Arena *memory;
  SchemaPart *parts;
  int count;
  void (*begin)(Service *s);
  Fiber *fiber;
  int64_t started_us;
  bool begun, checked, doubted;
  char problem[256]; /* empty: none */
} SchemaWatch;

static void cut_script(SchemaPart **next, const SqlModule *module, const char *script) {
  static const char heading[] = "-- migration ";
  for (const char *part = strstr(script, heading); part;) {
    const char *end = strstr(part + 1, heading);
    SchemaPart *p = (*next)++;
    *p = (SchemaPart){.module = module, .sql = {part, end ? (size_t)(end - part) : strlen(part)}};
    if (sscanf(part + strlen(heading), "%d", &p->version) != 1)
      p->version = 0;
    part = end;
  }
}

static int count_parts(const char *script) {
  int count = 0;
  for (const char *at = script; (at = strstr(at, "-- migration ")); at++)
    count++;
  return count;
}

int schema_parts(const ServiceDef *def, Arena *arena, SchemaPart **ret, int *ret_count) {
  SqlModule *own = ARENA_NEW(arena, SqlModule);
  *own = (SqlModule){.name = SCHEMA_SCRIPT, .sql = def->migrations};
  int count = count_parts(own->sql);
  for (const SqlModule *m = def->modules; m->name; m++)
    count += count_parts(m->sql);
  SchemaPart *parts = ARENA_ARRAY(arena, SchemaPart, (size_t)count + 1), *next = parts;
  cut_script(&next, own, own->sql);
  for (const SqlModule *m = def->modules; m->name; m++)
    cut_script(&next, m, m->sql);
  assert(next - parts == count);
  for (int i = 0; i < count; i++)
    if (parts[i].version < 1)
      return E_INTERNAL;
  *ret = parts;
  *ret_count = count;
  return E_OK;
}

static bool is_listed(const DbResult *listed, const SchemaPart *part) {
  for (int row = 0; row < listed->rows; row++) {
    Str module = db_cell(listed, row, 0);
    int64_t version = 0;
    if (str_to_int(db_cell(listed, row, 1), &version) == 0 && version == part->version &&
        (str_eq(module, str_from(part->module->name)) ||
         (part->module->old_name && str_eq(module, str_from(part->module->old_name)))))
      return true;
  }
  return false;
}

const SchemaPart *schema_missing(const SchemaPart *parts, int count, const DbResult *listed) {
  for (int i = 0; i < count; i++)
    if (!is_listed(listed, &parts[i]))
      return &parts[i];
  return NULL;
}

static void keep_problem(Service *s, const SchemaPart *missing) {
  SchemaWatch *w = s->schema;
  char problem[sizeof(w->problem)] = "";
  if (missing)
    snprintf(problem, sizeof(problem),
             "the database of %s has not been migrated for this version (%s %d is missing): "
             "run skald migrate",
             s->def->name, missing->module->name, missing->version);
  if (strcmp(problem, w->problem) != 0) {
    if (missing)
      LOG(ERROR, "serve", "%s", problem);
    else
      LOG(INFO, "serve", "the database of %s has been migrated", s->def->name);
  }
  memcpy(w->problem, problem, sizeof(problem));
  w->checked = true;
}

static int check(Service *s) {
  SCOPED_ARENA arena = arena_new();
  SchemaWatch *w = s->schema;
  DbResult table = {0}, listed = {0};
  int64_t deadline_us = clock_now_us() + CHECK_TIMEOUT_US;
  TRY(db_exec(s->db, arena, (DbStmt){.sql = &find_table}, &table, deadline_us));
  if (table.rows > 0 && str_eq(db_cell(&table, 0, 0), STR("f"))) {
    if (!w->checked)
      LOG(WARN, "serve", "%s may not read public.skald_migration: it is not checked whether its database was migrated",
          s->def->name);
    keep_problem(s, NULL);
    return E_OK;
  }
  if (table.rows > 0)
    TRY(db_exec(s->db, arena, DB_STMT(&select_versions, V_TEXT(str_from(s->def->name))), &listed, deadline_us));
  keep_problem(s, schema_missing(w->parts, w->count, &listed));
  return E_OK;
}

static void begin_once(Service *s) {
  if (s->schema->begun || s->schema->problem[0])
    return;
  s->schema->begun = true;
  s->schema->begin(s);
}

/* Behind a check that found nothing missing: until there is reason for another. */
static int wait_for_doubt(Service *s) {
  bool was_up = true;
  s->schema->doubted = false;
  while (!s->schema->doubted) {
    if (fiber_wait("schema", clock_now_us() + WATCH_US) == E_CANCELED)
      return E_CANCELED;
    bool is_up = db_is_up(s->db);
    if (is_up && !was_up)
      break;
    was_up = is_up;
  }
  return E_OK;
}

/* A database that is away says nothing of its tables: what was known stays. */
static int look(Service *s) {
  while (!db_is_up(s->db))
    TRY(fiber_sleep(CONNECT_POLL_US));
  int rc = check(s);
  if (rc == E_CANCELED)
    return rc;
  if (rc < 0 || s->schema->problem[0])
    return fiber_sleep(WATCH_US);
  begin_once(s);
  return wait_for_doubt(s);
}

static void watch(void *arg) {
  Service *s = arg;
  while (look(s) == E_OK)
    continue;
  s->schema->fiber = NULL;
}

void schema_watch(Service *s, void (*begin)(Service *s)) {
  assert(!s->schema);
  SchemaWatch *w = calloc(1, sizeof(*w));
  if (!w)
    die("out of memory");
  s->schema = w;
  w->memory = arena_new();
  w->begin = begin;
  w->started_us = clock_now_us();
  if (schema_parts(s->def, w->memory, &w->parts, &w->count) < 0)
    die("the SQL of %s has a heading without a version", s->def->name);
  w->fiber = fiber_start("schema", watch, s);
  if (!w->fiber)
    die("no fiber left at the start");
}

void schema_unwatch(Service *s) {
  if (s->schema && s->schema->fiber)
    fiber_cancel(s->schema->fiber);
}

bool schema_begun(const Service *s) {
  return s->schema && s->schema->begun;
}

Str schema_problem(const Service *s, Arena *arena) {
  const SchemaWatch *w = s->schema;
  if (w && w->problem[0])
    return arena_str(arena, str_from(w->problem));
  if (w && !w->begun)
    return arena_printf(arena, "whether the database of %s has been migrated is not known yet", s->def->name);
  return (Str){0};
}

Str schema_admit(const Service *s, Arena *arena) {
  const SchemaWatch *w = s->schema;
  while (w && !w->begun && !w->problem[0] && clock_now_us() < w->started_us + START_US)
    if (fiber_sleep(CONNECT_POLL_US) < 0)
      break;
  return schema_problem(s, arena);
}

void schema_doubt(Service *s) {
  if (s->schema && s->schema->checked && !s->schema->doubted)
    s->schema->doubted = true;
}

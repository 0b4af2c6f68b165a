/* Cutting scripts into versions, and comparing those with what a database lists. */
#include "service/schema.h"

#include "unit/unit.h"

static const ServiceDef shop = {
    .name = "shop",
    .schema = "shop",
    .migrations = "-- about the shop\n-- migration 1: begin\nCREATE A;\n-- migration 2: go on\nCREATE B;\n",
    .modules = {{.name = "saga", .old_name = "module 0", .sql = "-- migration 1: sagas\nCREATE C;\n"},
                {.name = "ledger", .sql = "-- migration 7: books\nCREATE D;\n"}}};

static const SchemaPart *parts_of(const ServiceDef *def, Arena *arena, int *ret_count) {
  SchemaPart *parts = NULL;
  *ret_count = 0;
  CHECK_INT(schema_parts(def, arena, &parts, ret_count), E_OK);
  return parts;
}

TEST(scripts_are_cut_at_their_headings_in_order) {
  SCOPED_ARENA arena = arena_new();
  int count;
  const SchemaPart *parts = parts_of(&shop, arena, &count);
  if (!CHECK_INT(count, 4))
    return;
  CHECK_STR(parts[0].sql, "-- migration 1: begin\nCREATE A;\n");
  CHECK_STR(parts[1].sql, "-- migration 2: go on\nCREATE B;\n");
  CHECK_STR(parts[2].sql, "-- migration 1: sagas\nCREATE C;\n");
  CHECK_STR(parts[1].module->name, "service");
  CHECK_INT(parts[1].version, 2);
  CHECK_STR(parts[2].module->name, "saga");
  CHECK_STR(parts[3].module->name, "ledger");
  CHECK_INT(parts[3].version, 7);
}

TEST(heading_without_a_version_is_refused) {
  SCOPED_ARENA arena = arena_new();
  static const ServiceDef bad = {.name = "bad", .migrations = "-- migration one: begin\n"};
  SchemaPart *parts = NULL;
  int count = -1;
  CHECK_INT(schema_parts(&bad, arena, &parts, &count), E_INTERNAL);
  CHECK(parts == NULL);
  CHECK_INT(count, -1);
}

/* What is missing where a database lists these, "module version" each; "": nothing. */
static Str missing(Arena *arena, const char *const rows[][2], int count) {
  DbResult listed = {.rows = count, .columns = 2, .cells = ARENA_ARRAY(arena, Str, (size_t)count * 2 + 1)};
  for (int i = 0; i < count * 2; i++)
    listed.cells[i] = str_from(rows[i / 2][i % 2]);
  int known;
  const SchemaPart *parts = parts_of(&shop, arena, &known), *found = schema_missing(parts, known, &listed);
  return found ? arena_printf(arena, "%s %d", found->module->name, found->version) : STR("");
}

TEST(database_must_list_at_least_what_is_known) {
  static const char *const all[][2] = {{"service", "1"}, {"service", "2"}, {"saga", "1"}, {"ledger", "7"}};
  static const char *const later[][2] = {{"service", "3"}, {"ledger", "8"},  {"ledger", "7"}, {"other", "1"},
                                         {"service", "2"}, {"service", "1"}, {"saga", "1"}};
  static const char *const old[][2] = {{"service", "1"}, {"service", "2"}, {"module 0", "1"}, {"ledger", "7"}};
  static const char *const numbered[][2] = {{"service", "1"}, {"service", "2"}, {"saga", "1"}, {"module 1", "7"}};
  static const char *const mixed[][2] = {{"service", "1"}, {"saga", "2"}, {"saga", "1"}, {"ledger", "7"}};
  SCOPED_ARENA arena = arena_new();
  CHECK_STR(missing(arena, all, 4), "");
  CHECK_STR(missing(arena, later, 7), "");
  CHECK_STR(missing(arena, old, 4), "");
  CHECK_STR(missing(arena, numbered, 4), "ledger 7");
  CHECK_STR(missing(arena, mixed, 4), "service 2");
  CHECK_STR(missing(arena, all, 3), "ledger 7");
  CHECK_STR(missing(arena, all, 2), "saga 1");
  CHECK_STR(missing(arena, all, 1), "service 2");
  CHECK_STR(missing(arena, NULL, 0), "service 1");
}

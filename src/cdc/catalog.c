/* Queries of PostgreSQL's catalog. */
#include "cdc/catalog.h"

#include "rt/clock.h"

#define DEADLINE_US 5000000

static const Sql select_columns = {
    "SELECT a.attname, a.attnotnull, pg_get_expr(d.adbin, d.adrelid), format_type(a.atttypid, a.atttypmod) "
    "FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum "
    "WHERE a.attrelid = $1::bigint::oid AND a.attnum > 0 AND NOT a.attisdropped"};

static const Sql select_key = {
    "SELECT a.attname FROM (SELECT x.indrelid, x.indkey, x.indnkeyatts FROM pg_index x "
    "JOIN pg_class c ON c.oid = x.indexrelid WHERE x.indrelid = $1::bigint::oid AND x.indisunique "
    "AND 0 <> ALL (x.indkey::int2[]) ORDER BY x.indisprimary DESC, c.relname LIMIT 1) AS i "
    "CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place) "
    "JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum "
    "WHERE k.place <= i.indnkeyatts ORDER BY k.place"};

static const Sql select_published = {
    "SELECT p.schemaname, p.tablename, a.attname, a.atttypid::bigint, a.atttypmod, a.attnotnull, "
    "pg_get_expr(d.adbin, d.adrelid), format_type(a.atttypid, a.atttypmod) FROM pg_publication_tables p "
    "JOIN pg_namespace n ON n.nspname = p.schemaname JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = "
    "p.tablename JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
    "AND a.attname = ANY (p.attnames) LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum "
    "WHERE p.pubname = $1::text ORDER BY 1, 2, a.attnum"};

static ColumnFacts facts_of(const DbResult *r, int row, int first) {
  return (ColumnFacts){.required = str_eq(db_cell(r, row, first), STR("t")),
                       .default_source = db_cell(r, row, first + 1),
                       .type_name = db_cell(r, row, first + 2)};
}

static const ColumnFacts *match_columns(Arena *arena, const PgoRelation *relation, const DbResult *r) {
  ColumnFacts *facts = ARENA_ARRAY(arena, ColumnFacts, (size_t)relation->count + 1);
  for (int i = 0; i < relation->count; i++)
    for (int row = 0; row < r->rows; row++)
      if (str_eq(db_cell(r, row, 0), relation->columns[i].name))
        facts[i] = facts_of(r, row, 1);
  return facts;
}

int catalog_read(Db *db, Arena *arena, const PgoRelation *relation, RecordFacts *ret) {
  const DbStmt statements[] = {DB_STMT(&select_columns, V_INT(relation->id)),
                               DB_STMT(&select_key, V_INT(relation->id))};
  DbResult results[2];
  TRY(db_group(db, arena, statements, 2, results, clock_now_us() + DEADLINE_US));
  ret->columns = match_columns(arena, relation, &results[0]);
  ret->key = results[1].cells; /* one column: its rows are the names in order */
  ret->key_count = results[1].rows;
  return E_OK;
}

static bool same_table(const DbResult *r, int row, const PgoRelation *relation) {
  return str_eq(db_cell(r, row, 0), relation->schema) && str_eq(db_cell(r, row, 1), relation->name);
}

/* Reads the table that begins at a row as the stream would announce it; returns how many rows it has. */
static int read_table(Arena *arena, const DbResult *r, int row, PgoRelation *relation, ColumnFacts *facts) {
  *relation = (PgoRelation){.schema = db_cell(r, row, 0), .name = db_cell(r, row, 1)};
  relation->columns = ARENA_ARRAY(arena, PgoColumn, (size_t)(r->rows - row));
  for (; row < r->rows && same_table(r, row, relation); row++) {
    int64_t type = 0, modifier = 0;
    TRY(str_to_int(db_cell(r, row, 3), &type));
    TRY(str_to_int(db_cell(r, row, 4), &modifier));
    facts[relation->count] = facts_of(r, row, 5);
    relation->columns[relation->count++] =
        (PgoColumn){.name = db_cell(r, row, 2), .type = (uint32_t)type, .modifier = (int32_t)modifier};
  }
  return relation->count;
}

int catalog_check(Db *db, Arena *arena, const char *publication, const RecordStyle *style, Str *error) {
  DbResult r;
  TRY(db_exec(db, arena, DB_STMT(&select_published, V_TEXT(str_from(publication))), &r, clock_now_us() + DEADLINE_US));
  ColumnFacts *facts = ARENA_ARRAY(arena, ColumnFacts, (size_t)r.rows + 1);
  for (int row = 0; row < r.rows;) {
    PgoRelation relation;
    RecordTable *table = NULL;
    int rows = read_table(arena, &r, row, &relation, facts);
    TRY(rows);
    TRY(record_table_new(arena, style, &relation, &(RecordFacts){.columns = facts}, &table, error));
    row += rows;
  }
  return r.rows > 0 ? E_OK : E_NOT_FOUND;
}

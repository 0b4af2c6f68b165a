/* Fuzz target: a row of every type as a record, in each mode. The first byte chooses the mode, the rest is the row: the
 * texts of its cells, separated by zero bytes. */
#include "cdc/envelope.h"
#include "cdc/record.h"
#include "fuzz/fuzz.h"

static const struct {
  uint32_t type;
  int32_t modifier;
} columns[] = {{16, -1},
               {17, -1},
               {18, -1},
               {19, -1},
               {20, -1},
               {21, -1},
               {23, -1},
               {25, -1},
               {26, -1},
               {114, -1},
               {700, -1},
               {701, -1},
               {1042, 14},
               {1043, 14},
               {1082, -1},
               {1083, 2},
               {1083, -1},
               {1114, 3},
               {1114, -1},
               {1184, 0},
               {1184, -1},
               {1700, -1},
               {1700, ((38 << 16) | 2) + 4},
               {2950, -1},
               {3802, -1}};
enum { COLUMNS = sizeof(columns) / sizeof(columns[0]) };

static Str take_cell(Str *rest) {
  Str cell = str_cut(rest, '\0');
  return cell.p ? cell : STR("");
}

/* One column after the other, so that one that is refused does not hide the others. */
static void check_cell(const RecordStyle *style, uint32_t type, int32_t modifier, Str text) {
  SCOPED_ARENA arena = arena_new();
  PgoColumn column = {.name = STR("v"), .type = type, .modifier = modifier};
  PgoRelation relation = {.schema = STR("s"), .name = STR("t"), .count = 1, .columns = &column};
  ColumnFacts facts = {.required = true, .default_source = text};
  RecordTable *table = NULL;
  Str error;
  PROPERTY(record_table_new(arena, style, &relation, &(RecordFacts){&column.name, 1, &facts}, &table, &error) == E_OK);
  PgoCell cell = {'t', text}, none = {'n', {0}};
  PgoTuple row = {1, &cell}, key = {1, &none};
  Buf out = {.arena = arena}, key_out = {.arena = arena};
  Str culprit = {0};
  if (record_value(&out, table, &(RecordSource){0}, 'u', &key, &row, 0, &culprit) < 0) {
    PROPERTY(out.n == 0 && culprit.p && style->decimals != DECIMALS_EXACT);
    return;
  }
  PROPERTY(record_key(&key_out, table, &row) == E_OK);
  Envelope envelope;
  JsonValue *parsed = NULL;
  PROPERTY(envelope_parse(arena, buf_view(&out), NULL, &envelope) == E_OK && envelope.op == 'u' && envelope.after);
  PROPERTY(json_parse(arena, buf_view(&key_out), &parsed, NULL) == E_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  Str rest = {(const char *)data, size};
  if (size == 0 || !str_is_utf8((Str){rest.p + 1, size - 1})) /* PostgreSQL sends no other text */
    return 0;
  RecordStyle style = {.prefix = STR("p"), .decimals = (Decimals)(data[0] & 3), .schemas = data[0] & 4};
  rest = (Str){rest.p + 1, rest.n - 1};
  for (int i = 0; i < COLUMNS; i++)
    check_cell(&style, columns[i].type, columns[i].modifier, take_cell(&rest));
  return 0;
}

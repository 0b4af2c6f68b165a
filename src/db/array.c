/* Array literals by PostgreSQL's manual, "Array Input and Output Syntax": text is always quoted, so that a comma, a
 * brace, a space, an empty text or the word NULL are what they are. */
#include "db/array.h"

#include "db/pq.h"

#include <assert.h>

DbArray db_array(Arena *arena) {
  DbArray a = {.text = {.arena = arena}};
  buf_char(&a.text, '{');
  return a;
}

static void add_quoted(Buf *b, Str s) {
  buf_char(b, '"');
  for (size_t i = 0; i < s.n; i++) {
    if (s.p[i] == '"' || s.p[i] == '\\')
      buf_char(b, '\\');
    buf_char(b, s.p[i]);
  }
  buf_char(b, '"');
}

void db_array_add(DbArray *a, DbValue value) {
  assert(a->text.p[a->text.n - 1] != '}'); /* not ended yet */
  if (a->text.n > 1)
    buf_char(&a->text, ',');
  const char *text = db_text(a->text.arena, &value);
  if (!text)
    buf_cstr(&a->text, "NULL");
  else if (value.type == F_TEXT || value.type == F_JSON)
    add_quoted(&a->text, value.text);
  else
    buf_cstr(&a->text, text);
}

DbValue db_array_end(DbArray *a) {
  buf_char(&a->text, '}');
  return V_TEXT(buf_view(&a->text));
}

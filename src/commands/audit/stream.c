/* Reading for the audit: one read-only snapshot per database, read through cursors. */
#include "commands/audit/stream.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* The cursors are read to the end, so plans should be cheap in total rather than fast for the first row. */
#define BEGIN_SNAPSHOT                                                                                                 \
  "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL work_mem = '64MB'; "                                     \
  "SET LOCAL jit = off; SET LOCAL cursor_tuple_fraction = 1; SET LOCAL max_parallel_workers_per_gather = 0; "          \
  "SET LOCAL datestyle = 'ISO'; SET LOCAL search_path = pg_catalog"

const char *audit_rule_name(int rule) {
  static const char *const names[] = {"note", "rule 1", "rule 2", "rule 3", "rule 4", "rule 5", "rule 6"};
  return names[rule];
}

void audit_violation(AuditReport *report, int rule, const char *format, ...) {
  if (++report->violations[rule] > AUDIT_SHOWN)
    return;
  va_list args;
  va_start(args, format);
  printf("%s: ", audit_rule_name(rule));
  vprintf(format, args);
  putchar('\n');
  va_end(args);
}

/* The server may add lines about the position in the statement, which are of no use to operators. */
static int failed(const AuditSource *source, const char *what, int code, Str error) {
  error = str_cut(&error, '\n');
  fprintf(stderr, "skald: audit cannot %s the database of %s: %.*s\n", what, source->service, STR_FMT(error));
  return code;
}

int audit_query(AuditSource *source, const char *sql, Arena *arena, DbResult *ret) {
  Str error = {0};
  int rc = db_script_run(source->script, sql, arena, ret, &error);
  return rc < 0 ? failed(source, "read", rc, error) : 0;
}

int audit_source_open(AuditSource *source) {
  SCOPED_ARENA arena = arena_new();
  Str error = {0};
  int rc = db_script_open(source->dsn, arena, &source->script, &error);
  if (rc < 0)
    return failed(source, "reach", rc, error);
  return audit_query(source, BEGIN_SNAPSHOT, arena, NULL);
}

void audit_source_close(AuditSource *source) {
  db_script_close(source->script);
  source->script = NULL;
}

int audit_stream_open(AuditStream *stream, AuditSource *source, const char *select) {
  *stream = (AuditStream){.source = source, .cursor = ++source->cursors, .arena = arena_new(), .row = -1};
  Str sql = arena_printf(stream->arena, "DECLARE audit_%d NO SCROLL CURSOR FOR %s", stream->cursor, select);
  return audit_query(source, sql.p, stream->arena, NULL);
}

static int fetch_page(AuditStream *stream) {
  arena_reset(stream->arena);
  Str sql = arena_printf(stream->arena, "FETCH %d FROM audit_%d", AUDIT_PAGE, stream->cursor);
  TRY(audit_query(stream->source, sql.p, stream->arena, &stream->page));
  stream->row = 0;
  stream->ended = stream->page.rows == 0;
  return 0;
}

int audit_stream_next(AuditStream *stream) {
  if (stream->ended)
    return 0;
  if (stream->row < 0 || ++stream->row == stream->page.rows)
    TRY(fetch_page(stream));
  return !stream->ended;
}

Str audit_stream_cell(const AuditStream *stream, int column) {
  return db_cell(&stream->page, stream->row, column);
}

int audit_stream_seek(AuditStream *stream, Str id, Str *ret) {
  bool begun = stream->row >= 0;
  while (!stream->ended && (!begun || audit_id_cmp(audit_stream_cell(stream, 0), id) < 0)) {
    TRY(audit_stream_next(stream));
    begun = true;
  }
  bool found = !stream->ended && audit_id_cmp(audit_stream_cell(stream, 0), id) == 0;
  *ret = found ? audit_stream_cell(stream, 1) : (Str){0};
  return 0;
}

void audit_stream_close(AuditStream *stream) {
  arena_free(stream->arena);
  stream->arena = NULL;
}

/* Lower-case hexadecimal with hyphens in fixed places sorts like the bytes. */
int audit_id_cmp(Str a, Str b) {
  int order = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);
  return order ? order : (a.n > b.n) - (a.n < b.n);
}

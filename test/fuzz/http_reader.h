/* Requests read from bytes that come in parts, as a connection reads them, and written down for comparison. */
#ifndef SKALD_TEST_FUZZ_HTTP_READER_H
#define SKALD_TEST_FUZZ_HTTP_READER_H

#include "http/parser.h"

#include <string.h>

typedef struct Reader {
  Arena *arena;
  Framing framing;
  Buf input, body, out; /* out: a line per request, and the last one says why the rest was refused */
  HttpRequest *request; /* whose body is being read */
  HttpParser *parser;
  bool refused;
  int code; /* why; E_INTERNAL: framing and parser differ about where a body ends */
} Reader;

static void reader_begin(Reader *r, Arena *arena) {
  *r = (Reader){.arena = arena, .input.arena = arena, .body.arena = arena, .out.arena = arena};
  framing_begin(&r->framing);
}

static void reader_skip(Reader *r, size_t n) {
  memmove(r->input.p, r->input.p + n, r->input.n - n);
  r->input.n -= n;
}

static void reader_end_request(Reader *r) {
  HttpRequest *q = r->request;
  buf_printf(&r->out, "%.*s %.*s?%.*s %d fields, %s:", STR_FMT(q->method), STR_FMT(q->path), STR_FMT(q->query),
             q->header_count, framing_keeps_alive(&r->framing) ? "kept" : "closed");
  buf_str(&r->out, buf_view(&r->body));
  buf_char(&r->out, '\n');
  buf_clear(&r->body);
  r->request = NULL;
  framing_begin(&r->framing);
}

/* More than 0: go on with what is left. */
static ssize_t reader_step(Reader *r) {
  Framing *f = &r->framing;
  Str view = buf_view(&r->input);
  ssize_t n = r->request ? framing_body(f, view) : framing_head(f, view);
  if (n <= 0)
    return n;
  if (r->request) {
    TRY(http_parse_body(r->parser, (Str){view.p, (size_t)n}, &r->body));
  } else {
    r->request = ARENA_NEW(r->arena, HttpRequest);
    r->request->arena = r->arena;
    char *head = arena_copy(r->arena, view.p, (size_t)n);
    TRY(http_parse_head(f, head, (size_t)n, r->request, &r->parser));
    TRY(framing_begin_body(f, HTTP_BODY_MAX));
  }
  if (http_parse_is_complete(r->parser) != framing_body_is_complete(f))
    return E_INTERNAL;
  reader_skip(r, (size_t)n);
  if (framing_body_is_complete(f))
    reader_end_request(r);
  return n;
}

static void reader_feed(Reader *r, Str bytes) {
  buf_add(&r->input, bytes.p, bytes.n);
  ssize_t n = 1;
  while (!r->refused && n > 0 && r->input.n > 0)
    n = reader_step(r);
  if (n < 0 && !r->refused)
    buf_printf(&r->out, "%s: %s\n", err_info((int)n)->name, r->framing.detail ? r->framing.detail : "parsed otherwise");
  r->code = r->refused ? r->code : (int)(n < 0 ? n : 0);
  r->refused |= n < 0;
}

#endif

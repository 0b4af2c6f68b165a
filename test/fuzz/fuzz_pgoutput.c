/* Fuzz target: a frame of the replication stream, and the message inside it or the bytes themselves as one. */
#include "cdc/envelope.h"
#include "fuzz/fuzz.h"

#include <string.h>

/* PostgreSQL's text is UTF-8 without zero bytes; JSON input with anything else is refused. */
static bool is_text(Str s) {
  return str_is_utf8(s) && !memchr(s.p, 0, s.n);
}

/* A decoded row must make an envelope that can be read back. */
static void check_envelope(Arena *arena, const PgoMessage *m) {
  PgoColumn columns[] = {{STR("a"), 1700, -1, true},
                         {STR("b"), 17, -1, false},
                         {STR("c"), 1114, -1, false},
                         {STR("d"), 1184, -1, false},
                         {STR("e"), 25, -1, false}};
  PgoRelation relation = {.schema = STR("s"), .name = STR("t"), .count = 5, .columns = columns};
  bool texts = true;
  for (int i = 0; i < m->change.fresh.count; i++)
    texts = texts && (m->change.fresh.cells[i].kind != 't' || is_text(m->change.fresh.cells[i].text));
  Buf out = {.arena = arena};
  envelope_build(&out, &(EnvelopeSource){.name = STR("n")}, &relation, 'c', NULL, &m->change.fresh, 0);
  Envelope e;
  PROPERTY(!texts || envelope_parse(arena, buf_view(&out), &e) == E_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  SCOPED_ARENA arena = arena_new();
  Str bytes = {(const char *)data, size};
  PgoFrame frame;
  PgoMessage message;
  if (pgoutput_frame(bytes, &frame) == E_OK && frame.type == 'w')
    bytes = frame.payload;
  if (pgoutput_decode(arena, bytes, &message) == E_OK && (message.type == 'I' || message.type == 'U'))
    check_envelope(arena, &message);
  return 0;
}

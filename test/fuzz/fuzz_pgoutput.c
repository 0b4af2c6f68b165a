/* Fuzz target: a frame of the replication stream, and the message inside it or the bytes themselves as one. */
#include "cdc/pgoutput.h"
#include "fuzz/fuzz.h"

static void check_tuple(const PgoTuple *tuple) {
  for (int i = 0; i < tuple->count; i++)
    PROPERTY(tuple->cells[i].kind == 't' ? tuple->cells[i].text.p != NULL : tuple->cells[i].text.p == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  SCOPED_ARENA arena = arena_new();
  Str bytes = {(const char *)data, size};
  PgoFrame frame;
  PgoMessage message;
  if (pgoutput_frame(bytes, &frame) == E_OK && frame.type == 'w')
    bytes = frame.payload;
  if (pgoutput_decode(arena, bytes, &message) == E_OK && (message.type == 'I' || message.type == 'U')) {
    check_tuple(&message.change.old);
    check_tuple(&message.change.fresh);
  }
  return 0;
}

/* Fuzz target: a change event's value, from whoever may write to the topic. */
#include "cdc/envelope.h"
#include "fuzz/fuzz.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  SCOPED_ARENA arena = arena_new();
  Envelope e;
  if (envelope_parse(arena, (Str){(const char *)data, size}, &e) == E_OK)
    PROPERTY(!e.op || memchr("cudrtm", e.op, 6));
  return 0;
}

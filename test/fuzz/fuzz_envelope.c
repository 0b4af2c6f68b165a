/* Fuzz target: a change event's value, from whoever may write to the topic. */
#include "cdc/envelope.h"
#include "fuzz/fuzz.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  SCOPED_ARENA arena = arena_new();
  static Buf schema; /* of an earlier input */
  Envelope e, again;
  Str value = {(const char *)data, size};
  if (envelope_parse(arena, value, NULL, &e) < 0)
    return 0;
  PROPERTY(!e.op || memchr("cudrtm", e.op, 6));
  for (int i = 0; i < 2; i++) { /* as the input leaves it the second time */
    PROPERTY(envelope_parse(arena, value, &schema, &again) == E_OK && again.op == e.op && again.lsn == e.lsn);
    PROPERTY(!again.after == !e.after && !again.before == !e.before && again.commit_us == e.commit_us);
  }
  return 0;
}

/* Requests: how their bytes are split changes nothing, what is read stays within its bounds, and both readers of a body
 * agree about where it ends. The first byte says how the rest is split. */
#include "fuzz/fuzz.h"
#include "fuzz/http_reader.h"

static void check_bounds(const Reader *r) {
  PROPERTY(r->code != E_INTERNAL);
  PROPERTY(r->framing.fields <= FRAMING_COUNT_MAX + 1);
  PROPERTY(r->framing.at <= FRAMING_HEAD_MAX);
  PROPERTY(r->framing.overhead <= FRAMING_OVERHEAD_MAX + 1);
  PROPERTY(r->body.n <= HTTP_BODY_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0)
    return 0;
  SCOPED_ARENA arena = arena_new();
  Reader whole, parts;
  Str bytes = {(const char *)data + 1, size - 1};
  size_t part = data[0] % 16 + 1;
  reader_begin(&whole, arena);
  reader_feed(&whole, bytes);
  check_bounds(&whole);
  reader_begin(&parts, arena);
  for (size_t at = 0; at < bytes.n; at += part)
    reader_feed(&parts, (Str){bytes.p + at, bytes.n - at < part ? bytes.n - at : part});
  check_bounds(&parts);
  PROPERTY(str_eq(buf_view(&whole.out), buf_view(&parts.out)));
  return 0;
}

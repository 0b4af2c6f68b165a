/* What every fuzz target shares: libFuzzer's entry point, and the check of a property. */
#ifndef SKALD_TEST_FUZZ_FUZZ_H
#define SKALD_TEST_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Unlike assert it stays when NDEBUG is set: it is what the target is for. */
#define PROPERTY(holds)                                                                                                \
  do {                                                                                                                 \
    if (!(holds)) {                                                                                                    \
      fprintf(stderr, "%s:%d: property violated: %s\n", __FILE__, __LINE__, #holds);                                   \
      abort();                                                                                                         \
    }                                                                                                                  \
  } while (0)

#endif

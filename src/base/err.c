/* The table behind the error codes. */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define INFO(err, identifier, sentence, http, again)                                                                   \
  [-(err)] = {.code = (err), .name = (identifier), .title = (sentence), .status = (http), .retry = (again)}

static const ErrInfo infos[] = {
    INFO(E_OK, "ok", "Done.", 200, false),
    INFO(E_MALFORMED, "malformed", "The request is malformed.", 400, false),
    INFO(E_FIELD, "invalid-field", "A field has an invalid value.", 422, false),
    INFO(E_NOT_FOUND, "not-found", "There is no such object.", 404, false),
    INFO(E_METHOD, "method-not-allowed", "The method is not allowed here.", 405, false),
    INFO(E_CONFLICT, "conflict", "The state of the object does not allow it.", 409, false),
    INFO(E_REFUSED, "refused", "The rules of the shop forbid it.", 409, false),
    INFO(E_KEY_REUSED, "idempotency-key-reused", "The idempotency key was already used for another request.", 422,
         false),
    INFO(E_IN_PROGRESS, "in-progress", "The first request with this idempotency key is still running.", 409, true),
    INFO(E_DEPENDENCY, "rolled-back", "A step failed and all other steps were compensated.", 424, false),
    INFO(E_TOO_LARGE, "too-large", "The body is larger than the limit.", 413, false),
    INFO(E_HEADERS, "headers-too-large", "The header section is larger than the limit.", 431, false),
    INFO(E_MEDIA, "unsupported-media-type", "The body must be JSON.", 415, false),
    INFO(E_RANGE, "out-of-range", "A number is beyond what can be stored.", 422, false),
    INFO(E_BUSY, "busy", "Too many concurrent requests.", 503, true),
    INFO(E_UNAVAILABLE, "unavailable", "A dependency is unavailable; nothing was done.", 503, true),
    INFO(E_UNKNOWN, "outcome-unknown", "The outcome is unknown.", 503, true),
    INFO(E_TIMEOUT, "timeout", "The request timed out.", 504, true),
    INFO(E_CANCELED, "canceled", "The request was canceled before it finished.", 503, true),
    INFO(E_FENCED, "fenced", "Another instance has taken this over.", 503, true),
    INFO(E_EXISTS, "exists", "The object already exists.", 409, false),
    INFO(E_SYSTEM, "system", "An operating system call failed.", 500, true),
    INFO(E_TARGET, "target-too-long", "The request target is longer than the limit.", 414, false),
    INFO(E_EXPECTATION, "expectation-failed", "The expectation cannot be met.", 417, false),
    INFO(E_VERSION, "version-not-supported", "This version of HTTP is not supported.", 505, false),
    INFO(E_INTERNAL, "internal", "Internal server error.", 500, false),
};

const ErrInfo *err_info(int code) {
  int last = (int)(sizeof(infos) / sizeof(*infos)) - 1;
  if (code > 0 || code < -last)
    return &infos[-E_INTERNAL];
  return &infos[-code];
}

void die(const char *format, ...) {
  char reason[512];
  va_list args;
  va_start(args, format);
  vsnprintf(reason, sizeof(reason), format, args);
  va_end(args);
  char line[sizeof(reason) + 32]; /* one write, which the lines of other processes cannot part */
  snprintf(line, sizeof(line), "skald: fatal: %s\n", reason);
  fputs(line, stderr);
  abort();
}

/* The table behind the error codes. */
#include "base/err.h"

#include <stddef.h>

#define INFO(err, identifier, sentence, http, again)                                                                   \
  [-(err)] = {.code = (err), .name = (identifier), .title = (sentence), .status = (http), .retry = (again)}

static const ErrInfo infos[] = {
    INFO(E_OK, "ok", "Done.", 200, false),
    INFO(E_MALFORMED, "malformed", "The request is not in the form it must have.", 400, false),
    INFO(E_FIELD, "invalid-field", "The value of a field is not acceptable.", 422, false),
    INFO(E_NOT_FOUND, "not-found", "There is no such object.", 404, false),
    INFO(E_METHOD, "method-not-allowed", "The method is not allowed here.", 405, false),
    INFO(E_CONFLICT, "conflict", "The state of the object does not allow it.", 409, false),
    INFO(E_REFUSED, "refused", "The rules of the shop forbid it.", 409, false),
    INFO(E_KEY_REUSED, "idempotency-key-reused", "The idempotency key was used for another request.", 422, false),
    INFO(E_IN_PROGRESS, "in-progress", "The first request with this idempotency key is still running.", 409, true),
    INFO(E_DEPENDENCY, "rolled-back", "A step failed and every other step was undone.", 424, false),
    INFO(E_TOO_LARGE, "too-large", "The body is larger than the limit.", 413, false),
    INFO(E_HEADERS, "headers-too-large", "The header section is larger than the limit.", 431, false),
    INFO(E_MEDIA, "unsupported-media-type", "The body must be JSON.", 415, false),
    INFO(E_RANGE, "out-of-range", "A number is beyond what can be stored.", 422, false),
    INFO(E_BUSY, "busy", "Too much is being done at once.", 503, true),
    INFO(E_UNAVAILABLE, "unavailable", "Something this service needs is down; nothing was done.", 503, true),
    INFO(E_UNKNOWN, "outcome-unknown", "It is not known whether this was done.", 503, true),
    INFO(E_TIMEOUT, "timeout", "It took too long.", 504, true),
    INFO(E_CANCELED, "canceled", "The work was stopped before it was finished.", 503, true),
    INFO(E_FENCED, "fenced", "Another instance has taken this over.", 503, true),
    INFO(E_EXISTS, "exists", "There is such an object already.", 409, false),
    INFO(E_SYSTEM, "system", "The operating system refused a request of the server.", 500, true),
    INFO(E_INTERNAL, "internal", "The server has a defect.", 500, false),
};

const ErrInfo *err_info(int code) {
  int last = (int)(sizeof(infos) / sizeof(*infos)) - 1;
  if (code > 0 || code < -last)
    return &infos[-E_INTERNAL];
  return &infos[-code];
}

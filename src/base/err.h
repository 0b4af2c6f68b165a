/* The one error convention: a function that can fail returns 0 (E_OK), or a positive count where it says so, or one of
 * these negative codes. A table gives each its name, its text, the HTTP status it becomes and whether a retry can help.
 * Out-parameters are left alone on failure. What must never happen, out of memory above all, ends the process by die().
 */
#ifndef SKALD_BASE_ERR_H
#define SKALD_BASE_ERR_H

#include <stdbool.h>

enum {
  E_OK = 0,
  E_MALFORMED = -1,    /* not the syntax promised: JSON, HTTP, a path parameter */
  E_FIELD = -2,        /* well formed, but a field's value is not acceptable */
  E_NOT_FOUND = -3,    /* no such object, or no such path */
  E_METHOD = -4,       /* the path exists, the method does not */
  E_CONFLICT = -5,     /* the object is in a state that does not allow it */
  E_REFUSED = -6,      /* a business "no": too little money, no stock, slot full */
  E_KEY_REUSED = -7,   /* Idempotency-Key seen with another request */
  E_IN_PROGRESS = -8,  /* Idempotency-Key seen, its first request still runs */
  E_DEPENDENCY = -9,   /* a saga failed and was rolled back */
  E_TOO_LARGE = -10,   /* body over the limit */
  E_HEADERS = -11,     /* header section over the limit */
  E_MEDIA = -12,       /* a body that is not JSON by its own Content-Type */
  E_RANGE = -13,       /* a number beyond what can be stored */
  E_BUSY = -14,        /* over a limit of ours, retry later */
  E_UNAVAILABLE = -15, /* a dependency is down, nothing was done */
  E_UNKNOWN = -16,     /* sent, no response: it may or may not have been done */
  E_TIMEOUT = -17,     /* a deadline passed */
  E_CANCELED = -18,    /* the waiting fiber was canceled */
  E_FENCED = -19,      /* another owns it now */
  E_EXISTS = -20,      /* a unique key is already there */
  E_SYSTEM = -21,      /* the operating system refused; the cause was logged */
  E_TARGET = -22,      /* a request target over the limit */
  E_EXPECTATION = -23, /* an Expect that cannot be met */
  E_VERSION = -24,     /* an HTTP version that is not spoken */
  E_INTERNAL = -25,    /* a defect of ours, or an unexpected SQL error */
};

typedef struct ErrInfo {
  int code;
  const char *name;  /* stable identifier, e.g. "not-found" */
  const char *title; /* one short sentence for people */
  int status;        /* HTTP status, RFC 9110 */
  bool retry;        /* the same request may succeed later */
} ErrInfo;

/* Never NULL: an unknown code is reported as E_INTERNAL. */
const ErrInfo *err_info(int code);

/* Prints "skald: fatal: …" to stderr and aborts. For defects and exhausted memory, never for anything input can cause.
 */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define MUST_CHECK __attribute__((warn_unused_result))

/* Evaluates expr; returns from the calling function when it is negative. */
#define TRY(expr)                                                                                                      \
  do {                                                                                                                 \
    int try_rc_ = (expr);                                                                                              \
    if (try_rc_ < 0)                                                                                                   \
      return try_rc_;                                                                                                  \
  } while (0)

#endif

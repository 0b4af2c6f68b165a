/* Where a request's head and body end, read strictly (RFC 9112): what two readers of the same bytes could understand
 * differently is refused. Pure: it is given bytes, does no I/O, and what it says does not depend on how the bytes were
 * split. The parser proper sees only what was accepted here. */
#ifndef SKALD_HTTP_FRAMING_H
#define SKALD_HTTP_FRAMING_H

#include "base/err.h"
#include "base/str.h"

#include <sys/types.h>

#define FRAMING_METHOD_MAX   32          /* bytes */
#define FRAMING_TARGET_MAX   (8 * 1024)  /* bytes of the request target */
#define FRAMING_FIELDS_MAX   (32 * 1024) /* bytes of all header fields together */
#define FRAMING_COUNT_MAX    100         /* header fields */
#define FRAMING_OVERHEAD_MAX 1024        /* bytes of a body's chunk extensions and trailer fields together */
/* Bytes of the longest head: the request line, the fields, and a margin for separators. */
#define FRAMING_HEAD_MAX (FRAMING_METHOD_MAX + FRAMING_TARGET_MAX + FRAMING_FIELDS_MAX + 64)

typedef struct Framing {
  uint8_t state;
  char major, minor;             /* digits of the HTTP version */
  bool host, encoding, chunked;  /* fields seen */
  bool close, keep_alive;        /* said by Connection */
  bool expects, expects_unknown; /* said by Expect: 100-continue; anything else */
  bool coded;                    /* Content-Encoding says other than identity */
  int fields;
  size_t at;        /* bytes of the head that were read */
  size_t begin;     /* of the part being read */
  size_t fields_at; /* where the header fields begin */
  size_t name_at, name_n;
  size_t method_n, target_at, target_n;
  size_t path_at;            /* of the target, behind scheme and authority */
  size_t length_at;          /* where the value of Content-Length begins, white space included; 0: nowhere */
  int64_t length;            /* by Content-Length; -1: not given */
  uint64_t left;             /* of the body, or of the chunk being read */
  uint64_t body_n, body_max; /* bytes of content so far; the maximum */
  size_t overhead;
  int digits;         /* of the chunk size being read */
  char trailer[20];   /* the beginning of the name being read, in lower case */
  const char *detail; /* why it was refused */
} Framing;

void framing_begin(Framing *f);
/* head: a request's bytes from the first one on, as far as they have come; each call may give more of them. Returns the
 * length of the head once it is complete, 0 while it is not, or why it is refused: E_MALFORMED, E_HEADERS, E_TARGET,
 * E_VERSION. */
MUST_CHECK ssize_t framing_head(Framing *f, Str head);
/* Of a complete head: whether the connection may be kept. */
bool framing_keeps_alive(const Framing *f);
bool framing_has_body(const Framing *f);
Str framing_method(const Framing *f, const char *head); /* absent before it is complete */
/* The target's path and query; of the absolute form they may be empty. */
Str framing_path(const Framing *f, const char *head);

/* Behind a complete head. E_TOO_LARGE when the length that was announced is beyond max. */
MUST_CHECK int framing_begin_body(Framing *f, uint64_t max);
/* Returns how many of the bytes belong to the body, or E_MALFORMED or E_TOO_LARGE. */
MUST_CHECK ssize_t framing_body(Framing *f, Str bytes);
bool framing_body_is_complete(const Framing *f);

#endif

/* Field tables: one table per struct says how its members are named, typed and bounded. JSON in, JSON out, database
 * rows and statement parameters all work from the same table (json/json.h, db/db.h). A table ends with {0}. */
#ifndef SKALD_BASE_FIELD_H
#define SKALD_BASE_FIELD_H

#include "base/localtime.h"
#include "base/money.h"
#include "base/uuid.h"

typedef enum FieldType { /* the C type of the member */
                         F_END = 0,
                         F_UUID,  /* Uuid; nil is null */
                         F_MONEY, /* Money; min and max in cents */
                         F_TEXT,  /* Str; min and max are lengths in bytes; absent is null. From a client: without
                                     control characters, and more than blanks where min is not 0 */
                         F_INT,   /* int64_t */
                         F_BOOL,  /* bool */
                         F_TIME,  /* LocalTime; LOCALTIME_NONE is null */
                         F_LIST,  /* List of structs described by .fields and .size; min and max are counts */
                         F_JSON,  /* Str that is JSON text already; out only */
} FieldType;

enum {                     /* FieldFlags */
       FIELD_OUT = 1,      /* made by us: never read from a request */
       FIELD_OPTIONAL = 2, /* may be missing or null in a request; the member keeps what it had */
       FIELD_HIDDEN = 4,   /* read, never written in a response */
       FIELD_EMAIL = 8,    /* F_TEXT: from a client it must look like an e-mail address */
       FIELD_STORED = 16,  /* F_TEXT: another service sends it from what is stored, so today's rules for a client's text
                              do not hold for it */
};

typedef struct List {
  void *items;
  size_t count;
} List;

typedef struct Field {
  const char *name; /* in JSON, and the member's own name */
  FieldType type;
  unsigned flags;
  size_t offset;
  int64_t min, max;          /* both zero: only the type's own bounds */
  const char *const *values; /* F_TEXT: the texts allowed, NULL-terminated */
  const struct Field *fields;
  size_t size;
} Field;

#define FIELD(Struct, member, kind, ...)                                                                               \
  { .name = #member, .type = (kind), .offset = offsetof(Struct, member), __VA_ARGS__ }

#endif

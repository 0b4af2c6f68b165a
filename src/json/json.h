/* JSON (RFC 8259) in and out, by field tables. Numbers keep their text, so money stays exact. Input is strict: UTF-8
 * (a byte order mark before it is ignored), no duplicate keys, no trailing bytes, at most JSON_DEPTH levels, and no
 * text that PostgreSQL could not store (U+0000, lone surrogates). Wraps yajl's streaming parser. */
#ifndef SKALD_JSON_JSON_H
#define SKALD_JSON_JSON_H

#include "base/buf.h"
#include "base/err.h"
#include "base/field.h"

#define JSON_DEPTH  32
#define JSON_VALUES 50000 /* of one text: a bound on memory, since two bytes of input make a whole JsonValue */

typedef enum JsonType { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT } JsonType;

typedef struct JsonValue {
  JsonType type;
  Str name;                       /* its key inside an object, else absent */
  Str text;                       /* JSON_NUMBER: as written; JSON_STRING: decoded */
  struct JsonValue *first, *next; /* members or elements in order; sibling */
} JsonValue;

/* What was wrong and where. pointer is RFC 6901 ("/contents/0/price"; "" is the whole), absent where the text is no
 * JSON at all; detail is a sentence for people. Both live in the arena. */
typedef struct JsonError {
  Str pointer;
  Str detail;
} JsonError;

/* The tree lives in the arena. E_MALFORMED; E_FIELD: a text with U+0000; E_TOO_LARGE: more than JSON_VALUES. error may
 * be NULL. */
MUST_CHECK int json_parse(Arena *arena, Str text, JsonValue **ret, JsonError *error);
const JsonValue *json_get(const JsonValue *object, Str name); /* NULL: no such member, or object is NULL or no object */

/* Fills the struct from a JSON object; unknown members are ignored, FIELD_OUT ones too. As json_parse, and E_MALFORMED:
 * not an object; E_FIELD: wrong type, missing, out of bounds; E_RANGE: a number too large for its type. Texts point
 * into the arena. Structs made for a list start as zeros, their times as LOCALTIME_NONE. For what is stored, or comes
 * from another service: texts are held to their lengths and values only. */
MUST_CHECK int json_read(Arena *arena, Str text, const Field *fields, void *object, JsonError *error);
/* The same for what a client sends: texts are held to the rules of base/field.h too. */
MUST_CHECK int json_read_client(Arena *arena, Str text, const Field *fields, void *object, JsonError *error);
/* The same for a JSON array of objects of size bytes each, min to max of them. */
MUST_CHECK int json_read_client_list(Arena *arena, Str text, const Field *fields, size_t size, int64_t min, int64_t max,
                                     List *ret, JsonError *error);

void json_write(Buf *out, const Field *fields, const void *object);
void json_write_list(Buf *out, const Field *fields, size_t size, List list);

#endif

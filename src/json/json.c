/* JSON text to a tree in an arena: yajl finds the tokens, the rules that it does not know are added here. */
#include "json/json.h"

#include <stdlib.h>
#include <string.h>
#include <yajl/yajl_parse.h>

#define FEW_MEMBERS 16 /* up to this comparing every pair of keys is cheapest */

typedef struct Level { /* an array or object that is still open */
  JsonValue *container;
  JsonValue **end; /* where the next member is linked in */
  size_t count;
  Str name; /* the last key */
} Level;

typedef struct Parser {
  Arena *arena;
  Str text;
  size_t skipped; /* bytes before it */
  yajl_handle yajl;
  size_t bad_escape; /* offset of the first escape that makes no text we can keep */
  bool bad_escape_is_nul;
  size_t values;
  JsonValue *root;
  int depth;
  int code; /* why the parse was stopped, or 0 */
  JsonError error;
  Level levels[JSON_DEPTH];
} Parser;

/* yajl's memory is the arena's too. It reallocates, so each piece has its size in front. */
typedef struct Piece {
  size_t bytes;
  _Alignas(max_align_t) char memory[];
} Piece;

static void *piece_new(void *arena, size_t bytes) {
  Piece *piece = arena_alloc(arena, sizeof(*piece) + bytes);
  piece->bytes = bytes;
  return piece->memory;
}

static void *piece_resize(void *arena, void *old, size_t bytes) {
  void *resized = piece_new(arena, bytes);
  if (old) {
    size_t before = ((Piece *)((char *)old - offsetof(Piece, memory)))->bytes;
    memcpy(resized, old, before < bytes ? before : bytes);
  }
  return resized;
}

static void piece_free(void *arena, void *piece) {
  (void)arena;
  (void)piece; /* given back when the arena is */
}

static void add_escaped(Buf *pointer, Str name) {
  for (size_t i = 0; i < name.n; i++) {
    if (name.p[i] == '~')
      buf_str(pointer, STR("~0"));
    else if (name.p[i] == '/')
      buf_str(pointer, STR("~1"));
    else
      buf_char(pointer, name.p[i]);
  }
}

/* The path to the last member of the innermost of this many levels. */
static Str pointer_to(const Parser *p, int levels) {
  Buf pointer = {.arena = p->arena};
  for (int i = 0; i < levels; i++) {
    const Level *level = &p->levels[i];
    buf_char(&pointer, '/');
    if (level->container->type == JSON_OBJECT)
      add_escaped(&pointer, level->name);
    else
      buf_int(&pointer, (int64_t)level->count - 1);
  }
  return buf_view(&pointer);
}

/* Returns 0, which makes yajl stop. */
static int stop(Parser *p, int code, Str pointer, Str detail) {
  p->code = code;
  p->error = (JsonError){.pointer = pointer, .detail = detail};
  return 0;
}

/* NULL: the parse is stopped. */
static JsonValue *add_value(Parser *p, JsonType type, Str text) {
  JsonValue *value = ARENA_NEW(p->arena, JsonValue);
  *value = (JsonValue){.type = type, .text = text};
  p->values++;
  if (p->depth == 0)
    return p->root = value;
  Level *level = &p->levels[p->depth - 1];
  value->name = level->name;
  *level->end = value;
  level->end = &value->next;
  level->count++;
  if (p->values <= JSON_VALUES)
    return value;
  stop(p, E_TOO_LARGE, pointer_to(p, p->depth), STR("The JSON text has too many values."));
  return NULL;
}

/* What yajl hands over is part of the text, which the arena holds, or of a buffer that yajl will use again. */
static Str keep(const Parser *p, const char *bytes, size_t n) {
  bool inside = (uintptr_t)bytes >= (uintptr_t)p->text.p && (uintptr_t)bytes <= (uintptr_t)(p->text.p + p->text.n);
  return inside ? (Str){bytes, n} : arena_str(p->arena, (Str){bytes, n});
}

/* Tokens come in order, so the first one that ends behind the bad escape is the one that holds it. */
static bool has_bad_escape(const Parser *p) {
  return p->bad_escape < yajl_get_bytes_consumed(p->yajl);
}

static int stop_at_escape(Parser *p, Str pointer) {
  if (p->bad_escape_is_nul)
    return stop(p, E_FIELD, pointer, STR("A text must not contain the character U+0000."));
  return stop(p, E_MALFORMED, pointer, STR("A text has half of a surrogate pair."));
}

static int on_null(void *parser) {
  return add_value(parser, JSON_NULL, (Str){0}) != NULL;
}

static int on_boolean(void *parser, int value) {
  return add_value(parser, value ? JSON_TRUE : JSON_FALSE, (Str){0}) != NULL;
}

static int on_number(void *parser, const char *bytes, size_t n) {
  Parser *p = parser;
  return add_value(p, JSON_NUMBER, keep(p, bytes, n)) != NULL;
}

static int on_string(void *parser, const unsigned char *bytes, size_t n) {
  Parser *p = parser;
  if (!add_value(p, JSON_STRING, keep(p, (const char *)bytes, n)))
    return 0;
  return has_bad_escape(p) ? stop_at_escape(p, pointer_to(p, p->depth)) : 1;
}

static int on_key(void *parser, const unsigned char *bytes, size_t n) {
  Parser *p = parser;
  if (has_bad_escape(p)) /* the key is no text to point with: the object is the nearest */
    return stop_at_escape(p, pointer_to(p, p->depth - 1));
  p->levels[p->depth - 1].name = keep(p, (const char *)bytes, n);
  return 1;
}

static int open_level(Parser *p, JsonType type) {
  JsonValue *container = add_value(p, type, (Str){0});
  if (!container)
    return 0;
  if (p->depth == JSON_DEPTH)
    return stop(p, E_MALFORMED, pointer_to(p, p->depth), STR("The JSON text is nested too deeply."));
  p->levels[p->depth++] = (Level){.container = container, .end = &container->first};
  return 1;
}

static int on_start_map(void *parser) {
  return open_level(parser, JSON_OBJECT);
}

static int on_start_array(void *parser) {
  return open_level(parser, JSON_ARRAY);
}

static int on_end_array(void *parser) {
  Parser *p = parser;
  p->depth--;
  return 1;
}

static const JsonValue *find_pair(const JsonValue *object) {
  for (const JsonValue *a = object->first; a; a = a->next)
    for (const JsonValue *b = a->next; b; b = b->next)
      if (str_eq(a->name, b->name))
        return b;
  return NULL;
}

static int compare_names(const void *left, const void *right) {
  Str a = *(const Str *)left, b = *(const Str *)right;
  if (a.n != b.n)
    return a.n < b.n ? -1 : 1;
  return memcmp(a.p, b.p, a.n);
}

/* Sorted, because a body of many thousand keys must not cost the square of their number. */
static const Str *find_pair_sorted(Arena *arena, const Level *level) {
  Str *names = ARENA_ARRAY(arena, Str, level->count);
  size_t n = 0;
  for (const JsonValue *member = level->container->first; member; member = member->next)
    names[n++] = member->name;
  qsort(names, n, sizeof(*names), compare_names);
  for (size_t i = 1; i < n; i++)
    if (compare_names(&names[i - 1], &names[i]) == 0)
      return &names[i];
  return NULL;
}

/* The key that an object has twice, or NULL. */
static const Str *find_duplicate(Arena *arena, const Level *level) {
  if (level->count > FEW_MEMBERS)
    return find_pair_sorted(arena, level);
  const JsonValue *again = find_pair(level->container);
  return again ? &again->name : NULL;
}

static int on_end_map(void *parser) {
  Parser *p = parser;
  Level *level = &p->levels[p->depth - 1];
  const Str *duplicate = find_duplicate(p->arena, level);
  if (duplicate) {
    level->name = *duplicate;
    return stop(p, E_MALFORMED, pointer_to(p, p->depth), STR("An object has the same key twice."));
  }
  p->depth--;
  return 1;
}

static const yajl_callbacks callbacks = {
    .yajl_null = on_null,
    .yajl_boolean = on_boolean,
    .yajl_number = on_number,
    .yajl_string = on_string,
    .yajl_start_map = on_start_map,
    .yajl_map_key = on_key,
    .yajl_end_map = on_end_map,
    .yajl_start_array = on_start_array,
    .yajl_end_array = on_end_array,
};

/* The code unit of an escape \uXXXX at p, or -1. */
static int escape_at(const char *p, const char *end) {
  if (end - p < 6 || p[0] != '\\' || p[1] != 'u')
    return -1;
  int unit = 0;
  for (int i = 2; i < 6; i++) {
    char c = p[i];
    int digit = c >= '0' && c <= '9' ? c - '0' : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10 : -1;
    if (digit < 0)
      return -1;
    unit = unit << 4 | digit;
  }
  return unit;
}

static bool is_high_surrogate(int unit) {
  return unit >= 0xD800 && unit <= 0xDBFF;
}

static bool is_low_surrogate(int unit) {
  return unit >= 0xDC00 && unit <= 0xDFFF;
}

/* yajl turns U+0000 into a zero byte and lone surrogates into something else, silently, so they are looked for in the
 * text. A backslash outside of a string, or a bad one inside, is left to yajl, which will stop there. */
static void find_bad_escape(Parser *p) {
  const char *at = p->text.p, *end = at + p->text.n;
  while ((at = memchr(at, '\\', (size_t)(end - at)))) {
    int unit = escape_at(at, end);
    bool paired = is_high_surrogate(unit) && is_low_surrogate(escape_at(at + 6, end));
    if (unit == 0 || is_low_surrogate(unit) || (is_high_surrogate(unit) && !paired)) {
      p->bad_escape = (size_t)(at - p->text.p);
      p->bad_escape_is_nul = unit == 0;
      return;
    }
    size_t length = paired ? 12 : unit >= 0 ? 6 : 2;
    if ((size_t)(end - at) <= length)
      return;
    at += length;
  }
}

/* What yajl says, and what helps its author. */
static const struct {
  const char *of_yajl, *sentence;
} reasons[] = {
    {"premature EOF", "it ends too early"},
    {"trailing garbage", "nothing may follow the value"},
    {"unallowed token", "a value must stand here"},
    {"invalid object key", "a key must be text in double quotes"},
    {"separated by a colon", "a colon must stand between a key and its value"},
    {"inside map", "a comma or a closing brace must follow a member"},
    {"after array element", "a comma or a closing bracket must follow an element"},
    {"invalid char in json", "this character cannot begin a value; texts stand in double quotes"},
    {"invalid string in json", "a word must be true, false or null"},
    {"comment", "comments are not allowed"},
    {"after the decimal point", "a digit must follow the decimal point"},
    {"after the exponent", "a digit must follow the exponent"},
    {"after the minus sign", "a digit must follow the minus sign"},
    {"'\\' occurs before", "a backslash must be followed by one of \" \\ / b f n r t u"},
    {"after '\\u'", "\\u must be followed by four hexadecimal digits"},
    {"invalid character inside string", "a control character in a text must be written as an escape"},
};

static const char *reason_of(const char *of_yajl) {
  for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
    if (strstr(of_yajl, reasons[i].of_yajl))
      return reasons[i].sentence;
  return "the syntax of RFC 8259 is not kept";
}

static Str syntax_detail(const Parser *p) {
  unsigned char *raw = yajl_get_error(p->yajl, 0, NULL, 0);
  Str detail = arena_printf(p->arena, "The text is not JSON near byte %zu: %s.",
                            p->skipped + yajl_get_bytes_consumed(p->yajl), reason_of((const char *)raw));
  yajl_free_error(p->yajl, raw);
  return detail;
}

static void run(Parser *p) {
  yajl_alloc_funcs memory = {.malloc = piece_new, .realloc = piece_resize, .free = piece_free, .ctx = p->arena};
  p->yajl = yajl_alloc(&callbacks, &memory, p);
  yajl_config(p->yajl, yajl_dont_validate_strings, 1); /* it would let overlong forms and surrogates pass */
  yajl_status status = yajl_parse(p->yajl, (const unsigned char *)p->text.p, p->text.n);
  if (status == yajl_status_ok)
    status = yajl_complete_parse(p->yajl);
  if (status == yajl_status_error)
    stop(p, E_MALFORMED, (Str){0}, syntax_detail(p));
  yajl_free(p->yajl);
}

/* RFC 8259 §8.1 lets a reader ignore it. */
static Str skip_mark(Parser *p, Str text) {
  if (!str_starts(text, STR("\xEF\xBB\xBF")))
    return text;
  p->skipped = 3;
  return (Str){text.p + 3, text.n - 3};
}

/* Why the text's bytes are no UTF-8 that the parser could read; absent: they are. */
static Str encoding_detail(const Parser *p, Str text) {
  static const Str marks[] = {STR("\xFF\xFE"), STR("\xFE\xFF"), STR("\0\0\xFE\xFF")};
  for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++)
    if (str_starts(text, marks[i]))
      return STR("The JSON text begins with a byte order mark of UTF-16 or UTF-32; it must be UTF-8.");
  if (memchr(text.p, 0, text.n))
    return STR("The JSON text has zero bytes; it must be UTF-8, not UTF-16 or UTF-32.");
  if (str_is_utf8(text))
    return (Str){0};
  Str good = text;
  for (size_t n; (n = str_utf8_first(good)) > 0;)
    good = (Str){good.p + n, good.n - n};
  return arena_printf(p->arena, "The JSON text is not UTF-8 at byte %zu.", p->skipped + (size_t)(good.p - text.p) + 1);
}

static void parse(Parser *p, Str text) {
  text = skip_mark(p, text);
  Str wrong = text.n ? encoding_detail(p, text) : STR("The JSON text is empty.");
  if (wrong.p)
    stop(p, E_MALFORMED, (Str){0}, wrong);
  else if (memchr(text.p, '\v', text.n) || memchr(text.p, '\f', text.n)) /* white space to yajl, not to RFC 8259 */
    stop(p, E_MALFORMED, (Str){0}, STR("The JSON text has a control character."));
  else {
    p->text = arena_str(p->arena, text);
    find_bad_escape(p);
    run(p);
  }
}

int json_parse(Arena *arena, Str text, JsonValue **ret, JsonError *error) {
  Parser p = {.arena = arena, .bad_escape = SIZE_MAX};
  parse(&p, text);
  if (p.code == 0)
    *ret = p.root;
  else if (error)
    *error = p.error;
  return p.code;
}

const JsonValue *json_get(const JsonValue *object, Str name) {
  if (!object || object->type != JSON_OBJECT)
    return NULL;
  for (const JsonValue *member = object->first; member; member = member->next)
    if (str_eq(member->name, name))
      return member;
  return NULL;
}

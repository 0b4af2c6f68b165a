/* Str: a borrowed view of bytes, not zero-terminated. It owns nothing; the owner of the bytes says how long they live.
 */
#ifndef SKALD_BASE_STR_H
#define SKALD_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Str {
  const char *p; /* NULL: absent (JSON null, SQL NULL), different from "" */
  size_t n;
} Str;

#define STR(literal) ((Str){"" literal, sizeof(literal) - 1})
#define STR_FMT(s)   (int)(s).n, ((s).p ? (s).p : "") /* for "%.*s" */

Str str_from(const char *zero_terminated); /* NULL gives the absent Str */
bool str_eq(Str a, Str b);
bool str_eq_nocase(Str a, Str b); /* ASCII only */
bool str_starts(Str s, Str prefix);
Str str_trim(Str s); /* without the spaces, tabs and line ends around it */
/* Cuts *rest at the first sep: returns what stood before it and moves *rest behind it. Without sep the whole is
 * returned and *rest becomes absent. */
Str str_cut(Str *rest, char sep);
/* Decimal digits only, an optional '-' before them. E_MALFORMED, or E_RANGE beyond int64. */
int str_to_int(Str s, int64_t *ret);
bool str_is_utf8(Str s);              /* RFC 3629: no overlong forms, no surrogates */
Str str_utf8_cut(Str s, size_t most); /* of UTF-8 the first bytes, at most so many, without half a character */
size_t str_utf8_first(Str s); /* bytes of the character s begins with; 0 when it is empty or begins with no UTF-8 */
int str_hex_value(char c);    /* of a hexadecimal digit, in either case; -1: it is none */
uint64_t str_hash(Str s);     /* FNV-1a, not for hostile keys */

#endif

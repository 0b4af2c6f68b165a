/* Classes of characters, by their UTF-8. */
#include "json/text.h"

#include <string.h>

bool text_has_control(Str text) {
  for (size_t i = 0; i < text.n; i++) {
    unsigned char c = (unsigned char)text.p[i], next = i + 1 < text.n ? (unsigned char)text.p[i + 1] : 0;
    if (c < 0x20 || c == 0x7f || (c == 0xC2 && next >= 0x80 && next <= 0x9F)) /* C1 is U+0080 to U+009F */
      return true;
  }
  return false;
}

/* Unicode's white space, the zero-width space and joiners, and the byte order mark. */
static bool is_blank(Str character) {
  static const Str blanks[] = {
      STR(" "),
      STR("\xC2\xA0"),
      STR("\xE1\x9A\x80"),
      STR("\xE2\x80\x80"),
      STR("\xE2\x80\x81"),
      STR("\xE2\x80\x82"),
      STR("\xE2\x80\x83"),
      STR("\xE2\x80\x84"),
      STR("\xE2\x80\x85"),
      STR("\xE2\x80\x86"),
      STR("\xE2\x80\x87"),
      STR("\xE2\x80\x88"),
      STR("\xE2\x80\x89"),
      STR("\xE2\x80\x8A"),
      STR("\xE2\x80\x8B"),
      STR("\xE2\x80\x8C"),
      STR("\xE2\x80\x8D"),
      STR("\xE2\x80\xA8"),
      STR("\xE2\x80\xA9"),
      STR("\xE2\x80\xAF"),
      STR("\xE2\x81\x9F"),
      STR("\xE2\x81\xA0"),
      STR("\xE3\x80\x80"),
      STR("\xEF\xBB\xBF"),
  };
  for (size_t i = 0; i < sizeof(blanks) / sizeof(blanks[0]); i++)
    if (str_eq(character, blanks[i]))
      return true;
  return text_has_control(character);
}

/* The first character; a byte that is no UTF-8 counts as one. */
static Str next_character(Str *rest) {
  size_t n = str_utf8_first(*rest);
  Str character = {rest->p, n ? n : 1};
  *rest = (Str){rest->p + character.n, rest->n - character.n};
  return character;
}

bool text_is_blank(Str text) {
  while (text.n)
    if (!is_blank(next_character(&text)))
      return false;
  return true;
}

static bool has_blank(Str text) {
  while (text.n)
    if (is_blank(next_character(&text)))
      return true;
  return false;
}

static bool has_separator(Str text) {
  for (size_t i = 0; i < text.n; i++)
    if (memchr("<>,;", text.p[i], 4))
      return true;
  return false;
}

bool text_is_email(Str text) {
  Str domain = text, local = str_cut(&domain, '@');
  if (!local.n || !domain.n || memchr(domain.p, '@', domain.n) || has_blank(text))
    return false;
  bool is_quoted = local.n > 2 && local.p[0] == '"' && local.p[local.n - 1] == '"';
  return !has_separator(domain) && (is_quoted || !has_separator(local));
}

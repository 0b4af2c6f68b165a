/* What clients' texts are held to: control characters, blanks, e-mail addresses. */
#include "json/text.h"

#include "unit/unit.h"

static bool refused_character(unsigned code) {
  char utf8[4] = {(char)code, 0};
  if (code >= 0x80) {
    utf8[0] = (char)(0xC0 | code >> 6);
    utf8[1] = (char)(0x80 | (code & 0x3F));
  }
  return text_has_control((Str){utf8, code < 0x80 ? 1 : 2});
}

TEST(control_characters_are_c0_delete_and_c1) {
  for (unsigned code = 0; code < 0x800; code++)
    CHECK_INT(refused_character(code), code < 0x20 || (code >= 0x7f && code <= 0x9f));
}

TEST(control_characters_are_found_anywhere) {
  CHECK(text_has_control(STR("abc\n")));
  CHECK(text_has_control(STR("\tabc")));
  CHECK(text_has_control(STR("a\xc2\x85")));
  CHECK(!text_has_control(STR("")));
  CHECK(!text_has_control(STR("\xd0\x82\xd0\x85"))); /* Ђ Ѕ: second bytes as those of C1 */
  CHECK(!text_has_control(STR("\xe2\x80\x94 \xf0\x9f\x98\x80")));
  CHECK(!text_has_control(STR("\xc2"))); /* cut short */
}

TEST(blanks) {
  static const char *const blank[] = {
      "", " ", "   ", "\xc2\xa0", "\xe3\x80\x80 \xe2\x80\x83", "\xe2\x80\x8b", "\xef\xbb\xbf"};
  for (size_t i = 0; i < sizeof(blank) / sizeof(blank[0]); i++)
    CHECK(text_is_blank(str_from(blank[i])));
  static const char *const seen[] = {"a", "  a ", "-", "\xd0\xb6", "\xe2\x80\x94", "\xe3\x80\x81", "\xff"};
  for (size_t i = 0; i < sizeof(seen) / sizeof(seen[0]); i++)
    CHECK(!text_is_blank(str_from(seen[i])));
}

TEST(addresses) {
  static const char *const good[] = {"a.b+c@example.org",
                                     "a@b.c",
                                     "a@localhost",
                                     "o'neil@example.org",
                                     "\"a,b\"@example.org",
                                     "a@[192.0.2.1]",
                                     "a@[IPv6:2001:db8::1]",
                                     "a..b@example.org",
                                     "\xd1\x8e\xd0\xb7@\xd0\xbf.\xd1\x80\xd1\x84",
                                     "!#$%&'*+-/=?^_`{|}~@example.org"};
  for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
    if (!CHECK(text_is_email(str_from(good[i]))))
      CHECK_STR(good[i], "");
  static const char *const bad[] = {"",      "@",     "a",     "a@",    "@a",    "a@b@c",       "a b@c",
                                    "a@b c", "a@b ",  " a@b",  "a@b\n", "a\t@b", "a@b\xc2\x85", "a\xc2\xa0@b",
                                    "<a@b>", "a@b,c", "a,b@c", "a;b@c", "a@b;c", "Ann<a@b",     "\",\"@b,c"};
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
    if (!CHECK(!text_is_email(str_from(bad[i]))))
      CHECK_STR(bad[i], "");
}

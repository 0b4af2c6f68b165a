/* Trace context (W3C): version-traceid-parentid-flags, in lower-case hexadecimal digits. */
#include "base/trace.h"

#include <string.h>

enum { VERSION_AT = 0, TRACE_AT = 3, SPAN_AT = 36, FLAGS_AT = 53, LENGTH = 55 };

static const char digits[] = "0123456789abcdef";

/* Upper-case digits are not allowed in a traceparent. */
static int digit_value(char c) {
  if (c >= '0' && c <= '9')
    return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool is_hex(Str s) {
  for (size_t i = 0; i < s.n; i++)
    if (digit_value(s.p[i]) < 0)
      return false;
  return true;
}

static bool is_id(Str s) {
  return is_hex(s) && strspn(s.p, "0") < s.n;
}

bool trace_id_valid(Str id) {
  char text[TRACE_ID_TEXT] = "";
  if (id.n != TRACE_ID_TEXT - 1)
    return false;
  memcpy(text, id.p, id.n);
  return is_id((Str){text, id.n});
}

static Str part(const char *text, size_t at, size_t n) {
  return (Str){text + at, n};
}

/* A later version may append to what this one has, behind another dash. */
static bool is_version(Str version, Str whole) {
  if (!is_hex(version) || str_eq(version, STR("ff")))
    return false;
  return whole.n == LENGTH || (!str_eq(version, STR("00")) && whole.p[LENGTH] == '-');
}

int trace_parse(Str traceparent, Trace *ret) {
  char text[LENGTH + 1] = "";
  if (traceparent.n < LENGTH)
    return E_MALFORMED;
  memcpy(text, traceparent.p, LENGTH);
  Str trace_id = part(text, TRACE_AT, TRACE_ID_TEXT - 1), span_id = part(text, SPAN_AT, SPAN_ID_TEXT - 1);
  Str flags = part(text, FLAGS_AT, 2);
  bool dashes = text[TRACE_AT - 1] == '-' && text[SPAN_AT - 1] == '-' && text[FLAGS_AT - 1] == '-';
  if (!dashes || !is_version(part(text, VERSION_AT, 2), traceparent) || !is_id(trace_id) || !is_id(span_id) ||
      !is_hex(flags))
    return E_MALFORMED;
  *ret = (Trace){.flags = (uint8_t)(digit_value(flags.p[1]) & TRACE_SAMPLED)};
  memcpy(ret->trace_id, trace_id.p, trace_id.n);
  memcpy(ret->span_id, span_id.p, span_id.n);
  return E_OK;
}

void trace_format(const Trace *trace, char out[TRACEPARENT_TEXT]) {
  memcpy(out, "00-", TRACE_AT);
  memcpy(out + TRACE_AT, trace->trace_id, TRACE_ID_TEXT - 1);
  out[SPAN_AT - 1] = '-';
  memcpy(out + SPAN_AT, trace->span_id, SPAN_ID_TEXT - 1);
  memcpy(out + FLAGS_AT - 1, trace->flags & TRACE_SAMPLED ? "-01" : "-00", sizeof("-00"));
}

static void format_id(const uint8_t *random, size_t n, char *out) {
  unsigned any = 0;
  for (size_t i = 0; i < n; i++) {
    any |= random[i];
    out[2 * i] = digits[random[i] >> 4];
    out[2 * i + 1] = digits[random[i] & 15];
  }
  out[2 * n] = '\0';
  if (!any)
    out[2 * n - 1] = '1';
}

void trace_id_from(const uint8_t random[16], char out[TRACE_ID_TEXT]) {
  format_id(random, 16, out);
}

void span_id_from(const uint8_t random[8], char out[SPAN_ID_TEXT]) {
  format_id(random, 8, out);
}

/* ---- tracestate ---- */

#define MEMBERS 32

static Str without_spaces(Str s) {
  while (s.n && (s.p[0] == ' ' || s.p[0] == '\t'))
    s = (Str){s.p + 1, s.n - 1};
  while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
    s.n--;
  return s;
}

static bool is_small_letter(char c) {
  return c >= 'a' && c <= 'z';
}

static bool is_key_part(Str s, size_t most, bool digit_first) {
  if (s.n == 0 || s.n > most || (!is_small_letter(s.p[0]) && !(digit_first && s.p[0] >= '0' && s.p[0] <= '9')))
    return false;
  for (size_t i = 0; i < s.n; i++)
    if (!is_small_letter(s.p[i]) && (s.p[i] == '\0' || !strchr("0123456789_-*/", s.p[i])))
      return false;
  return true;
}

static bool is_key(Str key) {
  Str system = key, tenant = str_cut(&system, '@');
  return system.p ? is_key_part(tenant, 241, true) && is_key_part(system, 14, false) : is_key_part(key, 256, false);
}

static bool is_value(Str value) {
  for (size_t i = 0; i < value.n; i++)
    if (value.p[i] < 0x20 || value.p[i] > 0x7e || value.p[i] == '=')
      return false;
  return value.n > 0 && value.n <= 256;
}

static bool is_one_of(Str key, const Str *keys, int count) {
  for (int i = 0; i < count; i++)
    if (str_eq(key, keys[i]))
      return true;
  return false;
}

bool tracestate_valid(Str tracestate) {
  Str keys[MEMBERS];
  int count = 0;
  if (tracestate.n >= TRACESTATE_TEXT)
    return false;
  while (tracestate.p) {
    Str value = without_spaces(str_cut(&tracestate, ','));
    if (value.n == 0) /* an empty member is allowed */
      continue;
    Str key = str_cut(&value, '=');
    if (count == MEMBERS || !is_key(key) || !is_value(value) || is_one_of(key, keys, count))
      return false;
    keys[count++] = key;
  }
  return count > 0;
}

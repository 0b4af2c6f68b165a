/* Requests and responses as values: looking things up in them, decoding what came percent-encoded (RFC 3986 §2.1). */
#include "http/http.h"

#include <assert.h>
#include <stdlib.h>

HttpOutcome http_outcome(int status) {
  if (status >= 200 && status < 300)
    return HTTP_DONE;
  bool temporary = status == 408 || status == 425 || status == 429; /* timeout, too early, too many requests */
  return status >= 400 && status < 500 && !temporary ? HTTP_REFUSED : HTTP_UNKNOWN;
}

int64_t http_deadline(const HttpRequest *r, int64_t now_us, int64_t longest_us) {
  assert(longest_us > 0);
  int64_t ms;
  Str header = http_header(r, STR(HTTP_TIMEOUT_HEADER));
  if (!header.p || str_to_int(header, &ms) < 0 || ms < 0 || ms > longest_us / 1000)
    return now_us + longest_us;
  return now_us + ms * 1000;
}

Str http_header(const HttpRequest *r, Str name) {
  for (int i = 0; i < r->header_count; i++)
    if (str_eq_nocase(r->headers[i].name, name))
      return r->headers[i].value;
  return (Str){0};
}

/* The byte that the %XX at p stands for, or negative. */
static int escaped_byte(Str text, size_t p) {
  if (text.n - p < 3)
    return -1;
  int high = str_hex_value(text.p[p + 1]), low = str_hex_value(text.p[p + 2]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

static int decode(Arena *a, Str text, bool plus_is_space, Str *ret) {
  char *out = arena_alloc(a, text.n + 1);
  size_t n = 0;
  for (size_t i = 0; i < text.n; i++) {
    char c = text.p[i];
    if (c == '%') {
      int byte = escaped_byte(text, i);
      if (byte <= 0)
        return E_MALFORMED;
      c = (char)byte;
      i += 2;
    } else if (c == '+' && plus_is_space) {
      c = ' ';
    }
    out[n++] = c;
  }
  Str decoded = {out, n};
  if (!str_is_utf8(decoded))
    return E_MALFORMED;
  *ret = decoded;
  return 0;
}

int http_percent_decode(Arena *a, Str text, Str *ret) {
  return decode(a, text, false, ret);
}

Str http_query(const HttpRequest *r, Str name) {
  Str rest = r->query;
  while (rest.p) {
    Str value = str_cut(&rest, '&');
    Str key = str_cut(&value, '=');
    if (decode(r->arena, key, true, &key) < 0 || !str_eq(key, name))
      continue;
    if (!value.p)
      return STR("");
    Str decoded = value; /* a value that can't be decoded is given as it came, to be refused where it is checked */
    (void)decode(r->arena, value, true, &decoded);
    return decoded;
  }
  return (Str){0};
}

void http_reply_header(HttpReply *reply, Str name, Str value) {
  if (reply->header_count == (int)(sizeof(reply->headers) / sizeof(reply->headers[0])))
    die("more than 8 headers in a response");
  reply->headers[reply->header_count++] = (HttpHeader){name, value};
}

static const struct {
  int status;
  Str reason;
} reasons[] = {
    {100, STR("Continue")},
    {101, STR("Switching Protocols")},
    {200, STR("OK")},
    {201, STR("Created")},
    {202, STR("Accepted")},
    {203, STR("Non-Authoritative Information")},
    {204, STR("No Content")},
    {205, STR("Reset Content")},
    {206, STR("Partial Content")},
    {300, STR("Multiple Choices")},
    {301, STR("Moved Permanently")},
    {302, STR("Found")},
    {303, STR("See Other")},
    {304, STR("Not Modified")},
    {305, STR("Use Proxy")},
    {307, STR("Temporary Redirect")},
    {308, STR("Permanent Redirect")},
    {400, STR("Bad Request")},
    {401, STR("Unauthorized")},
    {402, STR("Payment Required")},
    {403, STR("Forbidden")},
    {404, STR("Not Found")},
    {405, STR("Method Not Allowed")},
    {406, STR("Not Acceptable")},
    {407, STR("Proxy Authentication Required")},
    {408, STR("Request Timeout")},
    {409, STR("Conflict")},
    {410, STR("Gone")},
    {411, STR("Length Required")},
    {412, STR("Precondition Failed")},
    {413, STR("Content Too Large")},
    {414, STR("URI Too Long")},
    {415, STR("Unsupported Media Type")},
    {416, STR("Range Not Satisfiable")},
    {417, STR("Expectation Failed")},
    {421, STR("Misdirected Request")},
    {422, STR("Unprocessable Content")},
    {424, STR("Failed Dependency")}, /* RFC 4918 */
    {425, STR("Too Early")},         /* RFC 8470 */
    {426, STR("Upgrade Required")},
    {428, STR("Precondition Required")}, /* RFC 6585, as the next two */
    {429, STR("Too Many Requests")},
    {431, STR("Request Header Fields Too Large")},
    {500, STR("Internal Server Error")},
    {501, STR("Not Implemented")},
    {502, STR("Bad Gateway")},
    {503, STR("Service Unavailable")},
    {504, STR("Gateway Timeout")},
    {505, STR("HTTP Version Not Supported")},
};

Str http_reason(int status) {
  for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
    if (reasons[i].status == status)
      return reasons[i].reason;
  return STR("");
}

bool http_has_token(Str list, Str token) {
  while (list.p) {
    if (str_eq_nocase(str_trim(str_cut(&list, ',')), token))
      return true;
  }
  return false;
}

/* One step for each byte: a table of states, no look-ahead, so bytes may be split anywhere. */
#include "http/framing.h"

#include <assert.h>
#include <string.h>

enum { TOKEN = 1, TARGET = 2, TEXT = 4, DIGIT = 8, HOST = 16 };

#define TTTH (TOKEN | TARGET | TEXT | HOST)
#define TTT  (TOKEN | TARGET | TEXT)
#define TTH  (TARGET | TEXT | HOST)
#define TT   (TARGET | TEXT)

/* RFC 9110 §5.6.2 (token), §5.5 (field values), RFC 3986 §3.2.2 (reg-name). Of a target all visible characters count
 * but the fragment's mark: what the path means is looked at elsewhere. */
static const uint8_t classes[256] = {
    ['\t'] = TEXT,        [' '] = TEXT,
    ['!'] = TTTH,         ['"'] = TT,
    ['#'] = TOKEN | TEXT, ['$'] = TTTH,
    ['%'] = TTTH,         ['&'] = TTTH,
    ['\''] = TTTH,        ['('] = TTH,
    [')'] = TTH,          ['*'] = TTTH,
    ['+'] = TTTH,         [','] = TTH,
    ['-'] = TTTH,         ['.'] = TTTH,
    ['/'] = TT,           ['0' ... '9'] = TTTH | DIGIT,
    [':'] = TT,           [';'] = TTH,
    ['<'] = TT,           ['='] = TTH,
    ['>'] = TT,           ['?'] = TT,
    ['@'] = TT,           ['A' ... 'Z'] = TTTH,
    ['['] = TT,           ['\\'] = TT,
    [']'] = TT,           ['^'] = TTT,
    ['_'] = TTTH,         ['`'] = TTT,
    ['a' ... 'z'] = TTTH, ['{'] = TT,
    ['|'] = TTT,          ['}'] = TT,
    ['~'] = TTTH,         [0x80 ... 0xff] = TEXT,
};

static bool is(unsigned char c, unsigned class) {
  return classes[c] & class;
}

static int refuse(Framing *f, int code, const char *detail) {
  f->detail = detail;
  return code;
}

static int malformed(Framing *f, const char *detail) {
  return refuse(f, E_MALFORMED, detail);
}

/* ---- the request line ---- */

enum { METHOD, TARGET_, VERSION, LINE_CR, LINE_LF, FIELD, NAME, VALUE, VALUE_LF, HEAD_LF, HEAD_STATES };

static size_t span(Str s, size_t from, unsigned class) {
  size_t i = from;
  while (i < s.n && is((unsigned char)s.p[i], class))
    i++;
  return i;
}

/* Behind an address of IPv6 in brackets; 0: it is none. */
static size_t behind_brackets(Str s) {
  size_t i = 1;
  while (i < s.n && (is((unsigned char)s.p[i], HOST) || s.p[i] == ':'))
    i++;
  return i >= 3 && i < s.n && s.p[i] == ']' ? i + 1 : 0;
}

/* A host, and a port or none: RFC 3986 §3.2.2. User names are refused with all else. */
static bool is_authority(Str s) {
  bool brackets = s.n > 0 && s.p[0] == '[';
  size_t i = brackets ? behind_brackets(s) : span(s, 0, HOST);
  if (brackets && i == 0)
    return false;
  return i == s.n || (s.p[i] == ':' && span(s, i + 1, DIGIT) == s.n);
}

/* Of the absolute form what stands before path and query; SIZE_MAX: it is not that. */
static size_t before_path(Str target, Str scheme) {
  if (target.n <= scheme.n || !str_eq_nocase((Str){target.p, scheme.n}, scheme))
    return SIZE_MAX;
  size_t end = scheme.n;
  while (end < target.n && target.p[end] != '/' && target.p[end] != '?')
    end++;
  Str authority = {target.p + scheme.n, end - scheme.n};
  return authority.n > 0 && authority.p[0] != ':' && is_authority(authority) ? end : SIZE_MAX;
}

/* RFC 9112 §3.2: where path and query begin, or SIZE_MAX. */
static size_t find_path(Str method, Str target) {
  if (target.p[0] == '/' || (str_eq(target, STR("*")) && str_eq(method, STR("OPTIONS"))))
    return 0;
  size_t found = before_path(target, STR("http://"));
  return found != SIZE_MAX ? found : before_path(target, STR("https://"));
}

static int end_line(Framing *f, const char *head) {
  Str method = {head, f->method_n}, target = {head + f->target_at, f->target_n};
  if (f->major != '1' || f->minor > '1')
    return str_eq(method, STR("PRI")) ? malformed(f, "HTTP/2 is not spoken here")
                                      : refuse(f, E_VERSION, "HTTP/1.1 and HTTP/1.0 are spoken here");
  if (str_eq(method, STR("CONNECT")))
    return malformed(f, "this is no proxy: CONNECT is refused");
  size_t skipped = find_path(method, target);
  if (skipped == SIZE_MAX)
    return malformed(f, "the request target is neither a path nor an absolute http URI");
  f->path_at = f->target_at + skipped;
  f->state = FIELD;
  f->fields_at = f->at + 1;
  return 0;
}

static int step_method(Framing *f, const char *head, unsigned char c) {
  (void)head;
  if (is(c, TOKEN) && f->at < FRAMING_METHOD_MAX)
    return 0;
  if (c != ' ' || f->at == 0)
    return malformed(f, "a request begins with its method and one space");
  f->method_n = f->at;
  f->target_at = f->at + 1;
  f->state = TARGET_;
  return 0;
}

static int step_target(Framing *f, const char *head, unsigned char c) {
  (void)head;
  size_t n = f->at - f->target_at;
  if (is(c, TARGET))
    return n < FRAMING_TARGET_MAX ? 0 : refuse(f, E_TARGET, "the request target is longer than 8 KiB");
  if (c != ' ' || n == 0)
    return malformed(f, "the request target is visible ASCII without a fragment, and one space ends it");
  f->target_n = n;
  f->begin = f->at + 1;
  f->state = VERSION;
  return 0;
}

static int step_version(Framing *f, const char *head, unsigned char c) {
  static const char pattern[] = "HTTP/0.0";
  (void)head;
  size_t i = f->at - f->begin;
  if (pattern[i] == '0' ? !is(c, DIGIT) : c != (unsigned char)pattern[i])
    return malformed(f, "the request line ends with its HTTP version");
  if (i == 5)
    f->major = (char)c;
  if (i == 7) {
    f->minor = (char)c;
    f->state = LINE_CR;
  }
  return 0;
}

static int step_line_cr(Framing *f, const char *head, unsigned char c) {
  (void)head;
  if (c != '\r')
    return malformed(f, "the request line ends with its HTTP version and CR LF");
  f->state = LINE_LF;
  return 0;
}

static int step_line_lf(Framing *f, const char *head, unsigned char c) {
  return c == '\n' ? end_line(f, head) : malformed(f, "a CR without its LF");
}

/* ---- header fields ---- */

static int read_length(Framing *f, Str value) {
  if (f->length >= 0)
    return malformed(f, "the length of the body must be given exactly once");
  uint64_t n = 0;
  for (size_t i = 0; i < value.n; i++) {
    if (!is((unsigned char)value.p[i], DIGIT))
      return malformed(f, "Content-Length is a decimal number");
    n = n * 10 + (uint64_t)(value.p[i] - '0');
    if (n > INT64_MAX / 16)
      return malformed(f, "Content-Length is too large a number");
  }
  if (value.n == 0)
    return malformed(f, "Content-Length is a decimal number");
  f->length = (int64_t)n;
  f->length_at = f->name_at + f->name_n + 1;
  return 0;
}

static int read_encoding(Framing *f, Str value) {
  if (f->encoding || !str_eq_nocase(value, STR("chunked")))
    return malformed(f, "the only Transfer-Encoding is chunked, given once");
  f->encoding = f->chunked = true;
  return 0;
}

static int read_host(Framing *f, Str value) {
  if (f->host)
    return malformed(f, "Host must be given exactly once");
  f->host = true;
  return is_authority(value) ? 0 : malformed(f, "Host is a host, and a port or none");
}

static int read_expectation(Framing *f, Str value) {
  bool known = str_eq_nocase(value, STR("100-continue"));
  f->expects |= known;
  f->expects_unknown |= !known;
  return 0;
}

static int read_connection(Framing *f, Str value) {
  while (value.p) {
    Str token = str_trim(str_cut(&value, ','));
    f->close |= str_eq_nocase(token, STR("close"));
    f->keep_alive |= str_eq_nocase(token, STR("keep-alive"));
  }
  return 0;
}

static int read_coding(Framing *f, Str value) {
  f->coded |= value.n > 0 && !str_eq_nocase(value, STR("identity"));
  return 0;
}

static const struct {
  Str name;
  int (*read)(Framing *f, Str value);
} fields[] = {
    {STR("content-length"), read_length},
    {STR("transfer-encoding"), read_encoding},
    {STR("host"), read_host},
    {STR("expect"), read_expectation},
    {STR("connection"), read_connection},
    {STR("content-encoding"), read_coding},
};
enum { FIELDS = sizeof(fields) / sizeof(fields[0]) };

static int end_field(Framing *f, const char *head) {
  Str name = {head + f->name_at, f->name_n};
  size_t value_at = f->name_at + f->name_n + 1;
  Str value = str_trim((Str){head + value_at, f->at - 1 - value_at});
  for (int i = 0; i < FIELDS; i++)
    if (name.n == fields[i].name.n && str_eq_nocase(name, fields[i].name))
      return fields[i].read(f, value);
  return 0;
}

static int step_field(Framing *f, const char *head, unsigned char c) {
  (void)head;
  if (c == '\r') {
    f->state = HEAD_LF;
    return 0;
  }
  if (!is(c, TOKEN))
    return malformed(f, c == ' ' || c == '\t' ? "a header field begins with white space; folded lines are refused"
                                              : "a header field begins with its name");
  if (++f->fields > FRAMING_COUNT_MAX)
    return refuse(f, E_HEADERS, "at most 100 header fields of 32 KiB together");
  f->name_at = f->at;
  f->state = NAME;
  return 0;
}

static int step_name(Framing *f, const char *head, unsigned char c) {
  (void)head;
  if (is(c, TOKEN))
    return 0;
  if (c != ':')
    return malformed(f, "a colon follows the name of a header field at once");
  f->name_n = f->at - f->name_at;
  f->state = VALUE;
  return 0;
}

static int step_value(Framing *f, const char *head, unsigned char c) {
  (void)head;
  if (c == '\r')
    f->state = VALUE_LF;
  else if (!is(c, TEXT))
    return malformed(f, c == '\n' ? "an LF without its CR" : "a control character in a header field");
  return 0;
}

static int step_value_lf(Framing *f, const char *head, unsigned char c) {
  if (c != '\n')
    return malformed(f, "a CR without its LF");
  f->state = FIELD;
  return end_field(f, head);
}

static int step_head_lf(Framing *f, const char *head, unsigned char c) {
  (void)head;
  if (c != '\n')
    return malformed(f, "a CR without its LF");
  if (!f->host && f->minor == '1')
    return malformed(f, "Host must be given exactly once");
  if (f->chunked && f->length >= 0)
    return malformed(f, "the length of the body must be given exactly once");
  if (f->chunked && f->minor == '0')
    return malformed(f, "HTTP/1.0 has no Transfer-Encoding");
  f->expects &= f->minor == '1';
  f->state = HEAD_STATES;
  return 0;
}

typedef int HeadStep(Framing *f, const char *head, unsigned char c);
static HeadStep *const head_steps[HEAD_STATES] = {
    [METHOD] = step_method,     [TARGET_] = step_target,  [VERSION] = step_version, [LINE_CR] = step_line_cr,
    [LINE_LF] = step_line_lf,   [FIELD] = step_field,     [NAME] = step_name,       [VALUE] = step_value,
    [VALUE_LF] = step_value_lf, [HEAD_LF] = step_head_lf,
};

void framing_begin(Framing *f) {
  *f = (Framing){.length = -1};
}

ssize_t framing_head(Framing *f, Str head) {
  assert(f->state < HEAD_STATES && head.n >= f->at);
  while (f->at < head.n) {
    if (f->fields_at && f->at - f->fields_at >= FRAMING_FIELDS_MAX)
      return refuse(f, E_HEADERS, "at most 100 header fields of 32 KiB together");
    int rc = head_steps[f->state](f, head.p, (unsigned char)head.p[f->at]);
    if (rc < 0)
      return rc;
    f->at++;
    if (f->state == HEAD_STATES)
      return (ssize_t)f->at;
  }
  return 0;
}

bool framing_keeps_alive(const Framing *f) {
  return !f->close && (f->minor == '1' || f->keep_alive);
}

bool framing_has_body(const Framing *f) {
  return f->chunked || f->length > 0;
}

Str framing_method(const Framing *f, const char *head) {
  return f->method_n ? (Str){head, f->method_n} : (Str){0};
}

Str framing_path(const Framing *f, const char *head) {
  return f->path_at ? (Str){head + f->path_at, f->target_at + f->target_n - f->path_at} : (Str){0};
}

/* ---- the body: RFC 9112 §6.2, §7.1 ---- */

enum {
  SIZE = HEAD_STATES + 1,
  EXTENSION,
  EXTENSION_VALUE,
  SIZE_LF,
  DATA,
  DATA_CR,
  DATA_LF,
  TRAILER,
  TRAILER_NAME,
  TRAILER_VALUE,
  TRAILER_LF,
  LAST_LF,
  PLAIN,
  COMPLETE
};

int framing_begin_body(Framing *f, uint64_t max) {
  assert(f->state == HEAD_STATES);
  f->body_max = max;
  f->left = f->length > 0 ? (uint64_t)f->length : 0;
  if (f->left > max)
    return refuse(f, E_TOO_LARGE, "at most 1 MiB");
  f->state = f->chunked ? SIZE : f->left ? PLAIN : COMPLETE;
  f->digits = 0;
  return 0;
}

static int step_size(Framing *f, unsigned char c) {
  int value = str_hex_value((char)c);
  if (value >= 0) {
    if (++f->digits > 16)
      return malformed(f, "a chunk size of more than 16 digits");
    f->left = f->left << 4 | (unsigned)value;
    return 0;
  }
  if (f->digits == 0 || (c != '\r' && c != ';'))
    return malformed(f, "a chunk begins with its size in hexadecimal digits");
  if (f->left > f->body_max - f->body_n)
    return refuse(f, E_TOO_LARGE, "at most 1 MiB");
  f->state = c == ';' ? EXTENSION : SIZE_LF;
  f->begin = 0;
  return 0;
}

static int add_overhead(Framing *f) {
  return ++f->overhead > FRAMING_OVERHEAD_MAX ? malformed(f, "chunk extensions and trailers of more than 1 KiB") : 0;
}

/* ";name" or ";name=value", one to a chunk and nothing quoted: nobody needs these, and readers have differed about
 * them. f->begin counts the bytes of the name or value so far. */
static int step_extension(Framing *f, unsigned char c) {
  if (is(c, TOKEN)) {
    f->begin++;
    return add_overhead(f);
  }
  if (f->begin == 0 || (c != '\r' && (c != '=' || f->state == EXTENSION_VALUE)))
    return malformed(f, "a chunk extension is a name, or a name, = and a token");
  f->begin = 0;
  f->state = c == '=' ? EXTENSION_VALUE : SIZE_LF;
  return add_overhead(f);
}

static int step_size_lf(Framing *f, unsigned char c) {
  if (c != '\n')
    return malformed(f, "a CR without its LF");
  f->state = f->left ? DATA : TRAILER;
  return 0;
}

static int step_data_cr(Framing *f, unsigned char c) {
  f->state = DATA_LF;
  return c == '\r' ? 0 : malformed(f, "a chunk is longer than its size");
}

static int step_data_lf(Framing *f, unsigned char c) {
  f->state = SIZE;
  f->digits = 0;
  return c == '\n' ? 0 : malformed(f, "a CR without its LF");
}

static void note_trailer(Framing *f, unsigned char c) {
  if (f->name_n < sizeof(f->trailer))
    f->trailer[f->name_n] = (char)c;
  f->name_n++;
}

static int step_trailer(Framing *f, unsigned char c) {
  if (c == '\r') {
    f->state = LAST_LF;
    return 0;
  }
  f->name_n = 0;
  note_trailer(f, c);
  f->state = TRAILER_NAME;
  return is(c, TOKEN) ? 0 : malformed(f, "a trailer field begins with its name");
}

static int step_trailer_name(Framing *f, unsigned char c) {
  if (is(c, TOKEN)) {
    note_trailer(f, c);
    return 0;
  }
  if (c != ':')
    return malformed(f, "a colon follows the name of a trailer field at once");
  f->state = TRAILER_VALUE;
  for (int i = 0; i < FIELDS; i++)
    if (f->name_n == fields[i].name.n && str_eq_nocase((Str){f->trailer, f->name_n}, fields[i].name))
      return malformed(f, "a trailer field that belongs into the head");
  return 0;
}

static int step_trailer_value(Framing *f, unsigned char c) {
  if (c == '\r')
    f->state = TRAILER_LF;
  else if (!is(c, TEXT))
    return malformed(f, "a control character in a trailer field");
  return 0;
}

static int step_trailer_lf(Framing *f, unsigned char c) {
  f->state = TRAILER;
  return c == '\n' ? 0 : malformed(f, "a CR without its LF");
}

static int step_last_lf(Framing *f, unsigned char c) {
  f->state = COMPLETE;
  return c == '\n' ? 0 : malformed(f, "a CR without its LF");
}

typedef int BodyStep(Framing *f, unsigned char c);
static BodyStep *const body_steps[COMPLETE] = {
    [SIZE] = step_size,
    [EXTENSION] = step_extension,
    [EXTENSION_VALUE] = step_extension,
    [SIZE_LF] = step_size_lf,
    [DATA_CR] = step_data_cr,
    [DATA_LF] = step_data_lf,
    [TRAILER] = step_trailer,
    [TRAILER_NAME] = step_trailer_name,
    [TRAILER_VALUE] = step_trailer_value,
    [TRAILER_LF] = step_trailer_lf,
    [LAST_LF] = step_last_lf,
};

static size_t take_data(Framing *f, size_t there) {
  size_t n = there < f->left ? there : f->left;
  f->left -= n;
  f->body_n += n;
  if (f->left == 0)
    f->state = f->state == PLAIN ? COMPLETE : DATA_CR;
  return n;
}

ssize_t framing_body(Framing *f, Str bytes) {
  assert(f->state > HEAD_STATES);
  size_t i = 0;
  while (i < bytes.n && f->state != COMPLETE) {
    if (f->state == DATA || f->state == PLAIN) {
      i += take_data(f, bytes.n - i);
      continue;
    }
    int rc = f->state >= TRAILER ? add_overhead(f) : 0;
    if (rc < 0)
      return rc;
    rc = body_steps[f->state](f, (unsigned char)bytes.p[i++]);
    if (rc < 0)
      return rc;
  }
  return (ssize_t)i;
}

bool framing_body_is_complete(const Framing *f) {
  return f->state == COMPLETE;
}

/* The one file that knows llhttp. */
#include "http/parser.h"

#include <llhttp.h>
#include <string.h>

struct HttpParser {
  llhttp_t llhttp;
  HttpRequest *request; /* while its head is read */
  Buf *body;            /* while its body is read */
  Str target;
  bool complete;
};

static int on_url(llhttp_t *llhttp, const char *at, size_t n) {
  HttpParser *p = llhttp->data;
  if (p->target.p)
    return HPE_USER;
  p->target = (Str){at, n};
  return 0;
}

static int on_field(llhttp_t *llhttp, const char *at, size_t n) {
  HttpParser *p = llhttp->data;
  HttpRequest *r = p->request;
  if (!r) /* a trailer field, which nobody asks for */
    return 0;
  if (r->header_count == HTTP_HEADERS)
    return HPE_USER;
  r->headers[r->header_count++] = (HttpHeader){{at, n}, STR("")};
  return 0;
}

static int on_value(llhttp_t *llhttp, const char *at, size_t n) {
  HttpParser *p = llhttp->data;
  if (!p->request)
    return 0;
  if (p->request->header_count == 0)
    return HPE_USER;
  if (n > 0)
    p->request->headers[p->request->header_count - 1].value = str_trim((Str){at, n});
  return 0;
}

/* What is asked of a proxy or for another protocol is not done here: the body is read as of any request. */
static int on_head(llhttp_t *llhttp) {
  HttpParser *p = llhttp->data;
  p->request = NULL;
  llhttp->upgrade = 0;
  return 0;
}

static int on_body(llhttp_t *llhttp, const char *at, size_t n) {
  HttpParser *p = llhttp->data;
  if (!p->body)
    return HPE_USER;
  buf_add(p->body, at, n);
  return 0;
}

static int on_complete(llhttp_t *llhttp) {
  HttpParser *p = llhttp->data;
  p->complete = true;
  return 0;
}

static const llhttp_settings_t *settings(void) {
  static llhttp_settings_t all;
  if (!all.on_body) {
    llhttp_settings_init(&all);
    all.on_url = on_url;
    all.on_header_field = on_field;
    all.on_header_value = on_value;
    all.on_headers_complete = on_head;
    all.on_body = on_body;
    all.on_message_complete = on_complete;
  }
  return &all;
}

static void lower(char *p, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (p[i] >= 'A' && p[i] <= 'Z')
      p[i] = (char)(p[i] | 0x20);
}

static void lower_names(char *head, HttpRequest *r) {
  for (int i = 0; i < r->header_count; i++)
    lower(head + (r->headers[i].name.p - head), r->headers[i].name.n);
}

/* Around a length a tab is as good as a space (RFC 9110 §5.5), but not to every release of llhttp. */
static void blank_tabs(const Framing *framing, char *head) {
  for (size_t i = framing->length_at; i > 0 && head[i] != '\r'; i++)
    if (head[i] == '\t')
      head[i] = ' ';
}

/* llhttp knows some methods and reads a few of them in ways of their own; which one it is matters to no length. So it
 * is given one that is plain, and the method is taken from the framing. */
int http_parse_head(const Framing *framing, char *head, size_t n, HttpRequest *request, HttpParser **ret) {
  static const Str plain = STR("POST ");
  HttpParser *p = ARENA_NEW(request->arena, HttpParser);
  size_t rest = framing->target_at;
  p->request = request;
  blank_tabs(framing, head);
  llhttp_init(&p->llhttp, HTTP_REQUEST, settings());
  p->llhttp.data = p;
  if (llhttp_execute(&p->llhttp, plain.p, plain.n) != HPE_OK ||
      llhttp_execute(&p->llhttp, head + rest, n - rest) != HPE_OK || p->request ||
      request->header_count != framing->fields || p->complete == framing_has_body(framing))
    return E_MALFORMED;
  lower_names(head, request);
  request->method = framing_method(framing, head);
  request->query = framing_path(framing, head);
  request->path = str_cut(&request->query, '?');
  if (request->path.n == 0)
    request->path = STR("/"); /* RFC 9110 §4.2.3 */
  *ret = p;
  return 0;
}

int http_parse_body(HttpParser *p, Str bytes, Buf *body) {
  p->body = body;
  bool ok = llhttp_execute(&p->llhttp, bytes.p, bytes.n) == HPE_OK;
  p->body = NULL;
  return ok ? 0 : E_MALFORMED;
}

bool http_parse_is_complete(const HttpParser *p) {
  return p->complete;
}

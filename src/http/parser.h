/* Makes requests of bytes whose framing was accepted, by llhttp. It reads length and chunks once more: where it differs
 * from framing.h about a request, that is refused. */
#ifndef SKALD_HTTP_PARSER_H
#define SKALD_HTTP_PARSER_H

#include "http/framing.h"
#include "http/http.h"

typedef struct HttpParser HttpParser;

/* head: complete, in memory that lives as long as the request; names of fields are put into lower case there, and the
 * request points into it. Fills in method, path, query and headers. The parser lives in the request's arena. */
MUST_CHECK int http_parse_head(const Framing *framing, char *head, size_t n, HttpRequest *request, HttpParser **ret);
/* bytes: what framing_body took. Adds the content in them to body, without the framing. */
MUST_CHECK int http_parse_body(HttpParser *parser, Str bytes, Buf *body);
bool http_parse_is_complete(const HttpParser *parser);

#endif

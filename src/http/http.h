/* What a request and a response are, whether they came over a socket or from a service in the same process (RFC 9110).
 */
#ifndef SKALD_HTTP_HTTP_H
#define SKALD_HTTP_HTTP_H

#include "base/buf.h"
#include "base/err.h"

#define HTTP_HEADERS  100
#define HTTP_BODY_MAX (1024 * 1024)

typedef struct HttpHeader {
  Str name; /* lower case */
  Str value;
} HttpHeader;

typedef struct HttpRequest {
  Arena *arena; /* lives until the response is sent; everything below points into it */
  Str method;   /* "GET" */
  Str path;     /* as sent, without query */
  Str query;    /* behind '?', absent without */
  Str body;     /* absent when there is none */
  HttpHeader headers[HTTP_HEADERS];
  int header_count;
  int64_t deadline_us; /* clock_now_us clock */
} HttpRequest;

typedef struct HttpReply {
  int status;
  const char *content_type;
  Str body;
  HttpHeader headers[8];
  int header_count;
} HttpReply;

typedef enum HttpOutcome { HTTP_DONE, HTTP_REFUSED, HTTP_UNKNOWN } HttpOutcome;
/* What a response's status says about the request, for callers that must know whether it was done: 2xx done; 4xx
 * refused, so nothing was done; 408, 425, 429 and all others unknown, so the same request must be sent again. */
HttpOutcome http_outcome(int status);

/* How long the caller of a request waits for its response, in whole milliseconds: the client sends it with every call,
 * the server honours it. */
#define HTTP_TIMEOUT_HEADER "x-request-timeout-ms"
/* The deadline of a request that came now: longest_us from now, or sooner where the header says so. It never extends,
 * so it may come from anybody; what is no whole number is ignored. */
int64_t http_deadline(const HttpRequest *r, int64_t now_us, int64_t longest_us);

Str http_header(const HttpRequest *r, Str name);       /* absent when there is none */
Str http_query(const HttpRequest *r, Str name);        /* percent-decoded into the arena; absent when there is none */
bool http_has_token(Str list, Str token);              /* in a comma-separated header value, any case */
int http_percent_decode(Arena *a, Str text, Str *ret); /* E_MALFORMED */
void http_reply_header(HttpReply *reply, Str name, Str value); /* a ninth one is a defect: dies */
Str http_reason(int status);                                   /* RFC 9110 §15 reason phrase */

#endif

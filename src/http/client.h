/* HTTP client over libcurl's multi interface, on the loop, connections pooled per host. */
#ifndef SKALD_HTTP_CLIENT_H
#define SKALD_HTTP_CLIENT_H

#include "http/http.h"

#define HTTP_CLIENT_CONNECTIONS 256 /* to one host, and idle ones kept in all */

/* Sends the request (path, query, method, body, headers) to base_url and waits in the current fiber until its
 * deadline_us, which it tells the server in HTTP_TIMEOUT_HEADER. The response's body and headers live in the request's
 * arena; of the headers content-type, location, link, retry-after and idempotent-replayed are kept. Redirects are
 * responses like any other. 0: any HTTP status arrived. E_UNAVAILABLE: not connected, so not done. E_UNKNOWN: sent, no
 * whole response. E_TIMEOUT: deadline (outcome unknown). E_TOO_LARGE: a response over HTTP_BODY_MAX. E_CANCELED: the
 * fiber was cancelled (outcome unknown). E_MALFORMED: the request can't be put on the wire: base_url is no URL, or
 * control characters stand in path or headers.
 *
 * Only a request that can do no harm twice is ever sent again by itself: when a pooled connection breaks under it, and
 * it is a safe method (RFC 9110 §9.2.1) or carries an idempotency-key. */
MUST_CHECK int http_client_call(const char *base_url, const HttpRequest *request, HttpReply *reply);

#endif

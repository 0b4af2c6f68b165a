/* HTTP/1.1 server. Each request runs its handler in a fiber of its own. Refused before any handler: what RFC 9112 does
 * not allow or leaves ambiguous (400), oversized heads (414, 431) and bodies (413), coded bodies (415), more in flight
 * than allowed (503). A refused request's connection is closed where the next one's beginning would be in doubt.
 * Some connections beyond the maximum are accepted, so that probes are served: on them only what is served at once
 * gets its response, everything else is refused (503), and each is closed behind its first response, or after 2 s
 * without a request. A newer one takes the place of the oldest.
 * Slow senders and slow readers are cut. While draining responses carry "connection: close"; at its end requests that
 * still come over connections that are kept alive are refused (503). */
#ifndef SKALD_HTTP_SERVER_H
#define SKALD_HTTP_SERVER_H

#include "http/http.h"

typedef void HttpHandler(HttpRequest *request, HttpReply *reply);

#define HTTP_RESERVE 16 /* connections beyond the maximum; for a moment there may be twice as many */

typedef struct HttpServerConfig {
  int listen_fd; /* bound and listening; the server owns it from now on */
  HttpHandler *handler;
  void (*refused)(Str method, int status); /* a response that was not the handler's, for the statistics */
  int max_connections;
  int max_in_flight; /* requests; beyond it 503 */
  /* Requests that are served even then, and when there is no fiber for them: the handler must not wait. NULL: none */
  bool (*at_once)(Str method, Str path);
  int64_t request_us; /* each request's deadline, unless its caller waits less long */
  int64_t idle_us;    /* between two requests; heads, bodies and responses have bounds of their own, no longer ones */
} HttpServerConfig;

/* Blocking, before the loop. Binds host:port, or returns E_SYSTEM with errno set (EADDRINUSE: busy). */
MUST_CHECK int http_listen(const char *host, int port, int *ret_fd);
MUST_CHECK int http_server_start(const HttpServerConfig *config);
int http_server_in_flight(void);
/* From now on each response closes its connection. Serves on until close_us, then accepts no connection, begins no
 * request any more and waits in the current fiber until all responses are sent, or the deadline. */
void http_server_drain(int64_t close_us, int64_t deadline_us);

#endif

/* The metrics of HTTP requests, served and sent: OpenTelemetry's names, and for the served ones Ktor's as well. All
 * series are made before the fork; a request picks its own by two small numbers, its method's and its status's. */
#ifndef SKALD_HTTP_METRICS_H
#define SKALD_HTTP_METRICS_H

#include "base/str.h"

typedef struct HttpSeries HttpSeries; /* what one route, or one peer, has of them */

/* Before any other of these, and after metrics_init. address: for Ktor's names, HOST:PORT; NULL: without them.
 */
void http_metrics_init(const char *address);

/* Before the fork. path: a template; method: the only one it takes, and HEAD where that is GET. */
HttpSeries *http_metrics_route(const char *path, const char *method);
HttpSeries *http_metrics_other(void);                /* for what fits no route */
HttpSeries *http_metrics_peer(const char *base_url); /* calls to it */

Str http_metrics_method(Str method); /* OpenTelemetry's name of it: _OTHER for an unknown one */

typedef struct HttpTimer {
  int method;
  int64_t began_us;
} HttpTimer;

HttpTimer http_metrics_begin(Str method); /* a request served; it counts as active until its end */
void http_metrics_end(const HttpTimer *timer, const HttpSeries *route, int status);
void http_metrics_refused(Str method, int status); /* responded to before its route was looked up */
void http_metrics_connection_refused(void);
/* A call that began then; rc: as http_client_call returned it. */
void http_metrics_called(const HttpSeries *peer, Str method, int rc, int status, int64_t began_us);

#endif

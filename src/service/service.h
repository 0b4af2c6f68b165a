/* Services: what stands between an HTTP request and a handler of a few lines. Several run in one process; they call
 * each other by name, directly where the other lives in this process, over HTTP where it does not: same request, same
 * handler, same response. */
#ifndef SKALD_SERVICE_SERVICE_H
#define SKALD_SERVICE_SERVICE_H

#include "service/def.h"

/* Calls another service and waits; the request's arena holds the response. 0: any HTTP status. Else as
 * http_client_call.
 */
MUST_CHECK int service_call(const char *service, HttpRequest *request, HttpReply *reply);

/* Before any of those below, after metrics_init. HOST:PORT for Ktor's names of the metrics, NULL: without them. */
void service_init(const char *ktor_address);
Service *service_add(const ServiceDef *def, const char *dsn); /* before the fork */
Service *service_find(const char *name);                      /* NULL: not in this process */
void service_peer(const char *name, const char *base_url);    /* where one lives that is not in this process */
/* In each worker's loop: connects the databases, starts background fibers. */
void service_start_all(int worker, int connections, int batch);
void service_not_ready(void); /* /readyz is 503 from now on: send no more requests */
/* In a fiber, when no request is served any more. All stop at once; one that has not SERVICE_RELEASE_US after the
 * deadline is left as it is. */
void service_stop_all(int64_t deadline_us);
void service_handle(HttpRequest *request, HttpReply *reply); /* the HttpHandler of this process */
/* Health, metrics and the like: service_handle serves them without waiting for anything. */
bool service_at_once(Str method, Str path);

#endif

/* Names resolved without blocking the loop: libuv asks in a thread of its own. */
#ifndef SKALD_RT_RESOLVE_H
#define SKALD_RT_RESOLVE_H

#include "base/err.h"

struct addrinfo;

/* Waits in the current fiber, through a cancel too: the resolver has its own bound. The list is for resolve_free.
 * E_UNAVAILABLE: nothing found, *ret is NULL. service may be NULL. */
MUST_CHECK int resolve(const char *host, const char *service, struct addrinfo **ret);
void resolve_free(struct addrinfo *found); /* takes NULL */

#endif

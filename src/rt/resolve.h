/* Names resolved without blocking the loop: libuv looks them up in threads of its own. */
#ifndef SKALD_RT_RESOLVE_H
#define SKALD_RT_RESOLVE_H

#include "base/err.h"

#include <stdint.h>

struct addrinfo;

typedef struct Resolve Resolve; /* one lookup under way */

/* Begins a lookup for the current fiber; several may be under way at once. service may be NULL. Each must be ended. */
Resolve *resolve_begin(const char *host, const char *service);
/* Waits for the lookup and releases it. *ret is a list for resolve_free. E_UNAVAILABLE: nothing found. E_TIMEOUT: not
 * within the deadline, or E_CANCELED: the system's resolver goes on in its thread, and its result is thrown away. */
MUST_CHECK int resolve_end(Resolve *r, int64_t deadline_us, struct addrinfo **ret);
/* Both in one. */
MUST_CHECK int resolve(const char *host, const char *service, int64_t deadline_us, struct addrinfo **ret);
void resolve_free(struct addrinfo *found); /* takes NULL */

#endif

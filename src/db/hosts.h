/* The hosts of a connection string, paired as libpq pairs them: comma-separated lists of names, addresses and ports. No
 * input or output, and libpq is not asked. Everything lives in the caller's arena. */
#ifndef SKALD_DB_HOSTS_H
#define SKALD_DB_HOSTS_H

#include "base/arena.h"
#include "base/err.h"

#define HOSTS_MAX 64 /* entries of a list, each address of a name counted */

typedef struct Host { /* zero-terminated; what is not given is "" */
  const char *name;   /* a name, an address, or the folder of a unix socket; "": libpq's default socket */
  const char *address;
  const char *port; /* "": the default port */
} Host;

typedef struct HostList {
  Host at[HOSTS_MAX];
  int count;
} HostList;

/* libpq's parameters host, hostaddr and port; NULL and "" are not given. E_FIELD: the lists do not fit together, or a
 * part is neither a host nor a port; *why says so in words that repeat nothing of them, as it may be a password. */
MUST_CHECK int hosts_split(const char *names, const char *addresses, const char *ports, Arena *arena, HostList *ret,
                           const char **why);
/* Whether libpq would have to look up the name. */
bool host_needs_lookup(const Host *host);
bool host_is_address(const Host *host);           /* its name is one, and nothing else is given */
void hosts_add(HostList *list, const Host *host); /* does nothing when the list is full */
/* The three parameters for a list, of equal length. */
void hosts_join(const HostList *list, Arena *arena, const char **ret_names, const char **ret_addresses,
                const char **ret_ports);

#endif

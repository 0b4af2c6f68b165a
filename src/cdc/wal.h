/* The WAL source: change events read straight from a logical replication slot of PostgreSQL, without a broker. Only one
 * process reads a slot at a time; the others wait until it is free. The slot remembers the position, so nothing is lost
 * while nobody reads, and the server keeps its WAL for as long. */
#ifndef SKALD_CDC_WAL_H
#define SKALD_CDC_WAL_H

#include "cdc/source.h"

typedef struct WalConfig { /* all strings outlive the source */
  const char *dsn;
  const char *slot, *publication; /* of letters, digits and _ */
  const char *fallback;           /* publication for what is older than the other; NULL: none */
  const char *name;               /* topic prefix, in every event's source block */
} WalConfig;

/* In a fiber; reading begins at once and resumes by itself after every loss of the connection. */
Source *wal_source_new(const WalConfig *config);

#endif

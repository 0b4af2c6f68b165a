/* The WAL source: change events read straight from a logical replication slot of PostgreSQL, without a broker. Only one
 * process reads a slot at a time; the others wait until it is free. The slot remembers the position, so nothing is lost
 * while nobody reads, and the server keeps its WAL for as long. */
#ifndef SKALD_CDC_WAL_H
#define SKALD_CDC_WAL_H

#include "base/arena.h"
#include "cdc/source.h"

typedef struct WalConfig { /* all strings outlive the source */
  const char *dsn;
  const char *slot, *publication; /* of letters, digits and _ */
  const char *fallback;           /* publication for what is older than the other; NULL: none */
  const char *name;               /* topic prefix, in every event's source block */
} WalConfig;

/* In a fiber; reading begins at once and is taken up again by itself after every loss of the connection. */
Source *wal_source_new(const WalConfig *config);

/* Blocking, for use outside of any loop: makes the slot unless it is there. The publication must exist before it. A
 * slot being made waits for open transactions to end, so the caller must hold none that has written. E_CONFLICT: the
 * server's settings or another database's slot forbid it; the reason, and what to do, in *error. */
MUST_CHECK int wal_slot_create(const char *dsn, const char *slot, Arena *arena, Str *error);

#endif

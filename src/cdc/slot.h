/* The replication slot as migrations make it. */
#ifndef SKALD_CDC_SLOT_H
#define SKALD_CDC_SLOT_H

#include "base/err.h"

#include <stdint.h>

/* Makes the slot unless it is there, and returns when it is ready: from then on it keeps every event. The publication
 * must exist before it. Making it takes until the transactions that are open have ended, so the caller must hold none
 * that has written; where another process makes it, that is waited for while the patience lasts. From PostgreSQL 17 on
 * the slot goes along to a standby that takes over, an older one too, unless somebody reads it now. Blocks. What went
 * wrong, and what to do, is printed; for a slot that is lost no more than that. */
MUST_CHECK int slot_migrate(const char *dsn, const char *slot, int64_t patience_us);

#endif

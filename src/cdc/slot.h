/* The replication slot as migrations make it. */
#ifndef SKALD_CDC_SLOT_H
#define SKALD_CDC_SLOT_H

#include "base/err.h"
#include "base/str.h"

/* problem: something is to be done or waited for; else it only says what was done. */
typedef void SlotReport(bool problem, Str text);

/* Makes the slot unless it is there, and returns when it is ready: from then on it keeps every event. The publication
 * must exist before it. Making it takes until the transactions that are open have ended, so the caller must hold none
 * that has written; where another process makes it, that is waited for while the patience lasts. From PostgreSQL 17 on
 * the slot is synchronized to standbys, an older one too, unless somebody reads it now. Blocks. What went wrong, and
 * what to do, goes to report; for a slot that is lost no more than that is done. */
MUST_CHECK int slot_migrate(const char *dsn, const char *slot, int64_t patience_us, SlotReport *report);

#endif

/* What a replication slot costs its server, as metrics, with or without a reader: a slot that nobody reads holds
 * WAL until the disk is full, and that is seen here first. */
#ifndef SKALD_CDC_SLOT_WATCH_H
#define SKALD_CDC_SLOT_WATCH_H

#include "db/db.h"

void slot_watch_prepare(const char *slot); /* before the fork; the name must stay */
void slot_watch_start(Db *db);             /* in the loop of one worker; db: the database the slot belongs to */

#endif

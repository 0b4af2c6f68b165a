/* Catalog: what PostgreSQL's catalog says about published tables and the replication stream does not. It is asked when
 * a table is announced, so it may be ahead of the stream by as much as the reader lags; columns are matched by name. */
#ifndef SKALD_CDC_CATALOG_H
#define SKALD_CDC_CATALOG_H

#include "cdc/record.h"
#include "db/db.h"

/* For record_table_new; lives in the arena. A table without a primary key has its first unique index for one. Errors as
 * db_group. */
MUST_CHECK int catalog_read(Db *db, Arena *arena, const PgoRelation *relation, RecordFacts *ret);
/* Whether each table of the publication can be sent. E_FIELD: one cannot, the reason in *error. E_NOT_FOUND: there is
 * no table in it. Else as db_exec. */
MUST_CHECK int catalog_check(Db *db, Arena *arena, const char *publication, const RecordStyle *style, Str *error);

#endif

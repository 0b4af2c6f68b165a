/* Array literals of PostgreSQL, of one dimension: what a statement takes as $1::uuid[], made element by element. */
#ifndef SKALD_DB_ARRAY_H
#define SKALD_DB_ARRAY_H

#include "db/db.h"

typedef struct DbArray {
  Buf text; /* in the arena */
} DbArray;

DbArray db_array(Arena *arena);
/* The value is copied. An absent one becomes NULL, as in a statement; all should be of one type. */
void db_array_add(DbArray *a, DbValue value);
/* The array as a value, in the arena: no more elements can be added. Without any it is {}. */
DbValue db_array_end(DbArray *a);

#endif

/* PostgreSQL, through libpq in pipeline mode. The law: every transaction is one round trip. A fiber hands over a group
 * of statements; they commit together or not at all, and the fiber wakes when the outcome is durable. Groups of
 * concurrent fibers share a transaction (a batch): when one statement of a batch fails, its groups are sent again, each
 * alone, so that only the culprit fails. So an expected refusal must come back as a row (ON CONFLICT, conditional
 * UPDATE … RETURNING), never as an error, which would cost the whole batch.
 *
 * Parameters are copied at once; results live in the caller's arena. */
#ifndef SKALD_DB_DB_H
#define SKALD_DB_DB_H

#include "base/buf.h"
#include "base/err.h"
#include "base/field.h"

typedef struct Db Db;

typedef struct Sql { /* prepared once per connection, known by its address: make it static, or never free it */
  const char *text;
} Sql;

typedef struct DbValue {
  FieldType type; /* F_LIST is not a value */
  union {
    Uuid uuid;
    Money money;
    Str text; /* also F_JSON */
    int64_t integer;
    bool boolean;
    LocalTime time;
  };
} DbValue;

#define V_UUID(v)  ((DbValue){.type = F_UUID, .uuid = (v)}) /* nil is NULL, as in field tables */
#define V_MONEY(v) ((DbValue){.type = F_MONEY, .money = (v)})
#define V_TEXT(v)  ((DbValue){.type = F_TEXT, .text = (v)})
#define V_INT(v)   ((DbValue){.type = F_INT, .integer = (v)})
#define V_BOOL(v)  ((DbValue){.type = F_BOOL, .boolean = (v)})
#define V_TIME(v)  ((DbValue){.type = F_TIME, .time = (v)})
typedef struct DbStmt {
  const Sql *sql;
  const DbValue *values;
  int count;
  Uuid hot_key; /* see db_hot; nil: none */
} DbStmt;

#define DB_STMT(statement, ...) /* DB_STMT(&sql, V_UUID(id), V_MONEY(sum)) */                                          \
  ((DbStmt){.sql = (statement),                                                                                        \
            .values = (const DbValue[]){__VA_ARGS__},                                                                  \
            .count = sizeof((const DbValue[]){__VA_ARGS__}) / sizeof(DbValue)})
/* Marks it with the contended row it locks. Batches are sorted by these keys; the first of a group counts. */
DbStmt db_hot(Uuid key, DbStmt statement);

typedef struct DbResult {
  int rows, columns;
  Str *cells;       /* row by row, in PostgreSQL's text form; an absent Str is NULL */
  int64_t affected; /* rows affected, for statements that return none */
} DbResult;

/* A pool to one database. db_new registers its metrics, so it comes before the fork; db_start connects in the
 * background, in the loop, and keeps trying. dsn: a libpq connection string or URI, kept by the caller. name: for logs
 * and metrics. */
Db *db_new(const char *dsn, const char *name);
void db_start(Db *db, int connections, int batch);
bool db_is_up(const Db *db);

/* One group: all statements in one transaction, in one round trip. results has count places, or is NULL.
 * E_EXISTS: a unique key is there already · E_RANGE: number out of range · E_UNAVAILABLE: not sent ·
 * E_UNKNOWN: sent, outcome not known · E_TIMEOUT: the deadline passed, outcome not known · E_BUSY: lock or deadlock
 * again and again · E_INTERNAL: any other SQL error, logged with its text. */
MUST_CHECK int db_group(Db *db, Arena *arena, const DbStmt *statements, int count, DbResult *results,
                        int64_t deadline_us);
/* One statement. result may be NULL. */
MUST_CHECK int db_exec(Db *db, Arena *arena, DbStmt statement, DbResult *result, int64_t deadline_us);

/* Rows to structs: columns in the order of the table's fields, without its F_LIST ones. */
MUST_CHECK int db_read_row(const DbResult *r, int row, const Field *fields, void *object);
MUST_CHECK int db_read_rows(Arena *arena, const DbResult *r, const Field *fields, size_t size, List *ret);
Str db_cell(const DbResult *r, int row, int column);

#endif

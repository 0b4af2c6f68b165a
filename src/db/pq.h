/* libpq, for the files rt/db_*.c only: a connection of the pool, as db.c sees it. Private to rt/. */
#ifndef SKALD_DB_PQ_H
#define SKALD_DB_PQ_H

#include "db/db.h"
#include "rt/fiber.h"

#include <libpq-fe.h>

#define DB_REASON     320 /* bytes of why a connection failed, with the zero behind it */
#define DB_FLIGHTS    512 /* entries of one connection's pipeline at most */
#define DB_BATCH_MOST 64  /* groups of one transaction */

typedef struct DbGroup { /* one fiber's statements; owned by queue or flight, outlives the fiber's wait */
  struct DbGroup *next;
  Arena *memory; /* its own, holds the parameters: it may be sent again after the fiber has gone */
  Fiber *fiber;  /* NULL: nobody waits any more */
  Arena *result_arena;
  DbResult *results; /* the fiber's; may be NULL */
  int count;
  struct DbBound {
    const Sql *sql;
    const char *const *values;
    int n;
  } * statements;
  Uuid hot_key;
  int attempts;
  bool alone; /* shares no transaction */
  bool queued;
  bool done;
  int outcome;
} DbGroup;

typedef struct DbFlight { /* what lies between two syncs of a pipeline */
  const Sql *prepare;     /* a statement being prepared, or NULL: a batch */
  DbGroup *first;
  int groups;
  DbGroup *at_group; /* whose result comes next */
  int at_statement;
  int64_t sent_us;
  bool seen; /* a result of that statement has come */
  int error; /* of the whole flight */
  char sqlstate[6];
} DbFlight;

typedef struct DbConn {
  Db *db;
  PGconn *pq;
  struct uv_poll_s *poll;
  int watched;  /* events */
  Fiber *fiber; /* connects, and cleans up */
  bool up, broken;
  bool tried;             /* an attempt has ended: it is known to be down when it is not up */
  char reason[DB_REASON]; /* why it could not be opened; empty: it was */
  DbFlight flights[DB_FLIGHTS];
  int flight_first, flight_count;
  const Sql **prepared; /* open addressing by address */
  size_t prepared_cap, prepared_count;
} DbConn;

/* A fiber function: keeps the connection (arg: DbConn) open for as long as the process lives. */
void db_conn_main(void *arg);
/* Room for one more batch? Its statements may need preparing first. */
bool db_conn_has_room(const DbConn *c);
/* Sends the groups first…(chained by next) as one transaction. The connection owns them until db_group_finished. */
void db_conn_send(DbConn *c, DbGroup *first, int groups);

/* Implemented by db.c, called by the connection: a flight came back. error 0: committed. */
void db_flight_landed(Db *db, DbFlight *flight);
const char *db_dsn(const Db *db);
const char *db_name(const Db *db);
void db_conn_changed(Db *db);

/* db_values.c: parameters as text, results as cells. */
struct DbBound db_bind(Arena *memory, const DbStmt *statement);

#endif

/* A pipelined connection, as the pool sees it, and the groups that both handle. Private to db/. */
#ifndef SKALD_DB_CONN_H
#define SKALD_DB_CONN_H

#include "db/pq.h"
#include "rt/fiber.h"

#define DB_FLIGHTS_MAX 512 /* entries of one connection's pipeline */
#define DB_BATCH_MAX   64  /* groups of one transaction */

typedef struct DbGroup { /* one fiber's statements; owned by queue or flight, outlives the fiber's wait */
  struct DbGroup *next;
  Arena *memory; /* its own, holds the parameters: it may be sent again after the fiber has gone */
  Fiber *fiber;  /* NULL: nobody waits any more */
  Arena *result_arena;
  DbResult *results; /* the fiber's; may be NULL */
  int count;
  DbBound *statements;
  Uuid hot_key;
  int attempts;
  bool alone;   /* shares no transaction */
  bool suspect; /* its last batch waited for a lock until the server gave up: it may wait again */
  bool blocked; /* it was the one that waited, or wants the same row */
  bool queued, done;
  int outcome;
  Str error; /* of an unexpected SQL error, in memory: what is to be logged if it ends so */
} DbGroup;

typedef struct DbFlight { /* what lies between two syncs of a pipeline */
  const Sql *prepare;     /* a statement being prepared, or NULL: a batch, or a heartbeat */
  DbGroup *first;         /* of a batch */
  int groups;
  DbGroup *at_group; /* whose result comes next; NULL: only the commit is missing */
  int at_statement;
  bool seen; /* a result of that statement has come */
  int64_t sent_us;
  int error; /* of the whole flight */
  char sqlstate[6];
  DbGroup *culprit; /* whose statement failed; NULL: none, or the commit */
} DbFlight;

typedef struct DbConn {
  Db *db;
  PGconn *pq;
  struct uv_poll_s *poll;
  int watched;            /* events */
  Fiber *fiber;           /* connects, and cleans up */
  bool up;                /* takes batches */
  bool broken;            /* of no use any more */
  bool leaving;           /* takes no more, and breaks when its flights have landed */
  bool tried;             /* an attempt has ended: it is known to be down when it is not up */
  const char *problem;    /* why we left it; NULL: libpq knows */
  char reason[DB_REASON]; /* why it could not be opened; empty: it was */
  DbFlight flights[DB_FLIGHTS_MAX];
  int flight_first, flight_count, batches; /* batches: those of the flights that are some */
  int64_t head_us;      /* since when the first flight is the first: the server has worked on it alone */
  const Sql **prepared; /* open addressing by address */
  size_t prepared_cap, prepared_count;
  struct {
    const Sql *sql; /* the first one before the next batch that could not be prepared, or NULL */
    char sqlstate[6], message[200];
  } unprepared;
} DbConn;

/* A fiber function: keeps the connection (arg: DbConn) open for as long as the process lives. */
void db_conn_main(void *arg);
/* Its first flight waits for something, most likely for a lock: what goes behind it would wait as well. */
bool db_conn_is_stalled(const DbConn *c, int64_t now_us);
const DbFlight *db_conn_flight(const DbConn *c, int i); /* 0 <= i < flight_count, the first is 0 */
/* Takes one more batch, whose statements may need preparing first. */
bool db_conn_has_room(const DbConn *c, int64_t now_us);
/* Sends the groups first…(chained by next) as one transaction. They are the connection's until db_flight_landed. */
void db_conn_send(DbConn *c, DbGroup *first, int groups);

void db_flight_landed(Db *db, DbFlight *flight); /* the pool's, as those below: a batch came back; error 0: committed */
void db_conn_changed(Db *db);
const char *db_dsn(const Db *db);
const char *db_name(const Db *db);

#endif

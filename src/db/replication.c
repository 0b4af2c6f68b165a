/* The replication connection: libpq's COPY both ways, waiting in fibers. */
#include "db/replication.h"

#include "db/connect.h"
#include "rt/clock.h"
#include "rt/fd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A server neither sends nor reads for up to half of wal_sender_timeout while it decodes changes that are not for us,
 * nor while it spills a transaction to disk, in portions of logical_decoding_work_mem. Both together, and the silence
 * before them, must stay below REPLICATION_SILENCE_US on a machine under load. In milliseconds and kB. Smaller values
 * are kept; a timeout of 0 is unlimited. */
#define SENDER_BOUNDS                                                                                                  \
  "SELECT set_config(name, CASE WHEN setting::integer BETWEEN 1 AND maximum THEN setting ELSE maximum::text END, "     \
  "false) "                                                                                                            \
  "FROM pg_settings JOIN (VALUES ('wal_sender_timeout', 20000), ('logical_decoding_work_mem', 4096)) AS bound (name, " \
  "maximum) USING (name)"

#define UNDEFINED_OBJECT          "42704"
#define NOT_IN_PREREQUISITE_STATE "55000"

struct Replication {
  PGconn *pq;
  Fd *socket;
  char *message; /* the last one read, libpq's memory */
  bool skipped;  /* the server has warned that it passes over changes */
  char error[DB_REASON];
};

static void keep_error(Replication *r, const char *text) {
  snprintf(r->error, sizeof(r->error), "%.*s", (int)strcspn(text, "\n"), text);
}

static int lost(Replication *r) {
  keep_error(r, PQerrorMessage(r->pq));
  return E_UNAVAILABLE;
}

/* From version 18 on the server only warns where a publication was not there yet when a change was written, leaves that
 * change out, and goes on. The warning stands in the stream before any position behind the change. */
static void on_notice(void *arg, const PGresult *notice) {
  Replication *r = arg;
  const char *sqlstate = PQresultErrorField(notice, PG_DIAG_SQLSTATE);
  if (!sqlstate || strcmp(sqlstate, NOT_IN_PREREQUISITE_STATE))
    return;
  keep_error(r, PQresultErrorMessage(notice));
  r->skipped = true;
}

int replication_open(const char *dsn, const char *application_name, Replication **ret) {
  Replication *r = calloc(1, sizeof(*r));
  if (!r)
    die("out of memory");
  *ret = r;
  const DbConnect how = {.dsn = dsn, .application_name = application_name, .session = DB_SESSION_STREAM};
  char reason[DB_REASON] = "";
  int rc = db_connect(&how, &r->pq, reason);
  if (rc < 0) {
    keep_error(r, reason);
    return rc == E_CANCELED ? rc : E_UNAVAILABLE;
  }
  r->socket = fd_watch(PQsocket(r->pq));
  if (!r->socket) {
    keep_error(r, "no descriptor left");
    return E_UNAVAILABLE;
  }
  PQsetNoticeReceiver(r->pq, on_notice, r);
  return E_OK;
}

static int flush(Replication *r, int64_t deadline_us) {
  int rc = 0;
  while ((rc = PQflush(r->pq)) > 0) {
    TRY(fd_wait(r->socket, FD_READABLE | FD_WRITABLE, "replication write", deadline_us));
    if (!PQconsumeInput(r->pq)) /* a server that waits for us to read would never take what we write */
      return lost(r);
  }
  return rc < 0 ? lost(r) : E_OK;
}

static int start_error(Replication *r, const PGresult *result) {
  const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
  keep_error(r, PQresultErrorMessage(result));
  if (sqlstate && !strcmp(sqlstate, "55006")) /* object_in_use */
    return E_BUSY;
  if (sqlstate && !strcmp(sqlstate, UNDEFINED_OBJECT))
    return E_NOT_FOUND;
  return E_UNAVAILABLE;
}

/* ret, unless it is NULL, becomes the number that a query gave. */
static int take_result(Replication *r, const PGresult *result, uint64_t *ret) {
  ExecStatusType status = PQresultStatus(result);
  if (ret && status == PGRES_TUPLES_OK && PQntuples(result) > 0)
    *ret = strtoull(PQgetvalue(result, 0, 0), NULL, 10);
  bool fine = status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK || status == PGRES_COPY_BOTH;
  return fine ? E_OK : start_error(r, result);
}

/* Sends a command and reads its results up to the last, or to the one that opens the stream. */
static int run(Replication *r, const char *command, uint64_t *ret) {
  int64_t deadline_us = clock_now_us() + DB_CONNECT_US;
  if (!PQsendQuery(r->pq, command))
    return lost(r);
  TRY(flush(r, deadline_us));
  int rc = E_OK;
  for (bool more = true; more;) {
    while (PQisBusy(r->pq)) {
      TRY(fd_wait(r->socket, FD_READABLE, "replication start", deadline_us));
      if (!PQconsumeInput(r->pq))
        return lost(r);
    }
    PGresult *result = PQgetResult(r->pq);
    int taken = result ? take_result(r, result, ret) : E_OK;
    rc = taken < 0 ? taken : rc;
    more = result && PQresultStatus(result) != PGRES_COPY_BOTH;
    PQclear(result);
  }
  return rc;
}

static bool is_name(const char *name) {
  size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_");
  return n > 0 && n < 64 && name[n] == 0;
}

int replication_start(Replication *r, const char *slot, const char *publication) {
  if (!is_name(slot) || !is_name(publication))
    return E_FIELD;
  TRY(run(r, SENDER_BOUNDS, NULL));
  char command[256];
  snprintf(command, sizeof(command),
           "START_REPLICATION SLOT \"%s\" LOGICAL 0/0 (proto_version '1', publication_names '\"%s\"')", slot,
           publication);
  return run(r, command, NULL);
}

int replication_known_since(Replication *r, const char *publication, uint64_t *ret_lsn) {
  if (!is_name(publication))
    return E_FIELD;
  char query[256];
  snprintf(query, sizeof(query),
           "SELECT pg_current_wal_flush_lsn() - '0/0'::pg_lsn FROM pg_publication WHERE pubname = '%s'", publication);
  uint64_t lsn = 0;
  TRY(run(r, query, &lsn));
  *ret_lsn = lsn;
  return E_OK;
}

/* The server ended the stream; its reason comes as the last result. */
static int ended(Replication *r) {
  PGresult *result = PQgetResult(r->pq);
  const char *text = result ? PQresultErrorMessage(result) : "",
             *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
  keep_error(r, *text ? text : "the server ended the stream");
  int rc = sqlstate && !strcmp(sqlstate, UNDEFINED_OBJECT) ? E_NOT_FOUND : E_UNAVAILABLE;
  PQclear(result);
  return rc;
}

static int next_message(Replication *r, Str *ret) {
  PQfreemem(r->message);
  r->message = NULL;
  int n = PQgetCopyData(r->pq, &r->message, 1);
  if (r->skipped)
    return E_NOT_FOUND; /* nothing behind it may be confirmed */
  if (n == -1)
    return ended(r);
  if (n < 0)
    return lost(r);
  if (n == 0)
    return 0;
  *ret = (Str){r->message, (size_t)n};
  return 1;
}

int replication_read(Replication *r, Str *ret, int64_t deadline_us) {
  int rc = next_message(r, ret);
  if (rc != 0)
    return rc;
  rc = fd_wait(r->socket, FD_READABLE, "replication", deadline_us);
  if (rc == E_TIMEOUT)
    return 0;
  TRY(rc);
  if (!PQconsumeInput(r->pq))
    return lost(r);
  return next_message(r, ret);
}

int replication_write(Replication *r, Str message) {
  if (PQputCopyData(r->pq, message.p, (int)message.n) != 1)
    return lost(r);
  return flush(r, clock_now_us() + DB_CONNECT_US);
}

const char *replication_database(const Replication *r) {
  return PQdb(r->pq);
}

Str replication_error(const Replication *r) {
  return str_from(r->error);
}

void replication_close(Replication *r) {
  if (!r)
    return;
  fd_unwatch(r->socket);
  PQfreemem(r->message);
  PQfinish(r->pq);
  free(r);
}

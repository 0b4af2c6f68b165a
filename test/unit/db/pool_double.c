/* See pool_double.h. */
#include "unit/db/pool_double.h"

#include "db/connect.h"
#include "log/log.h"
#include "rt/fiber.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS  4
#define COMMANDS_MAX 2048
#define RESULTS_MAX  4096
#define NAMES_MAX    16
#define VALUE_SIZE   32

typedef struct Command {
  enum { PREPARE, EXECUTE, SYNC } kind;
  char value[VALUE_SIZE];
} Command;

struct pg_result {
  ExecStatusType status;
  char sqlstate[6];
  char cell[2 * VALUE_SIZE];
};

struct pg_conn {
  int number;
  int ours, theirs;
  bool bad;
  Command commands[COMMANDS_MAX]; /* sent, not run yet */
  int sent, flushed;
  struct pg_result *results[RESULTS_MAX]; /* NULL ends those of a statement */
  int made, shown, taken;
  bool failed;   /* the flight that runs */
  bool executes; /* a statement was sent since the last Sync */
  bool wrote;    /* in the flight that runs */
  bool read_only;
};

typedef struct Fault {
  char value[VALUE_SIZE], sqlstate[6];
} Fault;

static struct {
  PGconn *conns[CONNECTIONS];
  Fiber *owners[CONNECTIONS];
  Fault faults[NAMES_MAX];
  int faults_count;
  char locks[NAMES_MAX][VALUE_SIZE];
  int locks_count;
  char unprepared[6];
  bool frozen, refuses, read_only;
  int opened;
  char journal[1 << 20];
  size_t journal_size;
  char logged[512];
  int64_t advanced_us;
} server;

/* ---- the clock ---- */

/* It stands still but for clock_advance, however slow the machine is. It begins at an hour. */
int clock_gettime(clockid_t id, struct timespec *ret) {
  if (id == CLOCK_REALTIME)
    return (int)syscall(SYS_clock_gettime, id, ret);
  ret->tv_sec = 3600 + server.advanced_us / 1000000;
  ret->tv_nsec = server.advanced_us % 1000000 * 1000;
  return 0;
}

void clock_advance(int64_t us) {
  server.advanced_us += us;
}

/* ---- the log ---- */

bool log_on(LogLevel level, const char *logger) {
  (void)logger;
  return level != LOG_DEBUG;
}

void log_write(LogLevel level, const char *logger, const LogField *fields, int count, const char *format, ...) {
  (void)logger, (void)fields, (void)count;
  const char *component = fiber_context()->component;
  char text[400];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof(text), format, args);
  va_end(args);
  snprintf(server.logged, sizeof(server.logged), "%s %s %s", component ? component : "-",
           level == LOG_ERROR  ? "error"
           : level == LOG_WARN ? "warn"
                               : "info",
           text);
}

const char *logged(void) {
  return server.logged;
}

void forget_logged(void) {
  server.logged[0] = 0;
}

/* ---- what the server does ---- */

static PGresult *add_result(PGconn *c, ExecStatusType status) {
  PGresult *res = calloc(1, sizeof(*res));
  res->status = status;
  c->results[c->made++ % RESULTS_MAX] = res;
  return res;
}

static void end_statement(PGconn *c) {
  c->results[c->made++ % RESULTS_MAX] = NULL;
}

static void fail(PGconn *c, const char *sqlstate) {
  c->failed = true;
  snprintf(add_result(c, PGRES_FATAL_ERROR)->sqlstate, 6, "%s", sqlstate);
}

static const char *fault_of(const char *value) {
  for (int i = 0; i < server.faults_count; i++)
    if (!strcmp(server.faults[i].value, value))
      return server.faults[i].sqlstate;
  return NULL;
}

static bool is_locked(const char *value) {
  for (int i = 0; i < server.locks_count; i++)
    if (!strcmp(server.locks[i], value))
      return true;
  return false;
}

static void execute(PGconn *c, const char *value) {
  c->wrote = true;
  if (c->failed)
    add_result(c, PGRES_PIPELINE_ABORTED);
  else if (fault_of(value))
    fail(c, fault_of(value));
  else
    snprintf(add_result(c, PGRES_TUPLES_OK)->cell, 2 * VALUE_SIZE, "row of %s", value);
  end_statement(c);
}

static void prepare(PGconn *c) {
  if (server.unprepared[0])
    fail(c, server.unprepared);
  else
    add_result(c, PGRES_COMMAND_OK);
  end_statement(c);
}

static void synchronize(PGconn *c) {
  if (c->wrote && !c->failed && fault_of("COMMIT"))
    fail(c, fault_of("COMMIT"));
  c->wrote = false;
  c->read_only = server.read_only;
  add_result(c, PGRES_PIPELINE_SYNC);
  c->shown = c->made;
  c->failed = false;
  send(c->theirs, "x", 1, 0);
}

static void drop_command(PGconn *c) {
  c->sent--;
  c->flushed--;
  memmove(c->commands, c->commands + 1, sizeof(Command) * (size_t)c->sent);
}

static void run(PGconn *c) {
  while (c->flushed > 0 && !server.frozen && !c->bad) {
    Command next = c->commands[0];
    if (next.kind == EXECUTE && !c->failed && is_locked(next.value))
      return;
    drop_command(c);
    if (next.kind == EXECUTE)
      execute(c, next.value);
    else if (next.kind == PREPARE)
      prepare(c);
    else
      synchronize(c);
  }
}

static void run_all(void) {
  for (int i = 0; i < CONNECTIONS; i++)
    if (server.conns[i])
      run(server.conns[i]);
}

/* ---- the script ---- */

void server_reset(void) {
  server.faults_count = server.locks_count = 0;
  server.frozen = server.refuses = server.read_only = false;
  server.unprepared[0] = 0;
  server_forget_journal();
  run_all();
}

const char *server_journal(void) {
  return server.journal;
}

void server_forget_journal(void) {
  server.journal_size = 0;
  server.journal[0] = 0;
}

int server_sent(const char *value) {
  char wanted[VALUE_SIZE + 2];
  size_t n = (size_t)snprintf(wanted, sizeof(wanted), ":%s ", value);
  int count = 0;
  for (const char *at = strstr(server.journal, wanted); at; at = strstr(at + n, wanted))
    count++;
  return count;
}

int server_opened(void) {
  return server.opened;
}

void server_fail(const char *value, const char *sqlstate) {
  Fault *f = &server.faults[server.faults_count++];
  snprintf(f->value, sizeof(f->value), "%s", value);
  snprintf(f->sqlstate, sizeof(f->sqlstate), "%s", sqlstate);
}

void server_fail_prepare(const char *sqlstate) {
  snprintf(server.unprepared, sizeof(server.unprepared), "%s", sqlstate);
}

void server_lock(const char *value) {
  snprintf(server.locks[server.locks_count++], VALUE_SIZE, "%s", value);
}

void server_unlock(const char *value) {
  for (int i = 0; i < server.locks_count; i++)
    if (!strcmp(server.locks[i], value))
      memcpy(server.locks[i], server.locks[--server.locks_count], VALUE_SIZE);
  run_all();
}

void server_time_out(const char *value) {
  for (int i = 0; i < CONNECTIONS; i++) {
    PGconn *c = server.conns[i];
    if (!c || !c->flushed || c->commands[0].kind != EXECUTE || strcmp(c->commands[0].value, value))
      continue;
    drop_command(c);
    fail(c, "55P03");
    end_statement(c);
    run(c);
  }
}

void server_freeze(bool frozen) {
  server.frozen = frozen;
  run_all();
}

void server_cut(int connection) {
  PGconn *c = server.conns[connection];
  c->bad = true;
  shutdown(c->theirs, SHUT_RDWR);
}

void server_refuse(bool refuse) {
  server.refuses = refuse;
}

void server_read_only(bool read_only) {
  server.read_only = read_only;
}

/* ---- libpq ---- */

/* A place of the pool is known by the fiber that keeps it connected. */
static int place_of(const Fiber *owner) {
  int i = 0;
  while (i < CONNECTIONS - 1 && server.owners[i] && server.owners[i] != owner)
    i++;
  return i;
}

void db_reason(const PGconn *c, char reason[DB_REASON]) {
  snprintf(reason, DB_REASON, "%s", PQerrorMessage(c));
}

int db_connect(const DbConnect *how, PGconn **ret, char reason[DB_REASON]) {
  snprintf(reason, DB_REASON, "refused");
  if (server.refuses || (server.read_only && how->session == DB_SESSION_POOL))
    return E_UNAVAILABLE;
  PGconn *c = calloc(1, sizeof(*c));
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) < 0)
    abort();
  c->ours = pair[0];
  c->theirs = pair[1];
  c->number = place_of(fiber_current());
  server.owners[c->number] = fiber_current();
  server.conns[c->number] = c;
  server.opened++;
  *ret = c;
  return E_OK;
}

void PQfinish(PGconn *c) {
  if (!c)
    return;
  server.conns[c->number] = NULL;
  for (; c->taken < c->made; c->taken++)
    free(c->results[c->taken % RESULTS_MAX]);
  close(c->ours);
  close(c->theirs);
  free(c);
}

int PQsetnonblocking(PGconn *c, int on) {
  (void)c, (void)on;
  return 0;
}

int PQenterPipelineMode(PGconn *c) {
  (void)c;
  return 1;
}

int PQsocket(const PGconn *c) {
  return c->ours;
}

ConnStatusType PQstatus(const PGconn *c) {
  return c->bad ? CONNECTION_BAD : CONNECTION_OK;
}

char *PQerrorMessage(const PGconn *c) {
  static char cut[] = "the network is cut\n", none[] = "";
  return c->bad ? cut : none;
}

const char *PQparameterStatus(const PGconn *c, const char *name) {
  return strcmp(name, "default_transaction_read_only") ? "off" : c->read_only ? "on" : "off";
}

static int add_command(PGconn *c, int kind, const char *value) {
  if (c->bad || c->sent == COMMANDS_MAX)
    return 0;
  Command *next = &c->commands[c->sent++];
  next->kind = kind;
  snprintf(next->value, VALUE_SIZE, "%s", value);
  return 1;
}

static void note(const char *text) {
  if (server.journal_size + strlen(text) >= sizeof(server.journal))
    abort();
  server.journal_size +=
      (size_t)snprintf(server.journal + server.journal_size, sizeof(server.journal) - server.journal_size, "%s", text);
}

int PQsendPrepare(PGconn *c, const char *name, const char *query, int n, const Oid *types) {
  (void)name, (void)query, (void)n, (void)types;
  return add_command(c, PREPARE, "");
}

int PQsendQueryPrepared(PGconn *c, const char *name, int n, const char *const *values, const int *lengths,
                        const int *formats, int format) {
  (void)name, (void)n, (void)lengths, (void)formats, (void)format;
  char text[2 * VALUE_SIZE];
  snprintf(text, sizeof(text), "%d:%s ", c->number, values[0]);
  note(text);
  c->executes = true;
  return add_command(c, EXECUTE, values[0]);
}

int PQpipelineSync(PGconn *c) {
  if (c->executes)
    note("; ");
  c->executes = false;
  return add_command(c, SYNC, "");
}

int PQflush(PGconn *c) {
  c->flushed = c->sent;
  run(c);
  return c->bad ? -1 : 0;
}

int PQconsumeInput(PGconn *c) {
  char bytes[64];
  while (recv(c->ours, bytes, sizeof(bytes), 0) > 0)
    continue;
  return !c->bad;
}

int PQisBusy(PGconn *c) {
  return c->taken == c->shown;
}

PGresult *PQgetResult(PGconn *c) {
  return c->taken == c->shown ? NULL : c->results[c->taken++ % RESULTS_MAX];
}

void PQclear(PGresult *res) {
  free(res);
}

ExecStatusType PQresultStatus(const PGresult *res) {
  return res->status;
}

char *PQresultErrorField(const PGresult *res, int field) {
  static char message[] = "it went wrong";
  return field == PG_DIAG_SQLSTATE ? (char *)(uintptr_t)res->sqlstate : message;
}

int PQntuples(const PGresult *res) {
  return res->status == PGRES_TUPLES_OK;
}

int PQnfields(const PGresult *res) {
  return res->status == PGRES_TUPLES_OK;
}

char *PQcmdTuples(PGresult *res) {
  static char one[] = "1", none[] = "";
  return res->status == PGRES_TUPLES_OK ? one : none;
}

char *PQgetvalue(const PGresult *res, int row, int column) {
  (void)row, (void)column;
  return (char *)(uintptr_t)res->cell;
}

int PQgetlength(const PGresult *res, int row, int column) {
  (void)row, (void)column;
  return (int)strlen(res->cell);
}

int PQgetisnull(const PGresult *res, int row, int column) {
  (void)res, (void)row, (void)column;
  return 0;
}

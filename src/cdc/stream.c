/* The stream of a replication slot. The position reported to the server never stands inside a transaction and never
 * passes what the handler confirmed. A handler that waits stops the reading: the server then keeps the rest in its WAL,
 * and still gets a status every second. */
#include "cdc/stream.h"

#include "base/backoff.h"
#include "db/replication.h"
#include "log/log.h"
#include "rt/clock.h"
#include "rt/fiber.h"
#include "rt/random.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ORIGIN_MAX        512           /* bytes of a replication origin's name, as PostgreSQL bounds it */
#define STATUS_US         (1 * SECONDS) /* a status is sent this often, and whenever the server requests one */
#define PROBE_US          (5 * SECONDS) /* after so long a silence a status requests a response */
#define RETRY_FIRST_US    (50 * MILLISECONDS)
#define RETRY_MAX_US      (2 * SECONDS)
#define RETRY_BUSY_US     (1 * SECONDS)
#define POSTGRES_EPOCH_US INT64_C(946684800000000)

struct Stream {
  StreamConfig config;
  const StreamHandler *handler;
  void *arg;
  Fiber *reader;
  Fiber *closer; /* waits for the reader's end, or NULL */
  Replication *connection;
  StreamTable *tables; /* as announced on this connection */
  Arena *scratch;
  bool reading, waiting, in_transaction;
  RecordSource at;
  char origin[ORIGIN_MAX]; /* at.origin points here */
  /* Of this connection; 0: none yet. handed_lsn: all before it was handed over, between transactions. */
  uint64_t first_lsn, received_lsn, handed_lsn, flushed_lsn;
  int64_t last_received_us, last_status_us, failures;
  bool requested;       /* the server wants a status */
  bool failed;          /* the connection is to end */
  bool announced;       /* in the log */
  bool fallen_back;     /* this connection reads the fallback */
  bool falls_back;      /* the next one will: this one met what is older than its publication */
  uint64_t return_lsn;  /* the fallback is read up to the first end of a transaction from here on; 0: no end is known */
  uint64_t settled_lsn; /* where such an end was met; 0: not yet */
  char problem[256];    /* last logged, so that a lasting one is logged once */
};

static StreamTable *find_table(const Stream *s, uint32_t id) {
  StreamTable *table = s->tables;
  while (table && table->relation.id != id)
    table = table->next;
  return table;
}

/* The description points into its message, so it is decoded from a copy that stays. */
static int keep_table(Stream *s, uint32_t id, Str payload) {
  StreamTable *table = find_table(s, id);
  if (!table) {
    table = calloc(1, sizeof(*table));
    if (!table)
      die("out of memory");
    table->arena = arena_new();
    table->next = s->tables;
    s->tables = table;
  }
  arena_reset(table->arena);
  table->prepared = NULL;
  PgoMessage message;
  TRY(pgoutput_decode(table->arena, arena_str(table->arena, payload), &message));
  table->relation = message.relation;
  return s->handler->table(s->arg, table);
}

static void drop_tables(Stream *s) {
  while (s->tables) {
    StreamTable *table = s->tables;
    s->tables = table->next;
    arena_free(table->arena);
    free(table);
  }
}

static int take_change(Stream *s, const PgoMessage *m, Str payload) {
  const StreamTable *table = find_table(s, m->change.relation);
  if (!table)
    return s->handler->malformed(s->arg, payload, E_NOT_FOUND);
  char op = m->type == 'I' ? 'c' : m->type == 'U' ? 'u' : 'd';
  return s->handler->change(s->arg, table, op, &s->at, m->change.old_kind ? &m->change.old : NULL,
                            m->type == 'D' ? NULL : &m->change.fresh);
}

static int take_truncate(Stream *s, const PgoMessage *m) {
  for (int i = 0; i < m->truncate.count; i++) {
    const StreamTable *table = find_table(s, m->truncate.relations[i]);
    if (table)
      TRY(s->handler->change(s->arg, table, 't', &s->at, NULL, NULL));
  }
  return E_OK;
}

static int take_begin(Stream *s, const PgoMessage *m) {
  s->in_transaction = true;
  s->at.xid = m->begin.xid;
  s->at.commit_us = m->begin.commit_us;
  s->at.origin = (Str){0};
  return s->handler->begin(s->arg, m->begin.commit_lsn);
}

static int take_origin(Stream *s, const PgoMessage *m) {
  size_t n = m->origin.name.n < ORIGIN_MAX ? m->origin.name.n : ORIGIN_MAX;
  memcpy(s->origin, m->origin.name.p, n);
  s->at.origin = (Str){s->origin, n};
  s->at.origin_lsn = m->origin.lsn;
  return E_OK;
}

/* Between transactions. */
static void settle(Stream *s, uint64_t lsn, int64_t commit_us) {
  s->handed_lsn = lsn > s->handed_lsn ? lsn : s->handed_lsn;
  s->handler->settled(s->arg, lsn, commit_us);
  if (s->return_lsn && lsn >= s->return_lsn)
    s->settled_lsn = lsn;
}

static int take_commit(Stream *s, const PgoMessage *m, uint64_t lsn) {
  s->in_transaction = false;
  s->at.last_commit_lsn = lsn;
  settle(s, m->commit.end_lsn, s->at.commit_us);
  return E_OK;
}

static int take_message(Stream *s, const PgoMessage *m, Str payload, uint64_t lsn) {
  if (lsn)
    s->at.lsn = lsn;
  switch (m->type) {
  case 'B':
    return take_begin(s, m);
  case 'C':
    return take_commit(s, m, lsn);
  case 'O':
    return take_origin(s, m);
  case 'R':
    return keep_table(s, m->relation.id, payload);
  case 'I':
  case 'U':
  case 'D':
    return take_change(s, m, payload);
  case 'T':
    return take_truncate(s, m);
  default:
    return E_OK;
  }
}

static int take_data(Stream *s, const PgoFrame *frame) {
  PgoMessage message;
  arena_reset(s->scratch);
  int rc = pgoutput_decode(s->scratch, frame->payload, &message);
  if (rc < 0)
    return s->handler->malformed(s->arg, frame->payload, rc);
  return take_message(s, &message, frame->payload, frame->start_lsn);
}

static int take_frame(Stream *s, Str bytes) {
  PgoFrame frame;
  TRY(pgoutput_frame(bytes, &frame));
  s->last_received_us = clock_now_us();
  if (!s->first_lsn)
    s->first_lsn = frame.type == 'w' ? frame.start_lsn : frame.end_lsn;
  if (frame.end_lsn > s->received_lsn)
    s->received_lsn = frame.end_lsn;
  if (frame.type == 'w')
    return take_data(s, &frame);
  s->requested |= frame.reply;
  if (!s->in_transaction)
    settle(s, frame.end_lsn, 0);
  return E_OK;
}

static int send_status(Stream *s) {
  int64_t now_us = clock_now_us();
  bool probe = now_us - s->last_received_us > PROBE_US;
  SCOPED_ARENA arena = arena_new();
  Buf status = {.arena = arena};
  buf_char(&status, 'r');
  buf_be64(&status, s->received_lsn);
  buf_be64(&status, s->flushed_lsn);
  buf_be64(&status, s->flushed_lsn);
  buf_be64(&status, (uint64_t)(clock_unix_us() - POSTGRES_EPOCH_US));
  buf_char(&status, probe ? 1 : 0);
  s->requested = false;
  s->last_status_us = now_us;
  if (!s->announced) /* not before it has lasted: a bad publication fails only after the start */
    LOG(INFO, s->config.logger, "reading slot %s", s->config.slot);
  s->announced = true;
  return replication_write(s->connection, buf_view(&status));
}

static bool status_is_due(const Stream *s) {
  return s->requested || clock_now_us() - s->last_status_us >= STATUS_US;
}

int stream_pause(Stream *s, const char *why) {
  int rc = fiber_wait(why, s->last_status_us + STATUS_US);
  s->last_received_us = clock_now_us(); /* nobody read */
  if (rc < 0 && rc != E_TIMEOUT)
    return rc;
  if (s->failed)
    return E_UNAVAILABLE;
  return status_is_due(s) ? send_status(s) : E_OK;
}

/* The publication itself is read from the next connection on. It begins behind what is confirmed, and all is: what the
 * fallback had to be read for does not come again. */
static int end_fallback(Stream *s) {
  while (s->flushed_lsn < s->settled_lsn)
    TRY(stream_pause(s, "stream: end of the fallback"));
  LOG(INFO, s->config.logger, "slot %s: reading publication %s again from %X/%X", s->config.slot, s->config.publication,
      (unsigned)(s->settled_lsn >> 32), (unsigned)s->settled_lsn);
  return send_status(s);
}

/* E_OK: the fallback is over. */
static int read_on(Stream *s) {
  while (!s->failed && !s->settled_lsn) {
    if (status_is_due(s))
      TRY(send_status(s));
    Str message = {0};
    int rc = replication_read(s->connection, &message, s->last_status_us + STATUS_US);
    s->falls_back = rc == E_NOT_FOUND && s->config.fallback && !s->fallen_back;
    TRY(rc);
    if (rc > 0)
      TRY(take_frame(s, message));
    else if (clock_now_us() - s->last_received_us > REPLICATION_SILENCE_US)
      return E_TIMEOUT;
  }
  return s->failed ? E_UNAVAILABLE : end_fallback(s);
}

/* What was written before there was the publication is read by the fallback, up to the present end of the WAL: the
 * publication is there now, and who writes to its tables behind that knows it. Nobody has written before that and not
 * ended yet, since the migration that makes the publication alters the table, and so waited for all who had written. */
static int choose_publication(Stream *s, const char **ret) {
  s->fallen_back = s->falls_back;
  s->return_lsn = s->settled_lsn = 0;
  *ret = s->fallen_back ? s->config.fallback : s->config.publication;
  if (!s->fallen_back)
    return E_OK;
  TRY(replication_known_since(s->connection, s->config.publication, &s->return_lsn));
  if (!s->return_lsn)
    LOG(WARN, s->config.logger, "publication %s does not exist; reading %s until the connection ends",
        s->config.publication, s->config.fallback);
  return E_OK;
}

static int read_stream(Stream *s) {
  char name[32];
  const char *publication = NULL;
  snprintf(name, sizeof(name), "skald-%s", s->config.logger);
  TRY(replication_open(s->config.dsn, name, &s->connection));
  TRY(choose_publication(s, &publication));
  TRY(replication_start(s->connection, s->config.slot, publication));
  s->reading = true;
  s->falls_back = s->waiting = false;
  s->last_received_us = s->last_status_us = clock_now_us();
  s->at = (RecordSource){.database = str_from(replication_database(s->connection))};
  int rc = read_on(s);
  bool ours = rc == E_CANCELED || rc == E_REFUSED || s->failed; /* the end */
  if (ours && send_status(s) < 0)                               /* it only spares the next reader repeats */
    LOG(DEBUG, s->config.logger, "slot %s: the last position was not reported", s->config.slot);
  return rc;
}

static void log_problem(Stream *s, int rc) {
  Str reason = rc == E_BUSY ? STR("another process reads it; waiting for it to end") : replication_error(s->connection);
  char text[sizeof(s->problem)];
  snprintf(text, sizeof(text), "%s: %.*s", err_info(rc)->name, STR_FMT(reason));
  if (!strcmp(text, s->problem))
    return;
  memcpy(s->problem, text, sizeof(text));
  if (rc == E_BUSY)
    LOG(INFO, s->config.logger, "slot %s: %s", s->config.slot, text);
  else
    LOG(WARN, s->config.logger, "slot %s: %s", s->config.slot, text);
}

/* The positions too: a server restored from a backup may be at an earlier one. */
static void forget(Stream *s) {
  s->reading = s->in_transaction = s->requested = s->announced = false;
  s->first_lsn = s->received_lsn = s->handed_lsn = s->flushed_lsn = 0;
  s->handler->forget(s->arg);
  s->failed = false;
  drop_tables(s);
}

static void count_problem(Stream *s, int rc) {
  if (s->failed || rc == E_OK || rc == E_CANCELED || rc == E_REFUSED) /* whose cause logs it */
    return;
  s->waiting = rc == E_BUSY;
  s->failures += rc != E_BUSY;
  log_problem(s, rc);
}

static void read_forever(void *arg) {
  Stream *s = arg;
  int attempts = 0;
  for (int rc = E_OK; rc != E_CANCELED && rc != E_REFUSED;) {
    int64_t started_us = clock_now_us();
    rc = read_stream(s);
    if (clock_now_us() - started_us > RETRY_MAX_US) { /* it did work meanwhile */
      attempts = 0;
      s->problem[0] = 0;
    }
    count_problem(s, rc);
    replication_close(s->connection);
    s->connection = NULL;
    forget(s);
    if (rc == E_REFUSED)
      s->handler->ended(s->arg);
    else if (rc != E_CANCELED)
      rc = fiber_sleep(rc == E_BUSY ? RETRY_BUSY_US
                                    : backoff_us(attempts++, RETRY_FIRST_US, RETRY_MAX_US, random_u64()));
  }
  s->reader = NULL;
  fiber_wake(s->closer);
}

Stream *stream_new(const StreamConfig *config, const StreamHandler *handler, void *arg) {
  Stream *s = calloc(1, sizeof(*s));
  if (!s)
    die("out of memory");
  s->config = *config;
  s->handler = handler;
  s->arg = arg;
  s->scratch = arena_new();
  s->reader = fiber_start(config->logger, read_forever, s);
  if (!s->reader)
    die("no fiber for the stream of slot %s", config->slot); /* started with the process, before any load */
  return s;
}

void stream_close(Stream *s) {
  s->closer = fiber_current();
  if (s->reader)
    fiber_cancel(s->reader);
  while (s->reader) /* it must be gone before its memory is */
    fiber_wait_uncancelable("stream: close", FIBER_FOREVER);
  arena_free(s->scratch);
  free(s);
}

void stream_wake(Stream *s) {
  if (s->reader)
    fiber_wake(s->reader);
}

void stream_fail(Stream *s) {
  s->failed = true;
  stream_wake(s);
}

void stream_confirm(Stream *s, uint64_t lsn) {
  assert(lsn <= s->handed_lsn);
  if (lsn > s->flushed_lsn)
    s->flushed_lsn = lsn;
  if (s->settled_lsn)
    stream_wake(s);
}

void stream_status(const Stream *s, StreamStatus *ret) {
  uint64_t behind_lsn = s->flushed_lsn ? s->flushed_lsn : s->first_lsn;
  *ret = (StreamStatus){.connected = s->reading, .waiting = s->waiting, .failures = s->failures};
  if (behind_lsn && s->received_lsn > behind_lsn)
    ret->lag_bytes = (int64_t)(s->received_lsn - behind_lsn);
}

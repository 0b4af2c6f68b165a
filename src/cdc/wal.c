/* The WAL source. A reader fiber takes the slot's stream, decodes it and fills one chunk of events while the consumer
 * works on the other. The position confirmed to the server never passes an event that is not done, nor stands inside a
 * transaction; with nothing in flight it follows the server's own, so that an idle slot holds back no WAL. */
#include "cdc/wal.h"

#include "cdc/envelope.h"
#include "rt/db_replication.h"
#include "rt/db_script.h"
#include "rt/fiber.h"
#include "rt/log.h"
#include "rt/loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define VERSION           STR("1.0.0") /* of this connector, in every event's source block */
#define ORIGIN_MOST       512          /* bytes of a replication origin's name, as PostgreSQL bounds it */
#define CHUNK_EVENTS      256
#define CHUNK_BYTES       (2 * 1024 * 1024)
#define STATUS_US         1000000 /* a confirmed position is told this often, and whenever the server asks */
#define SILENCE_ASK_US    5000000
#define SILENCE_MOST_US   20000000
#define RETRY_FIRST_US    50000
#define RETRY_MOST_US     2000000
#define RETRY_BUSY_US     1000000
#define POSTGRES_EPOCH_US INT64_C(946684800000000)

typedef struct Chunk {
  Arena *arena;
  ChangeEvent *events; /* in the arena */
  int count, cap;
  uint64_t settled_lsn; /* may be confirmed once the chunk is done; 0: nothing new */
  int64_t oldest_us;    /* commit time of its first event */
} Chunk;

typedef struct Relation {
  struct Relation *next;
  Arena *arena;
  PgoRelation table;
} Relation;

typedef struct WalSource {
  Source source;
  WalConfig config;
  Fiber *reader;
  Fiber *consumer; /* waits for events, or NULL */
  Fiber *closer;   /* waits for the reader's end, or NULL */
  Replication *connection;
  Chunk chunks[2];
  Chunk *filling, *handed; /* handed: with the consumer, or NULL */
  Relation *relations;     /* as announced in this connection */
  Arena *scratch;
  bool streaming, in_transaction;
  EnvelopeSource at;
  char origin[ORIGIN_MOST]; /* at.origin points here */
  uint64_t commit_lsn;      /* of the transaction being read */
  int index;                /* of the next event in it */
  uint64_t received_lsn, flushed_lsn;
  int64_t heard_us, told_us;
  bool asked;        /* the server wants a status */
  bool announced;    /* in the log */
  char problem[256]; /* last logged, so that a lasting one is logged once */
} WalSource;

static int64_t unix_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static bool is_full(const Chunk *c) {
  return c->count >= CHUNK_EVENTS || arena_size(c->arena) >= CHUNK_BYTES;
}

static void clear(Chunk *c) {
  arena_reset(c->arena);
  *c = (Chunk){.arena = c->arena};
}

/* Whole transactions only, unless one is larger than a chunk. */
static bool is_ready(const WalSource *s) {
  return s->filling->count > 0 && (!s->in_transaction || is_full(s->filling));
}

/* Moves the confirmed position as far as nothing is waiting. */
static void settle(WalSource *s) {
  if (!s->handed && s->filling->count == 0 && !s->in_transaction && s->filling->settled_lsn > s->flushed_lsn)
    s->flushed_lsn = s->filling->settled_lsn;
}

static void grow(Chunk *c) {
  int cap = c->cap > 0 ? c->cap * 2 : 32;
  ChangeEvent *events = ARENA_ARRAY(c->arena, ChangeEvent, (size_t)cap);
  if (c->count > 0)
    memcpy(events, c->events, sizeof(*events) * (size_t)c->count);
  c->events = events;
  c->cap = cap;
}

static ChangeEvent *add_event(WalSource *s) {
  Chunk *c = s->filling;
  if (c->count == c->cap)
    grow(c);
  if (c->count == 0)
    c->oldest_us = s->at.commit_us;
  ChangeEvent *event = &c->events[c->count++];
  event->position =
      arena_printf(c->arena, "%X/%X %d", (unsigned)(s->commit_lsn >> 32), (unsigned)s->commit_lsn, s->index++);
  return event;
}

static void add_change(WalSource *s, const PgoRelation *table, char op, const PgoTuple *before, const PgoTuple *after) {
  Buf value = {.arena = s->filling->arena};
  buf_reserve(&value, 1024);
  envelope_build(&value, &s->at, table, op, before, after, unix_us());
  add_event(s)->value = buf_view(&value);
}

/* What cannot be decoded is handed on as it is: the consumer will find it is no event, and keep it where people look.
 */
static void add_undecodable(WalSource *s, Str payload) {
  add_event(s)->value = arena_str(s->filling->arena, payload);
}

static Relation *find_relation(const WalSource *s, uint32_t id) {
  Relation *relation = s->relations;
  while (relation && relation->table.id != id)
    relation = relation->next;
  return relation;
}

/* The description points into its message, so it is decoded from a copy that stays. */
static int keep_relation(WalSource *s, uint32_t id, Str payload) {
  Relation *relation = find_relation(s, id);
  if (!relation) {
    relation = calloc(1, sizeof(*relation));
    if (!relation)
      abort();
    relation->arena = arena_new();
    relation->next = s->relations;
    s->relations = relation;
  }
  arena_reset(relation->arena);
  PgoMessage message;
  TRY(pgoutput_decode(relation->arena, arena_str(relation->arena, payload), &message));
  relation->table = message.relation;
  return E_OK;
}

static void drop_relations(WalSource *s) {
  while (s->relations) {
    Relation *relation = s->relations;
    s->relations = relation->next;
    arena_free(relation->arena);
    free(relation);
  }
}

static int take_change(WalSource *s, const PgoMessage *m) {
  const Relation *relation = find_relation(s, m->change.relation);
  if (!relation)
    return E_NOT_FOUND;
  char op = m->type == 'I' ? 'c' : m->type == 'U' ? 'u' : 'd';
  add_change(s, &relation->table, op, m->change.old_kind ? &m->change.old : NULL,
             m->type == 'D' ? NULL : &m->change.fresh);
  return E_OK;
}

static void take_truncate(WalSource *s, const PgoMessage *m) {
  for (int i = 0; i < m->truncate.count; i++) {
    const Relation *relation = find_relation(s, m->truncate.relations[i]);
    if (relation)
      add_change(s, &relation->table, 't', NULL, NULL);
  }
}

static void take_begin(WalSource *s, const PgoMessage *m) {
  s->in_transaction = true;
  s->commit_lsn = m->begin.commit_lsn;
  s->index = 0;
  s->at.xid = m->begin.xid;
  s->at.commit_us = m->begin.commit_us;
  s->at.origin = (Str){0};
}

static void take_origin(WalSource *s, const PgoMessage *m) {
  size_t n = m->origin.name.n < ORIGIN_MOST ? m->origin.name.n : ORIGIN_MOST;
  memcpy(s->origin, m->origin.name.p, n);
  s->at.origin = (Str){s->origin, n};
  s->at.origin_lsn = m->origin.lsn;
}

static void take_commit(WalSource *s, const PgoMessage *m, uint64_t lsn) {
  s->in_transaction = false;
  s->at.last_commit_lsn = lsn;
  s->filling->settled_lsn = m->commit.end_lsn;
  settle(s);
}

static int take_message(WalSource *s, Str payload, uint64_t lsn) {
  PgoMessage m;
  TRY(pgoutput_decode(s->scratch, payload, &m));
  if (lsn)
    s->at.lsn = lsn;
  switch (m.type) {
  case 'B':
    take_begin(s, &m);
    return E_OK;
  case 'C':
    take_commit(s, &m, lsn);
    return E_OK;
  case 'O':
    take_origin(s, &m);
    return E_OK;
  case 'R':
    return keep_relation(s, m.relation.id, payload);
  case 'I':
  case 'U':
  case 'D':
    return take_change(s, &m);
  case 'T':
    take_truncate(s, &m);
    return E_OK;
  default:
    return E_OK;
  }
}

static void take_data(WalSource *s, const PgoFrame *frame) {
  arena_reset(s->scratch);
  int rc = take_message(s, frame->payload, frame->start_lsn);
  if (rc < 0) {
    LOG(ERROR, "wal", "slot %s: a message of type 0x%02x at %X/%X cannot be decoded: %s", s->config.slot,
        frame->payload.n ? (unsigned char)frame->payload.p[0] : 0U, (unsigned)(frame->start_lsn >> 32),
        (unsigned)frame->start_lsn, err_info(rc)->name);
    add_undecodable(s, frame->payload);
  }
}

static int take_frame(WalSource *s, Str bytes) {
  PgoFrame frame;
  TRY(pgoutput_frame(bytes, &frame));
  s->heard_us = loop_now_us();
  if (frame.end_lsn > s->received_lsn)
    s->received_lsn = frame.end_lsn;
  if (frame.type == 'w') {
    take_data(s, &frame);
    return E_OK;
  }
  s->asked |= frame.reply;
  if (!s->in_transaction && frame.end_lsn > s->filling->settled_lsn)
    s->filling->settled_lsn = frame.end_lsn;
  settle(s);
  return E_OK;
}

static int tell_status(WalSource *s) {
  int64_t now_us = loop_now_us();
  bool ask = now_us - s->heard_us > SILENCE_ASK_US;
  SCOPED_ARENA arena = arena_new();
  Buf status = {.arena = arena};
  buf_char(&status, 'r');
  buf_be64(&status, s->received_lsn);
  buf_be64(&status, s->flushed_lsn);
  buf_be64(&status, s->flushed_lsn);
  buf_be64(&status, (uint64_t)(unix_us() - POSTGRES_EPOCH_US));
  buf_char(&status, ask ? 1 : 0);
  s->asked = false;
  s->told_us = now_us;
  if (!s->announced) /* not before it has lasted: a bad publication fails only after the start */
    LOG(INFO, "wal", "reading slot %s", s->config.slot);
  s->announced = true;
  return replication_write(s->connection, buf_view(&status));
}

static void wake_consumer(WalSource *s) {
  if (s->consumer && is_ready(s))
    fiber_wake(s->consumer);
}

/* A full chunk stops the reading: what waits is kept by the server, while it still hears from us. */
static int wait_for_room(WalSource *s) {
  int rc = fiber_wait("wal: room", s->told_us + STATUS_US);
  s->heard_us = loop_now_us();
  return rc == E_TIMEOUT ? E_OK : rc;
}

static int stream(WalSource *s) {
  for (;;) {
    wake_consumer(s);
    if (s->asked || loop_now_us() - s->told_us >= STATUS_US)
      TRY(tell_status(s));
    if (is_full(s->filling)) {
      TRY(wait_for_room(s));
      continue;
    }
    Str message = {0};
    int rc = replication_read(s->connection, &message, s->told_us + STATUS_US);
    TRY(rc);
    if (rc > 0)
      TRY(take_frame(s, message));
    else if (loop_now_us() - s->heard_us > SILENCE_MOST_US)
      return E_TIMEOUT;
  }
}

/* What was not done will come again from the confirmed position, also what the consumer holds: a server restored from
 * elsewhere may count its positions anew. */
static void forget_stream(WalSource *s) {
  s->streaming = s->in_transaction = s->asked = s->announced = false;
  s->received_lsn = s->flushed_lsn = 0;
  clear(s->filling);
  if (s->handed)
    s->handed->settled_lsn = 0;
  drop_relations(s);
}

static int read_stream(WalSource *s) {
  TRY(replication_open(s->config.dsn, "skald-wal", &s->connection));
  TRY(replication_start(s->connection, s->config.slot, s->config.publication));
  s->streaming = true;
  s->heard_us = s->told_us = loop_now_us();
  s->at = (EnvelopeSource){
      .version = VERSION, .name = str_from(s->config.name), .database = str_from(replication_database(s->connection))};
  int rc = stream(s);
  if (rc == E_CANCELED && tell_status(s) < 0) /* spares the next reader the repeats, no more than that */
    LOG(DEBUG, "wal", "slot %s: the last position was not told", s->config.slot);
  return rc;
}

static void log_problem(WalSource *s, int rc) {
  Str reason = rc == E_BUSY ? STR("another process reads it; waiting for it to end") : replication_error(s->connection);
  char text[sizeof(s->problem)];
  snprintf(text, sizeof(text), "%s: %.*s", err_info(rc)->name, STR_FMT(reason));
  if (!strcmp(text, s->problem))
    return;
  memcpy(s->problem, text, sizeof(text));
  if (rc == E_BUSY)
    LOG(INFO, "wal", "slot %s: %s", s->config.slot, text);
  else
    LOG(WARN, "wal", "slot %s: %s", s->config.slot, text);
}

static void read_forever(void *arg) {
  WalSource *s = arg;
  int64_t wait_us = RETRY_FIRST_US;
  for (int rc = E_OK; rc != E_CANCELED;) {
    int64_t started_us = loop_now_us();
    rc = read_stream(s);
    if (loop_now_us() - started_us > RETRY_MOST_US) { /* it did work meanwhile */
      wait_us = RETRY_FIRST_US;
      s->problem[0] = 0;
    }
    if (rc != E_CANCELED)
      log_problem(s, rc);
    replication_close(s->connection);
    s->connection = NULL;
    forget_stream(s);
    if (rc != E_CANCELED)
      rc = fiber_sleep(rc == E_BUSY ? RETRY_BUSY_US : wait_us);
    wait_us = wait_us * 2 < RETRY_MOST_US ? wait_us * 2 : RETRY_MOST_US;
  }
  s->reader = NULL;
  fiber_wake(s->closer);
}

static int wal_next(Source *source, ChangeBatch *ret) {
  WalSource *s = (WalSource *)source;
  s->consumer = fiber_current();
  int rc = E_OK;
  while (rc == E_OK && !is_ready(s))
    rc = fiber_wait("change events", FIBER_FOREVER);
  s->consumer = NULL;
  TRY(rc);
  bool was_full = is_full(s->filling);
  s->handed = s->filling;
  s->filling = s->handed == &s->chunks[0] ? &s->chunks[1] : &s->chunks[0];
  if (was_full)
    fiber_wake(s->reader);
  *ret = (ChangeBatch){s->handed->events, s->handed->count};
  return E_OK;
}

static void wal_done(Source *source) {
  WalSource *s = (WalSource *)source;
  if (s->handed->settled_lsn > s->flushed_lsn)
    s->flushed_lsn = s->handed->settled_lsn;
  clear(s->handed);
  s->handed = NULL;
  settle(s);
}

static void wal_status(const Source *source, SourceStatus *ret) {
  const WalSource *s = (const WalSource *)source;
  const Chunk *oldest = s->handed ? s->handed : s->filling;
  *ret = (SourceStatus){.connected = s->streaming};
  if (s->flushed_lsn && s->received_lsn > s->flushed_lsn)
    ret->lag_bytes = (int64_t)(s->received_lsn - s->flushed_lsn);
  if (oldest->count > 0)
    ret->lag_us = unix_us() - oldest->oldest_us;
}

static void wal_close(Source *source) {
  WalSource *s = (WalSource *)source;
  s->closer = fiber_current();
  fiber_cancel(s->reader);
  while (s->reader)
    if (fiber_wait("wal: close", FIBER_FOREVER) == E_CANCELED)
      fiber_yield(); /* the reader must be gone before its memory is */
  arena_free(s->chunks[0].arena);
  arena_free(s->chunks[1].arena);
  arena_free(s->scratch);
  free(s);
}

Source *wal_source_new(const WalConfig *config) {
  WalSource *s = calloc(1, sizeof(*s));
  if (!s)
    abort();
  s->source = (Source){wal_next, wal_done, wal_status, wal_close};
  s->config = *config;
  s->chunks[0].arena = arena_new();
  s->chunks[1].arena = arena_new();
  s->scratch = arena_new();
  s->filling = &s->chunks[0];
  s->reader = fiber_start("wal", read_forever, s);
  if (!s->reader)
    abort(); /* started with the process, before any load */
  return &s->source;
}

static int check_slot(DbScript *db, const char *slot, Arena *arena, bool *ret_exists, Str *error) {
  DbResult found;
  Str sql = arena_printf(arena,
                         "SELECT s.database, s.database = current_database() AND s.plugin = 'pgoutput', l.level FROM "
                         "(SELECT current_setting('wal_level')) AS l(level) LEFT JOIN pg_replication_slots s "
                         "ON s.slot_name = '%s'",
                         slot);
  TRY(db_script_run(db, sql.p, arena, &found, error));
  *ret_exists = db_cell(&found, 0, 0).p != NULL;
  if (*ret_exists && !str_eq(db_cell(&found, 0, 1), STR("t"))) {
    *error = arena_printf(arena, "the replication slot %s belongs to database %.*s or to another plugin", slot,
                          STR_FMT(db_cell(&found, 0, 0)));
    return E_CONFLICT;
  }
  if (!*ret_exists && !str_eq(db_cell(&found, 0, 2), STR("logical"))) {
    *error = arena_printf(arena,
                          "PostgreSQL runs with wal_level=%.*s, and change events need logical: "
                          "ALTER SYSTEM SET wal_level = 'logical', then restart the server",
                          STR_FMT(db_cell(&found, 0, 2)));
    return E_CONFLICT;
  }
  return E_OK;
}

static int make_slot(DbScript *db, const char *slot, Arena *arena, Str *error) {
  bool exists = false;
  TRY(check_slot(db, slot, arena, &exists, error));
  if (exists)
    return E_OK;
  Str sql = arena_printf(arena, "SELECT pg_create_logical_replication_slot('%s', 'pgoutput')", slot);
  int rc = db_script_run(db, sql.p, arena, NULL, error);
  if (rc == E_OK)
    return E_OK;
  Str ignored;
  TRY(check_slot(db, slot, arena, &exists, &ignored));
  return exists ? E_OK : rc; /* made by another process meanwhile */
}

int wal_slot_create(const char *dsn, const char *slot, Arena *arena, Str *error) {
  DbScript *db = NULL;
  TRY(db_script_open(dsn, arena, &db, error));
  int rc = make_slot(db, slot, arena, error);
  db_script_close(db);
  return rc;
}

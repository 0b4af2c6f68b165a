/* The WAL source: the stream's changes as events in chunks. The stream fills one chunk while the consumer works on the
 * other. */
#include "cdc/wal.h"

#include "cdc/stream.h"
#include "log/log.h"
#include "rt/clock.h"
#include "rt/fiber.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_EVENTS 256
#define CHUNK_BYTES  (2 * 1024 * 1024)

typedef struct Chunk {
  Arena *arena;
  ChangeEvent *events; /* in the arena */
  int count, cap;
  uint64_t settled_lsn; /* may be confirmed once the chunk is done; 0: nothing new */
  int64_t oldest_us;    /* commit time of its first event */
} Chunk;

typedef struct WalSource {
  Source source;
  WalConfig config;
  Stream *stream;
  Fiber *consumer; /* waits for events, or NULL */
  Chunk chunks[2];
  Chunk *filling, *handed; /* handed: with the consumer, or NULL */
  bool in_transaction;
  uint64_t commit_lsn; /* of the transaction being read */
  int index;           /* of the next event in it */
} WalSource;

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

static void wake_consumer(WalSource *s) {
  if (s->consumer && is_ready(s))
    fiber_wake(s->consumer);
}

static void grow(Chunk *c) {
  int cap = c->cap > 0 ? c->cap * 2 : 32;
  ChangeEvent *events = ARENA_ARRAY(c->arena, ChangeEvent, (size_t)cap);
  if (c->count > 0)
    memcpy(events, c->events, sizeof(*events) * (size_t)c->count);
  c->events = events;
  c->cap = cap;
}

/* A full chunk stops the reading until the consumer has taken it. */
static int wait_for_room(WalSource *s) {
  while (is_full(s->filling)) {
    wake_consumer(s);
    TRY(stream_pause(s->stream, "wal: room"));
  }
  return E_OK;
}

static void add_event(WalSource *s, Str value, int64_t commit_us) {
  Chunk *c = s->filling;
  if (c->count == c->cap)
    grow(c);
  if (c->count == 0)
    c->oldest_us = commit_us;
  Str position =
      arena_printf(c->arena, "%X/%X %d", (unsigned)(s->commit_lsn >> 32), (unsigned)s->commit_lsn, s->index++);
  c->events[c->count++] = (ChangeEvent){.value = value, .position = position};
}

/* Moves the confirmed position as far as nothing is waiting. */
static void settle(WalSource *s) {
  if (!s->handed && s->filling->count == 0 && !s->in_transaction)
    stream_confirm(s->stream, s->filling->settled_lsn);
}

/* What is not done comes again from the confirmed position, what the consumer holds too. */
static void forget_chunks(void *arg) {
  WalSource *s = arg;
  s->in_transaction = false;
  clear(s->filling);
  if (s->handed)
    s->handed->settled_lsn = 0;
}

static int begin_transaction(void *arg, uint64_t commit_lsn) {
  WalSource *s = arg;
  s->in_transaction = true;
  s->commit_lsn = commit_lsn;
  s->index = 0;
  return E_OK;
}

/* Numbers are sent exactly, and the consumer knows its columns' types: nothing is refused. */
static int prepare_table(void *arg, StreamTable *table) {
  const WalSource *s = arg;
  RecordStyle style = {.prefix = str_from(s->config.name), .decimals = DECIMALS_EXACT};
  RecordTable *prepared = NULL;
  Str error;
  TRY(record_table_new(table->arena, &style, &table->relation, &(RecordFacts){0}, &prepared, &error));
  table->prepared = prepared;
  return E_OK;
}

static int add_change(void *arg, const StreamTable *table, char op, const RecordSource *at, const PgoTuple *before,
                      const PgoTuple *after) {
  WalSource *s = arg;
  TRY(wait_for_room(s));
  Buf value = {.arena = s->filling->arena};
  Str column;
  buf_reserve(&value, 1024);
  TRY(record_value(&value, table->prepared, at, op, before, after, clock_unix_ns(), &column));
  add_event(s, buf_view(&value), at->commit_us);
  return E_OK;
}

/* What cannot be decoded is handed on as it is: the consumer finds that it is no event and stores it as a dead letter.
 */
static int add_malformed(void *arg, Str payload, int code) {
  WalSource *s = arg;
  LOG(ERROR, "wal", "slot %s: a message of type 0x%02x in the transaction at %X/%X cannot be decoded: %s",
      s->config.slot, payload.n ? (unsigned char)payload.p[0] : 0U, (unsigned)(s->commit_lsn >> 32),
      (unsigned)s->commit_lsn, err_info(code)->name);
  TRY(wait_for_room(s));
  add_event(s, arena_str(s->filling->arena, payload), clock_unix_us());
  return E_OK;
}

static void take_settled(void *arg, uint64_t lsn, int64_t commit_us) {
  WalSource *s = arg;
  (void)commit_us;
  s->in_transaction = false;
  if (lsn > s->filling->settled_lsn)
    s->filling->settled_lsn = lsn;
  settle(s);
  wake_consumer(s);
}

static const StreamHandler handler = {.forget = forget_chunks,
                                      .begin = begin_transaction,
                                      .table = prepare_table,
                                      .change = add_change,
                                      .malformed = add_malformed,
                                      .settled = take_settled};

static int wal_next(Source *source, ChangeBatch *ret) {
  WalSource *s = (WalSource *)source;
  assert(!s->handed && !s->consumer);
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
    stream_wake(s->stream);
  *ret = (ChangeBatch){s->handed->events, s->handed->count};
  return E_OK;
}

static void wal_done(Source *source) {
  WalSource *s = (WalSource *)source;
  assert(s->handed);
  stream_confirm(s->stream, s->handed->settled_lsn);
  clear(s->handed);
  s->handed = NULL;
  settle(s);
}

static void wal_status(const Source *source, SourceStatus *ret) {
  const WalSource *s = (const WalSource *)source;
  const Chunk *oldest = s->handed ? s->handed : s->filling;
  StreamStatus stream;
  stream_status(s->stream, &stream);
  *ret = (SourceStatus){.connected = stream.connected, .lag_bytes = stream.lag_bytes};
  if (oldest->count > 0)
    ret->lag_us = clock_unix_us() - oldest->oldest_us;
}

static void wal_close(Source *source, int64_t deadline_us) {
  (void)deadline_us; /* nothing here can hang */
  WalSource *s = (WalSource *)source;
  stream_close(s->stream);
  arena_free(s->chunks[0].arena);
  arena_free(s->chunks[1].arena);
  free(s);
}

Source *wal_source_new(const WalConfig *config) {
  WalSource *s = calloc(1, sizeof(*s));
  if (!s)
    die("out of memory");
  s->source = (Source){.next = wal_next, .done = wal_done, .status = wal_status, .close = wal_close};
  s->config = *config;
  s->chunks[0].arena = arena_new();
  s->chunks[1].arena = arena_new();
  s->filling = &s->chunks[0];
  s->stream = stream_new(&(StreamConfig){.dsn = config->dsn,
                                         .slot = config->slot,
                                         .publication = config->publication,
                                         .fallback = config->fallback,
                                         .logger = "wal"},
                         &handler, s);
  return &s->source;
}

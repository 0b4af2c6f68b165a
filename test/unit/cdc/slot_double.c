/* PostgreSQL with one replication slot, in the place of db/replication. A test program includes this file and gets the
 * double linked; the others have the real one. What is not confirmed is sent again on each connection. Transaction n
 * stands in the WAL from n00 to (n+1)00, in hexadecimal, and inserts rows into the table public.t (id text, v text). */
#include "base/buf.h"
#include "db/replication.h"
#include "unit/virtual_clock.h"

#include <string.h>

#define SLOT_FRAMES   20000
#define SLOT_STATUSES 4096
#define SLOT_TABLE    16400
#define SLOT_TEXT     25
#define SLOT_TIME_US  INT64_C(843955200000000) /* of every commit, since 2000 */
#define LSN(n)        ((uint64_t)(n) << 8)
#define COMMIT_LSN(n) (LSN(n) + 0xf0)

/* ---- messages as PostgreSQL writes them ---- */

static void write_text(Buf *out, const char *text) {
  buf_char(out, 't');
  buf_be32(out, (uint32_t)strlen(text));
  buf_cstr(out, text);
}

static void write_column(Buf *out, const char *name, bool key) {
  buf_char(out, key);
  buf_add(out, name, strlen(name) + 1);
  buf_be32(out, SLOT_TEXT);
  buf_be32(out, (uint32_t)-1);
}

static void write_relation(Buf *out) {
  buf_char(out, 'R');
  buf_be32(out, SLOT_TABLE);
  buf_add(out, "public", sizeof("public"));
  buf_add(out, "t", sizeof("t"));
  buf_char(out, 'd');
  buf_be16(out, 2);
  write_column(out, "id", true);
  write_column(out, "v", false);
}

static void write_begin(Buf *out, uint64_t commit_lsn) {
  buf_char(out, 'B');
  buf_be64(out, commit_lsn);
  buf_be64(out, (uint64_t)SLOT_TIME_US);
  buf_be32(out, 700);
}

static void write_commit(Buf *out, uint64_t commit_lsn, uint64_t end_lsn) {
  buf_char(out, 'C');
  buf_char(out, 0);
  buf_be64(out, commit_lsn);
  buf_be64(out, end_lsn);
  buf_be64(out, (uint64_t)SLOT_TIME_US);
}

static void write_row(Buf *out, char mark, const char *id, const char *value) {
  buf_char(out, mark);
  buf_be16(out, 2);
  write_text(out, id);
  write_text(out, value);
}

static void write_change(Buf *out, char type) {
  buf_char(out, type);
  buf_be32(out, SLOT_TABLE);
}

/* ---- the slot ---- */

typedef struct SlotFrame {
  Str bytes;
  uint64_t until_lsn; /* sent on every connection until this is confirmed; 0: sent once */
  bool sent;
} SlotFrame;

typedef struct SlotStatus { /* as the reader reported it */
  uint64_t received_lsn, flushed_lsn;
  bool asks;
  int64_t at_us;
} SlotStatus;

static struct {
  SlotFrame frames[SLOT_FRAMES];
  SlotStatus statuses[SLOT_STATUSES];
  int frame_count, status_count, opened, closed;
  int64_t opened_us[64];
  uint64_t confirmed_lsn;
  uint64_t known_since_lsn; /* of the publication */
  int open_rc, start_rc;    /* what new connections meet */
  int write_rc;             /* what each status meets */
  int end_rc;               /* what the reader meets next, once */
  bool silent;              /* nothing is sent, not even a response to a status */
  char publication[64];     /* of the last start */
  Fiber *reader;            /* waits for frames, or NULL */
} slot;

static void slot_put(const Buf *bytes, uint64_t until_lsn) {
  char *copy = malloc(bytes->n);
  if (!copy || slot.frame_count == SLOT_FRAMES)
    die("no room for what the server sends");
  memcpy(copy, bytes->p, bytes->n);
  slot.frames[slot.frame_count++] = (SlotFrame){{copy, bytes->n}, until_lsn, false};
  fiber_wake(slot.reader);
}

static void slot_data(int n, uint64_t lsn, const Buf *message) {
  SCOPED_ARENA arena = arena_new();
  Buf frame = {.arena = arena};
  buf_char(&frame, 'w');
  buf_be64(&frame, lsn);
  buf_be64(&frame, lsn);
  buf_be64(&frame, (uint64_t)SLOT_TIME_US);
  buf_str(&frame, buf_view(message));
  slot_put(&frame, LSN(n + 1));
}

static void slot_end(int rc) {
  slot.end_rc = rc;
  fiber_wake(slot.reader);
}

static const SlotStatus *last_status(void) {
  static const SlotStatus none;
  return slot.status_count > 0 ? &slot.statuses[(slot.status_count - 1) % SLOT_STATUSES] : &none;
}

/* ---- what tests have it send ---- */

#define SLOT_MESSAGE(n, lsn, write)                                                                                    \
  do {                                                                                                                 \
    SCOPED_ARENA message_arena = arena_new();                                                                          \
    Buf message = {.arena = message_arena};                                                                            \
    write;                                                                                                             \
    slot_data(n, lsn, &message);                                                                                       \
  } while (0)

static void slot_begin(int n) {
  SLOT_MESSAGE(n, LSN(n), write_begin(&message, COMMIT_LSN(n)));
  SLOT_MESSAGE(n, 0, write_relation(&message));
}

/* Row k of transaction n: its id is "n.k". */
static void slot_insert(int n, int k) {
  char id[32];
  snprintf(id, sizeof(id), "%d.%d", n, k);
  SLOT_MESSAGE(n, LSN(n) + (uint64_t)(k % 0xf0), (write_change(&message, 'I'), write_row(&message, 'N', id, "value")));
}

static void slot_commit(int n) {
  SLOT_MESSAGE(n, LSN(n + 1), write_commit(&message, COMMIT_LSN(n), LSN(n + 1)));
}

static void slot_transaction(int n, int rows) {
  slot_begin(n);
  for (int k = 1; k <= rows; k++)
    slot_insert(n, k);
  slot_commit(n);
}

static void slot_keepalive(uint64_t lsn, bool reply) {
  SCOPED_ARENA arena = arena_new();
  Buf frame = {.arena = arena};
  buf_char(&frame, 'k');
  buf_be64(&frame, lsn);
  buf_be64(&frame, (uint64_t)SLOT_TIME_US);
  buf_char(&frame, reply);
  slot_put(&frame, 0);
}

/* ---- db/replication ---- */

struct Replication {
  int next;            /* frame */
  uint64_t behind_lsn; /* where it began */
  uint64_t sent_lsn;   /* up to where it has been sent */
};

int replication_open(const char *dsn, const char *application_name, Replication **ret) {
  (void)dsn, (void)application_name;
  CHECK_INT(slot.opened, slot.closed); /* one at a time */
  slot.opened_us[slot.opened++ % 64] = clock_now_us();
  *ret = calloc(1, sizeof(**ret));
  return slot.open_rc;
}

int replication_start(Replication *r, const char *name, const char *publication) {
  CHECK_STR(name, "the_slot");
  snprintf(slot.publication, sizeof(slot.publication), "%s", publication);
  r->behind_lsn = slot.confirmed_lsn;
  return slot.start_rc;
}

int replication_known_since(Replication *r, const char *publication, uint64_t *ret_lsn) {
  (void)r, (void)publication;
  *ret_lsn = slot.known_since_lsn;
  return E_OK;
}

static bool is_passed(const Replication *r, const SlotFrame *f) {
  return f->until_lsn ? f->until_lsn <= r->behind_lsn : f->sent;
}

static uint64_t number_at(const char *p) {
  uint64_t n = 0;
  for (int i = 0; i < 8; i++)
    n = n << 8 | (uint8_t)p[i];
  return n;
}

static int next_frame(Replication *r, Str *ret) {
  int rc = slot.end_rc;
  slot.end_rc = E_OK;
  while (r->next < slot.frame_count && is_passed(r, &slot.frames[r->next]))
    r->next++;
  if (rc < 0 || slot.silent || r->next == slot.frame_count)
    return rc;
  slot.frames[r->next].sent = true;
  *ret = slot.frames[r->next++].bytes;
  uint64_t lsn = ret->n > 17 ? number_at(ret->p + (ret->p[0] == 'w' ? 9 : 1)) : 0;
  r->sent_lsn = lsn > r->sent_lsn ? lsn : r->sent_lsn;
  return 1;
}

int replication_read(Replication *r, Str *ret, int64_t deadline_us) {
  int rc = next_frame(r, ret);
  if (rc != 0)
    return rc;
  slot.reader = fiber_current();
  rc = fiber_wait("the double of a slot", deadline_us);
  slot.reader = NULL;
  if (rc == E_TIMEOUT)
    return 0;
  TRY(rc);
  return next_frame(r, ret);
}

/* A status: what was received, stored and applied, the time, and whether a response is wanted. */
int replication_write(Replication *r, Str message) {
  if (slot.write_rc < 0)
    return slot.write_rc;
  CHECK_INT(message.n, 34);
  CHECK_INT(message.p[0], 'r');
  SlotStatus s = {number_at(message.p + 1), number_at(message.p + 9), message.p[33] == 1, clock_now_us()};
  CHECK_INT(number_at(message.p + 17), s.flushed_lsn);
  CHECK(s.flushed_lsn <= s.received_lsn);
  slot.statuses[slot.status_count++ % SLOT_STATUSES] = s;
  if (s.flushed_lsn > slot.confirmed_lsn)
    slot.confirmed_lsn = s.flushed_lsn;
  if (s.asks && !slot.silent)
    slot_keepalive(r->sent_lsn, false);
  return E_OK;
}

const char *replication_database(const Replication *r) {
  (void)r;
  return "the_database";
}

Str replication_error(const Replication *r) {
  (void)r;
  return STR("the double ended it");
}

void replication_close(Replication *r) {
  CHECK_INT(slot.opened, slot.closed + 1);
  slot.closed++;
  free(r);
}

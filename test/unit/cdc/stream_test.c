/* The stream against a slot's double: what it hands over, what it reports, when it gives a connection up. */
#include "cdc/stream.h"

#include "cdc/slot_double.c"

#define FALLBACK "the_fallback"

/* A handler that writes down what it gets: B begin, R table, c change, S end of a transaction, k idle, ? malformed,
 * | the connection's end, and ! the end of all. */
static struct {
  Stream *stream;
  Buf seen;
  int change_rc;     /* what the next change ends with, once */
  bool holds;        /* a change waits while this is set */
  int paused_rc;     /* how its wait ended */
  RecordSource last; /* where the last change stands */
} reader;

static void on_forget(void *arg) {
  (void)arg;
  buf_char(&reader.seen, '|');
}

static int on_begin(void *arg, uint64_t commit_lsn) {
  (void)arg;
  buf_printf(&reader.seen, "B%d ", (int)(commit_lsn >> 8));
  return E_OK;
}

static int on_table(void *arg, StreamTable *table) {
  (void)arg;
  buf_printf(&reader.seen, "R%.*s ", STR_FMT(table->relation.name));
  table->prepared = table;
  return E_OK;
}

static int on_change(void *arg, const StreamTable *table, char op, const RecordSource *at, const PgoTuple *before,
                     const PgoTuple *after) {
  (void)arg;
  CHECK(table->prepared == table);
  const PgoTuple *row = after ? after : before;
  reader.last = *at;
  buf_printf(&reader.seen, "%c%.*s ", op, STR_FMT(row ? row->cells[0].text : (Str){0}));
  while (reader.holds && reader.paused_rc == E_OK)
    reader.paused_rc = stream_pause(reader.stream, "the test holds it");
  int rc = reader.change_rc < 0 ? reader.change_rc : reader.paused_rc;
  reader.change_rc = E_OK;
  return rc;
}

static int on_malformed(void *arg, Str payload, int code) {
  (void)arg;
  buf_printf(&reader.seen, "?%c%d ", payload.p[0], code);
  return E_OK;
}

static void on_settled(void *arg, uint64_t lsn, int64_t commit_us) {
  (void)arg;
  buf_printf(&reader.seen, "%c%X ", commit_us ? 'S' : 'k', (unsigned)lsn);
}

static void on_ended(void *arg) {
  (void)arg;
  buf_char(&reader.seen, '!');
}

static const StreamHandler recorder = {.forget = on_forget,
                                       .begin = on_begin,
                                       .table = on_table,
                                       .change = on_change,
                                       .malformed = on_malformed,
                                       .settled = on_settled,
                                       .ended = on_ended};

static void open_stream(const char *fallback) {
  static StreamConfig config = {
      .dsn = "", .slot = "the_slot", .publication = "the_publication", .logger = "stream_test"};
  config.fallback = fallback;
  reader.stream = stream_new(&config, &recorder, NULL);
  pass(0);
}

static void close_stream(void) {
  stream_close(reader.stream);
  CHECK_INT(slot.closed, slot.opened);
  buf_free(&reader.seen);
}

static StreamStatus status(void) {
  StreamStatus found;
  stream_status(reader.stream, &found);
  return found;
}

/* What was seen since the last call. */
#define CHECK_SEEN(want)                                                                                               \
  do {                                                                                                                 \
    CHECK_STR(buf_view(&reader.seen), want);                                                                           \
    buf_clear(&reader.seen);                                                                                           \
  } while (0)

LOOP_TEST(changes_come_in_order_with_where_they_stand) {
  open_stream(NULL);
  slot_transaction(1, 2);
  slot_transaction(2, 1);
  pass(0);
  CHECK_SEEN("B1 Rt c1.1 c1.2 S200 B2 Rt c2.1 S300 ");
  CHECK_INT(reader.last.lsn, LSN(2) + 1);
  CHECK_INT(reader.last.last_commit_lsn, LSN(2));
  CHECK_INT(reader.last.xid, 700);
  CHECK_STR(reader.last.database, "the_database");
  CHECK_STR(slot.publication, "the_publication");
  close_stream();
}

LOOP_TEST(old_and_new_rows_and_truncates_are_handed_over) {
  open_stream(NULL);
  slot_begin(1);
  SLOT_MESSAGE(1, LSN(1), (write_change(&message, 'U'), write_row(&message, 'N', "a", "2")));
  SLOT_MESSAGE(1, LSN(1), (write_change(&message, 'D'), write_row(&message, 'K', "b", "")));
  SLOT_MESSAGE(1, LSN(1),
               (buf_char(&message, 'T'), buf_be32(&message, 1), buf_char(&message, 0), buf_be32(&message, SLOT_TABLE)));
  slot_commit(1);
  pass(0);
  CHECK_SEEN("B1 Rt ua db t S200 ");
  close_stream();
}

LOOP_TEST(only_what_was_confirmed_is_reported_as_stored) {
  open_stream(NULL);
  slot_transaction(1, 3);
  slot_transaction(2, 3);
  pass(5 * SECONDS);
  CHECK_INT(last_status()->received_lsn, LSN(3));
  CHECK_INT(last_status()->flushed_lsn, 0);
  CHECK_INT(status().lag_bytes, LSN(2));
  stream_confirm(reader.stream, LSN(2));
  pass(2 * SECONDS);
  CHECK_INT(last_status()->received_lsn, LSN(3));
  CHECK_INT(last_status()->flushed_lsn, LSN(2));
  CHECK_INT(status().lag_bytes, LSN(1));
  stream_confirm(reader.stream, LSN(1)); /* a position never goes back */
  pass(2 * SECONDS);
  CHECK_INT(last_status()->flushed_lsn, LSN(2));
  close_stream();
  CHECK_INT(slot.confirmed_lsn, LSN(2));
}

LOOP_TEST(the_last_confirmed_position_is_reported_when_the_stream_is_closed) {
  open_stream(NULL);
  slot_transaction(1, 1);
  pass(100 * MILLISECONDS);
  stream_confirm(reader.stream, LSN(2));
  close_stream();
  CHECK_INT(slot.confirmed_lsn, LSN(2));
}

LOOP_TEST(a_status_is_sent_every_second) {
  open_stream(NULL);
  slot_keepalive(LSN(1), false);
  pass(20 * SECONDS);
  CHECK(slot.status_count >= 19 && slot.status_count <= 21);
  close_stream();
}

LOOP_TEST(a_requested_status_is_sent_at_once) {
  open_stream(NULL);
  PASS_UNTIL(slot.status_count == 1);
  pass(100 * MILLISECONDS);
  slot_keepalive(LSN(1), false);
  pass(5 * MILLISECONDS);
  CHECK_INT(slot.status_count, 1);
  slot_keepalive(LSN(1), true);
  pass(5 * MILLISECONDS);
  CHECK_INT(slot.status_count, 2);
  CHECK_INT(last_status()->received_lsn, LSN(1));
  pass(500 * MILLISECONDS);
  CHECK_INT(slot.status_count, 2); /* one for each request */
  close_stream();
}

LOOP_TEST(an_idle_slot_is_settled_by_keepalives_but_not_within_a_transaction) {
  open_stream(NULL);
  slot_keepalive(LSN(1), false);
  slot_begin(2);
  slot_keepalive(LSN(3) + 8, false);
  slot_insert(2, 1);
  slot_commit(2);
  slot_keepalive(LSN(4), false);
  pass(0);
  CHECK_SEEN("k100 B2 Rt c2.1 S300 k400 ");
  close_stream();
}

LOOP_TEST(a_torn_transaction_comes_again_as_a_whole) {
  open_stream(NULL);
  slot_transaction(1, 1);
  pass(0);
  stream_confirm(reader.stream, LSN(2));
  pass(2 * SECONDS);
  slot_begin(2);
  slot_insert(2, 1);
  pass(0);
  slot_end(E_UNAVAILABLE);
  slot_insert(2, 2);
  slot_commit(2);
  PASS_UNTIL(slot.opened == 2);
  pass(0);
  CHECK_SEEN("B1 Rt c1.1 S200 B2 Rt c2.1 |B2 Rt c2.1 c2.2 S300 ");
  CHECK_INT(status().failures, 1);
  close_stream();
}

LOOP_TEST(a_keepalive_on_a_new_connection_is_not_within_the_torn_transaction) {
  open_stream(NULL);
  slot_begin(1);
  pass(0);
  slot_end(E_UNAVAILABLE);
  slot.confirmed_lsn = LSN(2); /* what is left of it does not come again */
  PASS_UNTIL(slot.opened == 2);
  slot_keepalive(LSN(2), false);
  pass(0);
  CHECK_SEEN("B1 Rt |k200 ");
  close_stream();
}

LOOP_TEST(a_server_that_responds_is_never_given_up) {
  open_stream(NULL);
  pass(100 * SECONDS);
  CHECK_INT(slot.opened, 1);
  CHECK(status().connected);
  close_stream();
}

LOOP_TEST(a_silent_server_is_asked_and_then_given_up) {
  open_stream(NULL);
  slot_keepalive(LSN(1), false);
  pass(0);
  slot.silent = true;
  int64_t asked_us = PASS_UNTIL(last_status()->asks);
  CHECK(asked_us > 4900 * MILLISECONDS && asked_us <= 6100 * MILLISECONDS);
  int64_t given_up_us = asked_us + PASS_UNTIL(slot.closed == 1);
  CHECK(given_up_us > REPLICATION_SILENCE_US && given_up_us <= REPLICATION_SILENCE_US + 1100 * MILLISECONDS);
  slot.silent = false;
  PASS_UNTIL(status().connected);
  CHECK_INT(status().failures, 1);
  close_stream();
}

LOOP_TEST(a_handler_that_waits_keeps_the_connection_and_stops_the_reading) {
  open_stream(NULL);
  reader.holds = true;
  slot_transaction(1, 2);
  pass(60 * SECONDS);
  CHECK_SEEN("B1 Rt c1.1 ");
  CHECK(slot.status_count >= 59 && slot.status_count <= 61);
  CHECK_INT(last_status()->flushed_lsn, 0);
  reader.holds = false;
  stream_wake(reader.stream);
  pass(0);
  CHECK_SEEN("c1.2 S200 ");
  CHECK_INT(slot.opened, 1); /* nobody read meanwhile, so it was no silence */
  close_stream();
}

LOOP_TEST(a_failing_server_is_retried_with_a_growing_backoff) {
  slot.open_rc = E_UNAVAILABLE;
  open_stream(NULL);
  pass(30 * SECONDS);
  CHECK_INT(status().failures, slot.opened);
  CHECK(!status().connected);
  int64_t full_us = 50 * MILLISECONDS;
  for (int i = 1; i < slot.opened && i < 64; i++) {
    int64_t gap_us = slot.opened_us[i] - slot.opened_us[i - 1];
    CHECK(gap_us >= full_us / 2 && gap_us <= full_us + 2 * VIRTUAL_STEP);
    full_us = full_us * 2 < 2 * SECONDS ? full_us * 2 : 2 * SECONDS;
  }
  CHECK(slot.opened >= 18 && slot.opened <= 40);
  slot.open_rc = E_OK;
  PASS_UNTIL(status().connected);
  pass(3 * SECONDS); /* it worked: the next retry is quick */
  int64_t ended_us = virtual_us;
  int opened = slot.opened;
  slot_end(E_UNAVAILABLE);
  PASS_UNTIL(slot.opened == opened + 1);
  CHECK(virtual_us - ended_us <= 52 * MILLISECONDS);
  close_stream();
}

LOOP_TEST(a_slot_that_another_process_reads_is_waited_for) {
  slot.start_rc = E_BUSY;
  open_stream(NULL);
  pass(10 * SECONDS);
  CHECK(status().waiting);
  CHECK_INT(status().failures, 0);
  CHECK(slot.opened >= 9 && slot.opened <= 12);
  slot.start_rc = E_OK;
  PASS_UNTIL(status().connected);
  CHECK(!status().waiting);
  close_stream();
}

LOOP_TEST(a_refusal_ends_the_reading_after_a_last_status) {
  open_stream(NULL);
  slot_transaction(1, 1);
  pass(0);
  stream_confirm(reader.stream, LSN(2));
  reader.change_rc = E_REFUSED;
  slot_transaction(2, 2);
  pass(60 * SECONDS);
  CHECK_SEEN("B1 Rt c1.1 S200 B2 Rt c2.1 |!");
  CHECK_INT(slot.opened, 1);
  CHECK_INT(slot.confirmed_lsn, LSN(2));
  CHECK(!status().connected);
  close_stream();
}

LOOP_TEST(a_handlers_error_begins_again_behind_what_is_confirmed) {
  open_stream(NULL);
  slot_transaction(1, 1);
  slot_transaction(2, 1);
  reader.change_rc = E_RANGE;
  PASS_UNTIL(slot.opened == 2);
  pass(0);
  CHECK_SEEN("B1 Rt c1.1 |B1 Rt c1.1 S200 B2 Rt c2.1 S300 ");
  stream_confirm(reader.stream, LSN(2));
  pass(2 * SECONDS);
  stream_fail(reader.stream);
  PASS_UNTIL(slot.opened == 3);
  pass(0);
  CHECK_SEEN("|B2 Rt c2.1 S300 ");
  CHECK_INT(status().failures, 1); /* the second was asked for */
  close_stream();
}

LOOP_TEST(a_failure_reported_while_the_handler_waits_ends_its_wait) {
  open_stream(NULL);
  reader.holds = true;
  slot_transaction(1, 1);
  pass(0);
  stream_fail(reader.stream);
  pass(0);
  CHECK_INT(reader.paused_rc, E_UNAVAILABLE);
  reader.holds = false;
  reader.paused_rc = E_OK;
  PASS_UNTIL(slot.opened == 2);
  pass(0);
  CHECK_SEEN("B1 Rt c1.1 |B1 Rt c1.1 S200 ");
  close_stream();
}

LOOP_TEST(what_cannot_be_decoded_goes_to_the_handler) {
  open_stream(NULL);
  SLOT_MESSAGE(1, LSN(1), buf_cstr(&message, "Inonsense"));
  SLOT_MESSAGE(1, LSN(1), (write_change(&message, 'I'), write_row(&message, 'N', "a", "b"))); /* no table yet */
  pass(0);
  char want[64];
  snprintf(want, sizeof(want), "?I%d ?I%d ", E_MALFORMED, E_NOT_FOUND);
  CHECK_SEEN(want);
  CHECK_INT(slot.opened, 1);
  close_stream();
}

LOOP_TEST(a_frame_of_another_protocol_ends_the_connection) {
  open_stream(NULL);
  slot_put(&(Buf){.p = (char[]){"xyz"}, .n = 3}, 0);
  PASS_UNTIL(slot.opened == 2);
  CHECK_INT(status().failures, 1);
  close_stream();
}

LOOP_TEST(what_is_older_than_the_publication_is_read_by_the_fallback) {
  slot.known_since_lsn = LSN(3);
  slot_transaction(1, 1);
  slot_transaction(2, 1);
  slot_transaction(3, 1);
  slot.end_rc = E_NOT_FOUND;
  open_stream(FALLBACK);
  PASS_UNTIL(slot.opened == 2);
  pass(0);
  CHECK_STR(slot.publication, FALLBACK);
  CHECK_SEEN("|B1 Rt c1.1 S200 B2 Rt c2.1 S300 ");
  pass(10 * SECONDS);
  CHECK_INT(slot.opened, 2); /* until all of it is stored, or it would be missing */
  stream_confirm(reader.stream, LSN(3));
  PASS_UNTIL(slot.opened == 3);
  pass(0);
  CHECK_STR(slot.publication, "the_publication");
  CHECK_SEEN("|B3 Rt c3.1 S400 ");
  close_stream();
}

LOOP_TEST(a_status_that_cannot_be_sent_ends_the_connection) {
  open_stream(NULL);
  pass(0);
  slot.write_rc = E_UNAVAILABLE;
  PASS_UNTIL(slot.closed == 1);
  slot.write_rc = E_OK;
  PASS_UNTIL(status().connected);
  CHECK(status().failures >= 1);
  close_stream();
}

/* The WAL source over the real stream and a slot's double: what a consumer is handed, and what is confirmed when it has
 * stored that. */
#include "cdc/envelope.h"
#include "cdc/wal.h"

#include "cdc/slot_double.c"

#define EVENTS_MAX 2000

/* A consumer that is done with a batch only when the test says so. */
static struct {
  Source *source;
  Fiber *fiber;
  char ids[EVENTS_MAX][16], positions[EVENTS_MAX][32];
  int event_count, batch_count, batch_events; /* batch_events: of the last batch */
  bool in_hand, may_be_done, ended;
} consumer;

static void see(const ChangeEvent *event) {
  SCOPED_ARENA arena = arena_new();
  Envelope e = {0};
  Str id = event->value;
  if (envelope_parse(arena, event->value, NULL, &e) == E_OK && e.after)
    id = json_get(e.after, STR("id"))->text;
  snprintf(consumer.ids[consumer.event_count], 16, "%.*s", STR_FMT(id));
  snprintf(consumer.positions[consumer.event_count++], 32, "%.*s", STR_FMT(event->position));
}

static void consume(void *arg) {
  (void)arg;
  ChangeBatch batch;
  while (consumer.source->next(consumer.source, &batch) == E_OK) {
    consumer.batch_count++;
    consumer.batch_events = batch.count;
    for (int i = 0; i < batch.count; i++)
      see(&batch.events[i]);
    consumer.in_hand = true;
    while (!consumer.may_be_done)
      if (fiber_wait("the test's word", FIBER_FOREVER) == E_CANCELED)
        break;
    if (!consumer.may_be_done)
      break; /* it ends with the batch in hand */
    consumer.may_be_done = consumer.in_hand = false;
    consumer.source->done(consumer.source);
  }
  consumer.source->close(consumer.source, 0);
  consumer.ended = true;
}

static void open_source(void) {
  consumer.source = wal_source_new(
      &(WalConfig){.dsn = "", .slot = "the_slot", .publication = "the_publication", .name = "the_prefix"});
  consumer.fiber = fiber_start("consumer", consume, NULL);
  pass(0);
}

static void close_source(void) {
  fiber_cancel(consumer.fiber);
  PASS_UNTIL(consumer.ended);
  CHECK_INT(slot.closed, slot.opened);
}

static void done(void) {
  CHECK(consumer.in_hand);
  consumer.may_be_done = true;
  fiber_wake(consumer.fiber);
  pass(0);
}

/* What the server learns within the time in which a status is due. */
static uint64_t confirmed(void) {
  pass(1100 * MILLISECONDS);
  return slot.confirmed_lsn;
}

static SourceStatus status(void) {
  SourceStatus found;
  consumer.source->status(consumer.source, &found);
  return found;
}

LOOP_TEST(a_batch_is_confirmed_when_it_is_done_and_not_before) {
  open_source();
  slot_transaction(1, 2);
  pass(0);
  CHECK_INT(consumer.event_count, 2);
  CHECK_STR(consumer.ids[0], "1.1");
  CHECK_STR(consumer.positions[0], "0/1F0 0");
  CHECK_STR(consumer.positions[1], "0/1F0 1");
  CHECK_INT(confirmed(), 0);
  CHECK(status().lag_bytes > 0);
  done();
  CHECK_INT(confirmed(), LSN(2));
  CHECK_INT(status().lag_bytes, 0);
  close_source();
}

/* The next batch is read while the consumer works on this one; to be done with this one says nothing of that. */
LOOP_TEST(what_is_read_ahead_is_not_confirmed_with_the_batch_before_it) {
  open_source();
  slot_transaction(1, 1);
  pass(0);
  slot_transaction(2, 1);
  slot_transaction(3, 1);
  CHECK_INT(confirmed(), 0);
  CHECK_INT(last_status()->received_lsn, LSN(4));
  done();
  CHECK_INT(confirmed(), LSN(2));
  CHECK_INT(consumer.batch_count, 2);
  CHECK_INT(consumer.event_count, 3);
  done();
  CHECK_INT(confirmed(), LSN(4));
  close_source();
}

LOOP_TEST(a_keepalive_moves_an_idle_slot_forward_only_when_nothing_is_in_flight) {
  open_source();
  slot_keepalive(LSN(1), false);
  CHECK_INT(confirmed(), LSN(1));
  slot_transaction(1, 1);
  pass(0);
  slot_keepalive(LSN(5), false);
  CHECK_INT(confirmed(), LSN(1));
  slot_begin(6);
  slot_insert(6, 1);
  done();
  CHECK_INT(confirmed(), LSN(2));
  CHECK_INT(consumer.batch_count, 1); /* not before its commit */
  slot_commit(6);
  pass(0);
  CHECK_INT(consumer.event_count, 2);
  slot_keepalive(LSN(8), false);
  CHECK_INT(confirmed(), LSN(2));
  done();
  CHECK_INT(confirmed(), LSN(8));
  close_source();
}

LOOP_TEST(a_torn_transaction_is_not_handed_over) {
  open_source();
  slot_begin(1);
  slot_insert(1, 1);
  pass(2 * SECONDS);
  CHECK_INT(consumer.event_count, 0);
  slot_end(E_UNAVAILABLE);
  PASS_UNTIL(slot.opened == 2);
  slot_insert(1, 2);
  slot_commit(1);
  pass(0);
  CHECK_INT(consumer.event_count, 2);
  CHECK_STR(consumer.ids[0], "1.1");
  CHECK_STR(consumer.ids[1], "1.2");
  done();
  CHECK_INT(confirmed(), LSN(2));
  close_source();
}

/* Its rows are stored, but the connection that brought them is gone, and a new one counts from what was confirmed. */
LOOP_TEST(a_batch_in_hand_when_the_connection_is_lost_comes_again_at_the_same_positions) {
  open_source();
  slot_transaction(1, 2);
  pass(0);
  slot_end(E_UNAVAILABLE);
  PASS_UNTIL(slot.opened == 2);
  done();
  CHECK_INT(consumer.event_count, 4);
  CHECK_INT(confirmed(), 0);
  for (int i = 0; i < 2; i++) {
    CHECK_STR(consumer.ids[i], consumer.ids[i + 2]);
    CHECK_STR(consumer.positions[i], consumer.positions[i + 2]);
  }
  done();
  CHECK_INT(confirmed(), LSN(2));
  close_source();
}

LOOP_TEST(a_transaction_larger_than_a_batch_is_cut_and_confirmed_with_its_last_part) {
  open_source();
  slot_transaction(1, 600);
  pass(0);
  CHECK_INT(consumer.event_count, 256);
  pass(100 * MILLISECONDS);
  CHECK(last_status()->received_lsn < LSN(2));
  done();
  CHECK_INT(consumer.event_count, 512);
  CHECK_INT(confirmed(), 0);
  done();
  CHECK_INT(consumer.event_count, 600);
  CHECK_INT(confirmed(), 0);
  done();
  CHECK_INT(confirmed(), LSN(2));
  for (int i = 0; i < 600; i++) {
    char id[16];
    snprintf(id, sizeof(id), "1.%d", i + 1);
    CHECK_STR(consumer.ids[i], id);
  }
  close_source();
}

/* Two batches: one with the consumer, one that is being filled. The server keeps the rest. */
LOOP_TEST(what_is_read_ahead_is_bounded) {
  open_source();
  slot_transaction(1, 1);
  pass(0);
  for (int n = 2; n <= 700; n++)
    slot_transaction(n, 1);
  pass(100 * MILLISECONDS);
  CHECK_INT(consumer.event_count, 1);
  CHECK_INT(confirmed(), 0);
  CHECK(last_status()->received_lsn < LSN(2 + 256 + 1));
  while (consumer.event_count < 700)
    done();
  done();
  CHECK_INT(confirmed(), LSN(701));
  CHECK_INT(consumer.batch_count, 4);
  close_source();
}

LOOP_TEST(what_cannot_be_decoded_is_handed_on_as_it_is) {
  open_source();
  slot_begin(1);
  SLOT_MESSAGE(1, LSN(1), buf_cstr(&message, "Inonsense"));
  slot_insert(1, 1);
  slot_commit(1);
  pass(0);
  CHECK_INT(consumer.event_count, 2);
  CHECK_STR(consumer.ids[0], "Inonsense");
  CHECK_STR(consumer.positions[0], "0/1F0 0");
  CHECK_STR(consumer.ids[1], "1.1");
  done();
  CHECK_INT(confirmed(), LSN(2));
  close_source();
}

LOOP_TEST(closed_with_a_batch_in_hand_it_is_not_confirmed) {
  open_source();
  slot_transaction(1, 1);
  pass(0);
  done();
  slot_transaction(2, 1);
  pass(0);
  CHECK(consumer.in_hand);
  close_source();
  CHECK_INT(slot.confirmed_lsn, LSN(2));
}

LOOP_TEST(the_lag_is_the_age_of_the_oldest_event_not_done) {
  open_source();
  CHECK(status().connected);
  CHECK_INT(status().lag_us, 0);
  slot_transaction(1, 1);
  pass(0);
  int64_t first_us = status().lag_us;
  pass(3 * SECONDS);
  CHECK_INT(status().lag_us - first_us, 3 * SECONDS);
  done();
  CHECK_INT(status().lag_us, 0);
  close_source();
}

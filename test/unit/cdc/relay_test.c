/* The relay over the real stream, between a slot's double and a broker's: what is published, and when PostgreSQL is
 * told that it may forget it. */
#include "cdc/catalog.h"
#include "cdc/kafka_producer.h"
#include "cdc/relay.h"
#include "metrics/metrics.h"

#include "cdc/slot_double.c"

#define RECORDS_MAX   20000
#define PRODUCERS_MAX 8

/* ---- the broker, in the place of kafka_producer ---- */

typedef struct Sent {
  char topic[48], key[48], header[48], header_value[64]; /* header: the first one's name */
  char id[16];                                           /* of the row in the value */
  char op;                                               /* 0: a tombstone */
  int partition, producer;
  uint64_t lsn;
} Sent;

struct KafkaProducer {
  KafkaProducerConfig config;
  KafkaProgress progress;
  bool closed;
};

static struct {
  KafkaProducer producers[PRODUCERS_MAX];
  int producer_count;
  Sent sent[RECORDS_MAX];
  int sent_count;
  int produce_rc; /* what the next record meets, once */
  bool down;      /* what each record meets: E_BUSY */
} broker;

static KafkaProducer *producer(void) {
  return &broker.producers[broker.producer_count - 1];
}

KafkaProducer *kafka_producer_new(const KafkaProducerConfig *config) {
  if (broker.producer_count == PRODUCERS_MAX)
    die("too many producers");
  broker.producers[broker.producer_count++] = (KafkaProducer){.config = *config, .progress.connected = true};
  return producer();
}

static void copy_text(char *out, size_t size, Str text) {
  snprintf(out, size, "%.*s", STR_FMT(text));
}

/* What stands in the value behind a mark, up to the next quote or comma. */
static void copy_after(char *out, size_t size, Str value, const char *mark) {
  const char *end = value.p + value.n, *at = value.p ? memmem(value.p, value.n, mark, strlen(mark)) : NULL;
  Str found = {at ? at + strlen(mark) : "", 0};
  while (at && found.p + found.n < end && !strchr("\",}", found.p[found.n]))
    found.n++;
  copy_text(out, size, found);
}

int kafka_produce(KafkaProducer *p, const KafkaRecord *record) {
  int rc = broker.down ? E_BUSY : broker.produce_rc;
  broker.produce_rc = E_OK;
  CHECK(!p->closed);
  if (p->progress.failed)
    return E_UNAVAILABLE;
  TRY(rc);
  Sent *s = &broker.sent[broker.sent_count++];
  char text[32];
  *s = (Sent){.partition = record->partition, .producer = broker.producer_count};
  copy_text(s->topic, sizeof(s->topic), str_from(record->topic));
  copy_text(s->key, sizeof(s->key), record->key);
  copy_after(s->id, sizeof(s->id), record->value, "\"id\":\"");
  copy_after(text, sizeof(text), record->value, "\"op\":\"");
  s->op = text[0];
  copy_after(text, sizeof(text), record->value, "\"lsn\":");
  s->lsn = strtoull(text, NULL, 10);
  if (record->header_count > 0) {
    copy_text(s->header, sizeof(s->header), record->headers[0].name);
    copy_text(s->header_value, sizeof(s->header_value), record->headers[0].value);
  }
  p->progress.produced++;
  return E_OK;
}

void kafka_producer_progress(const KafkaProducer *p, KafkaProgress *ret) {
  *ret = p->progress;
}

Str kafka_producer_error(const KafkaProducer *p) {
  (void)p;
  return STR("the double refused it");
}

int kafka_producer_wait(KafkaProducer *p, int64_t n, int64_t deadline_us) {
  while (p->progress.confirmed < n && clock_now_us() < deadline_us)
    TRY(fiber_sleep(VIRTUAL_STEP));
  return p->progress.confirmed < n ? E_TIMEOUT : E_OK;
}

int kafka_producer_flush(KafkaProducer *p, int64_t deadline_us) {
  return kafka_producer_wait(p, p->progress.produced, deadline_us);
}

void kafka_producer_close(KafkaProducer *p, int64_t deadline_us) {
  (void)deadline_us;
  p->closed = true;
}

/* Up to the n-th record of the present producer. */
static void broker_confirms(int64_t n) {
  CHECK(n <= producer()->progress.produced);
  producer()->progress.confirmed = n;
  producer()->config.on_progress(producer()->config.arg);
  pass(0);
}

static void broker_fails(int64_t n) {
  producer()->progress.failed = n;
  producer()->config.on_progress(producer()->config.arg);
  pass(0);
}

/* ---- the catalog ---- */

static struct {
  int read_rc, check_rc;
  int checks;
} catalog;

int catalog_read(Db *db, Arena *arena, const PgoRelation *relation, RecordFacts *ret) {
  (void)db, (void)arena, (void)relation;
  static const Str key[] = {STR("id")};
  TRY(catalog.read_rc);
  *ret = (RecordFacts){.key = key, .key_count = 1};
  return E_OK;
}

int catalog_check(Db *db, Arena *arena, const char *publication, const RecordStyle *style, Str *error) {
  (void)db, (void)arena, (void)publication, (void)style;
  catalog.checks++;
  if (catalog.check_rc == E_FIELD)
    *error = STR("a column that cannot be sent");
  return catalog.check_rc;
}

/* ---- the relay ---- */

static struct {
  Relay *relay;
  int refusals;
  bool closed;
} run;

static void on_refused(void *arg) {
  (void)arg;
  run.refusals++;
}

static RelayConfig config = {.dsn = "",
                             .slot = "the_slot",
                             .publication = "the_publication",
                             .brokers = "the_broker",
                             .style = {.prefix = {"shop", 4}},
                             .tombstones = true,
                             .in_flight_bytes = 1 << 30,
                             .refused = on_refused};

static void open_relay(void) {
  metrics_init(1);
  relay_prepare();
  run.relay = relay_new(&config);
  pass(0);
}

static void close_relay(void *arg) {
  (void)arg;
  relay_close(run.relay, clock_now_us() + 5 * SECONDS, clock_now_us() + 7 * SECONDS);
  run.closed = true;
}

/* In a fiber of its own, since this one moves the clock. */
static void end_relay(void) {
  fiber_start("close", close_relay, NULL);
  PASS_UNTIL(run.closed);
  CHECK_INT(slot.closed, slot.opened);
  CHECK(producer()->closed);
}

static RelayStatus status(void) {
  RelayStatus found;
  relay_status(run.relay, &found);
  return found;
}

/* What the server learns within the time in which a status is due. */
static uint64_t confirmed(void) {
  pass(1100 * MILLISECONDS);
  return slot.confirmed_lsn;
}

#define CHECK_SENT(n, want_op, want_key)                                                                               \
  do {                                                                                                                 \
    CHECK_INT(broker.sent[n].op, want_op);                                                                             \
    CHECK_STR(broker.sent[n].key, want_key);                                                                           \
  } while (0)

LOOP_TEST(a_transaction_is_confirmed_when_the_broker_has_all_of_its_records) {
  open_relay();
  slot_transaction(1, 3);
  slot_transaction(2, 2);
  pass(0);
  CHECK_INT(broker.sent_count, 5);
  CHECK_STR(broker.sent[0].topic, "shop.public.t");
  CHECK_SENT(0, 'c', "{\"id\":\"1.1\"}");
  CHECK_SENT(4, 'c', "{\"id\":\"2.2\"}");
  CHECK_INT(confirmed(), 0);
  CHECK_INT(last_status()->received_lsn, LSN(3));
  broker_confirms(2);
  CHECK_INT(confirmed(), 0);
  broker_confirms(3);
  CHECK_INT(confirmed(), LSN(2));
  broker_confirms(4);
  CHECK_INT(confirmed(), LSN(2));
  CHECK_INT(status().in_flight, 1);
  broker_confirms(5);
  CHECK_INT(confirmed(), LSN(3));
  CHECK_INT(status().in_flight_bytes, 0);
  end_relay();
}

LOOP_TEST(a_transaction_whose_end_has_not_come_is_not_confirmed) {
  open_relay();
  slot_begin(1);
  slot_insert(1, 1);
  pass(0);
  CHECK_INT(broker.sent_count, 1);
  broker_confirms(1);
  CHECK_INT(confirmed(), 0);
  CHECK(status().lag_us > 0);
  slot_commit(1);
  CHECK_INT(confirmed(), LSN(2));
  CHECK_INT(status().lag_us, 0);
  end_relay();
}

LOOP_TEST(an_idle_slot_moves_forward_but_not_past_what_is_in_flight) {
  open_relay();
  slot_keepalive(LSN(1), false);
  CHECK_INT(confirmed(), LSN(1));
  slot_transaction(1, 1);
  slot_keepalive(LSN(4), false);
  CHECK_INT(confirmed(), LSN(1));
  slot_transaction(4, 1);
  pass(0);
  broker_confirms(1);
  CHECK_INT(confirmed(), LSN(4));
  broker_confirms(2);
  CHECK_INT(confirmed(), LSN(5));
  end_relay();
}

LOOP_TEST(a_failed_record_brings_a_new_producer_behind_the_last_confirmed_transaction) {
  open_relay();
  slot_transaction(1, 1);
  slot_transaction(2, 2);
  slot_transaction(3, 1);
  pass(0);
  broker_confirms(2);
  CHECK_INT(confirmed(), LSN(2));
  broker_fails(3);
  PASS_UNTIL(slot.opened == 2);
  pass(0);
  CHECK_INT(broker.producer_count, 2);
  CHECK(broker.producers[0].closed);
  CHECK_INT(status().kafka_errors, 1);
  CHECK_INT(status().postgres_errors, 0);
  CHECK_SENT(4, 'c', "{\"id\":\"2.1\"}");
  CHECK_INT(broker.sent[4].producer, 2);
  CHECK_INT(confirmed(), LSN(2));
  for (int64_t n = 1; n <= 3; n++)
    broker_confirms(n);
  CHECK_INT(confirmed(), LSN(4));
  CHECK_INT(broker.sent_count, 7);
  CHECK_SENT(6, 'c', "{\"id\":\"3.1\"}");
  end_relay();
}

/* Which record of a batch the broker refuses is not known; alone, each goes that can. */
LOOP_TEST(what_stands_in_a_refused_batch_is_sent_one_by_one) {
  open_relay();
  slot_transaction(1, 4);
  pass(0);
  CHECK_INT(broker.sent_count, 4);
  broker_fails(1);
  PASS_UNTIL(slot.opened == 2);
  slot_transaction(2, 3);
  for (int i = 1; i <= 4; i++) {
    pass(0);
    CHECK_INT(producer()->progress.produced, i);
    broker_confirms(i);
  }
  pass(0);
  CHECK_INT(producer()->progress.produced, 7);
  end_relay();
}

LOOP_TEST(confirmations_after_a_lost_connection_confirm_nothing_on_the_next) {
  open_relay();
  slot_transaction(1, 2);
  pass(0);
  slot_end(E_UNAVAILABLE);
  PASS_UNTIL(slot.opened == 2);
  pass(0);
  CHECK_INT(broker.producer_count, 1);
  CHECK_INT(broker.sent_count, 4);
  broker_confirms(2); /* of the first connection: those of the second are still in flight */
  CHECK_INT(confirmed(), 0);
  CHECK(status().lag_us > 0);
  broker_confirms(4);
  CHECK_INT(confirmed(), LSN(2));
  end_relay();
}

LOOP_TEST(what_is_in_flight_is_bounded_in_bytes) {
  config.in_flight_bytes = 2000;
  open_relay();
  slot_transaction(1, 60);
  pass(100 * MILLISECONDS);
  int first = broker.sent_count;
  CHECK(first > 1 && first < 20);
  CHECK(status().in_flight_bytes <= 2000);
  broker_confirms(1);
  pass(0);
  CHECK_INT(broker.sent_count, first + 1);
  while (broker.sent_count < 60)
    broker_confirms(producer()->progress.produced);
  broker_confirms(60);
  CHECK_INT(confirmed(), LSN(2));
  end_relay();
}

LOOP_TEST(a_record_larger_than_the_bound_goes_alone) {
  config.in_flight_bytes = 10;
  open_relay();
  slot_transaction(1, 2);
  pass(100 * MILLISECONDS);
  CHECK_INT(broker.sent_count, 1);
  broker_confirms(1);
  CHECK_INT(broker.sent_count, 2);
  broker_confirms(2);
  CHECK_INT(confirmed(), LSN(2));
  end_relay();
}

LOOP_TEST(what_is_in_flight_is_bounded_in_records) {
  open_relay();
  slot_transaction(1, 16500);
  pass(100 * MILLISECONDS);
  CHECK_INT(broker.sent_count, 16384);
  CHECK_INT(status().in_flight, 16384);
  broker_confirms(16384);
  CHECK_INT(broker.sent_count, 16500);
  broker_confirms(16500);
  CHECK_INT(confirmed(), LSN(2));
  end_relay();
}

/* More transactions in flight than are remembered one by one: confirmed later, never too soon. */
LOOP_TEST(many_small_transactions_are_never_confirmed_too_soon) {
  enum { TRANSACTIONS = 1500 };
  open_relay();
  for (int n = 1; n <= TRANSACTIONS; n++)
    slot_transaction(n, 1);
  pass(0);
  CHECK_INT(broker.sent_count, TRANSACTIONS);
  for (int n = 100; n < TRANSACTIONS; n += 100) {
    broker_confirms(n);
    CHECK(confirmed() <= LSN(n + 1));
    CHECK(slot.confirmed_lsn == LSN(n + 1) || n > 1000);
  }
  broker_confirms(TRANSACTIONS);
  CHECK_INT(confirmed(), LSN(TRANSACTIONS + 1));
  end_relay();
}

LOOP_TEST(a_full_producer_is_waited_for) {
  open_relay();
  broker.down = true;
  slot_transaction(1, 2);
  pass(3 * SECONDS);
  CHECK_INT(broker.sent_count, 0);
  CHECK_INT(slot.opened, 1);
  broker.down = false;
  PASS_UNTIL(broker.sent_count == 2);
  CHECK_SENT(0, 'c', "{\"id\":\"1.1\"}");
  broker_confirms(2);
  CHECK_INT(confirmed(), LSN(2));
  end_relay();
}

LOOP_TEST(a_producer_that_takes_nothing_any_more_is_replaced) {
  open_relay();
  slot_transaction(1, 1);
  pass(0);
  producer()->progress.failed = 2; /* nobody was told yet */
  slot_transaction(2, 1);
  PASS_UNTIL(broker.producer_count == 2);
  PASS_UNTIL(broker.sent_count == 3);
  CHECK_SENT(1, 'c', "{\"id\":\"1.1\"}");
  CHECK_SENT(2, 'c', "{\"id\":\"2.1\"}");
  broker_confirms(2);
  CHECK_INT(confirmed(), LSN(3));
  end_relay();
}

/* ---- what cannot be published ---- */

static void check_refused(const char *reason) {
  PASS_UNTIL(run.refusals == 1);
  CHECK(relay_refusal(run.relay).p && strstr(relay_refusal(run.relay).p, reason));
  int opened = slot.opened;
  pass(30 * SECONDS);
  CHECK_INT(slot.opened, opened);
  CHECK_INT(run.refusals, 1);
  end_relay();
}

LOOP_TEST(a_record_too_large_is_refused_when_all_before_it_is_confirmed) {
  open_relay();
  slot_transaction(1, 1);
  pass(0);
  broker.produce_rc = E_TOO_LARGE;
  slot_transaction(2, 2);
  pass(1 * SECONDS);
  CHECK_INT(run.refusals, 0); /* first the broker may confirm what it has */
  broker_confirms(1);
  CHECK_INT(broker.sent_count, 1);
  check_refused("larger than Kafka takes");
  CHECK_INT(slot.confirmed_lsn, LSN(2));
}

LOOP_TEST(a_refusal_does_not_wait_for_a_broker_without_end) {
  open_relay();
  slot_transaction(1, 1);
  pass(0);
  broker.produce_rc = E_TOO_LARGE;
  slot_transaction(2, 1);
  int64_t waited_us = PASS_UNTIL(run.refusals == 1);
  CHECK(waited_us > 4 * SECONDS && waited_us < 7 * SECONDS);
  check_refused("larger than Kafka takes");
  CHECK_INT(slot.confirmed_lsn, 0);
}

LOOP_TEST(a_message_that_cannot_be_decoded_is_refused) {
  open_relay();
  SLOT_MESSAGE(1, LSN(1), buf_cstr(&message, "Inonsense"));
  check_refused("a message of type 0x49 cannot be decoded: malformed");
}

LOOP_TEST(a_table_with_a_column_that_cannot_be_sent_is_refused_before_anything_is_read) {
  catalog.check_rc = E_FIELD;
  open_relay();
  check_refused("a column that cannot be sent");
  CHECK_INT(slot.opened, 0);
}

LOOP_TEST(a_catalog_that_cannot_be_read_is_retried) {
  catalog.check_rc = E_UNAVAILABLE;
  open_relay();
  pass(5 * SECONDS);
  CHECK(catalog.checks >= 5 && catalog.checks <= 7);
  CHECK_INT(slot.opened, 0);
  catalog.check_rc = E_NOT_FOUND; /* no table yet */
  pass(3 * SECONDS);
  CHECK_INT(slot.opened, 0);
  catalog.check_rc = E_OK;
  PASS_UNTIL(slot.opened == 1);
  end_relay();
}

LOOP_TEST(a_table_whose_facts_cannot_be_read_begins_again) {
  catalog.read_rc = E_UNAVAILABLE;
  open_relay();
  slot_transaction(1, 1);
  PASS_UNTIL(slot.opened >= 3);
  CHECK_INT(broker.sent_count, 0);
  catalog.read_rc = E_OK;
  PASS_UNTIL(broker.sent_count == 1);
  end_relay();
}

/* ---- the records ---- */

static void change_row(int n, char type, const char *old_id, const char *new_id) {
  slot_begin(n);
  if (type == 'U')
    SLOT_MESSAGE(
        n, LSN(n),
        (write_change(&message, 'U'), write_row(&message, 'K', old_id, ""), write_row(&message, 'N', new_id, "value")));
  else
    SLOT_MESSAGE(n, LSN(n), (write_change(&message, 'D'), write_row(&message, 'K', old_id, "")));
  slot_commit(n);
  pass(0);
}

LOOP_TEST(a_delete_is_followed_by_a_tombstone) {
  open_relay();
  change_row(1, 'D', "a", NULL);
  CHECK_INT(broker.sent_count, 2);
  CHECK_SENT(0, 'd', "{\"id\":\"a\"}");
  CHECK_SENT(1, 0, "{\"id\":\"a\"}");
  broker_confirms(1);
  CHECK_INT(confirmed(), 0); /* it is a record of the transaction, too */
  broker_confirms(2);
  CHECK_INT(confirmed(), LSN(2));
  end_relay();
}

LOOP_TEST(no_tombstones_where_none_are_wanted) {
  config.tombstones = false;
  open_relay();
  change_row(1, 'D', "a", NULL);
  CHECK_INT(broker.sent_count, 1);
  CHECK_SENT(0, 'd', "{\"id\":\"a\"}");
  broker_confirms(1);
  end_relay();
}

LOOP_TEST(a_changed_key_is_a_delete_under_the_old_and_a_create_under_the_new_one) {
  open_relay();
  change_row(1, 'U', "a", "b");
  CHECK_INT(broker.sent_count, 3);
  CHECK_SENT(0, 'd', "{\"id\":\"a\"}");
  CHECK_STR(broker.sent[0].header, "__debezium.newkey");
  CHECK(strstr(broker.sent[0].header_value, "\"b\"") != NULL);
  CHECK_SENT(1, 0, "{\"id\":\"a\"}");
  CHECK_SENT(2, 'c', "{\"id\":\"b\"}");
  CHECK_STR(broker.sent[2].header, "__debezium.oldkey");
  CHECK(strstr(broker.sent[2].header_value, "\"a\"") != NULL);
  broker_confirms(3);
  CHECK_INT(confirmed(), LSN(2));
  end_relay();
}

LOOP_TEST(an_update_under_the_same_key_is_one_record) {
  open_relay();
  change_row(1, 'U', "a", "a");
  CHECK_INT(broker.sent_count, 1);
  CHECK_SENT(0, 'u', "{\"id\":\"a\"}");
  broker_confirms(1);
  end_relay();
}

LOOP_TEST(a_created_rows_trace_column_becomes_a_header) {
  config.style.trace_column = STR("v");
  open_relay();
  slot_transaction(1, 1);
  pass(0);
  CHECK_STR(broker.sent[0].header, "traceparent");
  CHECK_STR(broker.sent[0].header_value, "value");
  broker_confirms(1);
  end_relay();
}

static void truncate_table(int n) {
  slot_begin(n);
  SLOT_MESSAGE(n, LSN(n),
               (buf_char(&message, 'T'), buf_be32(&message, 1), buf_char(&message, 0), buf_be32(&message, SLOT_TABLE)));
  slot_commit(n);
  pass(0);
}

LOOP_TEST(truncates_are_not_published_where_they_are_not_wanted) {
  open_relay();
  truncate_table(1);
  CHECK_INT(broker.sent_count, 0);
  CHECK_INT(confirmed(), LSN(2));
  end_relay();
}

LOOP_TEST(truncates_are_published_where_they_are_wanted) {
  config.truncates = true;
  open_relay();
  truncate_table(1);
  CHECK_INT(broker.sent_count, 1);
  CHECK_SENT(0, 't', "");
  broker_confirms(1);
  end_relay();
}

LOOP_TEST(heartbeats_are_sent_at_their_interval_and_confirm_nothing) {
  config.heartbeat_us = 2 * SECONDS;
  open_relay();
  pass(9 * SECONDS);
  CHECK_INT(broker.sent_count, 4);
  CHECK_STR(broker.sent[0].topic, "__debezium-heartbeat.shop");
  CHECK_STR(broker.sent[0].key, "{\"serverName\":\"shop\"}");
  CHECK_INT(broker.sent[0].partition, 0);
  broker_confirms(4);
  CHECK_INT(slot.confirmed_lsn, 0);
  broker.down = true;
  pass(4 * SECONDS);
  broker.down = false;
  CHECK_INT(broker.sent_count, 4); /* without room it is left out */
  pass(2 * SECONDS);
  CHECK_INT(broker.sent_count, 5);
  broker_confirms(5);
  end_relay();
}

/* ---- the end ---- */

LOOP_TEST(the_end_finishes_the_transaction_in_work_and_confirms_it) {
  open_relay();
  slot_begin(1);
  slot_insert(1, 1);
  pass(0);
  broker_confirms(1);
  fiber_start("close", close_relay, NULL);
  pass(1 * SECONDS);
  CHECK(!run.closed);
  slot_insert(1, 2);
  slot_commit(1);
  slot_transaction(2, 1);
  pass(100 * MILLISECONDS);
  CHECK_INT(broker.sent_count, 2); /* nothing new is begun */
  CHECK(!run.closed);
  broker_confirms(2);
  PASS_UNTIL(run.closed);
  CHECK_INT(slot.confirmed_lsn, LSN(2));
}

LOOP_TEST(the_end_waits_for_the_broker_until_the_deadline) {
  open_relay();
  slot_transaction(1, 1);
  pass(0);
  fiber_start("close", close_relay, NULL);
  int64_t took_us = PASS_UNTIL(run.closed);
  CHECK(took_us > 4 * SECONDS && took_us < 6 * SECONDS);
  CHECK_INT(slot.confirmed_lsn, 0);
}

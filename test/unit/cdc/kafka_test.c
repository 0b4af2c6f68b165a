/* The Kafka source and producer against librdkafka's own mock of a cluster. */
#include "cdc/kafka_consumer.h"
#include "cdc/kafka_producer.h"

#include "unit/until.h"

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <string.h>

#if defined(__has_feature)
#define HAS_FEATURE(x) __has_feature(x)
#else
#define HAS_FEATURE(x) 0
#endif
#if defined(__SANITIZE_THREAD__) || HAS_FEATURE(thread_sanitizer)

TEST(kafka) {
  unit_skip("the thread sanitizer does not know the C11 threads that librdkafka makes");
}

#else

#define TOPIC            "postgres.billing.history_billings"
#define PRODUCE          0 /* request types, as the protocol numbers them */
#define COMMIT           8
#define HEARTBEAT        12
#define INIT_PRODUCER_ID 22
#define NUMBERS_MAX      4000

static rd_kafka_mock_cluster_t *cluster;
static const char *brokers;
static rd_kafka_t *mock; /* the client that the cluster lives in */

static void start_cluster(int partitions) {
  char error[256];
  mock = rd_kafka_new(RD_KAFKA_PRODUCER, rd_kafka_conf_new(), error, sizeof(error));
  cluster = rd_kafka_mock_cluster_new(mock, 1);
  if (!cluster || rd_kafka_mock_topic_create(cluster, TOPIC, partitions, 1) != RD_KAFKA_RESP_ERR_NO_ERROR)
    die("no mock of a Kafka cluster");
  brokers = rd_kafka_mock_cluster_bootstraps(cluster);
}

static void end_cluster(void) {
  rd_kafka_mock_cluster_destroy(cluster);
  rd_kafka_destroy(mock);
}

/* A test with a cluster of its own, whose topic has so many partitions. */
#define KAFKA_TEST(test_name, partitions)                                                                              \
  static void with_cluster_##test_name(void);                                                                          \
  LOOP_TEST(test_name) {                                                                                               \
    start_cluster(partitions);                                                                                         \
    with_cluster_##test_name();                                                                                        \
    end_cluster();                                                                                                     \
  }                                                                                                                    \
  static void with_cluster_##test_name(void)

static KafkaProducer *new_producer(void) {
  return kafka_producer_new(&(KafkaProducerConfig){.brokers = brokers});
}

static Source *new_source(void) {
  return kafka_source_new(&(KafkaConfig){.brokers = brokers, .topic = TOPIC, .group = "notification"});
}

static KafkaRecord numbered(int partition, int number, char text[16]) {
  snprintf(text, 16, "%d", number);
  return (KafkaRecord){.topic = TOPIC, .partition = partition, .value = str_from(text)};
}

static void produce_numbers(int first, int count, int partitions) {
  KafkaProducer *p = new_producer();
  for (int i = first; i < first + count; i++) {
    char text[16];
    KafkaRecord record = numbered(i % partitions, i, text);
    CHECK_INT(kafka_produce(p, &record), E_OK);
  }
  CHECK_INT(kafka_producer_flush(p, clock_now_us() + 30 * SECONDS), E_OK);
  kafka_producer_close(p, clock_now_us() + 5 * SECONDS);
}

static KafkaProgress progress_of(const KafkaProducer *p) {
  KafkaProgress progress;
  kafka_producer_progress(p, &progress);
  return progress;
}

static SourceStatus status_of(const Source *s) {
  SourceStatus status;
  s->status(s, &status);
  return status;
}

/* ---- the producer ---- */

static int progressed;

static void count_progress(void *arg) {
  ++*(int *)arg;
}

KAFKA_TEST(records_go_where_java_would_send_them_and_null_stays_null, 7) {
  /* Keys and their murmur2 hashes as the tests of Kafka's own Java client have them. */
  static const struct {
    const char *key;
    int32_t hash;
  } known[] = {{"21", -973932308},
               {"foobar", -790332482},
               {"a-little-bit-long-string", -985981536},
               {"a-little-bit-longer-string", -1486304829},
               {"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971},
               {"abc", 479470107}};
  enum { KEYS = sizeof(known) / sizeof(known[0]) };
  KafkaProducer *p =
      kafka_producer_new(&(KafkaProducerConfig){.brokers = brokers, .on_progress = count_progress, .arg = &progressed});
  const KafkaHeader headers[] = {{STR("__debezium.newkey"), STR("{}")}, {STR("empty"), STR("")}, {STR("null"), {0}}};
  for (int i = 0; i < KEYS; i++) {
    KafkaRecord record = {.topic = TOPIC,
                          .partition = KAFKA_BY_KEY,
                          .key = str_from(known[i].key),
                          .value = i == 0 ? (Str){0} : str_from(known[i].key),
                          .headers = headers,
                          .header_count = i == 1 ? 3 : 0};
    CHECK_INT(kafka_produce(p, &record), E_OK);
  }
  CHECK_INT(progress_of(p).produced, KEYS);
  CHECK_INT(kafka_producer_flush(p, clock_now_us() + 10 * SECONDS), E_OK);
  CHECK_INT(progress_of(p).confirmed, KEYS);
  CHECK_INT(progress_of(p).failed, 0);
  CHECK(progressed > 0);
  kafka_producer_close(p, clock_now_us() + 5 * SECONDS);

  Source *s = new_source();
  for (int seen = 0; seen < KEYS;) {
    ChangeBatch batch = {0};
    CHECK_INT(s->next(s, &batch), E_OK);
    for (int i = 0; i < batch.count; i++, seen++) {
      Str rest = batch.events[i].position, value = batch.events[i].value;
      CHECK_STR(str_cut(&rest, '/'), TOPIC);
      int64_t partition = -1;
      CHECK_INT(str_to_int(str_cut(&rest, '/'), &partition), E_OK);
      int k = 0;
      while (k < KEYS && !(value.p ? str_eq(value, str_from(known[k].key)) : k == 0))
        k++;
      if (CHECK(k < KEYS))
        CHECK_INT(partition, (known[k].hash & 0x7fffffff) % 7);
    }
    s->done(s);
  }
  s->close(s, clock_now_us() + 5 * SECONDS);
}

KAFKA_TEST(a_record_that_never_can_be_written_fails_for_good, 1) {
  KafkaProducer *p = new_producer();
  char text[16];
  KafkaRecord record = numbered(0, 1, text);
  CHECK_INT(kafka_produce(p, &record), E_OK);
  CHECK_INT(kafka_producer_flush(p, clock_now_us() + 10 * SECONDS), E_OK);
  char *large = calloc(1, 2 << 20);
  record.value = (Str){large, 2 << 20};
  CHECK_INT(kafka_produce(p, &record), E_TOO_LARGE);
  free(large);
  record = numbered(7, 2, text);
  CHECK_INT(kafka_produce(p, &record), E_NOT_FOUND);
  CHECK_INT(progress_of(p).produced, 1);

  rd_kafka_mock_push_request_errors(cluster, PRODUCE, 1, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
  record = numbered(0, 3, text);
  CHECK_INT(kafka_produce(p, &record), E_OK);
  CHECK_INT(kafka_producer_flush(p, clock_now_us() + 10 * SECONDS), E_UNAVAILABLE);
  CHECK_INT(progress_of(p).confirmed, 1);
  CHECK_INT(progress_of(p).failed, 2);
  CHECK_INT(kafka_produce(p, &record), E_UNAVAILABLE);
  CHECK_INT(kafka_producer_wait(p, 1, clock_now_us() + SECONDS), E_OK);
  CHECK(kafka_producer_error(p).n > 0);
  kafka_producer_close(p, clock_now_us() + 5 * SECONDS);
}

KAFKA_TEST(passing_errors_are_tried_again, 2) {
  KafkaProducer *p = new_producer();
  rd_kafka_mock_push_request_errors(cluster, PRODUCE, 3, RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
                                    RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT);
  for (int i = 0; i < 1000; i++) {
    char text[16];
    KafkaRecord record = numbered(i % 2, i, text);
    CHECK_INT(kafka_produce(p, &record), E_OK);
  }
  CHECK_INT(kafka_producer_flush(p, clock_now_us() + 30 * SECONDS), E_OK);
  CHECK_INT(progress_of(p).confirmed, 1000);
  kafka_producer_close(p, clock_now_us() + 5 * SECONDS);
}

KAFKA_TEST(a_producer_that_gets_no_identity_has_failed_before_its_first_record, 1) {
  rd_kafka_mock_push_request_errors(cluster, INIT_PRODUCER_ID, 1, RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED);
  KafkaProducer *p =
      kafka_producer_new(&(KafkaProducerConfig){.brokers = brokers, .on_progress = count_progress, .arg = &progressed});
  UNTIL(progress_of(p).failed);
  CHECK_INT(progress_of(p).failed, 1);
  CHECK(progressed > 0);
  char text[16];
  KafkaRecord record = numbered(0, 1, text);
  CHECK_INT(kafka_produce(p, &record), E_UNAVAILABLE);
  kafka_producer_close(p, clock_now_us() + 5 * SECONDS);
}

/* What the library does with a broker that died with requests in flight and has not stored the first of them. */
KAFKA_TEST(a_producer_whose_sequence_is_broken_has_failed, 2) {
  rd_kafka_mock_push_request_errors(cluster, PRODUCE, 1, RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER);
  KafkaProducer *p = new_producer();
  for (int i = 0; i < 1000; i++) {
    char text[16];
    KafkaRecord record = numbered(i % 2, i, text);
    CHECK_INT(kafka_produce(p, &record), E_OK);
  }
  CHECK_INT(kafka_producer_flush(p, clock_now_us() + 10 * SECONDS), E_UNAVAILABLE);
  CHECK(progress_of(p).confirmed < progress_of(p).failed);
  kafka_producer_close(p, clock_now_us() + 5 * SECONDS);
}

KAFKA_TEST(a_full_buffer_is_reported_and_empties_when_the_broker_is_back, 1) {
  rd_kafka_mock_broker_set_down(cluster, 1);
  KafkaProducer *p = new_producer();
  char text[16];
  KafkaRecord record = numbered(0, 1, text);
  int rc = E_OK;
  while ((rc = kafka_produce(p, &record)) == E_OK)
    ;
  CHECK_INT(rc, E_BUSY);
  CHECK(progress_of(p).produced > 1000);
  CHECK_INT(kafka_producer_flush(p, clock_now_us() + 100 * MILLISECONDS), E_TIMEOUT);
  CHECK_INT(progress_of(p).confirmed, 0);
  CHECK(!progress_of(p).connected);
  rd_kafka_mock_broker_set_up(cluster, 1);
  CHECK_INT(kafka_producer_wait(p, 1, clock_now_us() + 20 * SECONDS), E_OK);
  CHECK_INT(kafka_producer_flush(p, clock_now_us() + 30 * SECONDS), E_OK);
  UNTIL(progress_of(p).connected);
  CHECK_INT(kafka_produce(p, &record), E_OK);
  kafka_producer_close(p, clock_now_us() + 5 * SECONDS);
}

KAFKA_TEST(a_producer_without_a_broker_ends_at_once, 1) {
  KafkaProducer *p = kafka_producer_new(&(KafkaProducerConfig){.brokers = "127.0.0.1:1"});
  char text[16];
  KafkaRecord record = numbered(KAFKA_BY_KEY, 1, text);
  CHECK_INT(kafka_produce(p, &record), E_OK);
  UNTIL(kafka_producer_error(p).n > 0);
  CHECK(!progress_of(p).connected);
  int64_t began_us = clock_now_us();
  kafka_producer_close(p, clock_now_us() + 5 * SECONDS);
  CHECK(clock_now_us() - began_us < 2 * SECONDS);
  kafka_producer_close(NULL, 0);
}

/* ---- the source ---- */

typedef struct Reader { /* a source with a fiber that reads it */
  Source *source;
  Fiber *fiber;
  int pause_us; /* between taking a batch and being done with it */
  int batches;
  bool ended;
} Reader;

static int seen[NUMBERS_MAX]; /* how often each number came */
static int newest[8];         /* on each partition */
static bool out_of_order;     /* within a partition, apart from repeats */
static int distinct_seen;

static void see(const ChangeEvent *event) {
  int64_t number = -1, partition = -1;
  Str rest = event->position;
  str_cut(&rest, '/');
  if (!CHECK_INT(str_to_int(str_cut(&rest, '/'), &partition), 0) || !CHECK_INT(str_to_int(event->value, &number), 0))
    die("an event without a number");
  if (seen[number]++ == 0) {
    distinct_seen++;
    out_of_order |= number < newest[partition];
    newest[partition] = (int)number;
  }
}

static void read_all(void *arg) {
  Reader *r = arg;
  ChangeBatch batch;
  while (r->source->next(r->source, &batch) == E_OK) {
    for (int i = 0; i < batch.count; i++)
      see(&batch.events[i]);
    r->batches++;
    if (r->pause_us && fiber_sleep(r->pause_us) < 0)
      break;
    r->source->done(r->source);
  }
  r->source->close(r->source, clock_now_us() + 5 * SECONDS);
  r->ended = true;
}

static void start_reader(Reader *r, int pause_us) {
  *r = (Reader){.source = new_source(), .pause_us = pause_us};
  r->fiber = fiber_start("reader", read_all, r);
}

static void end_reader(Reader *r) {
  fiber_cancel(r->fiber);
  UNTIL(r->ended);
}

static int repeats(void) {
  int n = 0;
  for (int i = 0; i < NUMBERS_MAX; i++)
    n += seen[i] > 1 ? seen[i] - 1 : 0;
  return n;
}

KAFKA_TEST(what_was_not_done_comes_again_and_nothing_else, 1) {
  produce_numbers(0, 800, 1);
  Source *s = new_source();
  ChangeBatch batch = {0};
  CHECK_INT(s->next(s, &batch), E_OK);
  CHECK(batch.count > 0 && batch.count < 800);
  CHECK_STR(batch.events[0].position, TOPIC "/0/0");
  CHECK_STR(batch.events[0].value, "0");
  int first = batch.count;
  s->done(s);
  CHECK_INT(s->next(s, &batch), E_OK);
  CHECK(status_of(s).lag_us > 0);
  s->close(s, clock_now_us() + 5 * SECONDS); /* without being done with the second batch */
  produce_numbers(800, 1, 1);
  s = new_source();
  CHECK_INT(s->next(s, &batch), E_OK);
  char text[16];
  KafkaRecord want = numbered(0, first, text);
  CHECK_STR(batch.events[0].value, want.value);
  s->done(s);
  s->close(s, clock_now_us() + 5 * SECONDS);
}

KAFKA_TEST(lag_counts_records_that_are_not_done, 4) {
  produce_numbers(0, 1000, 4);
  Source *s = new_source();
  ChangeBatch batch = {0};
  CHECK_INT(s->next(s, &batch), E_OK);
  UNTIL(status_of(s).lag_records == 1000);
  CHECK(status_of(s).connected);
  CHECK_INT(status_of(s).lag_bytes, 0);
  CHECK_INT(status_of(s).rebalances, 1);
  int done = 0;
  for (;; s->next(s, &batch)) {
    done += batch.count;
    s->done(s);
    if (done == 1000)
      break;
  }
  UNTIL(status_of(s).lag_records == 0);
  CHECK_INT(status_of(s).lag_us, 0);
  s->close(s, clock_now_us() + 5 * SECONDS);
}

/* The mock refuses commits while a group is shared out anew, as real brokers do not, so records are repeated here. */
KAFKA_TEST(members_of_a_group_share_and_take_over_without_loss, 4) {
  Reader a, b;
  start_reader(&a, 1000);
  produce_numbers(0, 1000, 4);
  UNTIL(distinct_seen == 1000);
  start_reader(&b, 1000);
  UNTIL(status_of(a.source).rebalances >= 2 && status_of(b.source).rebalances >= 1);
  produce_numbers(1000, 1000, 4);
  UNTIL(distinct_seen == 2000);
  CHECK(b.batches > 0);
  end_reader(&b);
  produce_numbers(2000, 1000, 4);
  UNTIL(distinct_seen == 3000);
  CHECK(!out_of_order);
  end_reader(&a);
}

KAFKA_TEST(partitions_are_given_up_only_when_the_batch_in_hand_is_done, 2) {
  produce_numbers(0, 200, 2);
  Source *a = new_source();
  ChangeBatch batch = {0};
  CHECK_INT(a->next(a, &batch), E_OK);
  Reader b;
  start_reader(&b, 0);
  /* At the next heartbeat a is asked for its partitions. It would rejoin within the time waited here, and must give
   * them up only some seconds later. */
  int64_t until_us = clock_now_us() + 8 * SECONDS;
  UNTIL(clock_now_us() >= until_us || status_of(a).rebalances > 1);
  CHECK_INT(status_of(a).rebalances, 1);
  CHECK_INT(b.batches, 0);
  int in_hand = batch.count;
  a->done(a);
  UNTIL(status_of(a).rebalances >= 2 && status_of(b.source).rebalances >= 1);
  a->close(a, clock_now_us() + 5 * SECONDS);
  UNTIL(distinct_seen >= 200 - in_hand);
  end_reader(&b);
}

/* What the group has taken away may have been done by another member, and more of it: to count it now would take the
 * group's offset back, or forward over what nobody has done. */
KAFKA_TEST(a_batch_of_an_earlier_assignment_no_longer_counts, 1) {
  produce_numbers(0, 200, 1);
  Source *s = new_source();
  ChangeBatch batch = {0};
  CHECK_INT(s->next(s, &batch), E_OK);
  CHECK_STR(batch.events[0].value, "0");
  rd_kafka_mock_push_request_errors(cluster, HEARTBEAT, 1, RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID);
  UNTIL(status_of(s).rebalances == 2);
  s->done(s);
  s->close(s, clock_now_us() + 5 * SECONDS); /* commits what counts */
  produce_numbers(200, 1, 1);
  s = new_source();
  CHECK_INT(s->next(s, &batch), E_OK);
  CHECK_STR(batch.events[0].value, "0");
  s->done(s);
  s->close(s, clock_now_us() + 5 * SECONDS);
}

KAFKA_TEST(a_broker_that_comes_back_is_read_on, 4) {
  Reader a;
  start_reader(&a, 0);
  produce_numbers(0, 500, 4);
  UNTIL(distinct_seen == 500);
  rd_kafka_mock_broker_set_down(cluster, 1);
  UNTIL(!status_of(a.source).connected);
  rd_kafka_mock_broker_set_up(cluster, 1);
  produce_numbers(500, 500, 4);
  UNTIL(distinct_seen == 1000 && status_of(a.source).connected);
  CHECK(!out_of_order);
  end_reader(&a);
}

KAFKA_TEST(a_commit_that_failed_is_made_again, 4) {
  rd_kafka_mock_push_request_errors(cluster, COMMIT, 3, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
                                    RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
                                    RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE);
  Reader a;
  start_reader(&a, 0);
  produce_numbers(0, 500, 4);
  UNTIL(distinct_seen == 500);
  CHECK_INT(fiber_sleep(4 * SECONDS), E_OK); /* three tries that fail and one that does not */
  end_reader(&a);
  start_reader(&a, 0);
  produce_numbers(500, 100, 4);
  UNTIL(distinct_seen == 600);
  CHECK_INT(repeats(), 0);
  end_reader(&a);
}

KAFKA_TEST(a_source_without_a_broker_ends_at_once, 1) {
  Source *s = kafka_source_new(&(KafkaConfig){.brokers = "127.0.0.1:1", .topic = TOPIC, .group = "notification"});
  CHECK_INT(fiber_sleep(SECONDS), E_OK);
  CHECK(!status_of(s).connected);
  int64_t began_us = clock_now_us();
  s->close(s, clock_now_us() + 5 * SECONDS);
  CHECK(clock_now_us() - began_us < 2 * SECONDS);
}

#endif

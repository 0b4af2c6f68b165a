/* The Kafka source and producer against librdkafka's own mock of a cluster. Each test is a process of its own, with its
 * own loop and brokers. */
#include "cdc/kafka_consumer.h"
#include "cdc/kafka_producer.h"

#include "rt/clock.h"
#include "rt/fiber.h"
#include "rt/loop.h"
#include "unit/unit.h"

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECOND           1000000
#define TEST_MOST        60 /* seconds a test may take; a hang ends as a failure */
#define TOPIC            "postgres.billing.history_billings"
#define PRODUCE          0 /* request types, as the protocol numbers them */
#define COMMIT           8
#define INIT_PRODUCER_ID 22

static int failures;

#define EXPECT(e)        (failures += !CHECK(e))
#define EXPECT_INT(a, b) (failures += !CHECK_INT(a, b))
#define EXPECT_STR(a, b) (failures += !CHECK_STR(a, b))

static rd_kafka_mock_cluster_t *cluster;
static const char *brokers;
static void (*test_body)(void);

static rd_kafka_t *start_cluster(int partitions) {
  char error[256];
  rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_PRODUCER, rd_kafka_conf_new(), error, sizeof(error));
  cluster = rd_kafka_mock_cluster_new(rk, 1);
  if (!cluster || rd_kafka_mock_topic_create(cluster, TOPIC, partitions, 1) != RD_KAFKA_RESP_ERR_NO_ERROR)
    abort();
  brokers = rd_kafka_mock_cluster_bootstraps(cluster);
  return rk;
}

static void run_body(void *arg) {
  (void)arg;
  test_body();
  loop_stop();
}

#if defined(__has_feature)
#define HAS_FEATURE(x) __has_feature(x)
#else
#define HAS_FEATURE(x) 0
#endif
#if defined(__SANITIZE_THREAD__) || HAS_FEATURE(thread_sanitizer)
#define WATCHES_THREADS 1
#else
#define WATCHES_THREADS 0
#endif

static void in_loop(void (*body)(void), int partitions) {
  if (WATCHES_THREADS) {
    unit_skip("the thread sanitizer does not know the C11 threads that librdkafka makes");
    return;
  }
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    test_body = body;
    signal(SIGPIPE, SIG_IGN);
    alarm(TEST_MOST);
    rd_kafka_t *rk = start_cluster(partitions);
    loop_init();
    fiber_start("test", run_body, NULL);
    loop_run();
    rd_kafka_mock_cluster_destroy(cluster);
    rd_kafka_destroy(rk);
    exit(failures != 0);
  }
  int status = -1;
  CHECK_INT(waitpid(child, &status, 0), child);
  CHECK_INT(status, 0);
}

/* Lets the loop turn until the condition holds; TEST_MOST bounds it. */
#define UNTIL(condition)                                                                                               \
  while (!(condition))                                                                                                 \
    if (fiber_sleep(1000) < 0)                                                                                         \
  abort()

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
    EXPECT_INT(kafka_produce(p, &record), E_OK);
  }
  EXPECT_INT(kafka_producer_flush(p, clock_now_us() + 30 * SECOND), E_OK);
  kafka_producer_close(p, clock_now_us() + 5 * SECOND);
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

static int told;

static void count_progress(void *arg) {
  ++*(int *)arg;
}

static void keys_and_nulls(void) {
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
      kafka_producer_new(&(KafkaProducerConfig){.brokers = brokers, .on_progress = count_progress, .arg = &told});
  const KafkaHeader headers[] = {{STR("__debezium.newkey"), STR("{}")}, {STR("empty"), STR("")}, {STR("null"), {0}}};
  for (int i = 0; i < KEYS; i++) {
    KafkaRecord record = {.topic = TOPIC,
                          .partition = KAFKA_BY_KEY,
                          .key = str_from(known[i].key),
                          .value = i == 0 ? (Str){0} : str_from(known[i].key),
                          .headers = headers,
                          .header_count = i == 1 ? 3 : 0};
    EXPECT_INT(kafka_produce(p, &record), E_OK);
  }
  EXPECT_INT(progress_of(p).produced, KEYS);
  EXPECT_INT(kafka_producer_flush(p, clock_now_us() + 10 * SECOND), E_OK);
  EXPECT_INT(progress_of(p).confirmed, KEYS);
  EXPECT_INT(progress_of(p).failed, 0);
  EXPECT(told > 0);
  kafka_producer_close(p, clock_now_us() + 5 * SECOND);

  Source *s = new_source();
  for (int seen = 0; seen < KEYS;) {
    ChangeBatch batch = {0};
    EXPECT_INT(s->next(s, &batch), E_OK);
    for (int i = 0; i < batch.count; i++, seen++) {
      Str rest = batch.events[i].position, value = batch.events[i].value;
      EXPECT_STR(str_cut(&rest, '/'), TOPIC);
      int64_t partition = -1;
      EXPECT_INT(str_to_int(str_cut(&rest, '/'), &partition), E_OK);
      int k = 0;
      while (k < KEYS && !(value.p ? str_eq(value, str_from(known[k].key)) : k == 0))
        k++;
      if (CHECK(k < KEYS))
        EXPECT_INT(partition, (known[k].hash & 0x7fffffff) % 7);
    }
    s->done(s);
  }
  s->close(s, clock_now_us() + 5 * SECOND);
}

TEST(records_go_where_java_would_send_them_and_null_stays_null) {
  in_loop(keys_and_nulls, 7);
}

static void refused_records(void) {
  KafkaProducer *p = new_producer();
  char text[16];
  KafkaRecord record = numbered(0, 1, text);
  EXPECT_INT(kafka_produce(p, &record), E_OK);
  EXPECT_INT(kafka_producer_flush(p, clock_now_us() + 10 * SECOND), E_OK);
  char *large = calloc(1, 2 << 20);
  record.value = (Str){large, 2 << 20};
  EXPECT_INT(kafka_produce(p, &record), E_TOO_LARGE);
  free(large);
  record = numbered(7, 2, text);
  EXPECT_INT(kafka_produce(p, &record), E_NOT_FOUND);
  EXPECT_INT(progress_of(p).produced, 1);

  rd_kafka_mock_push_request_errors(cluster, PRODUCE, 1, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
  record = numbered(0, 3, text);
  EXPECT_INT(kafka_produce(p, &record), E_OK);
  EXPECT_INT(kafka_producer_flush(p, clock_now_us() + 10 * SECOND), E_UNAVAILABLE);
  EXPECT_INT(progress_of(p).confirmed, 1);
  EXPECT_INT(progress_of(p).failed, 2);
  EXPECT_INT(kafka_produce(p, &record), E_UNAVAILABLE);
  EXPECT_INT(kafka_producer_wait(p, 1, clock_now_us() + SECOND), E_OK);
  EXPECT(kafka_producer_error(p).n > 0);
  kafka_producer_close(p, clock_now_us() + 5 * SECOND);
}

TEST(a_record_that_never_can_be_written_fails_for_good) {
  in_loop(refused_records, 1);
}

static void repeated_tries(void) {
  KafkaProducer *p = new_producer();
  rd_kafka_mock_push_request_errors(cluster, PRODUCE, 3, RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
                                    RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT);
  for (int i = 0; i < 1000; i++) {
    char text[16];
    KafkaRecord record = numbered(i % 2, i, text);
    EXPECT_INT(kafka_produce(p, &record), E_OK);
  }
  EXPECT_INT(kafka_producer_flush(p, clock_now_us() + 30 * SECOND), E_OK);
  EXPECT_INT(progress_of(p).confirmed, 1000);
  kafka_producer_close(p, clock_now_us() + 5 * SECOND);
}

TEST(passing_errors_are_tried_again) {
  in_loop(repeated_tries, 2);
}

static void lost_identity(void) {
  rd_kafka_mock_push_request_errors(cluster, INIT_PRODUCER_ID, 1, RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED);
  KafkaProducer *p =
      kafka_producer_new(&(KafkaProducerConfig){.brokers = brokers, .on_progress = count_progress, .arg = &told});
  UNTIL(progress_of(p).failed);
  EXPECT_INT(progress_of(p).failed, 1);
  EXPECT(told > 0);
  char text[16];
  KafkaRecord record = numbered(0, 1, text);
  EXPECT_INT(kafka_produce(p, &record), E_UNAVAILABLE);
  kafka_producer_close(p, clock_now_us() + 5 * SECOND);
}

TEST(a_producer_that_gets_no_identity_has_failed_before_its_first_record) {
  in_loop(lost_identity, 1);
}

/* What the library does with a broker that died with requests in flight and has not stored the first of them. */
static void lost_sequence(void) {
  rd_kafka_mock_push_request_errors(cluster, PRODUCE, 1, RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER);
  KafkaProducer *p = new_producer();
  for (int i = 0; i < 1000; i++) {
    char text[16];
    KafkaRecord record = numbered(i % 2, i, text);
    EXPECT_INT(kafka_produce(p, &record), E_OK);
  }
  EXPECT_INT(kafka_producer_flush(p, clock_now_us() + 10 * SECOND), E_UNAVAILABLE);
  EXPECT(progress_of(p).confirmed < progress_of(p).failed);
  kafka_producer_close(p, clock_now_us() + 5 * SECOND);
}

TEST(a_producer_whose_sequence_is_broken_has_failed) {
  in_loop(lost_sequence, 2);
}

static void full_buffer(void) {
  rd_kafka_mock_broker_set_down(cluster, 1);
  KafkaProducer *p = new_producer();
  char text[16];
  KafkaRecord record = numbered(0, 1, text);
  int rc = E_OK;
  while ((rc = kafka_produce(p, &record)) == E_OK)
    ;
  EXPECT_INT(rc, E_BUSY);
  EXPECT(progress_of(p).produced > 1000);
  EXPECT_INT(kafka_producer_flush(p, clock_now_us() + SECOND / 10), E_TIMEOUT);
  EXPECT_INT(progress_of(p).confirmed, 0);
  EXPECT(!progress_of(p).connected);
  rd_kafka_mock_broker_set_up(cluster, 1);
  EXPECT_INT(kafka_producer_wait(p, 1, clock_now_us() + 20 * SECOND), E_OK);
  EXPECT_INT(kafka_producer_flush(p, clock_now_us() + 30 * SECOND), E_OK);
  UNTIL(progress_of(p).connected);
  EXPECT_INT(kafka_produce(p, &record), E_OK);
  kafka_producer_close(p, clock_now_us() + 5 * SECOND);
}

TEST(a_full_buffer_is_reported_and_empties_when_the_broker_is_back) {
  in_loop(full_buffer, 1);
}

static void closed_unreachable(void) {
  KafkaProducer *p = kafka_producer_new(&(KafkaProducerConfig){.brokers = "127.0.0.1:1"});
  char text[16];
  KafkaRecord record = numbered(KAFKA_BY_KEY, 1, text);
  EXPECT_INT(kafka_produce(p, &record), E_OK);
  UNTIL(kafka_producer_error(p).n > 0);
  EXPECT(!progress_of(p).connected);
  int64_t began_us = clock_now_us();
  kafka_producer_close(p, clock_now_us() + 5 * SECOND);
  EXPECT(clock_now_us() - began_us < 2 * SECOND);
  kafka_producer_close(NULL, 0);
}

TEST(a_producer_without_a_broker_ends_at_once) {
  in_loop(closed_unreachable, 1);
}

/* ---- the source ---- */

enum { MOST = 4000 };

typedef struct Reader { /* a source with a fiber that reads it */
  Source *source;
  Fiber *fiber;
  int pause_us; /* between taking a batch and being done with it */
  int batches;
  bool ended;
} Reader;

static int seen[MOST];    /* how often each number came */
static int newest[8];     /* on each partition */
static bool out_of_order; /* within a partition, apart from repeats */
static int distinct_seen;

static void see(const ChangeEvent *event) {
  int64_t number = -1, partition = -1;
  Str rest = event->position;
  str_cut(&rest, '/');
  if (!CHECK_INT(str_to_int(str_cut(&rest, '/'), &partition), 0) || !CHECK_INT(str_to_int(event->value, &number), 0))
    abort();
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
  r->source->close(r->source, clock_now_us() + 5 * SECOND);
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
  for (int i = 0; i < MOST; i++)
    n += seen[i] > 1 ? seen[i] - 1 : 0;
  return n;
}

static void done_or_again(void) {
  produce_numbers(0, 800, 1);
  Source *s = new_source();
  ChangeBatch batch = {0};
  EXPECT_INT(s->next(s, &batch), E_OK);
  EXPECT(batch.count > 0 && batch.count < 800);
  EXPECT_STR(batch.events[0].position, TOPIC "/0/0");
  EXPECT_STR(batch.events[0].value, "0");
  int first = batch.count;
  s->done(s);
  EXPECT_INT(s->next(s, &batch), E_OK);
  EXPECT(status_of(s).lag_us > 0);
  s->close(s, clock_now_us() + 5 * SECOND); /* without being done with the second batch */

  s = new_source();
  EXPECT_INT(s->next(s, &batch), E_OK);
  char text[16];
  KafkaRecord want = numbered(0, first, text);
  EXPECT_STR(batch.events[0].value, want.value);
  s->done(s);
  s->close(s, clock_now_us() + 5 * SECOND);
}

TEST(what_was_not_done_comes_again_and_nothing_else) {
  in_loop(done_or_again, 1);
}

static void known_lag(void) {
  produce_numbers(0, 1000, 4);
  Source *s = new_source();
  ChangeBatch batch = {0};
  EXPECT_INT(s->next(s, &batch), E_OK);
  UNTIL(status_of(s).lag_records == 1000);
  EXPECT(status_of(s).connected);
  EXPECT_INT(status_of(s).lag_bytes, 0);
  EXPECT_INT(status_of(s).rebalances, 1);
  int done = 0;
  for (;; s->next(s, &batch)) {
    done += batch.count;
    s->done(s);
    if (done == 1000)
      break;
  }
  UNTIL(status_of(s).lag_records == 0);
  EXPECT_INT(status_of(s).lag_us, 0);
  s->close(s, clock_now_us() + 5 * SECOND);
}

TEST(lag_counts_records_that_are_not_done) {
  in_loop(known_lag, 4);
}

static void shared_group(void) {
  Reader a, b;
  start_reader(&a, 1000);
  produce_numbers(0, 1000, 4);
  UNTIL(distinct_seen == 1000);
  start_reader(&b, 1000);
  UNTIL(status_of(a.source).rebalances >= 2 && status_of(b.source).rebalances >= 1);
  produce_numbers(1000, 1000, 4);
  UNTIL(distinct_seen == 2000);
  EXPECT(b.batches > 0);
  end_reader(&b);
  produce_numbers(2000, 1000, 4);
  UNTIL(distinct_seen == 3000);
  EXPECT(!out_of_order);
  end_reader(&a);
}

/* The mock refuses commits while a group is shared out anew, as real brokers do not, so records are repeated here. */
TEST(members_of_a_group_share_and_take_over_without_loss) {
  in_loop(shared_group, 4);
}

static void batch_in_hand(void) {
  produce_numbers(0, 200, 2);
  Source *a = new_source();
  ChangeBatch batch = {0};
  EXPECT_INT(a->next(a, &batch), E_OK);
  Reader b;
  start_reader(&b, 0);
  EXPECT_INT(fiber_sleep(4 * SECOND), E_OK); /* two heartbeats: by now a was asked for its partitions */
  EXPECT_INT(b.batches, 0);
  int in_hand = batch.count;
  a->done(a);
  UNTIL(status_of(a).rebalances >= 2 && status_of(b.source).rebalances >= 1);
  a->close(a, clock_now_us() + 5 * SECOND);
  UNTIL(distinct_seen >= 200 - in_hand);
  end_reader(&b);
}

TEST(partitions_are_given_up_only_when_the_batch_in_hand_is_done) {
  in_loop(batch_in_hand, 2);
}

static void broker_away(void) {
  Reader a;
  start_reader(&a, 0);
  produce_numbers(0, 500, 4);
  UNTIL(distinct_seen == 500);
  rd_kafka_mock_broker_set_down(cluster, 1);
  UNTIL(!status_of(a.source).connected);
  rd_kafka_mock_broker_set_up(cluster, 1);
  produce_numbers(500, 500, 4);
  UNTIL(distinct_seen == 1000 && status_of(a.source).connected);
  EXPECT(!out_of_order);
  end_reader(&a);
}

TEST(a_broker_that_comes_back_is_read_on) {
  in_loop(broker_away, 4);
}

static void failing_commits(void) {
  rd_kafka_mock_push_request_errors(cluster, COMMIT, 3, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
                                    RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
                                    RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE);
  Reader a;
  start_reader(&a, 0);
  produce_numbers(0, 500, 4);
  UNTIL(distinct_seen == 500);
  EXPECT_INT(fiber_sleep(4 * SECOND), E_OK); /* three tries that fail and one that does not */
  end_reader(&a);
  start_reader(&a, 0);
  produce_numbers(500, 100, 4);
  UNTIL(distinct_seen == 600);
  EXPECT_INT(repeats(), 0);
  end_reader(&a);
}

TEST(a_commit_that_failed_is_made_again) {
  in_loop(failing_commits, 4);
}

static void closed_without_broker(void) {
  Source *s = kafka_source_new(&(KafkaConfig){.brokers = "127.0.0.1:1", .topic = TOPIC, .group = "notification"});
  EXPECT_INT(fiber_sleep(SECOND), E_OK);
  EXPECT(!status_of(s).connected);
  int64_t began_us = clock_now_us();
  s->close(s, clock_now_us() + 5 * SECOND);
  EXPECT(clock_now_us() - began_us < 2 * SECOND);
}

TEST(a_source_without_a_broker_ends_at_once) {
  in_loop(closed_without_broker, 1);
}

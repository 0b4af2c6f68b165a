/* Kafka, as fibers need it: a consumer group as a Source, and an idempotent producer. The client library has threads of
 * its own; they reach the loop through one file descriptor, and nothing here blocks. Brokers that cannot be reached are
 * tried for as long as it takes: that is a state, kafka_…_connected, never an error.
 *
 * What the source promises: a record is handed over at least once, and its offset is committed to the group only after
 * done(). Records of one partition come in their order. Nothing can be said about the order of records on different
 * partitions, and a group that rebalances may repeat the records of a batch; so a consumer that needs the order of the
 * database takes it from the event itself: source.lsn grows with every change that one row lock orders, whatever
 * partition carries it. */
#ifndef SKALD_CDC_KAFKA_H
#define SKALD_CDC_KAFKA_H

#include "base/err.h"
#include "cdc/source.h"

typedef struct KafkaConfig { /* all strings outlive the source */
  const char *brokers;       /* host:port,… */
  const char *topic;
  const char *group;
} KafkaConfig;

/* In a fiber. An event's position is topic/partition/offset. Any number of processes may share a group. */
Source *kafka_source_new(const KafkaConfig *config);

typedef struct KafkaProducer KafkaProducer;

typedef struct KafkaProducerConfig {
  const char *brokers;            /* outlives the producer */
  void (*on_progress)(void *arg); /* in the loop, whenever records were confirmed or failed; may be NULL */
  void *arg;
} KafkaProducerConfig;

typedef struct KafkaHeader {
  Str name, value; /* an absent value is null */
} KafkaHeader;

typedef struct KafkaRecord { /* copied by kafka_produce */
  const char *topic;
  int partition;  /* KAFKA_BY_KEY, or the number of one */
  Str key, value; /* absent: null; a record without value is a tombstone */
  const KafkaHeader *headers;
  int header_count;
} KafkaRecord;

#define KAFKA_BY_KEY (-1) /* murmur2 of the key's bytes as Java clients do it; random without a key */

typedef struct KafkaProgress {
  int64_t produced;  /* records taken so far; the n-th call of kafka_produce that succeeded is record n, from 1 */
  int64_t confirmed; /* every record up to this one is on all in-sync replicas */
  int64_t failed;    /* the first record that never will be; 0: none. confirmed then stays below it for good */
  bool connected;    /* to a broker, as of the last second */
} KafkaProgress;

/* In a fiber. acks=all, idempotent: no record is lost, doubled or overtaken on its partition while the producer lives.
 * A record waits for its broker without end, so one fails only when it never can be written, or the producer lost its
 * identity; the caller then closes the producer and begins anew behind its last confirmed position. */
KafkaProducer *kafka_producer_new(const KafkaProducerConfig *config);
/* E_OK: taken. E_BUSY: the buffer is full, wait for progress. E_TOO_LARGE: no broker would take it. E_UNAVAILABLE: a
 * record has failed before, or this one has, since its topic is gone. E_NOT_FOUND: there is no such partition. Never
 * waits. */
MUST_CHECK int kafka_produce(KafkaProducer *p, const KafkaRecord *record);
void kafka_producer_progress(const KafkaProducer *p, KafkaProgress *ret);
Str kafka_producer_error(const KafkaProducer *p); /* the client library's last words; valid until the next wait */
/* Waits until every record up to n is confirmed. E_UNAVAILABLE: one of them failed. E_TIMEOUT, E_CANCELED; a call woken
 * otherwise goes on waiting. */
MUST_CHECK int kafka_producer_wait(KafkaProducer *p, int64_t n, int64_t deadline_us);
MUST_CHECK int kafka_producer_flush(KafkaProducer *p, int64_t deadline_us); /* the same for all records so far */
/* In a fiber; frees the producer. Records not confirmed are given up, and may or may not have been written. */
void kafka_producer_close(KafkaProducer *p, int64_t deadline_us); /* takes NULL */

#endif

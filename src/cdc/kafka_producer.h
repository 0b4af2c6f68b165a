/* An idempotent Kafka producer. Brokers that cannot be reached are retried for as long as it takes: that is a state,
 * KafkaProgress.connected, never an error. */
#ifndef SKALD_CDC_KAFKA_PRODUCER_H
#define SKALD_CDC_KAFKA_PRODUCER_H

#include "base/err.h"
#include "base/str.h"

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
  int64_t failed;    /* the first record that never will be; 0: none. confirmed then stays below it */
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

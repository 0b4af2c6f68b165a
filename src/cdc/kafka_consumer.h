/* A Kafka consumer group as a Source. Brokers that cannot be reached are retried for as long as it takes: that is a
 * state, SourceStatus.connected, never an error.
 *
 * What the source promises: a record is handed over at least once, and its offset is committed to the group only after
 * done(). Records of one partition come in their order. Nothing can be said about the order of records on different
 * partitions, and a group that rebalances may repeat the records of a batch; so a consumer that needs the order of the
 * database takes it from the event itself: source.lsn grows with every change that one row lock orders, whatever
 * partition carries it. */
#ifndef SKALD_CDC_KAFKA_CONSUMER_H
#define SKALD_CDC_KAFKA_CONSUMER_H

#include "cdc/source.h"

typedef struct KafkaConfig { /* all strings outlive the source */
  const char *brokers;       /* host:port,… */
  const char *topic;
  const char *group;
} KafkaConfig;

/* In a fiber. An event's position is topic/partition/offset. Any number of processes may share a group. */
Source *kafka_source_new(const KafkaConfig *config);

#endif

/* Relay: a replication slot's changes published to Kafka as Debezium's PostgreSQL connector would, topic
 * <prefix>.<schema>.<table>. A transaction's end is confirmed to PostgreSQL only once the broker has every record of
 * it, so nothing is lost, and after a crash at worst what was not confirmed yet comes again. What waits for the broker
 * is bounded; the rest stays in PostgreSQL's WAL. */
#ifndef SKALD_CDC_RELAY_H
#define SKALD_CDC_RELAY_H

#include "cdc/record.h"
#include "db/db.h"

typedef struct RelayConfig { /* all strings outlive the relay */
  const char *dsn, *slot, *publication, *brokers;
  const char *fallback; /* publication for what is older than the other; NULL: none */
  Db *catalog;          /* of the same database, started */
  RecordStyle style;
  bool tombstones, truncates; /* whether they are published */
  int64_t heartbeat_us;       /* 0: none */
  int64_t in_flight_bytes;    /* handed to Kafka and not confirmed, at most; one record may be larger */
  void (*refused)(void *arg); /* in a fiber: the relay has stopped and does not resume, see relay_refusal */
  void *arg;
} RelayConfig;

typedef struct RelayStatus {
  bool postgres, kafka; /* connected */
  bool waiting;         /* another process reads the slot */
  int64_t in_flight, in_flight_bytes;
  int64_t lag_bytes;       /* of WAL received and not confirmed */
  int64_t lag_us;          /* age of the oldest transaction not confirmed; 0 without one */
  int64_t postgres_errors; /* connections lost or not made */
  int64_t kafka_errors;    /* producers that had to be replaced */
} RelayStatus;

typedef struct Relay Relay;

void relay_prepare(void);                    /* registers the metrics; before relay_new */
Relay *relay_new(const RelayConfig *config); /* in a fiber */
void relay_status(const Relay *r, RelayStatus *ret);
Str relay_refusal(const Relay *r); /* why it has stopped; absent while it has not */
/* In a fiber: finishes the transaction in work and waits for the broker until the deadline, reports the
 * position reached to PostgreSQL, closes the producer by end_us, frees the relay. */
void relay_close(Relay *r, int64_t deadline_us, int64_t end_us);

#endif

/* librdkafka, for the files kafka_*.c only: one handle of it and the fiber that takes its events. Private to cdc/.
 *
 * The library has threads of its own. They queue events and write to an eventfd; a fiber for each client, the pump,
 * waits for that descriptor and takes the events. What the loop calls only queues, and what joins threads runs in a
 * thread of its own, so nothing here blocks. */
#ifndef SKALD_CDC_KAFKA_CLIENT_H
#define SKALD_CDC_KAFKA_CLIENT_H

#include "rt/fd.h"
#include "rt/fiber.h"
#include "json/json.h"

#include <librdkafka/rdkafka.h>

typedef struct KafkaClient KafkaClient;

struct KafkaClient {
  rd_kafka_t *rk;
  rd_kafka_queue_t *events;
  int fd;
  Fd *watch;
  Fiber *pump, *closer;                                  /* closer: waits for the pump's end, or NULL */
  void (*take)(KafkaClient *c, rd_kafka_event_t *event); /* what is not the same for both */
  void (*statistics)(KafkaClient *c, const JsonValue *all);
  int64_t (*advance)(KafkaClient *c); /* after each round of events; returns when it wants to be called at the latest */
  const char *brokers;
  bool connected;
  bool complained;              /* in the log, that it is not connected */
  rd_kafka_resp_err_t reported; /* the last error in the log */
  char problem[256];
};

typedef struct KafkaSetting {
  const char *name, *value;
} KafkaSetting;

/* Makes the handle with the settings (the last one {0}), without its pump: events may be forwarded elsewhere before it
 * starts. c's functions and brokers are set. event_types: RD_KAFKA_EVENT_…, besides errors, statistics and log lines.
 */
void kafka_client_open(KafkaClient *c, rd_kafka_type_t type, const KafkaSetting *settings, int event_types);
void kafka_client_start(KafkaClient *c); /* once c->events is set */
/* In a fiber: waits for the pump's end, then until the deadline for the library's threads. They may hang in a name
 * look-up; then they are left running, with what they use. */
void kafka_client_close(KafkaClient *c, int64_t deadline_us);

void kafka_client_watch(KafkaClient *c, rd_kafka_queue_t *queue); /* its events wake the pump, too */
void kafka_client_take(KafkaClient *c, rd_kafka_event_t *event);  /* handles and destroys it */
/* Keeps the problem for kafka_producer_error, and logs it unless the one before it had the same code. */
void kafka_client_set_problem(KafkaClient *c, rd_kafka_resp_err_t code, const char *text);

#endif

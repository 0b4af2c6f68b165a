/* Source: where change events come from. It delivers them in order, in batches, as Debezium-shaped JSON; the consumer
 * stores a batch durably and then says it is done, and only then may the source forget it. What was delivered but not
 * done comes again after a restart or a broken connection, so consumers absorb repeats. One consumer fiber. */
#ifndef SKALD_CDC_SOURCE_H
#define SKALD_CDC_SOURCE_H

#include "base/err.h"
#include "base/str.h"

typedef struct ChangeEvent {
  Str value;       /* the record's value, one of Debezium's envelopes; absent: a tombstone */
  Str traceparent; /* as it stood beside the value; absent: it may stand in the row */
  Str position;    /* where it stands in the stream, the same whenever it is repeated and unique within the source */
} ChangeEvent;

/* From the WAL whole transactions, except that one too large for a batch is cut. Everything lives until the batch is
 * done. */
typedef struct ChangeBatch {
  const ChangeEvent *events;
  int count;
} ChangeBatch;

typedef struct SourceStatus {
  bool connected;
  int64_t lag_us;      /* age of the oldest event received that is not done; 0 without one */
  int64_t lag_bytes;   /* received and not done; 0 where records are counted */
  int64_t lag_records; /* up to the end of the stream and not done; 0 where bytes are counted */
  int64_t rebalances;  /* how often partitions were assigned */
} SourceStatus;

typedef struct Source Source;

struct Source {
  /* Waits in the current fiber for at least one event. The batch before it must be done. E_CANCELED. */
  int (*next)(Source *source, ChangeBatch *ret);
  void (*done)(Source *source);
  void (*status)(const Source *source, SourceStatus *ret);
  void (*close)(Source *source, int64_t deadline_us); /* in a fiber; frees the source */
};

#endif

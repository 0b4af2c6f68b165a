/* Stream: a replication slot read for as long as the process lives. One fiber connects, decodes, reports to the
 * server and reconnects after every loss; a handler gets what it reads, in order, in that fiber, and may wait in it.
 * The position confirmed to the server is the handler's to move; until then the server keeps what was sent, and sends
 * it again on the next connection. Only one process reads a slot; the others wait until it is free. */
#ifndef SKALD_CDC_STREAM_H
#define SKALD_CDC_STREAM_H

#include "cdc/pgoutput.h"
#include "cdc/record.h"

typedef struct StreamConfig { /* all strings outlive the stream */
  const char *dsn;
  const char *slot, *publication; /* of letters, digits and _ */
  const char *fallback;           /* a publication for what was written before there was the other, and read up to the
                                     first end of a transaction behind that; NULL: none */
  const char *logger;             /* names its lines in the log, and its connections at the server */
} StreamConfig;

typedef struct StreamStatus {
  bool connected;    /* it reads */
  bool waiting;      /* another process reads the slot */
  int64_t lag_bytes; /* of WAL received on this connection and not confirmed */
  int64_t failures;  /* connections lost or not made so far, without those that stream_fail ended */
} StreamStatus;

typedef struct StreamTable { /* a table as announced on this connection */
  struct StreamTable *next;
  Arena *arena; /* for what the handler makes of it; reset when it is announced anew */
  PgoRelation relation;
  void *prepared; /* the handler's */
} StreamTable;

typedef struct Stream Stream;

/* Functions that return an int may wait by stream_pause. A negative one ends the connection, and everything not
 * confirmed comes again; E_REFUSED ends the reading. */
typedef struct StreamHandler {
  void (*forget)(void *arg);                    /* the connection is gone */
  int (*begin)(void *arg, uint64_t commit_lsn); /* a transaction */
  int (*table)(void *arg, StreamTable *table);
  /* op: c u d t. at is where it stands; old_kind as in PgoMessage. */
  int (*change)(void *arg, const StreamTable *table, char op, const RecordSource *at, const PgoTuple *before,
                const PgoTuple *after);
  int (*malformed)(void *arg, Str payload, int code); /* a message that cannot be decoded */
  /* Between transactions: all before lsn was handed over. commit_us: of the transaction that ended; 0: it is idle. */
  void (*settled)(void *arg, uint64_t lsn, int64_t commit_us);
  void (*ended)(void *arg); /* after E_REFUSED; may be NULL */
} StreamHandler;

/* In a fiber. */
Stream *stream_new(const StreamConfig *config, const StreamHandler *handler, void *arg);
void stream_close(Stream *s); /* in another fiber: reports the last confirmed position, frees the stream */
/* Waits in the stream's fiber until stream_wake, or until a status is due, and sends that. E_CANCELED, or an error of
 * the connection. */
MUST_CHECK int stream_pause(Stream *s, const char *why);
void stream_wake(Stream *s);
/* Ends the connection, or the one that is being made: everything not confirmed comes again. */
void stream_fail(Stream *s);
/* All before lsn is stored. It must have been settled on this connection. */
void stream_confirm(Stream *s, uint64_t lsn);
void stream_status(const Stream *s, StreamStatus *ret);

#endif

/* Decoder of PostgreSQL's logical replication: the frames of the streaming protocol, and inside them the messages of
 * the pgoutput plugin, protocol version 1 (PostgreSQL manual, "Streaming Replication Protocol" and "Logical Replication
 * Message Formats"). Pure: texts point into the input, lists are made in the arena. No length is trusted: whatever does
 * not fit is E_MALFORMED. */
#ifndef SKALD_CDC_PGOUTPUT_H
#define SKALD_CDC_PGOUTPUT_H

#include "base/arena.h"
#include "base/err.h"

typedef struct PgoFrame {
  char type;          /* 'w' data, 'k' keepalive */
  uint64_t start_lsn; /* data: where the message stands */
  uint64_t end_lsn;   /* the server's position: all before it has been sent */
  bool reply;         /* keepalive: the server wants a status at once */
  Str payload;        /* data: for pgoutput_decode */
} PgoFrame;

typedef struct PgoColumn {
  Str name;
  uint32_t type;    /* pg_type.oid */
  int32_t modifier; /* pg_attribute.atttypmod */
  bool key;         /* part of the replica identity */
} PgoColumn;

typedef struct PgoRelation {
  uint32_t id;
  Str schema, name;
  char identity; /* pg_class.relreplident */
  int count;
  PgoColumn *columns;
} PgoRelation;

typedef struct PgoCell {
  char kind; /* 'n' null, 'u' unchanged and not sent, 't' text */
  Str text;
} PgoCell;

typedef struct PgoTuple {
  int count; /* 0: no such tuple */
  PgoCell *cells;
} PgoTuple;

typedef struct PgoMessage {
  char type; /* B begin, C commit, O origin, R relation, Y type, I insert, U update, D delete, T truncate, M message */
  union {
    struct {
      uint64_t commit_lsn;
      int64_t commit_us; /* since 1970 */
      uint32_t xid;
    } begin;
    struct {
      uint64_t commit_lsn, end_lsn;
    } commit;
    PgoRelation relation;
    struct {
      uint32_t relation;
      char old_kind;       /* 'K' only the key's cells are set, 'O' the whole old row, 0 no old row */
      PgoTuple old, fresh; /* fresh: what INSERT and UPDATE wrote */
    } change;
    struct {
      int count;
      uint32_t *relations;
    } truncate;
    struct {
      uint64_t lsn;
      Str name;
    } origin;
    struct {
      bool transactional;
      uint64_t lsn;
      Str prefix, content;
    } message;
  };
} PgoMessage;

MUST_CHECK int pgoutput_frame(Str bytes, PgoFrame *ret);
MUST_CHECK int pgoutput_decode(Arena *arena, Str payload, PgoMessage *ret);

#endif

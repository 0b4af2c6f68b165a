/* What the audit's checks share: where violations are reported, and rows read from a database in bounded memory. A
 * failure to read is reported by whoever meets it; callers only pass the code on. */
#ifndef SKALD_COMMANDS_AUDIT_STREAM_H
#define SKALD_COMMANDS_AUDIT_STREAM_H

#include "db/script.h"

enum {
  AUDIT_NOTE = 0, /* stands for a rule where none is broken, but something is worth knowing */
  AUDIT_RULES = 6,
  AUDIT_SHOWN = 50, /* lines printed for one rule; the others are counted */
  AUDIT_PAGE = 500, /* rows fetched at once */
};

enum {
  AUDIT_ORDER,
  AUDIT_PAYMENT,
  AUDIT_WAREHOUSE,
  AUDIT_DELIVERY,
  AUDIT_USER,
  AUDIT_BILLING,
  AUDIT_NOTIFICATION,
  AUDIT_SOURCES
};

typedef struct AuditSource { /* one service's database: one connection, one snapshot */
  const char *service, *dsn;
  DbScript *script;
  int cursors; /* opened so far: numbers their names */
} AuditSource;

typedef struct AuditReport {
  int64_t violations[AUDIT_RULES + 1]; /* by rule; [AUDIT_NOTE]: notes */
  int64_t in_flight;                   /* of those, what may only be unfinished */
  int64_t parked;                      /* sagas that wait for an operator: notes */
  int64_t orders, wallets, history;    /* checked */
  int64_t left_out;                    /* orders of sagas that a client changed or deleted since */
} AuditReport;

typedef struct AuditStream {
  AuditSource *source;
  int cursor;
  Arena *arena; /* holds the page */
  DbResult page;
  int row; /* of the page, the current one; -1 before the first */
  bool ended;
} AuditStream;

const char *audit_rule_name(int rule);
void audit_violation(AuditReport *report, int rule, const char *format, ...) __attribute__((format(printf, 3, 4)));

MUST_CHECK int audit_source_open(AuditSource *source);
void audit_source_close(AuditSource *source);
/* One statement for its rows, which live in the arena. */
MUST_CHECK int audit_query(AuditSource *source, const char *sql, Arena *arena, DbResult *ret);

/* The rows of a SELECT, one after the other. To be closed in any case, also when opening failed. */
MUST_CHECK int audit_stream_open(AuditStream *stream, AuditSource *source, const char *select);
/* 1: there is a next row, 0: there is none. The cells of the row before are gone. */
MUST_CHECK int audit_stream_next(AuditStream *stream);
/* In a stream ordered by its first column, an id: moves on to the row of this id. *ret is its second cell, absent when
 * it has no row. Ids must come in ascending order. */
MUST_CHECK int audit_stream_seek(AuditStream *stream, Str id, Str *ret);
Str audit_stream_cell(const AuditStream *stream, int column);
void audit_stream_close(AuditStream *stream);

/* Ids in text form, as PostgreSQL orders them. */
int audit_id_cmp(Str a, Str b);

#endif

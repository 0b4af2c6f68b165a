/* Shared by the audit's checks: reporting violations, and reading rows in bounded memory. These functions print read
 * errors themselves; callers only return the code. */
#ifndef SKALD_COMMANDS_AUDIT_STREAM_H
#define SKALD_COMMANDS_AUDIT_STREAM_H

#include "db/script.h"

enum {
  AUDIT_NOTE = 0, /* used in place of a rule for information that is no violation */
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
  int cursors; /* opened so far; their names are numbered */
} AuditSource;

typedef struct AuditReport {
  int64_t violations[AUDIT_RULES + 1]; /* by rule; [AUDIT_NOTE]: notes */
  int64_t in_flight;                   /* of those, findings that may be unfinished work */
  int64_t parked;                      /* parked sagas */
  int64_t orders, wallets, history;    /* checked */
  int64_t left_out;                    /* saga orders that a client changed or deleted later */
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
/* Runs one statement. The rows live in the arena. */
MUST_CHECK int audit_query(AuditSource *source, const char *sql, Arena *arena, DbResult *ret);

/* The rows of a SELECT, one at a time. Must be closed, even if opening failed. */
MUST_CHECK int audit_stream_open(AuditStream *stream, AuditSource *source, const char *select);
/* 1: there is a next row, 0: there is none. The cells of the previous row become invalid. */
MUST_CHECK int audit_stream_next(AuditStream *stream);
/* For a stream ordered by its first column, an id: moves to the row with this id. *ret is its second cell, absent if
 * there is no such row. Ids must be passed in ascending order. */
MUST_CHECK int audit_stream_seek(AuditStream *stream, Str id, Str *ret);
Str audit_stream_cell(const AuditStream *stream, int column);
void audit_stream_close(AuditStream *stream);

/* Ids in text form, as PostgreSQL orders them. */
int audit_id_cmp(Str a, Str b);

#endif

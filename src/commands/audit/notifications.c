/* Compares notifications with the history, which is in another database. Both are read once, in the order of the
 * history's ids, and matched. Then each account's notifications are read once, in the order in which users see them. */
#include "commands/audit/notifications.h"

#include "base/uuid.h"
#include "db/array.h"

static void report_unmatched(AuditReport *report, const AuditStream *rows, const AuditStream *notes, int order) {
  if (order < 0)
    audit_violation(report, 6, "history row %.*s (%.*s of wallet %.*s): expected 1 notification, found none",
                    STR_FMT(audit_stream_cell(rows, 0)), STR_FMT(audit_stream_cell(rows, 1)),
                    STR_FMT(audit_stream_cell(rows, 2)));
  else if (order > 0)
    audit_violation(report, 6, "notification %.*s: expected history row %.*s, found none",
                    STR_FMT(audit_stream_cell(notes, 1)), STR_FMT(audit_stream_cell(notes, 0)));
}

/* Both are in the order of the history's ids. A stream that has ended is behind all ids. */
static int match_notifications(AuditReport *report, AuditStream *rows, AuditStream *notes) {
  TRY(audit_stream_next(rows));
  TRY(audit_stream_next(notes));
  while (!rows->ended || !notes->ended) {
    int order = rows->ended ? 1 : -1;
    if (!rows->ended && !notes->ended)
      order = audit_id_cmp(audit_stream_cell(rows, 0), audit_stream_cell(notes, 0));
    report_unmatched(report, rows, notes, order);
    report->history += order <= 0;
    if (order <= 0)
      TRY(audit_stream_next(rows));
    if (order >= 0)
      TRY(audit_stream_next(notes));
  }
  return 0;
}

static int audit_matches(AuditSource *sources, AuditReport *report) {
  AuditStream rows, notes = {0};
  int rc = audit_stream_open(&rows, &sources[AUDIT_BILLING],
                             "SELECT id, type_operation, billing_id FROM billing.history_billings ORDER BY id");
  if (rc == 0)
    rc = audit_stream_open(&notes, &sources[AUDIT_NOTIFICATION],
                           "SELECT history_id, id FROM notification.notifications ORDER BY history_id");
  if (rc == 0)
    rc = match_notifications(report, &rows, &notes);
  audit_stream_close(&rows);
  audit_stream_close(&notes);
  return rc;
}

/* For rows with consecutive notifications: the second starts with the amount that the first left in the wallet. */
#define SELECT_DISORDER                                                                                                \
  "SELECT format('notifications of wallet %%s: history row %%s, which starts at %%s, comes right after row %%s, "      \
  "which left %%s', after.billing_id, after.id, after.last_value_wallet, before.id, before.current_value_wallet) "     \
  "FROM unnest('%.*s'::uuid[], '%.*s'::uuid[]) AS neighbours(first, second) "                                          \
  "JOIN billing.history_billings before ON before.id = first JOIN billing.history_billings after ON after.id = "       \
  "second "                                                                                                            \
  "WHERE after.last_value_wallet <> before.current_value_wallet ORDER BY after.id"

static int add_id(DbArray *ids, Str text) {
  Uuid id;
  TRY(uuid_parse(text, &id));
  db_array_add(ids, V_UUID(id));
  return 0;
}

static int report_disorder(AuditSource *billing, AuditReport *report, Str first, Str second) {
  SCOPED_ARENA arena = arena_new();
  DbResult found;
  TRY(audit_query(billing, arena_printf(arena, SELECT_DISORDER, STR_FMT(first), STR_FMT(second)).p, arena, &found));
  for (int i = 0; i < found.rows; i++)
    audit_violation(report, 6, "%.*s", STR_FMT(db_cell(&found, i, 0)));
  return 0;
}

/* Checks a page of neighbours at a time, because only Billing knows their wallets. */
static int check_order(AuditSource *billing, AuditReport *report, AuditStream *neighbours) {
  TRY(audit_stream_next(neighbours));
  while (!neighbours->ended) {
    SCOPED_ARENA arena = arena_new();
    DbArray first = db_array(arena), second = db_array(arena);
    for (int i = 0; i < AUDIT_PAGE && !neighbours->ended; i++) {
      TRY(add_id(&first, audit_stream_cell(neighbours, 0)));
      TRY(add_id(&second, audit_stream_cell(neighbours, 1)));
      TRY(audit_stream_next(neighbours));
    }
    TRY(report_disorder(billing, report, db_array_end(&first).text, db_array_end(&second).text));
  }
  return 0;
}

static int audit_order(AuditSource *sources, AuditReport *report) {
  AuditStream neighbours;
  int rc =
      audit_stream_open(&neighbours, &sources[AUDIT_NOTIFICATION],
                        "SELECT * FROM (SELECT lag(history_id) OVER (PARTITION BY billing_id ORDER BY lsn, seq) AS "
                        "previous, history_id FROM notification.notifications WHERE billing_id IS NOT NULL) neighbours "
                        "WHERE previous IS NOT NULL");
  if (rc == 0)
    rc = check_order(&sources[AUDIT_BILLING], report, &neighbours);
  audit_stream_close(&neighbours);
  return rc;
}

int audit_notifications(AuditSource *sources, AuditReport *report) {
  TRY(audit_matches(sources, report));
  return audit_order(sources, report);
}

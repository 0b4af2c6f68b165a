/* The audit. A rule within one database is a SELECT of its violations. The rules across databases are in orders.c and
 * notifications.c. */
#include "commands/audit/audit.h"

#include "commands/audit/notifications.h"
#include "commands/audit/orders.h"
#include "commands/shop.h"

#include <inttypes.h>
#include <stdio.h>

/* Selects one text for each violation. */
typedef struct Check {
  int rule, source;
  bool in_flight; /* its findings may be unfinished work */
  bool parked;    /* its findings wait for an operator */
  const char *select;
} Check;

#define SAGAS_IN_FLIGHT(schema)                                                                                        \
  "SELECT format('saga %s (%s) is in flight: %s since %s', id, type, state, created_at) FROM " schema                  \
  ".saga WHERE due_at IS NOT NULL AND state <> 'PARKED' ORDER BY id"
#define SAGAS_PARKED(schema)                                                                                           \
  "SELECT format('saga %s (%s) is parked since %s: %s %s', id, type, parked_at, parked_step, parked_reason) "          \
  "FROM " schema ".saga WHERE state = 'PARKED' AND due_at IS NOT NULL ORDER BY id"

/* Of the history: the sign with which an operation changes its wallet. */
#define SIGN                                                                                                           \
  "CASE WHEN status <> 'SUCCESS' THEN 0 WHEN type_operation = 'BUY' THEN -1 "                                          \
  "WHEN type_operation IN ('CREATE', 'REFILL', 'REFUND') THEN 1 END"

static const Check checks[] = {
    {AUDIT_NOTE, AUDIT_NOTIFICATION, false, false,
     "SELECT format('dead letter at %s: %s: %s', to_json(position), reason, to_json(left(payload, 200))) "
     "FROM notification.dead_letters ORDER BY created_at, position"},
    {1, AUDIT_ORDER, true, false, SAGAS_IN_FLIGHT("\"order\"")},
    {1, AUDIT_USER, true, false, SAGAS_IN_FLIGHT("\"user\"")},
    {AUDIT_NOTE, AUDIT_ORDER, false, true, SAGAS_PARKED("\"order\"")},
    {AUDIT_NOTE, AUDIT_USER, false, true, SAGAS_PARKED("\"user\"")},
    {1, AUDIT_USER, true, false,
     "SELECT format('user %s is not registered, and has no saga in flight', id) FROM \"user\".users u "
     "WHERE NOT registered AND NOT EXISTS (SELECT FROM \"user\".saga s WHERE s.id = u.id AND due_at IS NOT NULL) "
     "ORDER BY id"},
    /* The history does not have the saga's id, so its rows are counted by wallet and sum. For every step TAKEN there is
     * a purchase that was not refunded, and every refund belongs to a purchase and a step CANCELED. */
    {3, AUDIT_BILLING, false, false,
     "SELECT format('wallet %s, purchases of %s: %s bought and %s refunded, but the sagas'' steps are %s TAKEN and %s "
     "CANCELED', billing_id, sum, bought, refunded, taken, canceled) FROM "
     "(SELECT billing_id, sum, coalesce(bought, 0) AS bought, coalesce(refunded, 0) AS refunded, "
     "    coalesce(taken, 0) AS taken, coalesce(canceled, 0) AS canceled FROM "
     "  (SELECT billing_id, sum, count(*) FILTER (WHERE type_operation = 'BUY') AS bought, "
     "      count(*) FILTER (WHERE type_operation = 'REFUND') AS refunded FROM billing.history_billings "
     "    WHERE status = 'SUCCESS' AND type_operation IN ('BUY', 'REFUND') GROUP BY billing_id, sum) h FULL JOIN "
     "  (SELECT billing_id, sum, count(*) FILTER (WHERE state = 'TAKEN') AS taken, "
     "      count(*) FILTER (WHERE state = 'CANCELED') AS canceled FROM billing.step "
     "    WHERE state IN ('TAKEN', 'CANCELED') GROUP BY billing_id, sum) s USING (billing_id, sum)) counted "
     "WHERE refunded > bought OR refunded > canceled OR taken > bought - refunded ORDER BY billing_id, sum"},
    {4, AUDIT_WAREHOUSE, false, false,
     "SELECT format('stock of %s: expected %s reserved by its reservations, found %s, and %s available', "
     "  to_json(item), coalesce(amount, 0), coalesce(reserved::text, 'no record'), coalesce(available::text, 'none')) "
     "FROM warehouse.stock s FULL JOIN (SELECT item, sum(amount) AS amount FROM warehouse.reservations "
     "  WHERE status = 'RESERVED' AND from_stock GROUP BY item) r USING (item) "
     "WHERE reserved IS DISTINCT FROM coalesce(amount, 0) OR available < 0 ORDER BY item"},
    {4, AUDIT_DELIVERY, false, false,
     "SELECT format('slot of %s: expected %s taken by its deliveries, found %s, with a capacity of %s', "
     "  to_char(time_delivery, 'YYYY-MM-DD\"T\"HH24:MI:SS'), coalesce(places, 0), coalesce(taken::text, 'no record'), "
     "  coalesce(capacity::text, 'none')) "
     "FROM delivery.slots s FULL JOIN (SELECT time_delivery, count(*) AS places FROM delivery.deliveries "
     "  WHERE status = 'SCHEDULED' AND in_slot GROUP BY time_delivery) d USING (time_delivery) "
     "WHERE taken IS DISTINCT FROM coalesce(places, 0) OR taken > capacity ORDER BY time_delivery"},
    {5, AUDIT_BILLING, false, false,
     "SELECT format('wallet %s: expected %s by its history with %s CREATE, found %s', id, coalesce(total, 0), "
     "  coalesce(created, 0), wallet) FROM billing.accounts LEFT JOIN "
     "(SELECT billing_id, sum(sum * " SIGN ") AS total, count(*) FILTER (WHERE type_operation = 'CREATE') AS created "
     "  FROM billing.history_billings WHERE status = 'SUCCESS' GROUP BY billing_id) h ON billing_id = id "
     "WHERE wallet < 0 OR wallet IS DISTINCT FROM total OR created IS DISTINCT FROM 1 ORDER BY id"},
    {5, AUDIT_BILLING, false, false,
     "SELECT format('history row %s of wallet %s: %s of %s was a %s, from %s to %s', id, billing_id, type_operation, "
     "  sum, status, last_value_wallet, current_value_wallet) FROM billing.history_billings "
     "WHERE current_value_wallet IS DISTINCT FROM last_value_wallet + sum * " SIGN
     " OR last_value_wallet < 0 OR current_value_wallet < 0 OR sum < 0 ORDER BY id"},
};
enum { CHECKS = sizeof(checks) / sizeof(checks[0]) };

static int run_check(const Check *check, AuditStream *found, AuditSource *sources, AuditReport *report) {
  TRY(audit_stream_open(found, &sources[check->source], check->select));
  for (;;) {
    int more = audit_stream_next(found);
    if (more <= 0)
      return more;
    audit_violation(report, check->rule, "%.*s", STR_FMT(audit_stream_cell(found, 0)));
    report->in_flight += check->in_flight;
    report->parked += check->parked;
  }
}

static int run_checks(AuditSource *sources, AuditReport *report) {
  for (int i = 0; i < CHECKS; i++) {
    AuditStream found;
    int rc = run_check(&checks[i], &found, sources, report);
    audit_stream_close(&found);
    TRY(rc);
  }
  return 0;
}

static int count_wallets(AuditSource *sources, AuditReport *report) {
  SCOPED_ARENA arena = arena_new();
  DbResult found;
  TRY(audit_query(&sources[AUDIT_BILLING], "SELECT count(*) FROM billing.accounts", arena, &found));
  return str_to_int(db_cell(&found, 0, 0), &report->wallets);
}

static int audit_all(AuditSource *sources, AuditReport *report) {
  for (int i = 0; i < AUDIT_SOURCES; i++)
    TRY(audit_source_open(&sources[i]));
  TRY(run_checks(sources, report));
  TRY(audit_orders(sources, report));
  TRY(count_wallets(sources, report));
  return audit_notifications(sources, report);
}

/* Returns how many violations there are. */
static int64_t print_summary(const AuditReport *report) {
  int64_t violations = 0;
  for (int rule = AUDIT_NOTE; rule <= AUDIT_RULES; rule++) {
    if (report->violations[rule] > AUDIT_SHOWN)
      printf("%s: %" PRId64 " in total, the first %d are shown\n", audit_rule_name(rule), report->violations[rule],
             AUDIT_SHOWN);
    violations += rule == AUDIT_NOTE ? 0 : report->violations[rule];
  }
  if (report->left_out)
    printf("audit: %" PRId64 " saga orders were changed or deleted by clients and were not checked\n",
           report->left_out);
  if (report->in_flight)
    printf("audit: sagas are in flight; violations may be unfinished work\n");
  if (report->parked)
    printf("audit: %" PRId64 " parked saga%s to be resolved by an operator; their rows were not checked\n",
           report->parked, report->parked == 1 ? "" : "s");
  printf("audit: %" PRId64 " orders, %" PRId64 " wallets, %" PRId64 " history rows checked: ", report->orders,
         report->wallets, report->history);
  if (violations)
    printf("%" PRId64 " violation%s\n", violations, violations == 1 ? "" : "s");
  else
    printf(report->parked ? "clean except for parked sagas\n" : "clean\n");
  return violations;
}

static int run(int argc, char **argv) {
  (void)argc;
  (void)argv;
  AuditReport report = {0};
  AuditSource sources[AUDIT_SOURCES] = {
      [AUDIT_ORDER] = {.service = "order", .dsn = shop_dsn(ORDER)},
      [AUDIT_PAYMENT] = {.service = "payment", .dsn = shop_dsn(PAYMENT)},
      [AUDIT_WAREHOUSE] = {.service = "warehouse", .dsn = shop_dsn(WAREHOUSE)},
      [AUDIT_DELIVERY] = {.service = "delivery", .dsn = shop_dsn(DELIVERY)},
      [AUDIT_USER] = {.service = "user", .dsn = shop_dsn(USER)},
      [AUDIT_BILLING] = {.service = "billing", .dsn = shop_dsn(BILLING)},
      [AUDIT_NOTIFICATION] = {.service = "notification", .dsn = shop_dsn(NOTIFICATION)},
  };
  int rc = audit_all(sources, &report);
  for (int i = 0; i < AUDIT_SOURCES; i++)
    audit_source_close(&sources[i]);
  if (rc < 0)
    return 1;
  return print_summary(&report) ? 1 : 0;
}

static const Option *const tables[] = {shop_database_options, NULL};

const Command audit_command = {
    .name = "audit",
    .arguments = "",
    .help = "checks the invariants of orders, wallets, stock, slots and notifications in all databases",
    .run = run,
    .tables = tables};

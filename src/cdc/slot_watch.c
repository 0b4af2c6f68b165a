/* Polls the server. */
#include "cdc/slot_watch.h"

#include "metrics/metrics.h"
#include "rt/clock.h"
#include "rt/fiber.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define EVERY_US (2 * SECONDS)

static const MetricFamily families[] = {
    {.type = METRIC_OPTIONAL, .name = "skald_slot_active", .help = "Whether anybody reads the replication slot."},
    {.type = METRIC_OPTIONAL, .name = "skald_slot_lag_bytes", .help = "WAL from the slot's confirmed position on."},
    {.type = METRIC_OPTIONAL, .name = "skald_slot_wal_held_bytes", .help = "WAL the server keeps because of the slot."},
    {.type = METRIC_OPTIONAL, .name = "skald_slot_lost", .help = "Whether WAL that the slot needs has been removed."},
};
enum { GAUGES = sizeof(families) / sizeof(families[0]) };

/* Its columns are in the order of the families. */
static const Sql select_slot = {
    "SELECT active::integer, pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::bigint, "
    "pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint, (wal_status = 'lost')::integer "
    "FROM pg_replication_slots WHERE slot_name = $1 AND database = current_database()"};

static struct {
  Db *db;
  Str slot;
  Metric *gauges[GAUGES];
} watch;

void slot_watch_prepare(const char *slot) {
  char labels[128];
  snprintf(labels, sizeof(labels), "slot=\"%s\"", slot);
  watch.slot = str_from(slot);
  for (int i = 0; i < GAUGES; i++)
    watch.gauges[i] = metric_in(&families[i], labels, "");
}

/* What is not known is not shown. */
static void look(Arena *arena) {
  DbResult found = {0};
  int rc = db_exec(watch.db, arena, DB_STMT(&select_slot, V_TEXT(watch.slot)), &found, clock_now_us() + EVERY_US);
  for (int i = 0; i < GAUGES; i++) {
    int64_t value;
    bool known = rc == E_OK && found.rows == 1 && str_to_int(db_cell(&found, 0, i), &value) == E_OK;
    metric_set(watch.gauges[i], known ? (double)value : NAN);
  }
}

static void run(void *arg) {
  (void)arg;
  SCOPED_ARENA arena = arena_new();
  do {
    look(arena);
    arena_reset(arena);
  } while (fiber_sleep(EVERY_US) == E_OK);
}

void slot_watch_start(Db *db) {
  watch.db = db;
  if (!fiber_start("replication slot", run, NULL))
    die("no fiber for the replication slot's watch"); /* at start there is room, or the limit is a defect */
}

/* Making the replication slot. The server shows a slot from the moment somebody begins to make it, but it keeps events
 * only from when its confirmed position is set: until then it counts as not there. */
#include "cdc/slot.h"

#include "db/script.h"
#include "rt/clock.h"

#define PAUSE    "SELECT pg_sleep(0.2)"
#define ALTER_US (5 * SECONDS)

typedef struct SlotMigration {
  Arena *arena;
  DbScript *db;
  const char *dsn, *slot;
  int64_t patience_us;
  SlotReport *report;
  int64_t deadline_us; /* 0: nobody was waited for yet */
  Str error;
} SlotMigration;

typedef struct SlotState {
  bool exists, ready;
  bool lost;         /* it can never be read again */
  bool stays_behind; /* when a standby takes over, though it could be synchronized */
  Str user;          /* id of the process that makes or reads it */
} SlotState;

static int check_slot(SlotMigration *m, const DbResult *found) {
  Str type = db_cell(found, 0, 0), level = db_cell(found, 0, 2);
  if (type.p && !str_eq(db_cell(found, 0, 1), STR("t"))) {
    m->error = arena_printf(m->arena, "the %.*s replication slot %s belongs to %.*s or to another plugin",
                            STR_FMT(type), m->slot, STR_FMT(db_cell(found, 0, 6)));
    return E_CONFLICT;
  }
  if (!type.p && !str_eq(level, STR("logical"))) {
    m->error = arena_printf(m->arena,
                            "PostgreSQL runs with wal_level=%.*s, and change events need logical: "
                            "ALTER SYSTEM SET wal_level = 'logical', then restart the server",
                            STR_FMT(level));
    return E_CONFLICT;
  }
  return E_OK;
}

/* The column failover is there from PostgreSQL 17 on. */
static int find_slot(SlotMigration *m, SlotState *ret) {
  DbResult found;
  Str sql =
      arena_printf(m->arena,
                   "SELECT s.slot_type, s.database = current_database() AND s.plugin IN ('pgoutput', ''), l.level, "
                   "s.confirmed_flush_lsn IS NOT NULL, to_jsonb(s) ->> 'failover' = 'false', s.active_pid, "
                   "coalesce('database ' || s.database, 'no database'), s.wal_status = 'lost' FROM (SELECT "
                   "current_setting('wal_level')) AS l(level) LEFT JOIN pg_replication_slots s "
                   "ON s.slot_name = '%s'",
                   m->slot);
  TRY(db_script_run(m->db, sql.p, m->arena, &found, &m->error));
  TRY(check_slot(m, &found));
  *ret = (SlotState){.exists = db_cell(&found, 0, 0).p != NULL,
                     .ready = str_eq(db_cell(&found, 0, 3), STR("t")),
                     .lost = str_eq(db_cell(&found, 0, 7), STR("t")),
                     .stays_behind = str_eq(db_cell(&found, 0, 4), STR("t")),
                     .user = db_cell(&found, 0, 5)};
  return E_OK;
}

static int wait_for_maker(SlotMigration *m, Str maker) {
  if (m->deadline_us == 0) {
    m->deadline_us = clock_now_us() + m->patience_us;
    m->report(true,
              arena_printf(m->arena,
                           "process %.*s is making the replication slot %s; waiting until it is ready, for %lld s",
                           STR_FMT(maker), m->slot, (long long)(m->patience_us / SECONDS)));
  }
  if (clock_now_us() >= m->deadline_us) {
    m->error = arena_printf(m->arena,
                            "process %.*s is still making the slot %s, which takes until every transaction has ended "
                            "that was open: pg_stat_activity shows them. Migrate again then",
                            STR_FMT(maker), m->slot);
    return E_TIMEOUT;
  }
  return db_script_run(m->db, PAUSE, m->arena, NULL, &m->error);
}

/* A slot is altered over a replication connection; the command waits for its reader to end. */
static int alter_slot(SlotMigration *m) {
  DbScript *db = NULL;
  Str command = arena_printf(m->arena, "ALTER_REPLICATION_SLOT \"%s\" (FAILOVER true)", m->slot);
  TRY(db_script_open_replication(m->dsn, m->arena, &db, &m->error));
  int rc = db_script_run_within(db, command.p, ALTER_US, m->arena, &m->error);
  db_script_close(db);
  return rc;
}

/* No event depends on it, so where it cannot be done that is reported and the migration succeeds. */
static void enable_failover(SlotMigration *m, Str reader) {
  int rc = E_BUSY;
  if (reader.p)
    m->error = arena_printf(m->arena, "process %.*s reads it", STR_FMT(reader));
  else
    rc = alter_slot(m);
  if (rc == E_OK)
    m->report(false, arena_printf(m->arena, "the replication slot %s is synchronized to standbys (failover)", m->slot));
  else
    m->report(true,
              arena_printf(m->arena,
                           "the replication slot %s is not synchronized to standbys (failover): %.*s. Where there "
                           "is a standby, migrate again while nobody reads the slot",
                           m->slot, STR_FMT(m->error)));
}

/* Not replaced here: the gap must be looked after first, and Billing works without the slot. */
static void report_lost(const SlotMigration *m) {
  m->report(true,
            arena_printf(m->arena,
                         "the replication slot %s is lost: WAL that it needs has been removed. It gives no events "
                         "until it is made anew: SELECT pg_drop_replication_slot('%s'), then migrate again. What "
                         "happened in between stays in Billing's history; skald audit lists it",
                         m->slot, m->slot));
}

/* From PostgreSQL 17 on it is synchronized to standbys, if it is made so. */
static int create_slot(SlotMigration *m) {
  Str sql = arena_printf(m->arena,
                         "DO $$ BEGIN IF current_setting('server_version_num')::int >= 170000 THEN "
                         "PERFORM pg_create_logical_replication_slot('%s', 'pgoutput', failover => true); ELSE "
                         "PERFORM pg_create_logical_replication_slot('%s', 'pgoutput'); END IF; END $$",
                         m->slot, m->slot);
  return db_script_run(m->db, sql.p, m->arena, NULL, &m->error);
}

static int make_slot(SlotMigration *m) {
  for (;;) {
    SlotState slot;
    TRY(find_slot(m, &slot));
    if (slot.ready && slot.lost)
      report_lost(m);
    else if (slot.ready && slot.stays_behind)
      enable_failover(m, slot.user);
    if (slot.ready)
      return E_OK;
    int rc = slot.exists ? wait_for_maker(m, slot.user) : create_slot(m);
    if (rc == E_OK && !slot.exists)
      return E_OK;
    if (rc < 0 && !db_script_failed_by(m->db, DB_DUPLICATE_OBJECT)) /* else another process was quicker */
      return rc;
  }
}

int slot_migrate(const char *dsn, const char *slot, int64_t patience_us, SlotReport *report) {
  SCOPED_ARENA arena = arena_new();
  SlotMigration m = {.arena = arena, .dsn = dsn, .slot = slot, .patience_us = patience_us, .report = report};
  int rc = db_script_open(dsn, arena, &m.db, &m.error);
  if (rc == E_OK)
    rc = make_slot(&m);
  db_script_close(m.db);
  if (rc < 0)
    report(true, arena_printf(arena, "no replication slot for Billing's events: %.*s", STR_FMT(m.error)));
  return rc;
}

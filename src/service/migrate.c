/* Applying versioned SQL. */
#include "service/migrate.h"

#include "db/script.h"
#include "rt/clock.h"
#include "service/schema.h"

#include <stdio.h>
#include <string.h>

#define LOCK "SELECT pg_advisory_lock(7236873)" /* any number, the same for all of us */
/* Everybody who needs a table queues behind a migration that waits for its lock. So it gives up before the services'
 * statements do, which is after 3 s, and lets the queue pass. But not before deadlock_timeout, 1 s by default, is over:
 * only then does PostgreSQL cancel an autovacuum that holds the lock, which may otherwise take hours. */
#define BRIEF_LOCKS "SET LOCAL lock_timeout = '2s'"
#define LET_PASS    "SELECT pg_sleep(1)"

typedef struct Migration {
  Arena *arena;
  DbScript *script;
  const ServiceDef *def;
  int64_t patience_us;
  int applied;
  Str error;
} Migration;

static Str with_schema(Arena *arena, Str sql, const char *schema) {
  static const Str mark = STR("{schema}");
  Buf b = {.arena = arena};
  for (size_t i = 0; i < sql.n;) {
    if (sql.n - i >= mark.n && !memcmp(sql.p + i, mark.p, mark.n)) {
      buf_cstr(&b, schema);
      i += mark.n;
    } else {
      buf_char(&b, sql.p[i++]);
    }
  }
  buf_char(&b, 0);
  return buf_view(&b);
}

/* A module's row is looked for under its name only: carry_over has made it from one under the old name. */
static int is_applied(Migration *m, const SchemaPart *part, bool *ret) {
  Str sql = arena_printf(m->arena,
                         "SELECT 1 FROM public.skald_migration WHERE service = '%s' AND module = '%s' AND version = %d",
                         m->def->name, part->module->name, part->version);
  DbResult found;
  TRY(db_script_run(m->script, sql.p, m->arena, &found, &m->error));
  *ret = found.rows > 0;
  return 0;
}

/* Of the other sessions that have locks on the service's tables, the one whose transaction is oldest. */
static int find_holder(Migration *m, Str *ret) {
  Str sql =
      arena_printf(m->arena,
                   "SELECT concat_ws(', ', 'process ' || a.pid, 'role ' || a.usename, nullif(a.application_name, ''), "
                   "a.state, 'its transaction began ' || date_trunc('second', a.xact_start)) FROM pg_locks l "
                   "JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace "
                   "JOIN pg_stat_activity a ON a.pid = l.pid AND a.datname = current_database() "
                   "WHERE l.granted AND l.pid <> pg_backend_pid() AND n.nspname = '%s' ORDER BY a.xact_start LIMIT 1",
                   m->def->schema);
  DbResult found;
  TRY(db_script_run(m->script, sql.p, m->arena, &found, &m->error));
  *ret = found.rows > 0 ? db_cell(&found, 0, 0) : STR("no session any more");
  return 0;
}

/* After an attempt that got no lock. *deadline_us is 0 after the first one. */
static int wait_for_locks(Migration *m, int version, int64_t *deadline_us) {
  Str holder;
  TRY(db_script_run(m->script, "ROLLBACK", m->arena, NULL, &m->error));
  TRY(find_holder(m, &holder));
  if (*deadline_us == 0) {
    *deadline_us = clock_now_us() + m->patience_us;
    fprintf(stderr, "skald: migration %d of %s cannot lock its tables; retrying for %lld s. Held by: %.*s\n", version,
            m->def->name, (long long)(m->patience_us / 1000000), STR_FMT(holder));
  }
  if (clock_now_us() >= *deadline_us) {
    m->error = arena_printf(m->arena,
                            "migration %d could not lock its tables and has changed nothing. Held by: %.*s. Let that "
                            "end, or end it with pg_terminate_backend, and migrate again",
                            version, STR_FMT(holder));
    return E_TIMEOUT;
  }
  return db_script_run(m->script, LET_PASS, m->arena, NULL, &m->error);
}

/* What lists a part as applied. Executables that know a module by its old name only must not apply it again. */
static Str rows_of(Migration *m, const SchemaPart *part) {
  Buf b = {.arena = m->arena};
  buf_printf(&b, "('%s', '%s', %d)", m->def->name, part->module->name, part->version);
  if (part->module->old_name)
    buf_printf(&b, ", ('%s', '%s', %d)", m->def->name, part->module->old_name, part->version);
  return buf_view(&b);
}

static int apply(Migration *m, const SchemaPart *part) {
  bool applied;
  TRY(is_applied(m, part, &applied));
  if (applied)
    return 0;
  Str all = arena_printf(m->arena,
                         "BEGIN; " BRIEF_LOCKS "; %s; INSERT INTO public.skald_migration (service, module, version) "
                         "VALUES %.*s; COMMIT",
                         with_schema(m->arena, part->sql, m->def->schema).p, STR_FMT(rows_of(m, part)));
  int64_t deadline_us = 0;
  for (int rc; (rc = db_script_run(m->script, all.p, m->arena, NULL, &m->error)) < 0;) {
    if (!db_script_failed_by(m->script, DB_LOCK_NOT_AVAILABLE))
      return rc;
    TRY(wait_for_locks(m, part->version, &deadline_us));
  }
  m->applied++;
  return 0;
}

/* The first executables numbered the modules instead of naming them. Their rows stay: such an executable may run again.
 * And where one of them has applied a later version meanwhile, that is carried over, too. */
static int carry_over(Migration *m) {
  for (const SqlModule *module = m->def->modules; module->name; module++) {
    if (!module->old_name)
      continue;
    Str sql = arena_printf(m->arena,
                           "INSERT INTO public.skald_migration (service, module, version, applied_at) "
                           "SELECT service, '%s', version, applied_at FROM public.skald_migration "
                           "WHERE service = '%s' AND module = '%s' ON CONFLICT DO NOTHING",
                           module->name, m->def->name, module->old_name);
    TRY(db_script_run(m->script, sql.p, m->arena, NULL, &m->error));
  }
  return 0;
}

static int apply_all(Migration *m) {
  SchemaPart *parts;
  int count;
  if (schema_parts(m->def, m->arena, &parts, &count) < 0) {
    m->error = STR("a heading names no version");
    return E_INTERNAL;
  }
  TRY(db_script_run(m->script,
                    LOCK "; CREATE TABLE IF NOT EXISTS public.skald_migration (service text, module text, version int,"
                         " applied_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (service, module, version))",
                    m->arena, NULL, &m->error));
  TRY(carry_over(m));
  for (int i = 0; i < count; i++)
    TRY(apply(m, &parts[i]));
  return 0;
}

/* Whether the database is missing is asked from the server: a failed connection has no SQLSTATE, only a message, which
 * may be of any language. Where that cannot be asked the first error stands. */
static int open_or_create(Migration *m, const char *dsn) {
  int rc = db_script_open(dsn, m->arena, &m->script, &m->error);
  if (rc != E_UNAVAILABLE)
    return rc;
  Str error;
  rc = db_script_create_database(dsn, m->arena, &error);
  if (rc == E_INTERNAL)
    m->error = error;
  if (rc == E_OK || rc == E_EXISTS) /* also when another process has made it meanwhile */
    return db_script_open(dsn, m->arena, &m->script, &m->error);
  return E_UNAVAILABLE;
}

int migrate_service(const ServiceDef *def, const char *dsn, int64_t patience_us) {
  SCOPED_ARENA arena = arena_new();
  Migration m = {.arena = arena, .def = def, .patience_us = patience_us};
  int rc = open_or_create(&m, dsn);
  if (rc == 0)
    rc = apply_all(&m);
  db_script_close(m.script);
  if (rc < 0)
    fprintf(stderr, "skald: cannot migrate the database of %s: %.*s\n", def->name, STR_FMT(m.error));
  else if (m.applied)
    printf("%s: %d migration%s applied\n", def->name, m.applied, m.applied == 1 ? "" : "s");
  return rc;
}

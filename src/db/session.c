/* The table of parameters. */
#include "db/session.h"

#include "base/buf.h"

#define ALL(value) .pool = (value), .script = (value), .stream = (value)

/* Values as SQL writes them; NULL: as the server has it. */
static const struct {
  const char *name, *pool, *script, *stream;
  int since; /* version of the server */
} parameters[] = {
    /* First, as they bound what follows here, too. */
    {.name = "statement_timeout", .pool = "'10s'", .script = "0", .stream = "0"},
    {.name = "lock_timeout", .pool = "'3s'", .script = "0", .stream = "0"},
    {.name = "idle_in_transaction_session_timeout", ALL("0")},
    {.name = "idle_session_timeout", ALL("0")},
    {.name = "transaction_timeout", ALL("0"), .since = 170000},
    /* What names and operators stand for. */
    {.name = "quote_all_identifiers", ALL("off")},
    {.name = "search_path", ALL("\"$user\", public")},
    {.name = "standard_conforming_strings", ALL("on")},
    {.name = "transform_null_equals", ALL("off")},
    /* How values are written and read. */
    {.name = "datestyle", ALL("'ISO, MDY'")},
    {.name = "intervalstyle", ALL("'postgres'")},
    {.name = "timezone", ALL("'UTC'")},
    {.name = "bytea_output", ALL("'hex'")},
    {.name = "extra_float_digits", ALL("3")},
    {.name = "array_nulls", ALL("on")},
    {.name = "xmloption", ALL("'content'")},
    {.name = "xmlbinary", ALL("'base64'")},
    {.name = "lc_monetary", ALL("'C'")},
    {.name = "lc_numeric", ALL("'C'")},
    {.name = "lc_time", ALL("'C'")},
    /* What a transaction promises. */
    {.name = "default_transaction_isolation", ALL("'read committed'")},
    {.name = "default_transaction_deferrable", ALL("off")},
    /* Rows that a policy hides: rather an error than an audit that does not see them. */
    {.name = "row_security", .pool = "on", .script = "off"},
    /* Plans of short statements. */
    {.name = "jit", .pool = "off"},
    {.name = "plan_cache_mode", .pool = "'auto'", .script = "'auto'"},
    /* PostgreSQL 18 warns in the stream of changes that it leaves out. */
    {.name = "client_min_messages", .pool = "'warning'", .script = "'notice'", .stream = "'warning'"},
};

/* A level that an administrator chose is kept, as long as a commit is on the disk before it is confirmed. */
#define DURABLE                                                                                                        \
  "SELECT pg_catalog.set_config('synchronous_commit', 'on', false) "                                                   \
  "WHERE pg_catalog.current_setting('synchronous_commit') = 'off';"

/* A server whose administrator, or whose full disk, made it read-only as a whole stays so. */
#define WRITABLE                                                                                                       \
  "SELECT pg_catalog.set_config('default_transaction_read_only', 'off', false) FROM pg_catalog.pg_settings "           \
  "WHERE name = 'default_transaction_read_only' AND setting = 'on' "                                                   \
  "AND source IN ('database', 'user', 'database user', 'client');"

/* Without triggers an ended saga could change. Only a superuser may set it, so it is left alone where it is right. */
#define WITH_TRIGGERS                                                                                                  \
  "SELECT pg_catalog.set_config('session_replication_role', 'origin', false) "                                         \
  "WHERE pg_catalog.current_setting('session_replication_role') = 'replica';"

static const char *value_for(size_t i, DbSession session) {
  if (session == DB_SESSION_POOL)
    return parameters[i].pool;
  return session == DB_SESSION_SCRIPT ? parameters[i].script : parameters[i].stream;
}

Str session_sql(Arena *arena, DbSession session, int server_version) {
  Buf b = {.arena = arena};
  for (size_t i = 0; i < sizeof(parameters) / sizeof(parameters[0]); i++) {
    const char *value = value_for(i, session);
    if (value && server_version >= parameters[i].since)
      buf_printf(&b, "SET %s = %s;", parameters[i].name, value);
  }
  if (session != DB_SESSION_STREAM)
    buf_cstr(&b, DURABLE WRITABLE WITH_TRIGGERS);
  return arena_str(arena, buf_view(&b));
}

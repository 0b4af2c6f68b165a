/* Reading connection strings by libpq's own parser, behind checks for what it misreads. */
#include "db/dsn.h"

#include "base/buf.h"
#include "db/pq.h"

#include <string.h>

static const char how_to_write[] = "In a URL's password write % as %25, @ as %40 and / as %2F; as the value of a "
                                   "keyword put it between '…' if it has spaces";

static bool is_uri(const char *text) {
  return !strncmp(text, "postgresql://", 13) || !strncmp(text, "postgres://", 11);
}

static int malformed(Arena *arena, Str *why, const char *what) {
  *why = arena_printf(arena, "the connection string cannot be used: %s. %s", what, how_to_write);
  return E_FIELD;
}

/* libpq ends the user and password at the first '@' that no '/' precedes. An '@' that is left belongs to a password
 * with an '@' or a '/' in it: libpq would take the rest of that password for the host, the port or the database. */
static bool is_ambiguous(const char *uri) {
  const char *authority = strstr(uri, "://") + 3, *rest = authority + strcspn(authority, "@/");
  rest = *rest == '@' ? rest + 1 : authority;
  size_t n = strcspn(rest, "?");
  return memchr(rest, '@', n) != NULL;
}

/* A name of a database and nothing else is allowed, too. A URI with a slip in its scheme looks like one to libpq. */
static const char *problem_of_form(const char *text) {
  if (is_uri(text))
    return is_ambiguous(text) ? "there is an @ where the host, the port or the database should be" : NULL;
  if (strchr(text, '='))
    return NULL;
  return strpbrk(text, ":/@?&") ? "it is no URL postgresql://… and has no keywords with values" : NULL;
}

/* The part of libpq's sentence in front of what it quotes from the string. */
static Str without_quotes(Arena *arena, const char *said) {
  static const char syntax[] = "=]:/"; /* quoted, too, but not from the string */
  const char *p = strchr(said, '"');
  while (p && p[1] && strchr(syntax, p[1]) && p[2] == '"')
    p = strchr(p + 3, '"');
  size_t n = p ? (size_t)(p - said) : strcspn(said, "\n");
  return arena_printf(arena, "%.*s%s", (int)n, said, p ? "…" : "");
}

static int check_syntax(const char *text, Arena *arena, Str *why) {
  if (!is_uri(text) && !strchr(text, '='))
    return E_OK;
  char *said = NULL;
  PQconninfoOption *options = PQconninfoParse(text, &said);
  int rc = options ? E_OK : malformed(arena, why, without_quotes(arena, said ? said : "out of memory").p);
  PQconninfoFree(options);
  PQfreemem(said);
  return rc;
}

static const char *value_of(const PQconninfoOption *options, const char *keyword) {
  for (const PQconninfoOption *o = options; o && o->keyword; o++)
    if (!strcmp(o->keyword, keyword) && o->val)
      return o->val;
  return "";
}

static int take_options(const PQconninfoOption *options, Arena *arena, Dsn *ret, Str *why) {
  const char *database = value_of(options, "dbname"), *problem = NULL;
  if (strstr(database, "://"))
    return malformed(arena, why, "the name of the database is a URL");
  if (hosts_split(value_of(options, "host"), value_of(options, "hostaddr"), value_of(options, "port"), arena,
                  &ret->hosts, &problem) < 0)
    return malformed(arena, why, problem);
  ret->database = arena_cstr(arena, str_from(database));
  ret->has_timeout = *value_of(options, "connect_timeout") != 0;
  return E_OK;
}

/* Only a connection knows all of libpq's defaults. One with an impossible sslmode has read them and goes no further. */
int dsn_read(const char *text, Arena *arena, Dsn *ret, Str *why) {
  const char *problem = problem_of_form(text);
  if (problem)
    return malformed(arena, why, problem);
  TRY(check_syntax(text, arena, why));
  const char *keys[] = {"dbname", "sslmode", NULL}, *values[] = {text, "none of its values", NULL};
  PGconn *never = PQconnectStartParams(keys, values, 1);
  PQconninfoOption *options = PQconninfo(never);
  if (!never || !options)
    die("out of memory");
  Dsn dsn = {0};
  int rc = *value_of(options, "port") ? take_options(options, arena, &dsn, why)
                                      : malformed(arena, why, without_quotes(arena, PQerrorMessage(never)).p);
  PQconninfoFree(options);
  PQfinish(never);
  if (rc == E_OK)
    *ret = dsn;
  return rc;
}

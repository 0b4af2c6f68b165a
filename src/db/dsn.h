/* What a connection string says, with what libpq adds to it from the environment and from service files. A string that
 * cannot be read holds its password in some unexpected place, so no message of this module repeats any part of it, and
 * what libpq says about such a string is not shown either. */
#ifndef SKALD_DB_DSN_H
#define SKALD_DB_DSN_H

#include "base/arena.h"
#include "base/err.h"
#include "db/hosts.h"

typedef struct Dsn {
  HostList hosts;
  const char *database;
  bool has_timeout; /* connect_timeout is given */
} Dsn;

/* text: a URI postgresql://…, keywords and values, or a database's name. Nothing is connected or looked up. E_FIELD:
 * it is malformed, or so ambiguous that a part of the password may be taken for something else; *why is a sentence.
 * What is returned lives in the arena. */
MUST_CHECK int dsn_read(const char *text, Arena *arena, Dsn *ret, Str *why);

#endif

/* The versions of a service's SQL: the parts that its scripts are cut into, and whether its database has them. */
#ifndef SKALD_SERVICE_SCHEMA_H
#define SKALD_SERVICE_SCHEMA_H

#include "service/def.h"

#define SCHEMA_SCRIPT "service" /* the name of a service's own script among its modules */

typedef struct SchemaPart { /* a version of one script */
  const SqlModule *module;
  int version;
  Str sql; /* from its heading on */
} SchemaPart;

/* All parts in the order in which they are applied. E_INTERNAL: a heading names no version. */
MUST_CHECK int schema_parts(const ServiceDef *def, Arena *arena, SchemaPart **ret, int *ret_count);

/* The first part that is not among the rows (module, version); NULL: the database has at least these. */
const SchemaPart *schema_missing(const SchemaPart *parts, int count, const DbResult *listed);

/* Watches the service's database from now on, in a fiber: until it has at least what this executable knows, and anew
 * after it was away, or when schema_doubt is called. begin is called once, as soon as the database has it all. */
void schema_watch(Service *s, void (*begin)(Service *s));
void schema_unwatch(Service *s);     /* begin is not called any more */
bool schema_begun(const Service *s); /* begin has been called */
/* Why the service cannot work now; absent: it can, or is not watched. In the arena. */
Str schema_problem(const Service *s, Arena *arena);
/* The same for a request. In a process that has just started, it waits a moment for the first check. */
Str schema_admit(const Service *s, Arena *arena);
void schema_doubt(Service *s); /* something failed that may come from a missing table */

#endif

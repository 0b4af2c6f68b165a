/* The audit: checks the shop's invariants across all its databases, once nothing is in flight. */
#ifndef SKALD_AUDIT_H
#define SKALD_AUDIT_H

typedef struct AuditDatabases { /* connection strings; several may be the same */
  const char *order, *payment, *warehouse, *delivery, *user, *billing, *notification;
} AuditDatabases;

/* Blocks. Prints each violation with its row, and a summary. 0: all is as it must be; 1: it is not, or could not be
 * seen. */
int audit_run(const AuditDatabases *databases);

#endif

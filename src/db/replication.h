/* A logical replication connection to PostgreSQL: the COPY stream of one slot. All calls wait in the current fiber.
 * What the bytes mean is for the caller. */
#ifndef SKALD_DB_REPLICATION_H
#define SKALD_DB_REPLICATION_H

#include "base/arena.h"
#include "base/err.h"

/* For so long a server that is well is never silent once it is asked for an answer, not even while it decodes a large
 * transaction that is not for us. */
#define REPLICATION_SILENCE_US 20000000

typedef struct Replication Replication;

/* Always gives a connection in *ret, which tells the error and wants replication_close. E_UNAVAILABLE, E_CANCELED. */
MUST_CHECK int replication_open(const char *dsn, const char *application_name, Replication **ret);
/* Starts the slot where its last confirmed position stands, with plugin pgoutput, protocol version 1. Names are of
 * letters, digits and _ (else E_FIELD). E_BUSY: somebody else reads the slot. E_NOT_FOUND: no such slot.
 * E_UNAVAILABLE: anything else, see replication_error. */
MUST_CHECK int replication_start(Replication *r, const char *slot, const char *publication);
/* Before the start: the end of the WAL, where the publication is known. 0: there is no such publication.
 * E_UNAVAILABLE, E_CANCELED. */
MUST_CHECK int replication_known_since(Replication *r, const char *publication, uint64_t *ret_lsn);
/* 1: *ret is the next message, valid until the next call. 0: none came until the deadline or until the fiber was
 * woken. E_NOT_FOUND: the publication was not there yet when that was written. E_UNAVAILABLE: the stream ended.
 * E_CANCELED. */
MUST_CHECK int replication_read(Replication *r, Str *ret, int64_t deadline_us);
MUST_CHECK int replication_write(Replication *r, Str message); /* E_UNAVAILABLE, E_CANCELED */
const char *replication_database(const Replication *r);
Str replication_error(const Replication *r); /* the server's or libpq's words for the last error, one line */
void replication_close(Replication *r);      /* takes NULL */

#endif

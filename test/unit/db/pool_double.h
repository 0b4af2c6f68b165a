/* A scripted PostgreSQL for the tests of the pool: libpq's functions as far as db/ calls them, over a server without a
 * network. It runs what was flushed up to each Sync, and as the real one it shows the results of a flight only then. A
 * statement is known by its first parameter, which the script names. It also keeps the clock. */
#ifndef SKALD_TEST_DB_POOL_DOUBLE_H
#define SKALD_TEST_DB_POOL_DOUBLE_H

#include "base/str.h"

void server_reset(void); /* no faults, no locks, an empty journal; the connections stay as they are */

/* What has been sent, in its order: "0:a 0:b ; 1:c ;" is a and b in one transaction on the pool's first connection and
 * then c on its second. Preparations are left out. */
const char *server_journal(void);
void server_forget_journal(void);
int server_sent(const char *value); /* how often it was sent */
int server_opened(void);            /* how many connections were made */

void server_fail(const char *value, const char *sqlstate); /* an error, as often as it comes; COMMIT: of each commit */
void server_fail_prepare(const char *sqlstate);            /* of every statement, until the reset */
void server_lock(const char *value);                       /* its connection waits for a lock */
void server_unlock(const char *value);
void server_time_out(const char *value); /* what waits for this lock fails with 55P03; it stays locked */
void server_freeze(bool frozen);         /* it takes what comes, and does nothing */
void server_cut(int connection);         /* the network's end */
void server_refuse(bool refuse);         /* connections */
void server_read_only(bool read_only);   /* as the parameters of each session say from their next response on */

void clock_advance(int64_t us); /* nothing else moves the monotonic clock */

/* The last line logged, as "component level message", where ours go: the test needs no log. */
const char *logged(void);
void forget_logged(void);

#endif

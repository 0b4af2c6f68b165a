/* Opening connections to hosts that are not there, are silent, or have no name that is known; and the session's SQL.
 * The loop must go on meanwhile. */
#include "db/connect.h"

#include "resolver.h"
#include "rt/fiber.h"
#include "rt/loop.h"
#include "unit/unit.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <unistd.h>

#define SMOOTH_US (2 * SECONDS) /* a lookup in the loop would last as long as the silence */

static struct {
  char dsn[256], reason[DB_REASON];
  PGconn *pq;
  int rc;
  int64_t took_us, longest_us; /* of the connecting; between two ticks of the loop */
  bool ended;
} seen;

static PGconn *const untouched = (PGconn *)&seen;

static void tick(void *arg) {
  (void)arg;
  for (int64_t last_us = clock_now_us(); !seen.ended;) {
    if (fiber_sleep(MILLISECONDS) < 0)
      return;
    int64_t now_us = clock_now_us();
    seen.longest_us = now_us - last_us > seen.longest_us ? now_us - last_us : seen.longest_us;
    last_us = now_us;
  }
}

static void open_it(void *arg) {
  (void)arg;
  int64_t began_us = clock_now_us();
  seen.rc = db_connect(&(DbConnect){seen.dsn, "test", DB_SESSION_POOL}, &seen.pq, seen.reason);
  seen.took_us = clock_now_us() - began_us;
  seen.ended = true;
  if (seen.rc < 0)
    CHECK(seen.pq == untouched);
  loop_stop();
}

static Fiber *run(void) {
  static bool begun;
  if (!begun)
    loop_init();
  begun = true;
  seen.ended = false;
  seen.longest_us = 0;
  seen.pq = untouched;
  seen.reason[0] = 0;
  loop_resume();
  CHECK(fiber_start("tick", tick, NULL) != NULL);
  Fiber *fiber = fiber_start("open", open_it, NULL);
  CHECK(fiber != NULL);
  loop_run();
  CHECK(seen.longest_us < SMOOTH_US);
  CHECK_INT(resolver.in_loop, 0);
  return fiber;
}

static bool says(const char *text) {
  bool found = strstr(seen.reason, text) != NULL;
  if (!found)
    CHECK_STR(seen.reason, text);
  return found;
}

/* A port that refuses; or, when it listens, takes connections and says nothing. */
static int port_of(bool listens, int *ret_port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_ANY)};
  socklen_t n = sizeof(address);
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  CHECK_INT(bind(fd, (struct sockaddr *)&address, n), 0);
  if (listens)
    CHECK_INT(listen(fd, 8), 0);
  getsockname(fd, (struct sockaddr *)&address, &n);
  *ret_port = ntohs(address.sin_port);
  return fd;
}

TEST(host_without_an_address_is_named) {
  snprintf(seen.dsn, sizeof(seen.dsn), "host=none.test user=u dbname=d");
  run();
  CHECK_INT(seen.rc, E_UNAVAILABLE);
  CHECK_STR(seen.reason, "could not resolve host \"none.test\"");
}

TEST(each_host_without_an_address_is_named) {
  snprintf(seen.dsn, sizeof(seen.dsn), "postgresql://u@none.test:1,nor.none.test:2/d?target_session_attrs=read-write");
  run();
  CHECK_INT(seen.rc, E_UNAVAILABLE);
  CHECK(says("could not resolve host \"none.test\"; could not resolve host \"nor.none.test\""));
}

TEST(every_address_of_every_host_is_tried) {
  int port, fd = port_of(false, &port);
  snprintf(seen.dsn, sizeof(seen.dsn), "host=two.test,none.test,127.0.0.4 port=%d user=u dbname=d", port);
  run();
  close(fd);
  CHECK_INT(seen.rc, E_UNAVAILABLE);
  CHECK(says("could not resolve host \"none.test\""));
  CHECK(says("\"127.0.0.1\""));
  CHECK(says("\"127.0.0.2\""));
  CHECK(says("\"127.0.0.4\""));
}

TEST(address_given_by_the_user_is_not_looked_up) {
  int port, fd = port_of(false, &port);
  snprintf(seen.dsn, sizeof(seen.dsn), "host=silent.test hostaddr=127.0.0.5 port=%d user=u dbname=d", port);
  run();
  close(fd);
  CHECK_INT(seen.rc, E_UNAVAILABLE);
  CHECK(says("\"127.0.0.5\""));
  CHECK_INT(resolver.silent, 0);
}

TEST(silent_name_server_holds_up_neither_the_loop_nor_other_hosts) {
  int port, fd = port_of(false, &port);
  snprintf(seen.dsn, sizeof(seen.dsn), "host=silent.test,127.0.0.4 port=%d,%d user=u dbname=d", port, port);
  run();
  close(fd);
  CHECK_INT(seen.rc, E_UNAVAILABLE);
  CHECK(seen.took_us < DB_RESOLVE_US + SECONDS);
  CHECK(says("could not resolve host \"silent.test\": no response from the name server"));
  CHECK(says("\"127.0.0.4\""));
  sem_post(&resolver.silence);
}

TEST(host_that_says_nothing_is_left_for_the_next) {
  int silent_port, port, silent = port_of(true, &silent_port), fd = port_of(false, &port);
  snprintf(seen.dsn, sizeof(seen.dsn),
           "host=two.test,127.0.0.4 port=%d,%d user=u dbname=d hostaddr=127.0.0.6,127.0.0.4", silent_port, port);
  run();
  close(silent);
  close(fd);
  CHECK_INT(seen.rc, E_UNAVAILABLE);
  CHECK(seen.took_us >= DB_CONNECT_US && seen.took_us < 2 * DB_CONNECT_US);
  CHECK(says("no response from host \"two.test\", port"));
  CHECK(says("\"127.0.0.4\""));
}

TEST(malformed_string_is_refused_without_a_part_of_it) {
  snprintf(seen.dsn, sizeof(seen.dsn), "postgresql://u:a%%zzTopSecret@none.test/d");
  run();
  CHECK_INT(seen.rc, E_FIELD);
  CHECK(says("invalid percent-encoded token"));
  CHECK(!strstr(seen.reason, "TopSecret"));
}

static void cancel_soon(void *arg) {
  Fiber **whom = arg;
  while (resolver.silent < 2 && fiber_sleep(MILLISECONDS) == E_OK)
    continue;
  fiber_cancel(*whom);
}

static void start_and_cancel(void *arg) {
  (void)arg;
  static Fiber *opener;
  opener = fiber_start("open", open_it, NULL);
  CHECK(fiber_start("cancel", cancel_soon, (void *)&opener) != NULL);
}

TEST(cancel_ends_the_lookups) {
  snprintf(seen.dsn, sizeof(seen.dsn), "host=silent.test,also.silent.test user=u dbname=d");
  resolver_forget();
  seen.pq = untouched;
  loop_resume();
  CHECK(fiber_start("start", start_and_cancel, NULL) != NULL);
  loop_run();
  CHECK_INT(seen.rc, E_CANCELED);
  CHECK(seen.took_us < DB_RESOLVE_US / 2);
  sem_post(&resolver.silence);
  sem_post(&resolver.silence);
}

static bool sets(DbSession session, int version, const char *command) {
  SCOPED_ARENA arena = arena_new();
  return strstr(session_sql(arena, session, version).p, command) != NULL;
}

TEST(each_kind_of_session_sets_its_own_parameters) {
  for (int session = DB_SESSION_POOL; session <= DB_SESSION_STREAM; session++) {
    CHECK(sets((DbSession)session, 150000, "SET datestyle = 'ISO, MDY';"));
    CHECK(sets((DbSession)session, 150000, "SET search_path = \"$user\", public;"));
    CHECK(sets((DbSession)session, 150000, "SET bytea_output = 'hex';"));
    CHECK(!sets((DbSession)session, 160000, "transaction_timeout"));
    CHECK(sets((DbSession)session, 170000, "SET transaction_timeout = 0;"));
  }
  CHECK(sets(DB_SESSION_POOL, 150000, "SET statement_timeout = '10s';SET lock_timeout = '3s';"));
  CHECK(sets(DB_SESSION_SCRIPT, 150000, "SET statement_timeout = 0;SET lock_timeout = 0;"));
  CHECK(sets(DB_SESSION_SCRIPT, 150000, "SET row_security = off;"));
  CHECK(sets(DB_SESSION_POOL, 150000, "'synchronous_commit', 'on'"));
  CHECK(!sets(DB_SESSION_STREAM, 150000, "synchronous_commit"));
}

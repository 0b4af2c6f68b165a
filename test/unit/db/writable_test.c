/* Of several hosts the pool takes one that takes writes. The servers are threads that speak as much of PostgreSQL's
 * protocol (version 3) as the start of a session needs. */
#include "db/connect.h"

#include "rt/fiber.h"
#include "rt/loop.h"
#include "unit/unit.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct Server {
  const char *standby, *read_only; /* as in_hot_standby and default_transaction_read_only report it; NULL: not at all */
  int listener, port, sessions;
  pthread_t thread;
} Server;

static bool take(int fd, void *out, size_t n) {
  for (size_t have = 0; have < n;) {
    ssize_t got = read(fd, (char *)out + have, n - have);
    if (got <= 0)
      return false;
    have += (size_t)got;
  }
  return true;
}

/* One message; type 0: the first of a session, which has none. */
static bool take_message(int fd, char *ret_type, uint32_t *ret_code) {
  uint32_t length, code = 0;
  char rest[8192];
  if ((*ret_type && !take(fd, ret_type, 1)) || !take(fd, &length, 4))
    return false;
  size_t n = ntohl(length) - 4;
  if (n > sizeof(rest) || !take(fd, rest, n))
    return false;
  memcpy(&code, rest, n < 4 ? n : 4);
  *ret_code = ntohl(code);
  return true;
}

static void send_message(int fd, char type, const void *body, size_t n) {
  char out[256] = {type};
  uint32_t length = htonl((uint32_t)n + 4);
  memcpy(out + 1, &length, 4);
  memcpy(out + 5, body, n);
  CHECK_INT(write(fd, out, n + 5), (int64_t)n + 5);
}

static void report(int fd, const char *name, const char *value) {
  char body[128];
  size_t n = (size_t)snprintf(body, sizeof(body), "%s%c%s", name, 0, value ? value : "");
  if (value)
    send_message(fd, 'S', body, n + 1);
}

static void serve(Server *s, int fd) {
  char type = 0;
  uint32_t code;
  do { /* requests for encryption first */
    if (!take_message(fd, &type, &code))
      return;
    if (code != 3 << 16)
      CHECK_INT(write(fd, "N", 1), 1);
  } while (code != 3 << 16);
  s->sessions++;
  send_message(fd, 'R', "\0\0\0\0", 4);
  report(fd, "server_version", "15.0");
  report(fd, "in_hot_standby", s->standby);
  report(fd, "default_transaction_read_only", s->read_only);
  send_message(fd, 'Z', "I", 1);
  for (type = 'Q'; take_message(fd, &type, &code) && type == 'Q';) {
    send_message(fd, 'C', "SET", 4);
    send_message(fd, 'Z', "I", 1);
  }
}

static void *run_server(void *arg) {
  Server *s = arg;
  for (int fd; (fd = accept(s->listener, NULL, NULL)) >= 0; close(fd))
    serve(s, fd);
  return NULL;
}

static void begin(Server *s) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t n = sizeof(address);
  s->listener = socket(AF_INET, SOCK_STREAM, 0);
  CHECK_INT(bind(s->listener, (struct sockaddr *)&address, n), 0);
  CHECK_INT(listen(s->listener, 8), 0);
  getsockname(s->listener, (struct sockaddr *)&address, &n);
  s->port = ntohs(address.sin_port);
  CHECK_INT(pthread_create(&s->thread, NULL, run_server, s), 0);
}

static void end(Server *s) {
  shutdown(s->listener, SHUT_RDWR);
  pthread_join(s->thread, NULL);
  close(s->listener);
}

static struct {
  char dsn[256], reason[DB_REASON], port[16];
  DbSession session;
  int rc;
} seen;

static void open_it(void *arg) {
  (void)arg;
  PGconn *pq = NULL;
  seen.rc = db_connect(&(DbConnect){seen.dsn, "test", seen.session}, &pq, seen.reason);
  snprintf(seen.port, sizeof(seen.port), "%s", pq ? PQport(pq) : "none");
  PQfinish(pq);
  loop_stop();
}

static void open_one_of(const Server *a, const Server *b, DbSession session) {
  static bool begun;
  if (!begun)
    loop_init();
  begun = true;
  seen.session = session;
  snprintf(seen.dsn, sizeof(seen.dsn), "host=127.0.0.1,127.0.0.1 port=%d,%d user=u dbname=d", a->port, b->port);
  loop_resume();
  CHECK(fiber_start("open", open_it, NULL) != NULL);
  loop_run();
}

static void check_taken(const Server *s) {
  char port[16];
  snprintf(port, sizeof(port), "%d", s->port);
  CHECK_INT(seen.rc, 0);
  CHECK_STR(seen.port, port);
}

static Server standby = {.standby = "on", .read_only = "off"}, full = {.standby = "off", .read_only = "on"},
              writable = {.standby = "off", .read_only = "off"}, pooler = {0};

static void each(void (*fn)(Server *s)) {
  fn(&standby);
  fn(&full);
  fn(&writable);
  fn(&pooler);
}

TEST(the_host_that_takes_writes_is_found) {
  each(begin);
  open_one_of(&standby, &writable, DB_SESSION_POOL);
  check_taken(&writable);
  open_one_of(&full, &writable, DB_SESSION_POOL);
  check_taken(&writable);
  open_one_of(&writable, &standby, DB_SESSION_POOL);
  check_taken(&writable);
  CHECK_INT(standby.sessions, 1);                  /* the first that does is enough */
  open_one_of(&pooler, &standby, DB_SESSION_POOL); /* it does not say: then the first write tells */
  check_taken(&pooler);
}

TEST(without_one_the_reason_names_each) {
  open_one_of(&standby, &full, DB_SESSION_POOL);
  CHECK_INT(seen.rc, E_UNAVAILABLE);
  char expected[DB_REASON];
  snprintf(expected, sizeof(expected),
           "no writes are taken by host \"127.0.0.1\", port %d; no writes are taken by host \"127.0.0.1\", port %d",
           standby.port, full.port);
  CHECK_STR(seen.reason, expected);
}

TEST(a_stream_is_read_wherever_its_slot_is) {
  open_one_of(&standby, &writable, DB_SESSION_STREAM);
  check_taken(&standby);
  each(end);
}

/* skald: one executable, whose first argument says what to do. */
#include "audit.h"
#include "cdc/slot.h"
#include "cdc/slot_watch.h"
#include "relay_command.h"
#include "rt/config.h"
#include "rt/fiber.h"
#include "rt/http_metrics.h"
#include "rt/http_server.h"
#include "rt/log.h"
#include "rt/loop.h"
#include "rt/loop_metrics.h"
#include "rt/metrics.h"
#include "rt/migrate.h"
#include "rt/random.h"
#include "rt/supervisor.h"
#include "saga/engine.h"
#include "services/notification.h"
#include "services/services.h"
#include "smoke.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const ServiceDef *const shop[] = {&order_service, &payment_service, &warehouse_service,   &delivery_service,
                                         &user_service,  &billing_service, &notification_service};
enum { ORDER, PAYMENT, WAREHOUSE, DELIVERY, USER, BILLING, NOTIFICATION, SHOP };

static struct {
  const char *database, *databases[SHOP], *urls[SHOP], *host;
  int64_t port, workers, connections, batch, client_connections, in_flight, fibers, request_us, idle_us, delay_us,
      drain_us, patience_us;
  int64_t ktor_metrics;
  const char *owner;
  int listen_fd;
  bool selected[SHOP];
} conf;

/* Behind DRAIN_TIMEOUT: for what a worker gives back at its end, its last log lines, and as much again as a machine
 * under load takes to get to it. */
#define STOP_S 9
_Static_assert(STOP_S *INT64_C(1000000) == SERVICE_RELEASE_US + LOG_DRAIN_US + 1000000,
               "every part of the end within it");

#define TEXT_OF(value)    #value
#define SECONDS_OF(value) TEXT_OF(value) "s"

static const char *const off_on[] = {"off", "on", NULL};

#define SERVICE_DATABASE(NAME, i)                                                                                      \
  { NAME "_DATABASE_URL", OPTION_TEXT, &conf.databases[i], NULL, 0, 0, NULL, "the same, for this service alone", true }
#define SERVICE_URL(NAME, i, url)                                                                                      \
  { NAME "_URL", OPTION_TEXT, &conf.urls[i], url, 0, 0, NULL, "where it is when it is not in this process", false }

#define DATABASE                                                                                                       \
  {                                                                                                                    \
    "DATABASE_URL", OPTION_TEXT, &conf.database, "postgresql:///skald", 0, 0, NULL,                                    \
        "PostgreSQL 15 or newer, wal_level=logical; a schema per service", true                                        \
  }

static const Option billing_database_options[] = {DATABASE, SERVICE_DATABASE("BILLING", BILLING), {0}};

static const Option database_options[] = {
    DATABASE,
    SERVICE_DATABASE("ORDER", ORDER),
    SERVICE_DATABASE("PAYMENT", PAYMENT),
    SERVICE_DATABASE("WAREHOUSE", WAREHOUSE),
    SERVICE_DATABASE("DELIVERY", DELIVERY),
    SERVICE_DATABASE("USER", USER),
    SERVICE_DATABASE("BILLING", BILLING),
    SERVICE_DATABASE("NOTIFICATION", NOTIFICATION),
    {0},
};

static const Option migrate_options[] = {
    {"MIGRATE_TIMEOUT", OPTION_MILLIS, &conf.patience_us, "60s", 0, 86400000, NULL,
     "how long it tries again where others hold locks on tables, or make the replication slot", false},
    {0},
};

static const Option process_options[] = {
    {"HOST", OPTION_TEXT, &conf.host, "127.0.0.1", 0, 0, NULL, "address to listen on", false},
    {"PORT", OPTION_INT, &conf.port, "8080", 1, 65535, NULL, "port to listen on", false},
    {"DRAIN_TIMEOUT", OPTION_MILLIS, &conf.drain_us, "10s", 0, 600000, NULL,
     "how long running work may take after SIGTERM; what is left is given back within " SECONDS_OF(STOP_S) " more",
     false},
    {"METRICS_KTOR", OPTION_CHOICE, &conf.ktor_metrics, "on", 0, 0, off_on,
     "whether requests are also counted by the names of Ktor's Micrometer plugin", false},
    {0},
};

static const Option serve_options[] = {
    {"WORKERS", OPTION_INT, &conf.workers, "0", 0, 64, NULL, "processes; 0: half the cores, at least one", false},
    {"DB_CONNECTIONS", OPTION_INT, &conf.connections, "2", 1, 64, NULL, "connections to each database and worker",
     false},
    {"DB_BATCH", OPTION_INT, &conf.batch, "32", 1, 64, NULL, "groups of statements that may share a transaction",
     false},
    {"MAX_CONNECTIONS", OPTION_INT, &conf.client_connections, "2048", 1, 65536, NULL,
     "clients at once; beyond it they are hung up on", false},
    {"MAX_IN_FLIGHT", OPTION_INT, &conf.in_flight, "1024", 1, 65536, NULL, "requests at once; beyond it 503", false},
    {"MAX_FIBERS", OPTION_INT, &conf.fibers, "8192", 64, 30000, NULL, "fibers at once; beyond it 503", false},
    {"REQUEST_TIMEOUT", OPTION_MILLIS, &conf.request_us, "15s", 100, 600000, NULL, "deadline of a request", false},
    {"IDLE_TIMEOUT", OPTION_MILLIS, &conf.idle_us, "30s", 100, 3600000, NULL,
     "how long a client may be silent, or take to send a request", false},
    {"DRAIN_DELAY", OPTION_MILLIS, &conf.delay_us, "0s", 0, 600000, NULL,
     "how long it serves on after SIGTERM, no longer ready, until nobody sends requests here any more", false},
    {"SAGA_OWNER", OPTION_TEXT, &conf.owner, NULL, 0, 0, NULL, "this process's name; host and port when not set",
     false},
    SERVICE_URL("PAYMENT", PAYMENT, "http://payment:8080"),
    SERVICE_URL("WAREHOUSE", WAREHOUSE, "http://warehouse:8080"),
    SERVICE_URL("DELIVERY", DELIVERY, "http://delivery:8080"),
    SERVICE_URL("USER", USER, "http://user:8080"),
    SERVICE_URL("BILLING", BILLING, "http://billing:8080"),
    {0},
};

static const Option *const migrate_tables[] = {database_options, migrate_options, NULL};
static const Option *const audit_tables[] = {database_options, NULL};
static const Option *const serve_tables[] = {database_options, process_options,      log_options, serve_options,
                                             saga_options,     notification_options, NULL};
static const Option *const smoke_tables[] = {smoke_options, NULL};
static const Option *const relay_tables[] = {billing_database_options, process_options, log_options, relay_options,
                                             NULL};

static const char *dsn_of(int i) {
  return conf.databases[i] ? conf.databases[i] : conf.database;
}

static int index_of(const char *name) {
  for (int i = 0; i < SHOP; i++)
    if (!strcmp(shop[i]->name, name))
      return i;
  return -1;
}

/* No names: all. */
static int select_services(int argc, char **argv) {
  for (int i = 0; i < SHOP; i++)
    conf.selected[i] = argc == 0;
  for (int a = 0; a < argc; a++) {
    int i = index_of(argv[a]);
    if (i < 0) {
      fprintf(stderr,
              "skald: there is no service '%s'; there are order, payment, warehouse, delivery, user, billing and "
              "notification\n",
              argv[a]);
      return E_FIELD;
    }
    conf.selected[i] = true;
  }
  return 0;
}

static int migrate(int argc, char **argv) {
  if (select_services(argc, argv) < 0)
    return 2;
  for (int i = 0; i < SHOP; i++)
    if (conf.selected[i] && migrate_service(shop[i], dsn_of(i), conf.patience_us) < 0)
      return 1;
  return conf.selected[BILLING] && slot_migrate(dsn_of(BILLING), NOTIFICATION_SLOT, conf.patience_us) < 0;
}

static void drain(void *arg) {
  (void)arg;
  LOG(INFO, "serve", "draining");
  service_not_ready();
  int64_t close_us = loop_now_us() + conf.delay_us, deadline_us = close_us + conf.drain_us;
  http_server_drain(close_us, deadline_us);
  service_stop_all(deadline_us);
  log_drain();
  loop_stop();
}

static void on_terminate(void) {
  static bool draining;
  if (draining)
    return;
  draining = true;
  fiber_limit(INT_MAX); /* also, and above all, when there are as many as there may be */
  if (!fiber_start("drain", drain, NULL))
    loop_stop();
}

static void flush_log(void *arg) {
  (void)arg;
  log_flush();
}

static void start(void *arg) {
  int worker = *(const int *)arg;
  log_run();
  service_start_all(worker, (int)conf.connections, (int)conf.batch);
  if (worker == 0 && conf.selected[BILLING])
    slot_watch_start(service_find("billing")->db);
  HttpServerConfig http = {.listen_fd = conf.listen_fd,
                           .handler = service_handle,
                           .refused = http_metrics_refused,
                           .max_connections = (int)conf.client_connections,
                           .max_in_flight = (int)conf.in_flight,
                           .at_once = service_at_once,
                           .request_us = conf.request_us,
                           .idle_us = conf.idle_us};
  if (http_server_start(&http) < 0) {
    LOG(ERROR, "serve", "cannot listen: %s", strerror(errno));
    log_flush();
    _exit(1);
  }
  LOG(INFO, "serve", "worker %d answers on %s:%lld", worker, conf.host, (long long)conf.port);
}

static void run_worker(int worker) {
  log_worker(worker);
  metrics_worker(worker);
  random_after_fork();
  loop_init();
  loop_metrics_start();
  fiber_limit((int)conf.fibers);
  loop_before_poll(flush_log, NULL);
  loop_on_terminate(on_terminate);
  if (!fiber_start("start", start, &worker))
    abort();
  loop_run();
  log_flush();
}

/* The supervisor keeps the socket open for the workers it restarts. Now there will be none: what still comes is
 * refused, not left waiting for nobody. */
static void stop_listening(void) {
  shutdown(conf.listen_fd, SHUT_RD);
}

static int count_workers(void) {
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  return conf.workers ? (int)conf.workers : cores > 3 ? (int)(cores / 2) : 1;
}

static const char *ktor_address(void) {
  static char address[300];
  snprintf(address, sizeof(address), "%s:%lld", conf.host, (long long)conf.port);
  return conf.ktor_metrics ? address : NULL;
}

/* Processes of one name must never run at once: the port sees to that on one host. */
static void name_owner(void) {
  static char name[128];
  char host[64] = "localhost";
  gethostname(host, sizeof(host) - 1);
  snprintf(name, sizeof(name), "%s:%lld", host, (long long)conf.port);
  saga_set_owner(conf.owner ? conf.owner : name);
}

static void add_services(void) {
  for (int i = 0; i < SHOP; i++)
    if (conf.selected[i])
      service_add(shop[i], dsn_of(i));
    else if (conf.urls[i])
      service_peer(shop[i]->name, conf.urls[i]);
  if (conf.selected[BILLING])
    slot_watch_prepare(NOTIFICATION_SLOT);
  if (conf.selected[NOTIFICATION])
    notification_use_wal(dsn_of(BILLING));
}

static int serve(int argc, char **argv) {
  if (select_services(argc, argv) < 0)
    return 2;
  if (http_listen(conf.host, (int)conf.port, &conf.listen_fd) < 0) {
    fprintf(stderr,
            "skald: cannot listen on %s port %lld: %s. Another program may hold it; PORT and HOST choose others\n",
            conf.host, (long long)conf.port, strerror(errno));
    return 1;
  }
  int workers = count_workers();
  metrics_init(workers);
  service_init(ktor_address());
  loop_metrics_prepare();
  log_start(argc == 1 ? argv[0] : "skald");
  name_owner();
  add_services();
  return supervise(workers, run_worker, stop_listening, conf.delay_us,
                   conf.delay_us + conf.drain_us + STOP_S * INT64_C(1000000));
}

static int audit(int argc, char **argv) {
  (void)argc;
  (void)argv;
  AuditDatabases databases = {.order = dsn_of(ORDER),
                              .payment = dsn_of(PAYMENT),
                              .warehouse = dsn_of(WAREHOUSE),
                              .delivery = dsn_of(DELIVERY),
                              .user = dsn_of(USER),
                              .billing = dsn_of(BILLING),
                              .notification = dsn_of(NOTIFICATION)};
  return audit_run(&databases);
}

static int relay(int argc, char **argv) {
  (void)argc;
  (void)argv;
  static RelayProcess process;
  process = (RelayProcess){.dsn = dsn_of(BILLING),
                           .host = conf.host,
                           .port = conf.port,
                           .drain_us = conf.drain_us,
                           .ktor_address = ktor_address()};
  return relay_run(&process);
}

static int smoke(int argc, char **argv) {
  (void)argc;
  (void)argv;
  return smoke_run();
}

typedef struct Command {
  const char *name, *arguments, *help;
  int (*run)(int argc, char **argv);
  const Option *const *tables;
} Command;

static const Command commands[] = {
    {"serve", "[service…]", "serves the whole shop, or the services named", serve, serve_tables},
    {"migrate", "[service…]", "creates and upgrades the databases", migrate, migrate_tables},
    {"relay", "", "publishes Billing's operations to Kafka as Debezium would", relay, relay_tables},
    {"audit", "", "checks that every order, wallet, stock and notification is as it must be", audit, audit_tables},
    {"smoke", "", "orders in a shop that is up, once well and once in vain, and waits for the notifications", smoke,
     smoke_tables},
};
enum { COMMANDS = sizeof(commands) / sizeof(commands[0]) };

static int usage(FILE *out, int status) {
  fprintf(out, "usage: skald COMMAND [--help] [argument…]\n\n");
  for (int i = 0; i < COMMANDS; i++)
    fprintf(out, "  %-8s %-12s %s\n", commands[i].name, commands[i].arguments, commands[i].help);
  return status;
}

static int command_help(const Command *c) {
  printf("usage: skald %s %s\n\n%s. Environment variables:\n\n", c->name, c->arguments, c->help);
  for (const Option *const *t = c->tables; *t; t++)
    config_help(*t, stdout);
  return 0;
}

static int run_command(const Command *c, int argc, char **argv) {
  for (int i = 0; i < argc; i++)
    if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
      return command_help(c);
  if (argc > 0 && !*c->arguments) {
    fprintf(stderr, "skald: %s takes no arguments\n", c->name);
    return 2;
  }
  bool ok = true;
  for (const Option *const *t = c->tables; *t; t++)
    ok &= config_load(*t, stderr) == 0;
  return ok ? c->run(argc, argv) : 2;
}

static void end_at_once(int number) {
  _exit(128 + number);
}

int main(int argc, char **argv) {
  if (argc < 2)
    return usage(stderr, 2);
  signal(SIGTERM, end_at_once); /* by default process 1 of a container would ignore it; serve and relay drain instead */
  for (int i = 0; i < COMMANDS; i++)
    if (!strcmp(argv[1], commands[i].name))
      return run_command(&commands[i], argc - 2, argv + 2);
  if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
    return usage(stdout, 0);
  fprintf(stderr, "skald: there is no command '%s'\n", argv[1]);
  return usage(stderr, 2);
}

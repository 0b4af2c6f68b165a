/* What each worker starts and how it drains; the supervisor around them. */
#include "commands/serve.h"

#include "cdc/slot_watch.h"
#include "commands/process.h"
#include "commands/shop.h"
#include "commands/supervisor.h"
#include "http/client.h"
#include "http/metrics.h"
#include "http/server.h"
#include "log/log.h"
#include "metrics/loop.h"
#include "metrics/metrics.h"
#include "metrics/process.h"
#include "rt/clock.h"
#include "rt/fiber.h"
#include "rt/loop.h"
#include "rt/random.h"
#include "saga/engine.h"
#include "service/service.h"
#include "services/notification.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct {
  int64_t workers, connections, batch, client_connections, in_flight, fibers, request_us, idle_us, delay_us;
  const char *owner;
  int listen_fd;
} conf;

static const Option options[] = {
    {.env = "WORKERS",
     .type = OPTION_INT,
     .target = &conf.workers,
     .def = "0",
     .max = 64,
     .help = "processes; 0: half the cores, at least one"},
    {.env = "DB_CONNECTIONS",
     .type = OPTION_INT,
     .target = &conf.connections,
     .def = "2",
     .min = 1,
     .max = 64,
     .help = "connections to each database and worker"},
    {.env = "DB_BATCH",
     .type = OPTION_INT,
     .target = &conf.batch,
     .def = "32",
     .min = 1,
     .max = 64,
     .help = "groups of statements that may share a transaction"},
    {.env = "MAX_CONNECTIONS",
     .type = OPTION_INT,
     .target = &conf.client_connections,
     .def = "2048",
     .min = 1,
     .max = 65536,
     .help = "maximum client connections of a worker; excess ones are refused, except for probes"},
    {.env = "MAX_IN_FLIGHT",
     .type = OPTION_INT,
     .target = &conf.in_flight,
     .def = "1024",
     .min = 1,
     .max = 65536,
     .help = "requests at once; beyond it 503"},
    {.env = "MAX_FIBERS",
     .type = OPTION_INT,
     .target = &conf.fibers,
     .def = "8192",
     .min = 64,
     .max = 30000,
     .help = "fibers at once; beyond it 503"},
    {.env = "REQUEST_TIMEOUT",
     .type = OPTION_MILLIS,
     .target = &conf.request_us,
     .def = "15s",
     .min = 100,
     .max = 600000,
     .help = "deadline of a request"},
    {.env = "IDLE_TIMEOUT",
     .type = OPTION_MILLIS,
     .target = &conf.idle_us,
     .def = "75s",
     .min = 100,
     .max = 3600000,
     .help =
         "how long a connection is kept between requests, longer than proxies keep theirs; the maximum for each part "
         "of one"},
    {.env = "DRAIN_DELAY",
     .type = OPTION_MILLIS,
     .target = &conf.delay_us,
     .def = "0s",
     .max = 600000,
     .help = "how long it continues to serve after SIGTERM, no longer ready, until load balancers have noticed"},
    {.env = "SAGA_OWNER",
     .type = OPTION_TEXT,
     .target = &conf.owner,
     .help = "this process's name; host and port when not set"},
    {0},
};

static void drain(void *arg) {
  (void)arg;
  LOG(INFO, "serve", "draining");
  service_not_ready();
  int64_t close_us = clock_now_us() + conf.delay_us, deadline_us = close_us + process_config.drain_us;
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
  fiber_limit(INT_MAX); /* the drain must start even at the maximum of fibers */
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
  if (worker == 0 && shop_selected(BILLING))
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
  LOG(INFO, "serve", "worker %d is listening on %s:%lld", worker, process_config.host, (long long)process_config.port);
}

static void run_worker(int worker) {
  log_worker(worker);
  metrics_worker(worker);
  process_metrics_worker(worker);
  random_after_fork();
  loop_init();
  loop_metrics_start();
  fiber_limit((int)conf.fibers);
  loop_before_poll(flush_log, NULL);
  loop_on_terminate(on_terminate);
  if (!fiber_start("start", start, &worker))
    die("no fiber can be started");
  loop_run();
  log_flush();
}

/* The supervisor keeps the socket open for workers that it restarts. During the drain there are none, so new
 * connections are refused instead of left waiting. */
static void stop_listening(void) {
  shutdown(conf.listen_fd, SHUT_RD);
}

static int count_workers(void) {
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  return conf.workers ? (int)conf.workers : cores > 3 ? (int)(cores / 2) : 1;
}

/* Two processes must never run with the same name. On one host the port ensures that. */
static void name_owner(void) {
  static char name[128];
  char host[64] = "localhost";
  gethostname(host, sizeof(host) - 1);
  snprintf(name, sizeof(name), "%s:%lld", host, (long long)process_config.port);
  saga_set_owner(conf.owner ? conf.owner : name);
}

#define OTHER_DESCRIPTORS 64 /* of a worker: the loop's, the log's, those of background work */

/* Descriptors that a worker may have open in addition to its clients' connections. */
static int own_descriptors(void) {
  int own = OTHER_DESCRIPTORS;
  for (ShopService i = 0; i < SHOP_SERVICES; i++)
    own += shop_selected(i) ? (int)conf.connections : shop_url(i) ? HTTP_CLIENT_CONNECTIONS : 0;
  return own;
}

static void add_services(void) {
  for (ShopService i = 0; i < SHOP_SERVICES; i++)
    if (shop_selected(i))
      service_add(shop_service(i), shop_dsn(i));
    else if (shop_url(i))
      service_peer(shop_service(i)->name, shop_url(i));
  if (shop_selected(BILLING))
    slot_watch_prepare(NOTIFICATION_SLOT);
  if (shop_selected(NOTIFICATION))
    notification_use_wal(shop_dsn(BILLING));
}

static int run(int argc, char **argv) {
  if (shop_select(argc, argv) < 0)
    return 2;
  conf.listen_fd = process_listen();
  if (conf.listen_fd < 0)
    return 1;
  int workers = count_workers();
  metrics_init(workers);
  process_metrics_init();
  service_init(process_ktor_address());
  loop_metrics_prepare();
  log_start(argc == 1 ? argv[0] : "skald");
  conf.client_connections = process_fit_connections((int)conf.client_connections, own_descriptors());
  name_owner();
  add_services();
  return supervise(workers, run_worker, stop_listening, conf.delay_us,
                   conf.delay_us + process_config.drain_us + PROCESS_STOP_S * SECONDS);
}

static const Option *const tables[] = {shop_database_options, process_options, log_options,          options,
                                       shop_address_options,  saga_options,    notification_options, NULL};

const Command serve_command = {.name = "serve",
                               .arguments = "[service…]",
                               .help = "serves the whole shop, or the services named",
                               .run = run,
                               .tables = tables};

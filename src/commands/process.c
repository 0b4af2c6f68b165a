/* Options and the listening socket of a process that serves. */
#include "commands/process.h"

#include "http/server.h"
#include "log/log.h"
#include "service/def.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/resource.h>

_Static_assert(PROCESS_STOP_S *SECONDS == SERVICE_RELEASE_US + LOG_DRAIN_US + 1 * SECONDS,
               "every part of the end within it");

#define HTTP_RESERVE_DESCRIPTORS (2 * HTTP_RESERVE) /* see http/server.h */

#define TEXT_OF(value)    #value
#define SECONDS_OF(value) TEXT_OF(value) "s"

static const char *const off_on[] = {"off", "on", NULL};

ProcessConfig process_config;

const Option process_options[] = {
    {.env = "HOST",
     .type = OPTION_TEXT,
     .target = &process_config.host,
     .def = "127.0.0.1",
     .help = "address to listen on"},
    {.env = "PORT",
     .type = OPTION_INT,
     .target = &process_config.port,
     .def = "8080",
     .min = 1,
     .max = 65535,
     .help = "port to listen on"},
    {.env = "DRAIN_TIMEOUT",
     .type = OPTION_MILLIS,
     .target = &process_config.drain_us,
     .def = "10s",
     .max = 600000,
     .help = "how long running work may take after SIGTERM; unfinished work is released within " SECONDS_OF(
         PROCESS_STOP_S) " more"},
    {.env = "METRICS_KTOR",
     .type = OPTION_CHOICE,
     .target = &process_config.ktor_metrics,
     .def = "on",
     .choices = off_on,
     .help = "whether requests are also counted by the names of Ktor's Micrometer plugin"},
    {0},
};

/* Without a limit it is RLIM_INFINITY, the largest number there is. */
static rlim_t raise_descriptors(rlim_t needed) {
  struct rlimit limit, raised;
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
    return RLIM_INFINITY;
  raised = limit;
  raised.rlim_cur = needed < limit.rlim_max ? needed : limit.rlim_max;
  if (limit.rlim_cur >= raised.rlim_cur || setrlimit(RLIMIT_NOFILE, &raised) < 0)
    return limit.rlim_cur;
  return raised.rlim_cur;
}

int process_fit_connections(int wanted, int own) {
  assert(wanted > 0 && own >= 0);
  rlim_t needed = (rlim_t)wanted + HTTP_RESERVE_DESCRIPTORS + (rlim_t)own, limit = raise_descriptors(needed);
  if (limit >= needed)
    return wanted;
  rlim_t others = HTTP_RESERVE_DESCRIPTORS + ((rlim_t)own < limit / 2 ? (rlim_t)own : limit / 2);
  int fit = limit > others ? (int)(limit - others) : 1;
  LOG(WARN, "serve",
      "the limit of %llu file descriptors leaves room for %d client connections, fewer than MAX_CONNECTIONS (%d); "
      "raise the hard limit (ulimit -Hn, LimitNOFILE) to %llu",
      (unsigned long long)limit, fit, wanted, (unsigned long long)needed);
  return fit;
}

int process_listen(void) {
  int fd;
  if (http_listen(process_config.host, (int)process_config.port, &fd) == 0)
    return fd;
  fprintf(stderr,
          "skald: cannot listen on %s port %lld: %s. Another program may hold it; PORT and HOST choose others\n",
          process_config.host, (long long)process_config.port, strerror(errno));
  return -1;
}

const char *process_ktor_address(void) {
  static char address[300];
  snprintf(address, sizeof(address), "%s:%lld", process_config.host, (long long)process_config.port);
  return process_config.ktor_metrics ? address : NULL;
}

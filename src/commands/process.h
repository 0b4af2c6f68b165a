/* What the commands that serve HTTP share: address, end, and the socket bound before anything else begins. */
#ifndef SKALD_COMMANDS_PROCESS_H
#define SKALD_COMMANDS_PROCESS_H

#include "rt/config.h"

/* After DRAIN_TIMEOUT: for releasing what other processes wait for, for the last log lines, and a margin for a machine
 * under load. */
#define PROCESS_STOP_S 9

typedef struct ProcessConfig {
  const char *host;
  int64_t port, drain_us;
  int64_t ktor_metrics; /* 0: off */
} ProcessConfig;

extern ProcessConfig process_config;
extern const Option process_options[];

/* Raises the soft limit of file descriptors to what this many client connections need in addition to own others, as far
 * as the hard limit allows. Returns how many connections fit, and logs a warning if that is fewer than wanted. Before
 * the fork. */
int process_fit_connections(int wanted, int own);
/* Binds HOST and PORT. -1: it could not; the reason is on stderr. */
int process_listen(void);
const char *process_ktor_address(void); /* as service_init takes it */

#endif

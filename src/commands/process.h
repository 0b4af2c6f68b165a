/* What the commands that serve HTTP share: address, end, and the socket bound before anything else begins. */
#ifndef SKALD_COMMANDS_PROCESS_H
#define SKALD_COMMANDS_PROCESS_H

#include "rt/config.h"

/* Behind DRAIN_TIMEOUT: for what a process gives back at its end, its last log lines, and as much again as a machine
 * under load takes to get to it. */
#define PROCESS_STOP_S 9

typedef struct ProcessConfig {
  const char *host;
  int64_t port, drain_us;
  int64_t ktor_metrics; /* 0: off */
} ProcessConfig;

extern ProcessConfig process_config;
extern const Option process_options[];

/* Raises the soft limit of file descriptors to what this many client connections need beside own others, as far as the
 * hard limit lets it. Returns how many connections fit, after a warning when that is fewer than wanted. Before the
 * fork. */
int process_fit_connections(int wanted, int own);
/* Binds HOST and PORT. -1: it could not, as stderr then says. */
int process_listen(void);
const char *process_ktor_address(void); /* as service_init takes it */

#endif

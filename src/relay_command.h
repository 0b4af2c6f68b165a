/* The command relay: publishes Billing's operations to Kafka. */
#ifndef SKALD_RELAY_COMMAND_H
#define SKALD_RELAY_COMMAND_H

#include "rt/config.h"

typedef struct RelayProcess { /* what the command shares with others */
  const char *dsn, *host;
  const char *ktor_address; /* as service_init takes it */
  int64_t port, drain_us;
} RelayProcess;

extern const Option relay_options[];

/* Runs until SIGTERM; returns the exit status for main: 1 when it could not go on. */
int relay_run(const RelayProcess *process);

#endif

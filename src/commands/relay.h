/* The command relay: publishes Billing's operations to Kafka until SIGTERM. Status 1: it could not continue. */
#ifndef SKALD_COMMANDS_RELAY_H
#define SKALD_COMMANDS_RELAY_H

#include "commands/command.h"

extern const Command relay_command;

#endif

/* The command serve: the shop, or some of its services, over HTTP. */
#ifndef SKALD_COMMANDS_SERVE_H
#define SKALD_COMMANDS_SERVE_H

#include "commands/command.h"

extern const Command serve_command;

#endif

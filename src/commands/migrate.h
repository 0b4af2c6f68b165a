/* The command migrate: brings the databases of the shop up to date. */
#ifndef SKALD_COMMANDS_MIGRATE_H
#define SKALD_COMMANDS_MIGRATE_H

#include "commands/command.h"

extern const Command migrate_command;

#endif

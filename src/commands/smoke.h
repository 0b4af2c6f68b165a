/* The command smoke: one customer's way through a shop that is up, over HTTP. Blocks. Says what it does, and what was
 * not as it must be. Status 0: all of it was. */
#ifndef SKALD_COMMANDS_SMOKE_H
#define SKALD_COMMANDS_SMOKE_H

#include "commands/command.h"

extern const Command smoke_command;

#endif

/* The command smoke: one customer's journey through a running shop, over HTTP. Blocks. Prints what it does, and what
 * was not as expected. Status 0: everything was. */
#ifndef SKALD_COMMANDS_SMOKE_H
#define SKALD_COMMANDS_SMOKE_H

#include "commands/command.h"

extern const Command smoke_command;

#endif

/* A command of the executable: its name, its options, what it does. */
#ifndef SKALD_COMMANDS_COMMAND_H
#define SKALD_COMMANDS_COMMAND_H

#include "rt/config.h"

typedef struct Command {
  const char *name, *arguments, *help; /* arguments: as usage shows them; "": it takes none */
  /* With what stands behind the command's name; its options are loaded. Returns the exit status. */
  int (*run)(int argc, char **argv);
  const Option *const *tables; /* ends with NULL */
} Command;

#endif

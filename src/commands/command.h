/* A command of the executable: its name, its options, its function. */
#ifndef SKALD_COMMANDS_COMMAND_H
#define SKALD_COMMANDS_COMMAND_H

#include "rt/config.h"

typedef struct Command {
  const char *name, *arguments, *help; /* arguments: as shown by usage; "": it takes none */
  /* argv: the arguments after the command's name. The options are loaded. Returns the exit status. */
  int (*run)(int argc, char **argv);
  const Option *const *tables; /* ends with NULL */
} Command;

#endif

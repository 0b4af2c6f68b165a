/* skald: one executable; its first argument is the command. */
#include "commands/audit/audit.h"
#include "commands/migrate.h"
#include "commands/relay.h"
#include "commands/serve.h"
#include "commands/smoke.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

static const Command *const commands[] = {&serve_command, &migrate_command, &relay_command, &audit_command,
                                          &smoke_command};
enum { COMMANDS = sizeof(commands) / sizeof(commands[0]) };

static int usage(FILE *out, int status) {
  fprintf(out, "usage: skald COMMAND [--help] [argument…]\n\n");
  for (int i = 0; i < COMMANDS; i++)
    fprintf(out, "  %-8s %-12s %s\n", commands[i]->name, commands[i]->arguments, commands[i]->help);
  return status;
}

static int command_help(const Command *c) {
  printf("usage: skald %s %s\n\n%s. Environment variables:\n\n", c->name, c->arguments, c->help);
  for (const Option *const *t = c->tables; *t; t++)
    config_help(*t, stdout);
  return 0;
}

static int run_command(const Command *c, int argc, char **argv) {
  for (int i = 0; i < argc; i++)
    if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
      return command_help(c);
  if (argc > 0 && !*c->arguments) {
    fprintf(stderr, "skald: %s takes no arguments\n", c->name);
    return 2;
  }
  bool ok = true;
  for (const Option *const *t = c->tables; *t; t++)
    ok &= config_load(*t, stderr) == 0;
  return ok ? c->run(argc, argv) : 2;
}

static void end_at_once(int number) {
  _exit(128 + number);
}

int main(int argc, char **argv) {
  if (argc < 2)
    return usage(stderr, 2);
  signal(SIGTERM, end_at_once); /* by default process 1 of a container would ignore it; serve and relay drain instead */
  for (int i = 0; i < COMMANDS; i++)
    if (!strcmp(argv[1], commands[i]->name))
      return run_command(commands[i], argc - 2, argv + 2);
  if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
    return usage(stdout, 0);
  fprintf(stderr, "skald: there is no command '%s'\n", argv[1]);
  return usage(stderr, 2);
}

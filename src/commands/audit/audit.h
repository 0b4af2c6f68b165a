/* The command audit: checks the shop's invariants across all its databases, once nothing is in flight. Prints each
 * violation with its row, and a summary. Status 0: no violations; 1: violations, or a database could not be read. */
#ifndef SKALD_COMMANDS_AUDIT_AUDIT_H
#define SKALD_COMMANDS_AUDIT_AUDIT_H

#include "commands/command.h"

extern const Command audit_command;

#endif

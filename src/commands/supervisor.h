/* A group of worker processes: forked, restarted when one dies, drained together. */
#ifndef SKALD_COMMANDS_SUPERVISOR_H
#define SKALD_COMMANDS_SUPERVISOR_H

#include <stdint.h>

/* Runs worker(index) in this many child processes until SIGTERM or SIGINT, which is passed on to them. close_us after
 * the signal, closing() is called; workers that have not ended after grace_us are killed. Returns the exit status for
 * main. Workers die with their supervisor. */
int supervise(int workers, void (*worker)(int index), void (*closing)(void), int64_t close_us, int64_t grace_us);

#endif

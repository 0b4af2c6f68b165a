/* The smoke test: one customer's way through a shop that is up, over HTTP. */
#ifndef SKALD_SMOKE_H
#define SKALD_SMOKE_H

#include "rt/config.h"

extern const Option smoke_options[];
/* Blocks. Says what it does, and what was not as it must be. 0: all of it was. */
int smoke_run(void);

#endif

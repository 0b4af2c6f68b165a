/* Fibers: straight-line functions that wait. Stackful, cooperative, all on the loop's thread: between two waits a fiber
 * is alone, so plain data needs no locks, but everything may have changed after each wait.
 *
 * Every wait has a deadline (clock_now_us clock). A wait returns 0 when woken, E_TIMEOUT, or E_CANCELED after
 * fiber_cancel; then the function returns its error and the stack unwinds. Fibers never run inside a library's
 * callback: a callback marks them ready with fiber_wake, and the loop runs them. Stacks are FIBER_STACK bytes above a
 * guard: no recursion on input, no large locals. After a burst of fibers their stacks go back to the system. */
#ifndef SKALD_RT_FIBER_H
#define SKALD_RT_FIBER_H

#include "base/buf.h"
#include "base/err.h"
#include "rt/context.h"

#define FIBER_STACK   (128 * 1024)
#define FIBER_FOREVER INT64_MAX

typedef struct Fiber Fiber;
typedef void FiberFn(void *arg);

void fiber_limit(int max); /* beyond it fiber_start refuses; default 4096 */
/* Makes fn(arg) ready to run; name must outlive it. NULL at the limit. The fiber frees itself when fn returns. */
Fiber *fiber_start(const char *name, FiberFn *fn, void *arg);
Fiber *fiber_current(void); /* NULL outside of any fiber */
int fiber_count(void);

/* Parks the current fiber; why is shown to operators. MUST be in a fiber. */
MUST_CHECK int fiber_wait(const char *why, int64_t deadline_us);
/* For what must be waited for even by a canceled fiber, such as others that work on its stack. 0 when woken, or
 * E_TIMEOUT. A cancel, before it or meanwhile, is remembered and reported by the next fiber_wait. */
int fiber_wait_uncancelable(const char *why, int64_t deadline_us);
/* Takes NULL. Waking a fiber that does not wait is remembered for its next wait; one that has ended must not be woken.
 */
void fiber_wake(Fiber *f);
void fiber_cancel(Fiber *f); /* its waits return E_CANCELED from now on */
MUST_CHECK int fiber_sleep(int64_t us);
void fiber_yield(void); /* lets the other ready fibers run first */

FiberContext *fiber_context(void); /* a shared empty one outside of fibers; fibers inherit their starter's */

/* For the loop only: runs what is ready or past its deadline; returns the next deadline, 0 when more is ready. */
int64_t fiber_run_ready(void);
bool fiber_any_ready(void);
void fiber_list(Buf *out); /* one line each: name, what it waits for, for how long */

/* A counting semaphore, first come first served: set free to how many may hold it. */
typedef struct Semaphore {
  int free;
  struct SemaphoreWaiter *first, *last;
} Semaphore;
MUST_CHECK int semaphore_acquire(Semaphore *s, const char *why, int64_t deadline_us);
void semaphore_release(Semaphore *s);

#endif

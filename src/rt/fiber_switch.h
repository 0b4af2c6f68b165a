/* The machine's part of fibers: one stack handed over for another. */
#ifndef SKALD_RT_FIBER_SWITCH_H
#define SKALD_RT_FIBER_SWITCH_H

#include <stddef.h>

#if !defined(__x86_64__) && !defined(__aarch64__)
#include <ucontext.h>
#define FIBER_UCONTEXT 1
#endif

typedef struct FiberStack {
#ifdef FIBER_UCONTEXT
  ucontext_t context;
#else
  void *sp; /* where the saved registers lie */
#endif
  void *bottom; /* lowest usable address; NULL for the thread's own stack until it was left once */
  size_t size;
  void *sanitizer; /* AddressSanitizer's fake stack or ThreadSanitizer's fiber */
} FiberStack;

#define FIBER_STACK_GUARD ((size_t)64 * 1024)

/* Maps a stack of size bytes, a multiple of the page, with an inaccessible guard below it. Out of memory is fatal. */
void fiber_stack_map(FiberStack *s, size_t size);
/* Gives its memory back. Nothing may run on it. */
void fiber_stack_unmap(FiberStack *s);
/* Makes the next switch to s begin entry(), which must never return. Also for reuse after an earlier entry ended. */
void fiber_stack_prepare(FiberStack *s, void (*entry)(void));
/* Called first by an entry function. from is what was switched from. */
void fiber_stack_entered(FiberStack *from);
/* Saves the running context in from and continues to. ending: from will only be used again after fiber_stack_prepare.
 */
void fiber_stack_switch(FiberStack *from, FiberStack *to, int ending);

#endif

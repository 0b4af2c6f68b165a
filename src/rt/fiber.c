/* Fibers: those that are ready, those that wait and until when, and whose turn it is. */
#include "rt/fiber.h"

#include "rt/clock.h"
#include "rt/fiber_switch.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Spare stacks are kept as long as they are used now and then. Those that were not for TRIM_EVERY_US are unmapped, all
 * but a few, and only so many at a time: others wait meanwhile. So a load that goes up and down maps none anew, and
 * what a burst needed goes back to the system. */
#define SPARE_KEPT    32
#define TRIM_MAX      512
#define TRIM_EVERY_US (1 * SECONDS)

struct Fiber {
  FiberStack stack;
  FiberFn *fn;
  void *arg;
  const char *name;
  const char *why; /* what it waits for, NULL while it runs or is ready */
  int64_t since_us, deadline_us;
  size_t heap_at; /* its place among the deadlines, 1-based; 0: none */
  Fiber *next_ready;
  Fiber *next, *prev; /* all living fibers; next also chains the spare ones */
  int outcome;        /* what the wait returns */
  bool ready, woken, canceled;
  bool uncancelable; /* the wait it is in */
  FiberContext context;
};

static struct {
  FiberStack main;
  Fiber *current;
  Fiber *ready_first, *ready_last;
  Fiber *spare;                  /* ended, the last one first */
  int spare_count, spare_unused; /* and how many of them were not used since the last trim */
  int64_t trim_at_us;
  Fiber living; /* list head */
  Fiber **heap; /* deadlines, 1-based binary heap */
  size_t heap_count, heap_cap;
  int count, limit;
} sched = {.limit = 4096, .living = {.next = &sched.living, .prev = &sched.living}};

static void heap_place(size_t at, Fiber *f) {
  sched.heap[at] = f;
  f->heap_at = at;
}

static void heap_up(size_t at, Fiber *f) {
  for (; at > 1 && sched.heap[at / 2]->deadline_us > f->deadline_us; at /= 2)
    heap_place(at, sched.heap[at / 2]);
  heap_place(at, f);
}

static void heap_down(size_t at, Fiber *f) {
  for (size_t child; (child = at * 2) <= sched.heap_count; at = child) {
    if (child < sched.heap_count && sched.heap[child + 1]->deadline_us < sched.heap[child]->deadline_us)
      child++;
    if (sched.heap[child]->deadline_us >= f->deadline_us)
      break;
    heap_place(at, sched.heap[child]);
  }
  heap_place(at, f);
}

static void heap_add(Fiber *f) {
  if (sched.heap_count + 1 >= sched.heap_cap) {
    sched.heap_cap = sched.heap_cap ? sched.heap_cap * 2 : 256;
    sched.heap = realloc(sched.heap, sched.heap_cap * sizeof(Fiber *));
    if (!sched.heap)
      die("out of memory for %zu deadlines", sched.heap_cap);
  }
  heap_up(++sched.heap_count, f);
}

static void heap_remove(Fiber *f) {
  size_t at = f->heap_at;
  if (!at)
    return;
  f->heap_at = 0;
  assert(at <= sched.heap_count && sched.heap[at] == f);
  Fiber *last = sched.heap[sched.heap_count--];
  if (last == f)
    return;
  if (at > 1 && sched.heap[at / 2]->deadline_us > last->deadline_us)
    heap_up(at, last);
  else
    heap_down(at, last);
}

static void make_ready(Fiber *f) {
  assert(f->fn);
  if (f->ready)
    return;
  heap_remove(f);
  f->ready = true;
  f->next_ready = NULL;
  if (sched.ready_last)
    sched.ready_last->next_ready = f;
  else
    sched.ready_first = f;
  sched.ready_last = f;
}

static void retire(Fiber *f) {
  assert(f == sched.current && !f->heap_at && !f->ready);
  f->prev->next = f->next;
  f->next->prev = f->prev;
  f->fn = NULL;
  sched.count--;
  f->next = sched.spare;
  sched.spare = f;
  sched.spare_count++;
}

static void fiber_main(void) {
  fiber_stack_entered(&sched.main);
  Fiber *f = sched.current;
  f->fn(f->arg);
  retire(f);
  fiber_stack_switch(&f->stack, &sched.main, 1);
  die("fiber %s was resumed after its end", f->name);
}

void fiber_limit(int max) {
  sched.limit = max;
}

static Fiber *take_spare(void) {
  Fiber *f = sched.spare;
  if (f) {
    sched.spare = f->next;
    sched.spare_count--;
    if (sched.spare_unused > sched.spare_count)
      sched.spare_unused = sched.spare_count;
    FiberStack stack = f->stack;
    memset(f, 0, sizeof(*f));
    f->stack = stack;
    return f;
  }
  f = calloc(1, sizeof(*f));
  if (!f)
    die("out of memory for a fiber");
  fiber_stack_map(&f->stack, FIBER_STACK);
  return f;
}

/* The longest unused are the last of the chain. */
static void unmap_spare(int count) {
  assert(count > 0 && count < sched.spare_count);
  Fiber *last = sched.spare;
  for (int i = 1; i < sched.spare_count - count; i++)
    last = last->next;
  for (Fiber *f = last->next, *next; f; f = next) {
    next = f->next;
    fiber_stack_unmap(&f->stack);
    free(f);
  }
  last->next = NULL;
  sched.spare_count -= count;
}

/* Returns when there may be something to unmap next. */
static int64_t trim_spare(int64_t now_us) {
  if (now_us >= sched.trim_at_us) {
    int count = sched.spare_unused - SPARE_KEPT;
    if (count > 0)
      unmap_spare(count < TRIM_MAX ? count : TRIM_MAX);
    sched.spare_unused = sched.spare_count;
    sched.trim_at_us = now_us + TRIM_EVERY_US;
  }
  return sched.spare_count > SPARE_KEPT ? sched.trim_at_us : FIBER_FOREVER;
}

Fiber *fiber_start(const char *name, FiberFn *fn, void *arg) {
  assert(name && fn);
  if (sched.count >= sched.limit)
    return NULL;
  Fiber *f = take_spare();
  f->fn = fn;
  f->arg = arg;
  f->name = name;
  f->since_us = clock_now_us();
  f->context = *fiber_context();
  f->next = &sched.living;
  f->prev = sched.living.prev;
  f->prev->next = f;
  sched.living.prev = f;
  sched.count++;
  fiber_stack_prepare(&f->stack, fiber_main);
  make_ready(f);
  return f;
}

Fiber *fiber_current(void) {
  return sched.current;
}

int fiber_count(void) {
  return sched.count;
}

static void leave(Fiber *f) {
  assert(f == sched.current);
  fiber_stack_switch(&f->stack, &sched.main, 0);
  f->why = NULL;
}

static int wait_for_wake(Fiber *f, const char *why, int64_t deadline_us) {
  if (f->woken) {
    f->woken = false;
    return 0;
  }
  f->why = why;
  f->since_us = clock_now_us();
  f->deadline_us = deadline_us;
  f->outcome = E_TIMEOUT;
  if (deadline_us != FIBER_FOREVER)
    heap_add(f);
  leave(f);
  f->woken = false;
  return f->outcome;
}

int fiber_wait(const char *why, int64_t deadline_us) {
  Fiber *f = sched.current;
  assert(f);
  return f->canceled ? E_CANCELED : wait_for_wake(f, why, deadline_us);
}

int fiber_wait_uncancelable(const char *why, int64_t deadline_us) {
  Fiber *f = sched.current;
  assert(f);
  f->uncancelable = true;
  int rc = wait_for_wake(f, why, deadline_us);
  f->uncancelable = false;
  return rc;
}

void fiber_wake(Fiber *f) {
  if (!f)
    return;
  assert(f->fn); /* it has not ended: its memory may be gone then */
  if (f->why && !f->ready) {
    f->outcome = 0;
    make_ready(f);
  } else {
    f->woken = true;
  }
}

void fiber_cancel(Fiber *f) {
  assert(f->fn);
  f->canceled = true;
  if (f->why && !f->ready && !f->uncancelable) {
    f->outcome = E_CANCELED;
    make_ready(f);
  }
}

int fiber_sleep(int64_t us) {
  int64_t until = clock_now_us() + us;
  while (clock_now_us() < until) {
    int rc = fiber_wait("sleep", until);
    if (rc == E_CANCELED)
      return rc;
  }
  return 0;
}

void fiber_yield(void) {
  assert(sched.current);
  make_ready(sched.current);
  leave(sched.current);
}

FiberContext *fiber_context(void) {
  static FiberContext none;
  return sched.current ? &sched.current->context : &none;
}

static void run(Fiber *f) {
  assert(!sched.current && f->fn && !f->heap_at);
  f->ready = false;
  sched.current = f;
  fiber_stack_switch(&sched.main, &f->stack, 0);
  sched.current = NULL;
}

int64_t fiber_run_ready(void) {
  int64_t now = clock_now_us();
  while (sched.heap_count && sched.heap[1]->deadline_us <= now)
    make_ready(sched.heap[1]);
  /* Only those ready now: what they wake runs after the loop has polled again, so that I/O is never starved. */
  Fiber *last = sched.ready_last;
  while (sched.ready_first) {
    Fiber *f = sched.ready_first;
    sched.ready_first = f->next_ready;
    if (!sched.ready_first)
      sched.ready_last = NULL;
    run(f);
    if (f == last)
      break;
  }
  int64_t trim_at_us = trim_spare(now);
  if (sched.ready_first)
    return 0;
  int64_t next_us = sched.heap_count ? sched.heap[1]->deadline_us : FIBER_FOREVER;
  return next_us < trim_at_us ? next_us : trim_at_us;
}

bool fiber_any_ready(void) {
  return sched.ready_first != NULL;
}

void fiber_list(Buf *out) {
  int64_t now = clock_now_us();
  for (Fiber *f = sched.living.next; f != &sched.living; f = f->next) {
    const char *state = f->why ? f->why : (f == sched.current ? "running" : "ready");
    buf_printf(out, "%s\t%s\t%lld us\n", f->name, state, (long long)(now - f->since_us));
  }
}

struct SemaphoreWaiter {
  Fiber *fiber;
  struct SemaphoreWaiter *next;
  bool granted;
};

static void forget_waiter(Semaphore *s, struct SemaphoreWaiter *gone) {
  struct SemaphoreWaiter *before = NULL;
  for (struct SemaphoreWaiter *w = s->first; w; before = w, w = w->next) {
    if (w != gone)
      continue;
    if (before)
      before->next = w->next;
    else
      s->first = w->next;
    if (s->last == w)
      s->last = before;
    return;
  }
}

int semaphore_acquire(Semaphore *s, const char *why, int64_t deadline_us) {
  assert(sched.current && s->free >= 0);
  if (s->free > 0) {
    s->free--;
    return 0;
  }
  struct SemaphoreWaiter me = {.fiber = sched.current};
  if (s->last)
    s->last->next = &me;
  else
    s->first = &me;
  s->last = &me;
  int rc = 0;
  while (!me.granted && rc == 0)
    rc = fiber_wait(why, deadline_us);
  if (me.granted)
    return 0;
  forget_waiter(s, &me);
  return rc;
}

void semaphore_release(Semaphore *s) {
  struct SemaphoreWaiter *w = s->first;
  if (!w) {
    s->free++;
    return;
  }
  s->first = w->next;
  if (!s->first)
    s->last = NULL;
  w->granted = true;
  fiber_wake(w->fiber);
}

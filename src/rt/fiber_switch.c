/* Switching stacks: a handful of instructions on x86_64 and aarch64, ucontext (two system calls more) elsewhere. The
 * sanitizers are notified of every switch, or they would report a stack overflow. */
#include "rt/fiber_switch.h"

#include "base/err.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif

#ifdef WITH_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#endif

void fiber_stack_map(FiberStack *s, size_t size) {
#ifdef WITH_ASAN
  size *= 4; /* red zones make every frame larger */
#endif
  /* One page is enough for code built with -fstack-clash-protection, which touches every page of a large frame. The
   * libraries called on a fiber may be built without it, and a larger guard costs addresses only. */
  char *area =
      mmap(NULL, size + FIBER_STACK_GUARD, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (area == MAP_FAILED || mprotect(area, FIBER_STACK_GUARD, PROT_NONE) < 0)
    die("no memory for the stack of a fiber: %s", strerror(errno));
  s->bottom = area + FIBER_STACK_GUARD;
  s->size = size;
}

void fiber_stack_unmap(FiberStack *s) {
#ifdef WITH_ASAN
  __asan_unpoison_memory_region(s->bottom, s->size); /* the addresses may be another mapping's next */
#endif
#ifdef __SANITIZE_THREAD__
  if (s->sanitizer)
    __tsan_destroy_fiber(s->sanitizer);
#endif
  if (munmap((char *)s->bottom - FIBER_STACK_GUARD, s->size + FIBER_STACK_GUARD) < 0)
    die("the stack of a fiber could not be unmapped: %s", strerror(errno));
  *s = (FiberStack){0};
}

#ifdef FIBER_UCONTEXT

static void prepare(FiberStack *s, void (*entry)(void)) {
  if (getcontext(&s->context) < 0)
    die("getcontext: %s", strerror(errno));
  s->context.uc_stack.ss_sp = s->bottom;
  s->context.uc_stack.ss_size = s->size;
  s->context.uc_link = NULL;
  makecontext(&s->context, entry, 0);
}

static void swap(FiberStack *from, FiberStack *to) {
  swapcontext(&from->context, &to->context);
}

#else

void skald_stack_swap(void **save_sp, void *load_sp);

#ifdef __x86_64__
/* System V ABI: rbx, rbp, r12-r15 and the control words of SSE and x87 belong to the caller. */
__asm__(".text\n"
        ".globl skald_stack_swap\n"
        ".type skald_stack_swap,@function\n"
        "skald_stack_swap:\n"
        "  endbr64\n"
        "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
        "  subq $8, %rsp\n  stmxcsr (%rsp)\n  fnstcw 4(%rsp)\n"
        "  movq %rsp, (%rdi)\n"
        "  movq %rsi, %rsp\n"
        "  ldmxcsr (%rsp)\n  fldcw 4(%rsp)\n  addq $8, %rsp\n"
        "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
        "  ret\n"
        ".size skald_stack_swap,.-skald_stack_swap\n"
        ".section .note.GNU-stack,\"\",@progbits\n"
        ".text\n");

static void prepare(FiberStack *s, void (*entry)(void)) {
  /* As after a call: rsp % 16 == 8 at entry, or the first SSE function faults. */
  uint64_t *top = (uint64_t *)((uintptr_t)((char *)s->bottom + s->size) & ~(uintptr_t)15);
  *--top = 0;
  *--top = (uint64_t)(uintptr_t)entry;
  top -= 6;
  memset(top, 0, 6 * sizeof(*top));
  --top;
  uint32_t mxcsr = 0x1f80;
  uint16_t x87 = 0x037f;
  memcpy(top, &mxcsr, sizeof(mxcsr));
  memcpy((char *)top + 4, &x87, sizeof(x87));
  s->sp = top;
}
#else
/* AAPCS64: x19-x30 and the low halves of v8-v15 belong to the caller. */
__asm__(".text\n"
        ".globl skald_stack_swap\n"
        ".type skald_stack_swap,%function\n"
        "skald_stack_swap:\n"
        "  hint #34\n" /* bti c */
        "  sub sp, sp, #160\n"
        "  stp x19, x20, [sp, #0]\n  stp x21, x22, [sp, #16]\n  stp x23, x24, [sp, #32]\n"
        "  stp x25, x26, [sp, #48]\n  stp x27, x28, [sp, #64]\n  stp x29, x30, [sp, #80]\n"
        "  stp d8, d9, [sp, #96]\n  stp d10, d11, [sp, #112]\n"
        "  stp d12, d13, [sp, #128]\n  stp d14, d15, [sp, #144]\n"
        "  mov x2, sp\n  str x2, [x0]\n  mov sp, x1\n"
        "  ldp x19, x20, [sp, #0]\n  ldp x21, x22, [sp, #16]\n  ldp x23, x24, [sp, #32]\n"
        "  ldp x25, x26, [sp, #48]\n  ldp x27, x28, [sp, #64]\n  ldp x29, x30, [sp, #80]\n"
        "  ldp d8, d9, [sp, #96]\n  ldp d10, d11, [sp, #112]\n"
        "  ldp d12, d13, [sp, #128]\n  ldp d14, d15, [sp, #144]\n"
        "  add sp, sp, #160\n"
        "  ret\n"
        ".size skald_stack_swap,.-skald_stack_swap\n"
        ".section .note.GNU-stack,\"\",%progbits\n"
        ".text\n");

static void prepare(FiberStack *s, void (*entry)(void)) {
  uint64_t *top = (uint64_t *)((uintptr_t)((char *)s->bottom + s->size) & ~(uintptr_t)15) - 20;
  memset(top, 0, 20 * sizeof(*top));
  top[11] = (uint64_t)(uintptr_t)entry; /* x30, the return address */
  s->sp = top;
}
#endif

static void swap(FiberStack *from, FiberStack *to) {
  skald_stack_swap(&from->sp, to->sp);
}

#endif

void fiber_stack_prepare(FiberStack *s, void (*entry)(void)) {
#ifdef WITH_ASAN
  __asan_unpoison_memory_region(s->bottom, s->size); /* the last frames of its former life never returned */
#endif
#ifdef __SANITIZE_THREAD__
  if (s->sanitizer)
    __tsan_destroy_fiber(s->sanitizer);
  s->sanitizer = __tsan_create_fiber(0);
#endif
  prepare(s, entry);
}

void fiber_stack_entered(FiberStack *from) {
#ifdef WITH_ASAN
  const void *bottom;
  size_t size;
  __sanitizer_finish_switch_fiber(NULL, &bottom, &size);
  if (!from->bottom) { /* the thread's own stack: only now is it known where it lies */
    from->bottom = (void *)(uintptr_t)bottom;
    from->size = size;
  }
#else
  (void)from;
#endif
}

void fiber_stack_switch(FiberStack *from, FiberStack *to, int ending) {
#ifdef WITH_ASAN
  __sanitizer_start_switch_fiber(ending ? NULL : &from->sanitizer, to->bottom, to->size);
#endif
#ifdef __SANITIZE_THREAD__
  if (!from->sanitizer)
    from->sanitizer = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(to->sanitizer, 0);
#endif
  (void)ending;
  swap(from, to);
#ifdef WITH_ASAN
  __sanitizer_finish_switch_fiber(from->sanitizer, NULL, NULL);
#endif
}

/* LOOP_TEST(name) { … } is a test that runs in a fiber, in a process of its own with a loop of its own: for modules
 * that keep state for as long as their process lives. All tests of a program run at once, and each is reported in its
 * turn. A hang ends as a failure. */
#ifndef SKALD_TEST_UNIT_IN_LOOP_H
#define SKALD_TEST_UNIT_IN_LOOP_H

#include "rt/fiber.h"
#include "rt/loop.h"
#include "unit/unit.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define TEST_SECONDS_MAX 60

typedef struct LoopTest {
  UnitFn *body;
  FILE *output; /* the child's */
  pid_t child;
  struct LoopTest *next;
} LoopTest;

static LoopTest *loop_tests; /* that have not been started */

static void loop_test_body(void *arg) {
  LoopTest *test = arg;
  test->body();
  loop_stop();
}

static void loop_test_start(LoopTest *test) {
  test->output = tmpfile();
  if (!test->output)
    die("no temporary file for a test's output");
  test->child = fork();
  if (test->child != 0)
    return;
  dup2(fileno(test->output), STDOUT_FILENO);
  signal(SIGPIPE, SIG_IGN);
  alarm(TEST_SECONDS_MAX);
  loop_init();
  if (!fiber_start("test", loop_test_body, test))
    die("no fiber for a test");
  loop_run();
  exit(unit_failed());
}

static void loop_test_report(LoopTest *test) {
  for (fflush(stdout); loop_tests; loop_tests = loop_tests->next)
    loop_test_start(loop_tests);
  int status = -1;
  CHECK_INT(waitpid(test->child, &status, 0), test->child);
  CHECK_INT(status, 0);
  rewind(test->output);
  for (int c; (c = getc(test->output)) != EOF;)
    putchar(c);
  fclose(test->output);
}

#define LOOP_TEST(test_name)                                                                                           \
  static void in_loop_##test_name(void);                                                                               \
  static LoopTest loop_test_##test_name = {.body = in_loop_##test_name};                                               \
  __attribute__((constructor)) static void add_##test_name(void) {                                                     \
    loop_test_##test_name.next = loop_tests;                                                                           \
    loop_tests = &loop_test_##test_name;                                                                               \
  }                                                                                                                    \
  TEST(test_name) {                                                                                                    \
    loop_test_report(&loop_test_##test_name);                                                                          \
  }                                                                                                                    \
  static void in_loop_##test_name(void)

#endif

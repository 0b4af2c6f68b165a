/* The parent of the workers. It only waits, so there is little in it that can fail. */
#include "commands/supervisor.h"

#include "log/log.h"
#include "metrics/metrics.h"
#include "metrics/process.h"
#include "rt/clock.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WORKERS_MAX 64
#define RESTART_US  500000 /* minimum between two starts of a worker */

typedef struct Group {
  struct {
    pid_t pid; /* 0: not running */
    int64_t started_us;
  } workers[WORKERS_MAX];
  int count;
  void (*run)(int index);
  sigset_t signals, old_mask;
  bool stopping;
  int64_t stopping_us; /* since when */
} Group;

static void start_worker(Group *g, int index) {
  pid_t parent = getpid();
  g->workers[index].started_us = clock_now_us();
  pid_t pid = fork();
  if (pid < 0) {
    LOG(ERROR, "supervisor", "cannot fork: %s", strerror(errno));
    return;
  }
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) /* it died before the signal was set */
      _exit(1);
    sigprocmask(SIG_SETMASK, &g->old_mask, NULL);
    g->run(index);
    _exit(0);
  }
  g->workers[index].pid = pid;
  log_given();
}

static void reap(Group *g) {
  int status;
  pid_t pid;
  while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
    for (int i = 0; i < g->count; i++) {
      if (g->workers[i].pid != pid)
        continue;
      g->workers[i].pid = 0;
      process_metrics_worker_ended(i);
      metrics_worker_ended(i);
      if (!g->stopping)
        LOG(ERROR, "supervisor", "worker %d ended by %s %d, starting another", i,
            WIFSIGNALED(status) ? "signal" : "exit", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    }
}

static int running(const Group *g) {
  int n = 0;
  for (int i = 0; i < g->count; i++)
    n += g->workers[i].pid > 0;
  return n;
}

static void signal_all(const Group *g, int number) {
  for (int i = 0; i < g->count; i++)
    if (g->workers[i].pid > 0)
      kill(g->workers[i].pid, number);
}

/* Starts the missing ones; returns how long until the next may be started. */
static int64_t start_missing(Group *g) {
  int64_t now = clock_now_us(), wait = INT64_C(3600) * 1000000;
  for (int i = 0; i < g->count; i++) {
    if (g->workers[i].pid > 0)
      continue;
    int64_t due = g->workers[i].started_us + RESTART_US;
    if (!g->workers[i].started_us || due <= now) {
      start_worker(g, i);
      due = now + RESTART_US;
    }
    if (g->workers[i].pid <= 0 && due - now < wait)
      wait = due - now;
  }
  return wait;
}

static void wait_signal(Group *g, int64_t us) {
  struct timespec timeout = {us / 1000000, us % 1000000 * 1000};
  int number = sigtimedwait(&g->signals, NULL, &timeout);
  if ((number == SIGTERM || number == SIGINT) && !g->stopping) {
    g->stopping = true;
    g->stopping_us = clock_now_us();
    signal_all(g, SIGTERM);
  }
  if (number == SIGHUP) {
    log_reload();
    signal_all(g, SIGHUP);
  }
  reap(g);
}

/* Returns how many had to be killed. */
static int wait_for_end(Group *g, void (*closing)(void), int64_t close_us, int64_t grace_us) {
  int killed = 0;
  bool closed = false;
  while (running(g)) {
    int64_t elapsed = clock_now_us() - g->stopping_us;
    if (!closed && elapsed >= close_us) {
      closing();
      closed = true;
    }
    if (!killed && elapsed >= grace_us) {
      killed = running(g);
      signal_all(g, SIGKILL);
    }
    wait_signal(g, closed || close_us - elapsed > 100000 ? 100000 : close_us - elapsed);
  }
  return killed;
}

int supervise(int workers, void (*worker)(int index), void (*closing)(void), int64_t close_us, int64_t grace_us) {
  Group g = {.count = workers < WORKERS_MAX ? workers : WORKERS_MAX, .run = worker};
  sigemptyset(&g.signals);
  sigaddset(&g.signals, SIGTERM);
  sigaddset(&g.signals, SIGINT);
  sigaddset(&g.signals, SIGCHLD);
  if (log_follows_file()) {
    sigaddset(&g.signals, SIGHUP);
    signal(SIGHUP, SIG_IGN); /* ignored by new workers until they handle it; the parent waits for it */
  }
  sigprocmask(SIG_BLOCK, &g.signals, &g.old_mask);
  while (!g.stopping) {
    int64_t wait = start_missing(&g);
    log_flush();
    wait_signal(&g, wait);
  }
  int killed = wait_for_end(&g, closing, close_us, grace_us);
  if (killed)
    LOG(WARN, "supervisor", "%d workers did not end in time and were killed", killed);
  log_flush();
  return killed ? 1 : 0;
}

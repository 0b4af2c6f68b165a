/* Memory, processor time and open files of every process of the group, read from /proc when somebody scrapes. */
#include "metrics/process.h"

#include "base/err.h"
#include "metrics/metrics.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

typedef struct Member { /* one slab's process */
  pid_t pid;            /* 0: none */
  int lives;            /* processes it has had */
  double cpu_before;    /* seconds that earlier processes of this slab used, so that the counter never falls */
} Member;

static struct {
  Metric *resident, *cpu, *files, *files_max, *workers, *restarts;
  Member *members; /* shared by the group */
  int count;
} process;

/* Field n, from 0, of a one-line file of numbers in /proc/pid, counted behind the last ')' when there is one: the
 * program's name stands in parentheses and may hold anything. Negative when there is no such process any more. */
static double proc_field(pid_t pid, const char *file, int n) {
  char path[64], text[1024];
  snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
  FILE *f = fopen(path, "re");
  if (!f)
    return -1;
  size_t length = fread(text, 1, sizeof(text) - 1, f);
  fclose(f);
  text[length] = '\0';
  const char *name_end = strrchr(text, ')');
  const char *at = name_end ? name_end + 1 : text;
  at += strspn(at, " ");
  for (; n > 0; n--) {
    at += strcspn(at, " ");
    at += strspn(at, " ");
  }
  return *at ? strtod(at, NULL) : -1;
}

static double resident_bytes(pid_t pid) {
  double pages = proc_field(pid, "statm", 1);
  return pages < 0 ? 0 : pages * (double)sysconf(_SC_PAGESIZE);
}

/* Negative when there is no such process any more. */
static double cpu_seconds(pid_t pid) {
  double user = proc_field(pid, "stat", 11), kernel = proc_field(pid, "stat", 12);
  return user < 0 || kernel < 0 ? -1 : (user + kernel) / (double)sysconf(_SC_CLK_TCK);
}

static double open_files(pid_t pid) {
  char path[64];
  snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
  DIR *dir = opendir(path);
  if (!dir)
    return 0;
  int n = pid == getpid() ? -1 : 0; /* without the one that reads this directory */
  for (const struct dirent *entry; (entry = readdir(dir)) != NULL;)
    n += entry->d_name[0] != '.';
  closedir(dir);
  return n;
}

/* Infinite where there is no limit. */
static double max_files(pid_t pid) {
  struct rlimit limit;
  if (prlimit(pid, RLIMIT_NOFILE, NULL, &limit) < 0)
    return 0;
  return limit.rlim_cur == RLIM_INFINITY ? INFINITY : (double)limit.rlim_cur;
}

static void collect(void *arg) {
  (void)arg;
  for (int i = 0; i < process.count; i++) {
    const Member *m = &process.members[i];
    if (m->pid == 0)
      continue;
    metric_slab_set(process.resident, i, resident_bytes(m->pid));
    metric_slab_set(process.files, i, open_files(m->pid));
    metric_slab_set(process.files_max, i, max_files(m->pid));
    double used = cpu_seconds(m->pid);
    if (used >= 0)
      metric_slab_set(process.cpu, i, m->cpu_before + used);
  }
}

void process_metrics_init(void) {
  int slabs = metrics_slabs();
  size_t bytes = (size_t)slabs * sizeof(Member);
  process.members = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (process.members == MAP_FAILED)
    die("out of memory for the metrics of processes");
  process.count = slabs;
  process.members[slabs - 1].pid = getpid();
  process.resident = metric_new(METRIC_GAUGE, "process_resident_memory_bytes",
                                "Resident memory of all processes; shared pages count in each.", "");
  process.cpu =
      metric_new(METRIC_COUNTER, "process_cpu_seconds_total", "User and system processor time of all processes.", "");
  process.files = metric_new(METRIC_GAUGE, "process_open_fds", "Open file descriptors of all processes.", "");
  process.files_max =
      metric_new(METRIC_GAUGE, "process_max_fds", "Maximum number of open file descriptors of all processes.", "");
  process.workers = metric_new(METRIC_GAUGE, "skald_workers", "Live worker processes.", "");
  process.restarts =
      metric_new(METRIC_COUNTER, "skald_worker_restarts_total", "Workers started to replace one that died.", "");
  metric_set(metric_new(METRIC_GAUGE, "skald_build_info", "The running version.", "version=\"" SKALD_VERSION "\""), 1);
  Metric *start = metric_new(METRIC_GAUGE, "process_start_time_seconds",
                             "When the first process started, in seconds since 1970-01-01.", "");
  metric_set(start, (double)time(NULL));
  metrics_collector(collect, NULL);
}

void process_metrics_worker(int index) {
  Member *starter = &process.members[process.count - 1];
  if (starter->pid == getpid()) /* no fork: one process does both */
    starter->pid = 0;
  Member *m = &process.members[index];
  m->cpu_before = metric_slab_value(process.cpu, index);
  m->pid = getpid();
  metric_set(process.workers, 1);
  if (m->lives++ > 0)
    metric_add(process.restarts, 1);
}

void process_metrics_worker_ended(int index) {
  process.members[index].pid = 0;
}

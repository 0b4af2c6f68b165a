/* Log lines: which are wanted, and how they leave: gathered for stdout, in pieces that a pipe takes whole, and handed
 * to the forwarder. */
#include "log/log.h"

#include "log/forward.h"
#include "metrics/metrics.h"
#include "rt/clock.h"
#include "rt/fiber.h"
#include "rt/loop.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define GATHERED   (256 * 1024)
#define LINE_BYTES PIPE_BUF /* what write(2) promises not to mix with the lines of other processes */
#define TEXT_MAX   3072
#define FILE_MAX   1024          /* of LOG_LEVEL_FILE */
#define FOLLOW_US  (5 * SECONDS) /* how often LOG_LEVEL_FILE is looked at */

static struct {
  int64_t format;
  const char *levels, *level_file, *forward, *tag;
} conf;

static const char *const formats[] = {"auto", "logstash", "ecs", "text", NULL};

static int check_levels(Str text) {
  LogLevels levels;
  return log_levels_parse(text, &levels);
}

const Option log_options[] = {
    {.env = "LOG_LEVEL",
     .type = OPTION_CHECKED,
     .target = &conf.levels,
     .def = "info",
     .help = "minimum levels, for all loggers and for single ones",
     .check = check_levels,
     .kind = "levels",
     .example = ": trace, debug, info, warn, error or off, and logger=level, as in info,saga=debug"},
    {.env = "LOG_LEVEL_FILE",
     .type = OPTION_TEXT,
     .target = &conf.level_file,
     .min = 1,
     .max = 4000,
     .help = "a file with levels that override LOG_LEVEL; reloaded when it changes and on SIGHUP"},
    {.env = "LOG_FORMAT",
     .type = OPTION_CHOICE,
     .target = &conf.format,
     .def = "auto",
     .choices = formats,
     .help = "auto: text on a terminal, else logstash"},
    {.env = "LOG_FORWARD",
     .type = OPTION_ADDRESS,
     .target = &conf.forward,
     .help = "a Fluent Bit or Fluentd to which every line is forwarded as well"},
    {.env = "LOG_FORWARD_TAG",
     .type = OPTION_TEXT,
     .target = &conf.tag,
     .def = "app.logs.normal",
     .min = 1,
     .max = 128,
     .help = "the tag of what is sent there"},
    {0},
};

static struct {
  LogFormat format;
  LogLevels levels;
  const char *component;
  char thread[24], host[65];
  bool coloured;
  int fd;
  Buf line, json; /* being made; json: for the forwarder where line is text */
  char gathered[GATHERED];
  size_t start, end; /* what of it is not written yet */
  uint64_t dropped, reported;
  struct stat file;         /* LOG_LEVEL_FILE as last read; zero: not there */
  char file_text[FILE_MAX]; /* what stood in it */
  Metric *lines[LOG_OFF], *lost;
} logs = {.format = LOG_TEXT,
          .levels = {.level = LOG_INFO, .lowest = LOG_INFO},
          .component = "",
          .thread = "main",
          .fd = STDERR_FILENO};

/* A pipe is opened once more to get a description of our own: O_NONBLOCK set on the shared one would surprise the
 * processes we share it with. */
static int open_output(void) {
  struct stat st;
  if (fstat(STDOUT_FILENO, &st) == 0 && S_ISFIFO(st.st_mode)) {
    int fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0)
      return fd;
  }
  return STDOUT_FILENO;
}

static void register_metrics(void) {
  for (int level = 0; level < LOG_OFF; level++) {
    char labels[32];
    snprintf(labels, sizeof(labels), "level=\"%s\"", log_level_name((LogLevel)level));
    for (char *c = labels; *c; c++)
      *c = (char)tolower(*c);
    logs.lines[level] = metric_new(METRIC_COUNTER, "skald_log_lines_total", "Log lines made, by level", labels);
  }
  logs.lost = metric_new(METRIC_COUNTER, "skald_log_dropped_total", "Log lines lost, by where they should have gone",
                         "output=\"stdout\"");
}

static void set_levels(const char *text) {
  if (log_levels_parse(str_from(text), &logs.levels) < 0)
    die("LOG_LEVEL has no levels: %s", text); /* the option's type has let it through */
}

/* What the forwarder has to say goes out like any other line. */
static void report_forward(LogLevel level, const char *text) {
  if (log_on(level, "log"))
    log_write(level, "log", NULL, 0, "%s", text);
}

void log_start(const char *component) {
  bool terminal = isatty(STDOUT_FILENO);
  log_flush();
  signal(SIGPIPE, SIG_IGN);
  if (logs.fd != STDOUT_FILENO && logs.fd != STDERR_FILENO)
    close(logs.fd);
  logs.fd = open_output();
  logs.format = conf.format != LOG_AUTO ? (LogFormat)conf.format : terminal ? LOG_TEXT : LOG_LOGSTASH;
  logs.component = component;
  logs.coloured = terminal;
  if (gethostname(logs.host, sizeof(logs.host) - 1) < 0)
    logs.host[0] = '\0';
  register_metrics();
  log_forward_to(conf.forward, conf.tag, report_forward);
  set_levels(conf.levels);
  if (log_follows_file())
    log_reload();
}

void log_worker(int index) {
  snprintf(logs.thread, sizeof(logs.thread), "worker-%d", index);
  logs.start = logs.end = 0;
  logs.dropped = logs.reported = 0;
}

void log_given(void) {
  log_forward_given();
}

bool log_on(LogLevel level, const char *logger) {
  return log_levels_on(&logs.levels, level, logger);
}

uint64_t log_dropped(void) {
  return logs.dropped;
}

static void count_lines(Metric *metric, uint64_t lines) {
  if (metric) /* none before log_start */
    metric_add(metric, (double)lines);
}

static void count_dropped(uint64_t lines) {
  logs.dropped += lines;
  count_lines(logs.lost, lines);
}

/* ---- levels that change while the process runs ---- */

bool log_follows_file(void) {
  return conf.level_file != NULL;
}

/* *ret_text is untouched unless 0 is returned. */
static int read_file(char ret_text[FILE_MAX]) {
  char text[FILE_MAX] = "";
  int fd = open(conf.level_file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0)
    return E_SYSTEM;
  ssize_t n = read(fd, text, sizeof(text) - 1);
  fstat(fd, &logs.file);
  close(fd);
  if (n < 0)
    return E_SYSTEM;
  text[strcspn(text, "\r\n")] = '\0';
  memcpy(ret_text, text, sizeof(text));
  return E_OK;
}

/* Logged whatever the levels are: an operator who changes them must see that they have changed. */
static void take_levels(void) {
  LogLevels levels;
  const char *text = *logs.file_text ? logs.file_text : conf.levels;
  if (log_levels_parse(str_from(text), &levels) < 0) {
    log_write(LOG_WARN, "log", NULL, 0, "log levels unchanged: no valid levels in %s: %s", conf.level_file, text);
    return;
  }
  logs.levels = levels;
  log_write(LOG_INFO, "log", NULL, 0, "levels: %s", text);
}

void log_reload(void) {
  if (read_file(logs.file_text) < 0)
    log_write(LOG_WARN, "log", NULL, 0, "log levels unchanged: %s: %s", conf.level_file, strerror(errno));
  else
    take_levels();
}

/* By its times and number too, since a mounted file is replaced as a whole. */
static bool has_changed(void) {
  struct stat now = {0};
  if (stat(conf.level_file, &now) < 0)
    return false;
  return now.st_ino != logs.file.st_ino || now.st_size != logs.file.st_size ||
         now.st_mtim.tv_sec != logs.file.st_mtim.tv_sec || now.st_mtim.tv_nsec != logs.file.st_mtim.tv_nsec;
}

static void follow_file(void *arg) {
  (void)arg;
  while (fiber_sleep(FOLLOW_US) == E_OK)
    if (has_changed())
      log_reload();
}

void log_run(void) {
  log_forward_run();
  if (!log_follows_file())
    return;
  loop_on_hangup(log_reload);
  if (!fiber_start("log levels", follow_file, NULL))
    die("no fiber for the log's levels"); /* at start there is room for it, or the limit is a defect */
}

void log_drain(void) {
  if (log_forward_on())
    log_forward_drain(clock_now_us() + LOG_DRAIN_US);
}

/* ---- lines ---- */

/* Escaping can make a text six times as long, so a line that came out too long is made again of half the text. */
static void make_line(Buf *out, LogRecord record, LogFormat format) {
  for (;;) {
    buf_clear(out);
    log_record_write(out, &record, format, logs.coloured && format == LOG_TEXT);
    if (out->n < LINE_BYTES || record.message.n == 0)
      break;
    record.message = str_utf8_cut(record.message, record.message.n / 2);
  }
  buf_char(out, '\n');
}

static void compact(void) {
  memmove(logs.gathered, logs.gathered + logs.start, logs.end - logs.start);
  logs.end -= logs.start;
  logs.start = 0;
}

static bool write_gathered(void);

/* Not log_flush, which may write a line of its own over this one. */
static void gather(void) {
  if (logs.line.n > GATHERED - logs.end)
    (void)write_gathered();
  if (logs.line.n > GATHERED - logs.end)
    compact();
  if (logs.line.n > GATHERED - logs.end) {
    count_dropped(1);
    return;
  }
  memcpy(logs.gathered + logs.end, logs.line.p, logs.line.n);
  logs.end += logs.line.n;
}

static void forward_line(const LogRecord *record) {
  Buf *json = &logs.line;
  if (logs.format == LOG_TEXT) {
    json = &logs.json;
    make_line(json, *record, LOG_LOGSTASH);
  }
  log_forward_add(record, (Str){json->p, json->n - 1});
}

static void write_record(const LogRecord *record) {
  make_line(&logs.line, *record, logs.format);
  gather();
  count_lines(logs.lines[record->level], 1);
  if (log_forward_on())
    forward_line(record);
  if (record->level == LOG_ERROR)
    log_flush();
}

void log_write(LogLevel level, const char *logger, const LogField *fields, int count, const char *format, ...) {
  int saved = errno;
  char text[TEXT_MAX + 2]; /* one more than is kept, to see whether the cut falls within a character */
  va_list args;
  va_start(args, format);
  int n = vsnprintf(text, sizeof(text), format, args);
  va_end(args);
  const FiberContext *context = fiber_context();
  LogRecord record = {.level = level,
                      .logger = logger,
                      .thread = logs.thread,
                      .component = context->component ? context->component : logs.component,
                      .host = logs.host,
                      .context = context,
                      .fields = fields,
                      .field_count = count};
  record.message = str_utf8_cut((Str){text, n < 0 ? 0 : strlen(text)}, TEXT_MAX);
  clock_gettime(CLOCK_REALTIME, &record.time);
  write_record(&record);
  errno = saved;
}

static void drop_gathered(void) {
  uint64_t lines = 0;
  for (size_t i = logs.start; i < logs.end; i++)
    lines += logs.gathered[i] == '\n';
  count_dropped(lines);
  logs.start = logs.end = 0;
}

/* The whole lines at the front that fit into one undivided write; what is left of a line written in part comes alone,
 * and of a line that is longer as much as fits. */
static size_t next_piece(void) {
  size_t left = logs.end - logs.start;
  if (left <= LINE_BYTES)
    return left;
  const char *end = memrchr(logs.gathered + logs.start, '\n', LINE_BYTES);
  return end ? (size_t)(end + 1 - logs.gathered) - logs.start : LINE_BYTES;
}

static bool is_writable(void) {
  struct pollfd p = {.fd = logs.fd, .events = POLLOUT};
  return poll(&p, 1, 0) == 1;
}

/* True when everything gathered went out. */
static bool write_gathered(void) {
  while (logs.start < logs.end) {
    if (!is_writable())
      return false;
    ssize_t n = write(logs.fd, logs.gathered + logs.start, next_piece());
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
      return false;
    if (n < 0) {
      drop_gathered();
      return false;
    }
    logs.start += (size_t)n;
  }
  logs.start = logs.end = 0;
  return true;
}

void log_flush(void) {
  bool some = logs.start < logs.end; /* only what comes through shows that the output works again */
  if (!write_gathered() || !some || logs.reported == logs.dropped)
    return;
  uint64_t lost = logs.dropped - logs.reported;
  logs.reported = logs.dropped;
  log_write(LOG_WARN, "log", NULL, 0, "%llu lines were lost: the output did not take them", (unsigned long long)lost);
  (void)write_gathered();
}

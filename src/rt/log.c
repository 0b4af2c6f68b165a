/* Log lines: made, gathered, and written in pieces that a pipe takes whole. */
#include "rt/log.h"

#include "rt/fiber.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define GATHERED  (256 * 1024)
#define LINE_MOST PIPE_BUF /* what write(2) promises not to mix with the lines of other processes */
#define TEXT_MOST 3072

typedef struct Line {
  struct timespec time;
  LogLevel level;
  const char *logger;
  Str text;
} Line;

static struct {
  LogFormat format;
  LogLevel level;
  const char *component;
  char thread[24];
  bool coloured;
  int fd;
  Buf line; /* being made */
  char gathered[GATHERED];
  size_t start, end; /* what of it is not written yet */
  uint64_t dropped, reported;
} logs = {.format = LOG_TEXT, .level = LOG_INFO, .component = "", .thread = "main", .fd = STDERR_FILENO};

static const struct {
  const char *name, *colour;
  int value; /* logback's */
} levels[] = {
    [LOG_TRACE] = {"TRACE", "\033[2m", 5000},   [LOG_DEBUG] = {"DEBUG", "\033[36m", 10000},
    [LOG_INFO] = {"INFO", "\033[32m", 20000},   [LOG_WARN] = {"WARN", "\033[33m", 30000},
    [LOG_ERROR] = {"ERROR", "\033[31m", 40000},
};

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

void log_init(LogFormat format, LogLevel level, const char *component) {
  bool terminal = isatty(STDOUT_FILENO);
  log_flush();
  signal(SIGPIPE, SIG_IGN);
  if (logs.fd != STDOUT_FILENO && logs.fd != STDERR_FILENO)
    close(logs.fd);
  logs.fd = open_output();
  logs.format = format != LOG_AUTO ? format : terminal ? LOG_TEXT : LOG_LOGSTASH;
  logs.level = level;
  logs.component = component;
  logs.coloured = terminal;
}

void log_worker(int index) {
  snprintf(logs.thread, sizeof(logs.thread), "worker-%d", index);
  logs.start = logs.end = 0;
  logs.dropped = logs.reported = 0;
}

bool log_on(LogLevel level) {
  return level >= logs.level;
}

uint64_t log_dropped(void) {
  return logs.dropped;
}

static void add_member(Buf *b, const char *name, Str value) {
  buf_printf(b, ",\"%s\":", name);
  buf_json_string(b, value);
}

static void add_json(Buf *b, const Line *line, const struct tm *utc) {
  char date[32];
  strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", utc);
  buf_printf(b, "{\"@timestamp\":\"%s.%03ldZ\",\"@version\":\"1\"", date, line->time.tv_nsec / 1000000);
  add_member(b, "message", line->text);
  add_member(b, "logger_name", str_from(line->logger));
  add_member(b, "thread_name", str_from(logs.thread));
  buf_printf(b, ",\"level\":\"%s\",\"level_value\":%d", levels[line->level].name, levels[line->level].value);
  add_member(b, "component", str_from(logs.component));
  const FiberContext *context = fiber_context();
  if (context->trace_id[0])
    add_member(b, "trace_id", str_from(context->trace_id));
  if (context->saga_id[0])
    add_member(b, "saga_id", str_from(context->saga_id));
  buf_char(b, '}');
}

/* Control characters could forge lines or drive the reader's terminal. */
static void add_printable(Buf *b, Str text) {
  for (size_t i = 0; i < text.n; i++)
    buf_char(b, (unsigned char)text.p[i] < 0x20 || text.p[i] == 0x7f ? ' ' : text.p[i]);
}

static void add_text(Buf *b, const Line *line, const struct tm *utc) {
  char clock[16];
  strftime(clock, sizeof(clock), "%H:%M:%S", utc);
  const char *on = logs.coloured ? levels[line->level].colour : "", *off = logs.coloured ? "\033[0m" : "";
  buf_printf(b, "%s.%03ldZ %s%-5s%s %-8s %-12s ", clock, line->time.tv_nsec / 1000000, on, levels[line->level].name,
             off, logs.thread, line->logger);
  add_printable(b, line->text);
  const FiberContext *context = fiber_context();
  if (context->trace_id[0])
    buf_printf(b, " trace_id=%s", context->trace_id);
  if (context->saga_id[0])
    buf_printf(b, " saga_id=%s", context->saga_id);
}

/* Cut between characters, not within one. */
static Str shortened(Str text, size_t n) {
  while (n && ((unsigned char)text.p[n] & 0xC0) == 0x80)
    n--;
  return (Str){text.p, n};
}

/* Escaping can make a text six times as long, so a line that came out too long is made again of half the text. */
static void make_line(Line *line) {
  struct tm utc;
  gmtime_r(&line->time.tv_sec, &utc);
  do {
    buf_clear(&logs.line);
    if (logs.format == LOG_LOGSTASH)
      add_json(&logs.line, line, &utc);
    else
      add_text(&logs.line, line, &utc);
    buf_char(&logs.line, '\n');
    line->text = shortened(line->text, line->text.n / 2);
  } while (logs.line.n > LINE_MOST && line->text.n > 0);
}

static void compact(void) {
  memmove(logs.gathered, logs.gathered + logs.start, logs.end - logs.start);
  logs.end -= logs.start;
  logs.start = 0;
}

static void gather(void) {
  if (logs.line.n > GATHERED - logs.end)
    log_flush();
  if (logs.line.n > GATHERED - logs.end)
    compact();
  if (logs.line.n > GATHERED - logs.end) {
    logs.dropped++;
    return;
  }
  memcpy(logs.gathered + logs.end, logs.line.p, logs.line.n);
  logs.end += logs.line.n;
}

void log_write(LogLevel level, const char *logger, const char *format, ...) {
  int saved = errno;
  char text[TEXT_MOST + 2]; /* one more than is kept, to see whether the cut falls within a character */
  Line line = {.level = level, .logger = logger};
  va_list args;
  va_start(args, format);
  int n = vsnprintf(text, sizeof(text), format, args);
  va_end(args);
  line.text = n > TEXT_MOST ? shortened((Str){text, TEXT_MOST}, TEXT_MOST) : (Str){text, n < 0 ? 0 : (size_t)n};
  clock_gettime(CLOCK_REALTIME, &line.time);
  make_line(&line);
  gather();
  if (level == LOG_ERROR)
    log_flush();
  errno = saved;
}

static void drop_gathered(void) {
  for (size_t i = logs.start; i < logs.end; i++)
    logs.dropped += logs.gathered[i] == '\n';
  logs.start = logs.end = 0;
}

/* The whole lines at the front that fit into one undivided write; what is left of a line written in part comes alone.
 */
static size_t next_piece(void) {
  size_t left = logs.end - logs.start;
  if (left <= LINE_MOST)
    return left;
  size_t n = LINE_MOST;
  while (n > 1 && logs.gathered[logs.start + n - 1] != '\n')
    n--;
  return n;
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
  log_write(LOG_WARN, "log", "%llu lines were lost: the output did not take them", (unsigned long long)lost);
  (void)write_gathered();
}

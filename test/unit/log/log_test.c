/* Log lines: their form, and what happens when nobody takes them. */
#include "log/log.h"

#include "metrics/metrics.h"
#include "rt/fiber.h"
#include "unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* stdout made a pipe for the length of a capture, so checks come after its end. */
static struct {
  int saved, read_fd, write_fd;
  char text[1024 * 1024];
  size_t n;
} pipe_out;

static void start(const char *format, const char *levels) {
  static bool has_metrics;
  if (!has_metrics)
    metrics_init(1);
  has_metrics = true;
  setenv("LOG_FORMAT", format, 1);
  setenv("LOG_LEVEL", levels, 1);
  if (config_load(log_options, stderr) < 0)
    _exit(98);
  log_start("test");
}

static void capture(const char *format, const char *levels) {
  int fds[2];
  fflush(stdout);
  pipe_out.saved = dup(STDOUT_FILENO);
  if (pipe(fds) < 0)
    _exit(99);
  fcntl(fds[0], F_SETFL, O_NONBLOCK);
  pipe_out.read_fd = fds[0];
  pipe_out.write_fd = fds[1];
  pipe_out.n = 0;
  dup2(fds[1], STDOUT_FILENO);
  start(format, levels);
}

static void drain(void) {
  for (ssize_t n; (n = read(pipe_out.read_fd, pipe_out.text + pipe_out.n, sizeof(pipe_out.text) - 1 - pipe_out.n)) > 0;)
    pipe_out.n += (size_t)n;
  pipe_out.text[pipe_out.n] = '\0';
}

static void release(void) {
  dup2(pipe_out.saved, STDOUT_FILENO);
  close(pipe_out.saved);
  close(pipe_out.write_fd);
  if (pipe_out.read_fd >= 0)
    close(pipe_out.read_fd);
  start("logstash", "warn");
}

static const char *finish(void) {
  log_flush();
  drain();
  release();
  return pipe_out.text;
}

/* The host's name is cut out, so that what is compared is the same everywhere. */
static const char *without_host(const char *text) {
  static char copy[sizeof(pipe_out.text)];
  char host[80], name[65] = "";
  gethostname(name, sizeof(name) - 1);
  snprintf(host, sizeof(host), "%s\"", name);
  snprintf(copy, sizeof(copy), "%s", text);
  for (char *at = copy; (at = strstr(at, host));)
    memmove(at, at + strlen(name), strlen(at + strlen(name)) + 1);
  return copy;
}

static int lines(const char *text) {
  int n = 0;
  for (; *text; text++)
    n += *text == '\n';
  return n;
}

TEST(a_logstash_line) {
  capture("auto", "info");
  LOG(WARN, "saga", "step %d of %s", 2, "\"x\"\n");
  const char *text = finish();
  CHECK(strncmp(text, "{\"@timestamp\":\"20", 17) == 0);
  CHECK(text[25] == 'T' && text[34] == '.');
  CHECK_STR(without_host(text + 38),
            "Z\",\"@version\":\"1\",\"message\":\"step 2 of \\\"x\\\"\\n\",\"logger_name\":\"saga\","
            "\"thread_name\":\"main\",\"level\":\"WARN\",\"level_value\":30000,\"component\":\"test\","
            "\"container-id\":\"\"}\n");
}

TEST(an_ecs_line) {
  const LogField fields[] = {{LOG_STEP, STR("payment"), 0},
                             {LOG_HTTP_STATUS, (Str){0}, 409},
                             {LOG_NO_KEY, STR("nothing"), 0},
                             {LOG_DURATION, (Str){0}, 11302}};
  FiberContext *context = fiber_context();
  capture("ecs", "info");
  *context = (FiberContext){.trace = {.trace_id = "0af7651916cd43dd8448eb211c80319c", .span_id = "b7ad6b7169203331"},
                            .component = "order",
                            .saga_id = "0190a2b4-0000-7000-8000-000000000001",
                            .saga_type = "order",
                            .saga_subject = LOG_ORDER_ID};
  LOG_WITH(WARN, "saga", fields, "no");
  *context = (FiberContext){0};
  const char *text = finish();
  CHECK_STR(without_host(text + 38),
            "Z\",\"log.level\":\"warn\",\"message\":\"no\",\"ecs.version\":\"8.11.0\",\"log.logger\":\"saga\","
            "\"process.thread.name\":\"main\",\"service.name\":\"order\",\"host.hostname\":\"\","
            "\"trace.id\":\"0af7651916cd43dd8448eb211c80319c\",\"span.id\":\"b7ad6b7169203331\","
            "\"labels.saga_id\":\"0190a2b4-0000-7000-8000-000000000001\",\"labels.saga_type\":\"order\","
            "\"labels.order_id\":\"0190a2b4-0000-7000-8000-000000000001\",\"labels.step\":\"payment\","
            "\"http.response.status_code\":409,\"event.duration\":11302000}\n");
}

TEST(fields_of_a_line) {
  const LogField fields[] = {
      {LOG_REASON, STR("409: \"no\""), 0}, {LOG_HTTP_STATUS, (Str){0}, 424}, {LOG_DURATION, (Str){0}, 1000007}};
  capture("logstash", "info");
  LOG_WITH(INFO, "saga", fields, "over");
  const char *text = finish();
  CHECK(strstr(text, ",\"reason\":\"409: \\\"no\\\"\",\"http_status\":424,\"duration_ms\":1000.007}\n") != NULL);
}

TEST(levels_by_logger) {
  capture("logstash", "warn,saga=debug,http=off");
  LOG(INFO, "db", "one");
  LOG(WARN, "db", "two");
  LOG(DEBUG, "saga", "three");
  LOG(TRACE, "saga", "four");
  LOG(ERROR, "http", "five");
  const char *text = finish();
  CHECK_INT(lines(text), 2);
  CHECK(strstr(text, "\"two\"") != NULL && strstr(text, "\"three\"") != NULL);
}

TEST(the_context_of_the_fiber_is_added) {
  FiberContext *context = fiber_context();
  capture("logstash", "info");
  memcpy(context->trace.trace_id, "0af7651916cd43dd8448eb211c80319c", 33);
  LOG(INFO, "a", "traced");
  memcpy(context->saga_id, "0190a2b4-0000-7000-8000-000000000001", 37);
  LOG(INFO, "a", "both");
  *context = (FiberContext){0};
  const char *text = finish();
  CHECK(strstr(text, "\"trace_id\":\"0af7651916cd43dd8448eb211c80319c\"}\n") != NULL);
  CHECK(strstr(text, "319c\",\"saga_id\":\"0190a2b4-0000-7000-8000-000000000001\"}\n") != NULL);
}

static int evaluated;

static int costly(void) {
  return ++evaluated;
}

TEST(lower_levels_are_off_and_cost_nothing) {
  capture("logstash", "info");
  LOG(DEBUG, "a", "%d", costly());
  LOG(INFO, "a", "shown");
  bool debug = log_on(LOG_DEBUG, "a"), error = log_on(LOG_ERROR, "a");
  CHECK_INT(lines(finish()), 1);
  CHECK_INT(evaluated, 0);
  CHECK(!debug && error);
}

TEST(lines_are_gathered_and_errors_go_at_once) {
  capture("logstash", "info");
  LOG(INFO, "a", "waits");
  drain();
  size_t before = pipe_out.n;
  errno = ENOENT;
  LOG(ERROR, "a", "hurries");
  int kept = errno;
  drain();
  int after = lines(pipe_out.text);
  CHECK_INT(lines(finish()), 2);
  CHECK_INT(before, 0);
  CHECK_INT(after, 2);
  CHECK_INT(kept, ENOENT);
}

TEST(text_has_no_forged_lines) {
  capture("text", "info");
  LOG(WARN, "http", "bad\n00:00:00 INFO \033[2Jx");
  const char *text = finish();
  CHECK_INT(lines(text), 1);
  CHECK(strchr(text, '\033') == NULL);
  CHECK(strstr(text, "WARN  main     test         http         bad 00:00:00 INFO  [2Jx\n") != NULL);
}

TEST(a_long_message_is_cut_between_characters) {
  char message[8000];
  for (size_t i = 0; i + 2 < sizeof(message); i += 2)
    memcpy(message + i, "\xc3\xa4", 3);
  capture("logstash", "info");
  LOG(INFO, "a", "x%s", message);
  memset(message, 1, sizeof(message) - 1);
  message[sizeof(message) - 1] = '\0';
  LOG(INFO, "a", "%s", message);
  const char *text = finish();
  CHECK_INT(lines(text), 2);
  const char *second = strchr(text, '\n') + 1;
  CHECK(second - text > 3000 && second - text <= 4096);
  CHECK(strlen(second) > 2000 && strlen(second) <= 4096);
  CHECK(strstr(text, "\xa4\",\"logger_name\"") != NULL);
  CHECK(strstr(second, "\\u0001\",\"logger_name\"") != NULL);
  CHECK(str_is_utf8(str_from(text)));
}

TEST(fields_are_cut_between_characters) {
  char reason[800];
  for (size_t i = 1; i + 2 < sizeof(reason); i += 2)
    memcpy(reason + i, "\xc3\xa4", 3);
  reason[0] = 'x';
  const LogField fields[] = {{LOG_REASON, str_from(reason), 0}, {LOG_HTTP_STATUS, (Str){0}, 424}};
  capture("logstash", "info");
  LOG_WITH(INFO, "saga", fields, "over");
  const char *text = finish();
  const char *at = strstr(text, "\"reason\":\"x");
  CHECK(at && strstr(at, "\xa4\",\"http_status\":424}\n") == at + 10 + 254);
  CHECK(str_is_utf8(str_from(text)));
}

/* Each write is a message of its own on a socket of packets. */
TEST(a_line_longer_than_a_piece_goes_in_pieces) {
  enum { FIELDS = 24 };
  int pair[2], saved = dup(STDOUT_FILENO);
  char reason[257], piece[8192] = "";
  memset(reason, 'r', sizeof(reason) - 1);
  reason[sizeof(reason) - 1] = '\0';
  LogField fields[FIELDS];
  for (int i = 0; i < FIELDS; i++)
    fields[i] = (LogField){LOG_REASON, str_from(reason), 0};
  fflush(stdout);
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair) < 0)
    _exit(96);
  dup2(pair[1], STDOUT_FILENO);
  start("logstash", "info");
  LOG_WITH(INFO, "saga", fields, "over");
  LOG(INFO, "saga", "next");
  log_flush();
  ssize_t first = read(pair[0], piece, sizeof(piece)), second = read(pair[0], piece, sizeof(piece));
  dup2(saved, STDOUT_FILENO);
  close(saved);
  close(pair[0]);
  close(pair[1]);
  start("logstash", "warn");
  CHECK_INT(first, 4096);
  CHECK(second > FIELDS * 256 - 4096);
  CHECK(second > 0 && strstr(piece, "\"next\"") != NULL && piece[second - 1] == '\n');
}

TEST(a_stuck_reader_costs_lines_and_no_time) {
  enum { WRITTEN = 4000 };
  uint64_t before = log_dropped();
  capture("logstash", "info");
  for (int i = 0; i < WRITTEN; i++)
    LOG(INFO, "a", "line %d of a flood that nobody reads, made somewhat longer than it needs to be", i);
  int dropped = (int)(log_dropped() - before);
  for (size_t seen = SIZE_MAX; seen != pipe_out.n;) {
    seen = pipe_out.n;
    drain();
    log_flush();
    drain();
  }
  const char *text = finish();
  char notice[64];
  snprintf(notice, sizeof(notice), "\"message\":\"%d lines were lost", dropped);
  CHECK(dropped > 0);
  CHECK_INT(lines(text), WRITTEN - dropped + 1);
  CHECK(strstr(text, notice) != NULL);
  CHECK(strstr(text, "\"line 0 of") != NULL && strstr(text, "\"line 3999 of") == NULL);
}

TEST(a_reader_that_went_away_ends_nothing) {
  uint64_t before = log_dropped();
  capture("logstash", "info");
  close(pipe_out.read_fd);
  pipe_out.read_fd = -1;
  LOG(INFO, "a", "one");
  LOG(INFO, "a", "two");
  log_flush();
  uint64_t after = log_dropped();
  release();
  CHECK_INT(after - before, 2);
}

TEST(a_worker_names_its_lines_and_leaves_the_parents) {
  capture("logstash", "info");
  LOG(INFO, "a", "the parent writes this");
  log_worker(3);
  LOG(INFO, "a", "mine");
  const char *text = finish();
  CHECK_INT(lines(text), 1);
  CHECK(strstr(text, "\"thread_name\":\"worker-3\"") != NULL);
}

static void write_levels(const char *path, const char *levels) {
  FILE *file = fopen(path, "w");
  if (!file || fputs(levels, file) < 0 || fclose(file) != 0)
    _exit(97);
}

/* The last: what an option without a default was set to stays set. */
TEST(a_file_of_levels_goes_before_and_is_read_again) {
  char path[] = "/tmp/skald-levels-XXXXXX";
  close(mkstemp(path));
  write_levels(path, "warn,saga=debug\n");
  setenv("LOG_LEVEL_FILE", path, 1);
  capture("logstash", "error");
  bool follows = log_follows_file(), debug = log_on(LOG_DEBUG, "saga"), info = log_on(LOG_INFO, "db");
  write_levels(path, "loud");
  log_reload();
  bool kept = log_on(LOG_DEBUG, "saga");
  write_levels(path, "");
  log_reload();
  bool emptied = log_on(LOG_WARN, "saga");
  write_levels(path, "trace");
  log_reload();
  bool traced = log_on(LOG_TRACE, "db");
  unlink(path);
  log_reload();
  bool after = log_on(LOG_TRACE, "db");
  unsetenv("LOG_LEVEL_FILE");
  const char *text = finish();
  CHECK(follows && debug && !info);
  CHECK(kept && !emptied && traced && after);
  CHECK_INT(lines(text), 5);
  CHECK(strstr(text, "\"levels: warn,saga=debug\"") != NULL &&
        strstr(text, "log levels unchanged: no valid levels in") != NULL);
  CHECK(strstr(text, "\"levels: error\"") != NULL && strstr(text, "No such file") != NULL);
}

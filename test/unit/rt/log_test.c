/* Log lines: their form, and what happens when nobody takes them. */
#include "rt/log.h"

#include "rt/fiber.h"
#include "unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* stdout made a pipe for the length of a capture, so checks come after its end. */
static struct {
  int saved, read_fd, write_fd;
  char text[1024 * 1024];
  size_t n;
} pipe_out;

static void capture(LogFormat format, LogLevel level) {
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
  log_init(format, level, "test");
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
  log_init(LOG_LOGSTASH, LOG_WARN, "test");
}

static const char *finish(void) {
  log_flush();
  drain();
  release();
  return pipe_out.text;
}

static int lines(const char *text) {
  int n = 0;
  for (; *text; text++)
    n += *text == '\n';
  return n;
}

TEST(a_logstash_line) {
  capture(LOG_AUTO, LOG_INFO);
  LOG(WARN, "saga", "step %d of %s", 2, "\"x\"\n");
  const char *text = finish();
  CHECK(strncmp(text, "{\"@timestamp\":\"20", 17) == 0);
  CHECK(text[25] == 'T' && text[34] == '.');
  CHECK_STR(text + 38, "Z\",\"@version\":\"1\",\"message\":\"step 2 of \\\"x\\\"\\n\",\"logger_name\":\"saga\","
                       "\"thread_name\":\"main\",\"level\":\"WARN\",\"level_value\":30000,\"component\":\"test\"}\n");
}

TEST(the_context_of_the_fiber_is_added) {
  FiberContext *context = fiber_context();
  capture(LOG_LOGSTASH, LOG_INFO);
  memcpy(context->trace_id, "0af7651916cd43dd8448eb211c80319c", 33);
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
  capture(LOG_LOGSTASH, LOG_INFO);
  LOG(DEBUG, "a", "%d", costly());
  LOG(INFO, "a", "shown");
  bool debug = log_on(LOG_DEBUG), error = log_on(LOG_ERROR);
  CHECK_INT(lines(finish()), 1);
  CHECK_INT(evaluated, 0);
  CHECK(!debug && error);
}

TEST(lines_are_gathered_and_errors_go_at_once) {
  capture(LOG_LOGSTASH, LOG_INFO);
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
  capture(LOG_TEXT, LOG_INFO);
  LOG(WARN, "http", "bad\n00:00:00 INFO \033[2Jx");
  const char *text = finish();
  CHECK_INT(lines(text), 1);
  CHECK(strchr(text, '\033') == NULL);
  CHECK(strstr(text, "WARN  main     http         bad 00:00:00 INFO  [2Jx\n") != NULL);
}

TEST(a_long_message_is_cut_between_characters) {
  char message[8000];
  for (size_t i = 0; i + 2 < sizeof(message); i += 2)
    memcpy(message + i, "\xc3\xa4", 3);
  capture(LOG_LOGSTASH, LOG_INFO);
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

TEST(a_stuck_reader_costs_lines_and_no_time) {
  enum { WRITTEN = 4000 };
  uint64_t before = log_dropped();
  capture(LOG_LOGSTASH, LOG_INFO);
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
  capture(LOG_LOGSTASH, LOG_INFO);
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
  capture(LOG_LOGSTASH, LOG_INFO);
  LOG(INFO, "a", "the parent writes this");
  log_worker(3);
  LOG(INFO, "a", "mine");
  const char *text = finish();
  CHECK_INT(lines(text), 1);
  CHECK(strstr(text, "\"thread_name\":\"worker-3\"") != NULL);
}

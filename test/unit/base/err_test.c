/* The error table: complete, unique, with sensible HTTP statuses. */
#include "base/err.h"

#include "unit/unit.h"

#include <limits.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

TEST(every_code_has_its_own_row) {
  for (int code = E_OK; code >= E_INTERNAL; code--) {
    const ErrInfo *info = err_info(code);
    CHECK_INT(info->code, code);
    CHECK(info->name && info->name[0] && info->title && info->title[0]);
  }
}

TEST(names_are_unique_identifiers) {
  for (int a = E_OK; a >= E_INTERNAL; a--) {
    for (int b = a - 1; b >= E_INTERNAL; b--)
      CHECK(!str_eq(str_from(err_info(a)->name), str_from(err_info(b)->name)));
    for (const char *c = err_info(a)->name; *c; c++)
      CHECK((*c >= 'a' && *c <= 'z') || *c == '-');
  }
}

TEST(statuses_are_what_clients_expect) {
  static const struct {
    int code, status;
  } rows[] = {
      {E_MALFORMED, 400},  {E_FIELD, 422},       {E_NOT_FOUND, 404},  {E_METHOD, 405},
      {E_CONFLICT, 409},   {E_REFUSED, 409},     {E_KEY_REUSED, 422}, {E_IN_PROGRESS, 409},
      {E_DEPENDENCY, 424}, {E_TOO_LARGE, 413},   {E_HEADERS, 431},    {E_MEDIA, 415},
      {E_BUSY, 503},       {E_UNAVAILABLE, 503}, {E_TIMEOUT, 504},    {E_INTERNAL, 500},
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
    CHECK_INT(err_info(rows[i].code)->status, rows[i].status);
}

TEST(a_refusal_is_final_and_an_outage_is_not) {
  CHECK(!err_info(E_FIELD)->retry);
  CHECK(!err_info(E_REFUSED)->retry);
  CHECK(err_info(E_UNAVAILABLE)->retry);
  CHECK(err_info(E_UNKNOWN)->retry);
  CHECK(err_info(E_IN_PROGRESS)->retry);
}

TEST(unknown_codes_are_internal_errors) {
  CHECK_INT(err_info(1)->code, E_INTERNAL);
  CHECK_INT(err_info(E_INTERNAL - 1)->code, E_INTERNAL);
  CHECK_INT(err_info(INT_MIN)->code, E_INTERNAL);
  CHECK_INT(err_info(INT_MAX)->code, E_INTERNAL);
}

static int passes_on(int rc, bool *reached) {
  TRY(rc);
  *reached = true;
  return 0;
}

TEST(try_returns_on_errors_only) {
  bool reached = false;
  CHECK_INT(passes_on(E_BUSY, &reached), E_BUSY);
  CHECK(!reached);
  CHECK_INT(passes_on(7, &reached), 0);
  CHECK(reached);
}

TEST(die_says_why_and_aborts) {
  int out[2];
  CHECK_INT(pipe(out), 0);
  pid_t child = fork();
  if (child == 0) {
    dup2(out[1], STDERR_FILENO);
    die("%d of %s", 7, "them");
  }
  close(out[1]);
  char text[64] = "";
  ssize_t n = read(out[0], text, sizeof(text) - 1);
  close(out[0]);
  int status = 0;
  CHECK_INT(waitpid(child, &status, 0), child);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
  CHECK(n > 0);
  CHECK_STR(text, "skald: fatal: 7 of them\n");
}

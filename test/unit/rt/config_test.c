/* Configuration tables: values, bounds, messages, help. */
#include "rt/config.h"

#include "unit/unit.h"

#include <stdlib.h>
#include <string.h>

static struct {
  const char *dsn, *name;
  int64_t port, wait_us, format;
} set;

static const char *const formats[] = {"auto", "text", NULL};

static const Option table[] = {
    {.env = "T_DSN",
     .type = OPTION_TEXT,
     .target = &set.dsn,
     .def = "secret-default",
     .help = "database",
     .secret = true},
    {.env = "T_NAME", .type = OPTION_TEXT, .target = &set.name, .max = 8, .help = "a name"},
    {.env = "T_PORT",
     .old_env = "T_OLD_PORT",
     .type = OPTION_INT,
     .target = &set.port,
     .def = "8080",
     .min = 1,
     .max = 65535,
     .help = "port"},
    {.env = "T_WAIT",
     .type = OPTION_MILLIS,
     .target = &set.wait_us,
     .def = "10s",
     .min = 1,
     .max = 300000,
     .help = "wait"},
    {.env = "T_FORMAT", .type = OPTION_CHOICE, .target = &set.format, .def = "auto", .choices = formats, .help = "how"},
    {0}};

static char messages[4096];

static int load_environment(void) {
  memset(&set, 0, sizeof(set));
  memset(messages, 0, sizeof(messages));
  FILE *err = fmemopen(messages, sizeof(messages), "w");
  int rc = config_load(table, err);
  fclose(err);
  return rc;
}

static void clear_environment(void) {
  for (const Option *o = table; o->env; o++)
    unsetenv(o->env);
  unsetenv("T_OLD_PORT");
}

static int load(const char *env, const char *value) {
  clear_environment();
  if (env)
    setenv(env, value, 1);
  return load_environment();
}

static int load_ports(const char *port, const char *old_port) {
  clear_environment();
  setenv("T_PORT", port, 1);
  setenv("T_OLD_PORT", old_port, 1);
  return load_environment();
}

TEST(defaults) {
  CHECK_INT(load(NULL, NULL), 0);
  CHECK_STR(set.dsn, "secret-default");
  CHECK(set.name == NULL);
  CHECK_INT(set.port, 8080);
  CHECK_INT(set.wait_us, 10 * 1000 * 1000);
  CHECK_INT(set.format, 0);
  CHECK_STR(messages, "");
}

TEST(values_from_the_environment) {
  CHECK_INT(load("T_NAME", "x"), 0);
  CHECK_STR(set.name, "x");
  CHECK_INT(load("T_PORT", "65535"), 0);
  CHECK_INT(set.port, 65535);
  CHECK_INT(load("T_FORMAT", "text"), 0);
  CHECK_INT(set.format, 1);
}

TEST(an_empty_variable_is_one_not_set) {
  CHECK_INT(load("T_PORT", ""), 0);
  CHECK_INT(set.port, 8080);
}

TEST(durations) {
  CHECK_INT(load("T_WAIT", "250ms"), 0);
  CHECK_INT(set.wait_us, 250 * 1000);
  CHECK_INT(load("T_WAIT", "5m"), 0);
  CHECK_INT(set.wait_us, 300 * 1000 * 1000);
  static const char *const bad[] = {"6m", "0ms", "10", "s", "1.5s", "-1s", "1 s", "1sec", "1S", "99999999999999999d"};
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    CHECK_INT(load("T_WAIT", bad[i]), E_FIELD);
    CHECK_INT(set.wait_us, 0);
  }
}

TEST(an_error_says_variable_value_and_what_is_expected) {
  CHECK_INT(load("T_PORT", "70000"), E_FIELD);
  CHECK_STR(messages, "T_PORT=70000 is not acceptable; expected: integer, 1 to 65535\n");
  CHECK_INT(load("T_PORT", "80x"), E_FIELD);
  CHECK_INT(load("T_NAME", "much too long"), E_FIELD);
  CHECK_STR(messages, "T_NAME=much too long is not acceptable; expected: text, 0 to 8 bytes\n");
  CHECK_INT(load("T_FORMAT", "xml"), E_FIELD);
  CHECK_STR(messages, "T_FORMAT=xml is not acceptable; expected: auto | text\n");
  CHECK_INT(load("T_WAIT", "soon"), E_FIELD);
  CHECK_STR(messages, "T_WAIT=soon is not acceptable; expected: duration, 1ms to 5m, such as 250ms, 10s, 5m\n");
}

TEST(all_errors_are_told) {
  static int64_t a, b;
  static const Option bad_defaults[] = {
      {.env = "T_A", .type = OPTION_INT, .target = &a, .def = "x", .help = ""},
      {.env = "T_B", .type = OPTION_TEXT, .target = &b, .def = "hush", .min = 8, .max = 9, .help = "", .secret = true},
      {0}};
  memset(messages, 0, sizeof(messages));
  FILE *err = fmemopen(messages, sizeof(messages), "w");
  CHECK_INT(config_load(bad_defaults, err), E_FIELD);
  fclose(err);
  CHECK(strstr(messages, "T_A=x is not acceptable; expected: integer\n") != NULL);
  CHECK(strstr(messages, "T_B: the value is not acceptable; expected: text, 8 to 9 bytes\n") != NULL);
  CHECK(strstr(messages, "hush") == NULL);
}

TEST(help_is_aligned_and_keeps_secrets) {
  memset(messages, 0, sizeof(messages));
  FILE *out = fmemopen(messages, sizeof(messages), "w");
  config_help(table, out);
  fclose(out);
  CHECK_STR(messages, "VARIABLE  DEFAULT  ACCEPTS              MEANING\n"
                      "T_DSN     ***      text                 database\n"
                      "T_NAME    -        text, 0 to 8 bytes   a name\n"
                      "T_PORT    8080     integer, 1 to 65535  port\n"
                      "T_WAIT    10s      duration, 1ms to 5m  wait\n"
                      "T_FORMAT  auto     auto | text          how\n");
}

static void check_address(const char *text, const char *host, int64_t port) {
  Str got = {0};
  int64_t number = 0;
  CHECK_INT(config_address(str_from(text), &got, &number), host ? 0 : E_FIELD);
  CHECK_STR(got, host);
  CHECK_INT(number, port);
}

TEST(addresses) {
  check_address("fluent-bit:24224", "fluent-bit", 24224);
  check_address("127.0.0.1:1", "127.0.0.1", 1);
  check_address("[::1]:65535", "::1", 65535);
  static const char *const bad[] = {"",      "host",        "host:",   ":24224",   "host:0", "host:65536",
                                    "::1:1", "host:24224x", "host:-1", "[]:24224", "[::1]:", "::1"};
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
    check_address(bad[i], NULL, 0);
}

static int check_even(Str value) {
  return value.n % 2 ? E_FIELD : 0;
}

TEST(checked_texts) {
  const char *even = NULL, *address = NULL;
  const Option checked[] = {
      {.env = "T_EVEN",
       .type = OPTION_CHECKED,
       .target = &even,
       .def = "four",
       .help = "text",
       .check = check_even,
       .kind = "pairs",
       .example = " of bytes, as in four"},
      {.env = "T_ADDRESS", .type = OPTION_ADDRESS, .target = &address, .def = "host:1", .help = "address"},
      {0}};
  FILE *err = fmemopen(messages, sizeof(messages), "w");
  CHECK_INT(config_load(checked, err), 0);
  CHECK_STR(even, "four");
  CHECK_STR(address, "host:1");
  setenv("T_EVEN", "odd", 1);
  setenv("T_ADDRESS", "host", 1);
  CHECK_INT(config_load(checked, err), E_FIELD);
  fclose(err);
  CHECK(strstr(messages, "T_EVEN=odd is not acceptable; expected: pairs of bytes, as in four\n") != NULL);
  CHECK(strstr(messages, "T_ADDRESS=host is not acceptable; expected: host:port\n") != NULL);
  CHECK_STR(even, "four");
  unsetenv("T_EVEN");
  unsetenv("T_ADDRESS");
}

TEST(a_former_name_is_still_read) {
  CHECK_INT(load("T_OLD_PORT", "81"), 0);
  CHECK_INT(set.port, 81);
  CHECK_INT(load_ports("", "81"), 0);
  CHECK_INT(set.port, 81);
  CHECK_INT(load_ports("82", ""), 0);
  CHECK_INT(set.port, 82);
  CHECK_INT(load_ports("82", "82"), 0);
  CHECK_INT(set.port, 82);
}

TEST(a_bad_value_under_a_former_name_is_explained_under_it) {
  CHECK_INT(load("T_OLD_PORT", "x"), E_FIELD);
  CHECK(strstr(messages, "T_OLD_PORT=x is not acceptable; expected: integer, 1 to 65535") != NULL);
}

TEST(two_names_with_different_values_are_an_error) {
  CHECK_INT(load_ports("82", "81"), E_FIELD);
  CHECK_STR(messages, "T_PORT and T_OLD_PORT, its former name, have different values; remove T_OLD_PORT\n");
  CHECK_INT(set.port, 0);
}

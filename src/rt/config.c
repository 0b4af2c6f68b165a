/* Configuration from the environment, driven by each command's table. */
#include "rt/config.h"

#include <stdlib.h>
#include <string.h>

#define ACCEPTS 512 /* bytes of the text that says what a row takes */

static const struct Unit {
  const char *name;
  int64_t ms;
} units[] = {{"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 3600 * 1000}, {"d", 24 * 3600 * 1000}};

static bool in_range(const Option *o, int64_t value) {
  return (o->min == 0 && o->max == 0) || (value >= o->min && value <= o->max);
}

static int read_text(const Option *o, const char *value) {
  if (!in_range(o, (int64_t)strlen(value)))
    return E_FIELD;
  *(const char **)o->target = value;
  return 0;
}

static int read_int(const Option *o, const char *value) {
  int64_t number;
  if (str_to_int(str_from(value), &number) < 0 || !in_range(o, number))
    return E_FIELD;
  *(int64_t *)o->target = number;
  return 0;
}

static int parse_ms(const char *text, int64_t *ret) {
  size_t digits = strspn(text, "0123456789");
  int64_t count, ms, us;
  if (str_to_int((Str){text, digits}, &count) < 0)
    return E_FIELD;
  for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
    if (strcmp(text + digits, units[i].name) != 0)
      continue;
    if (__builtin_mul_overflow(count, units[i].ms, &ms) || __builtin_mul_overflow(ms, 1000, &us))
      return E_FIELD;
    *ret = ms;
    return 0;
  }
  return E_FIELD;
}

static int read_millis(const Option *o, const char *value) {
  int64_t ms;
  if (parse_ms(value, &ms) < 0 || !in_range(o, ms))
    return E_FIELD;
  *(int64_t *)o->target = ms * 1000;
  return 0;
}

static int read_choice(const Option *o, const char *value) {
  for (int64_t i = 0; o->choices[i]; i++) {
    if (strcmp(o->choices[i], value) == 0) {
      *(int64_t *)o->target = i;
      return 0;
    }
  }
  return E_FIELD;
}

static int read_checked(const Option *o, const char *value) {
  TRY(o->check(str_from(value)));
  *(const char **)o->target = value;
  return 0;
}

/* A host, an address of IPv4, or one of IPv6 in brackets, which are taken off. */
static int read_host(Str text, Str *ret) {
  bool bracketed = text.n > 2 && text.p[0] == '[' && text.p[text.n - 1] == ']';
  *ret = bracketed ? (Str){text.p + 1, text.n - 2} : text;
  return bracketed || (text.n > 0 && text.p[0] != '[' && !memchr(text.p, ':', text.n)) ? E_OK : E_FIELD;
}

int config_address(Str text, Str *ret_host, int64_t *ret_port) {
  size_t colon = text.n;
  while (colon > 0 && text.p[colon - 1] != ':')
    colon--;
  if (colon == 0)
    return E_FIELD;
  Str host, port = {text.p + colon, text.n - colon};
  TRY(read_host((Str){text.p, colon - 1}, &host));
  int64_t number;
  if (str_to_int(port, &number) < 0 || number < 1 || number > 65535)
    return E_FIELD;
  *ret_host = host;
  *ret_port = number;
  return E_OK;
}

static int read_address(const Option *o, const char *value) {
  Str host;
  int64_t port;
  TRY(config_address(str_from(value), &host, &port));
  *(const char **)o->target = value;
  return 0;
}

/* The longest unit that says it exactly: 300000 is 5m. */
static size_t format_ms(int64_t ms, char *out, size_t size) {
  size_t best = 0;
  for (size_t i = 0; i < sizeof(units) / sizeof(units[0]) && ms != 0; i++)
    if (ms % units[i].ms == 0)
      best = i;
  return (size_t)snprintf(out, size, "%lld%s", (long long)(ms / units[best].ms), units[best].name);
}

static void accepts_number(const Option *o, char out[ACCEPTS], const char *kind) {
  size_t n = (size_t)snprintf(out, ACCEPTS, "%s", kind);
  if (o->min == 0 && o->max == 0)
    return;
  if (o->type != OPTION_MILLIS) {
    snprintf(out + n, ACCEPTS - n, ", %lld to %lld%s", (long long)o->min, (long long)o->max,
             o->type == OPTION_TEXT ? " bytes" : "");
    return;
  }
  char low[32], high[32];
  format_ms(o->min, low, sizeof(low));
  format_ms(o->max, high, sizeof(high));
  snprintf(out + n, ACCEPTS - n, ", %s to %s", low, high);
}

static void accepts_choice(const Option *o, char out[ACCEPTS]) {
  size_t n = 0;
  out[0] = '\0';
  for (int i = 0; o->choices[i] && n < ACCEPTS; i++)
    n += (size_t)snprintf(out + n, ACCEPTS - n, "%s%s", i ? " | " : "", o->choices[i]);
}

static const struct Type {
  int (*read)(const Option *o, const char *value); /* E_FIELD, target untouched */
  const char *kind, *example;
} types[] = {
    [OPTION_TEXT] = {read_text, "text", ""},
    [OPTION_INT] = {read_int, "integer", ""},
    [OPTION_MILLIS] = {read_millis, "duration", ", such as 250ms, 10s, 5m"},
    [OPTION_CHOICE] = {read_choice, "", ""},
    [OPTION_CHECKED] = {read_checked, NULL, NULL}, /* the row has them */
    [OPTION_ADDRESS] = {read_address, "host:port", ""},
};

static void accepts(const Option *o, char out[ACCEPTS]) {
  if (o->type == OPTION_CHOICE)
    accepts_choice(o, out);
  else
    accepts_number(o, out, o->kind ? o->kind : types[o->type].kind);
}

static void explain(const Option *o, const char *env, const char *value, FILE *err) {
  char wanted[ACCEPTS];
  const char *example = o->example ? o->example : types[o->type].example;
  accepts(o, wanted);
  if (o->secret)
    fprintf(err, "%s: the value is not acceptable; expected: %s%s\n", env, wanted, example);
  else
    fprintf(err, "%s=%s is not acceptable; expected: %s%s\n", env, value, wanted, example);
}

/* An empty variable is how templates leave one out. */
static const char *value_of(const char *env) {
  const char *value = env ? getenv(env) : NULL;
  return value && *value ? value : NULL;
}

static int load_option(const Option *o, FILE *err) {
  const char *value = value_of(o->env), *old = value_of(o->old_env), *env = value || !old ? o->env : o->old_env;
  if (value && old && strcmp(value, old) != 0) {
    fprintf(err, "%s and %s, its former name, have different values; remove %s\n", o->env, o->old_env, o->old_env);
    return E_FIELD;
  }
  value = value ? value : old ? old : o->def;
  if (!value || types[o->type].read(o, value) == 0)
    return 0;
  explain(o, env, value, err);
  return E_FIELD;
}

int config_load(const Option *options, FILE *err) {
  int rc = 0;
  for (const Option *o = options; o->env; o++)
    if (load_option(o, err) < 0)
      rc = E_FIELD;
  return rc;
}

static const char *shown_default(const Option *o) {
  if (!o->def || !*o->def)
    return "-";
  return o->secret ? "***" : o->def;
}

static int wider(int width, const char *text) {
  int n = (int)strlen(text);
  return n > width ? n : width;
}

void config_help(const Option *options, FILE *out) {
  char wanted[ACCEPTS];
  int env = wider(0, "VARIABLE"), def = wider(0, "DEFAULT"), range = wider(0, "ACCEPTS");
  for (const Option *o = options; o->env; o++) {
    accepts(o, wanted);
    env = wider(env, o->env);
    def = wider(def, shown_default(o));
    range = wider(range, wanted);
  }
  fprintf(out, "%-*s  %-*s  %-*s  MEANING\n", env, "VARIABLE", def, "DEFAULT", range, "ACCEPTS");
  for (const Option *o = options; o->env; o++) {
    accepts(o, wanted);
    fprintf(out, "%-*s  %-*s  %-*s  %s\n", env, o->env, def, shown_default(o), range, wanted, o->help);
  }
}

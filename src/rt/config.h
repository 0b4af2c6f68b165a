/* Configuration: one table per command. Each row is an environment variable with type, default, range and help; --help
 * prints the table, and an unknown or bad value is a clear error. */
#ifndef SKALD_RT_CONFIG_H
#define SKALD_RT_CONFIG_H

#include "base/err.h"
#include "base/str.h"

#include <stdio.h>

typedef enum OptionType {
  OPTION_TEXT,    /* const char * */
  OPTION_INT,     /* int64_t, within min..max */
  OPTION_MILLIS,  /* int64_t microseconds; written as 250ms, 10s, 5m; min and max in milliseconds */
  OPTION_CHOICE,  /* int64_t: the index in choices */
  OPTION_CHECKED, /* const char *, which the row's check takes */
  OPTION_ADDRESS, /* const char *, which config_address takes */
} OptionType;

typedef struct Option {
  const char *env;
  const char *old_env; /* its former name, still read; both set to different values are an error. May be NULL */
  OptionType type;
  void *target;
  const char *def; /* as it would stand in the environment; NULL: empty is allowed and means "not set" */
  int64_t min, max;
  const char *const *choices; /* NULL-terminated */
  const char *help;
  bool secret; /* shown as *** when set */
  /* Of OPTION_CHECKED: E_FIELD refuses the value; what a value is called, and an explanation for one that was refused.
   */
  int (*check)(Str value);
  const char *kind, *example;
} Option;

/* The table ends with {0}. An empty variable counts as not set. Bad values are explained on err, all of them, and give
 * E_FIELD. */
MUST_CHECK int config_load(const Option *options, FILE *err);
/* host:port, or [host]:port for an IPv6 address. E_FIELD. */
MUST_CHECK int config_address(Str text, Str *ret_host, int64_t *ret_port);
void config_help(const Option *options, FILE *out);

#endif

#!/bin/bash
# For bash: clean_environment removes the variables listed in environment.txt, except the groups given as arguments. libpq's
# variables are kept if the user chooses the database. Read with `.`.

clean_environment() {
  local group patterns pattern name exported
  exported=$(compgen -A export) || true
  while read -r group patterns; do
    if [[ $group == '#' || " $* " == *" $group "* ]]; then continue; fi
    for name in $exported; do
      # Read as words, because the patterns must not be expanded to file names.
      while read -r pattern; do
        # shellcheck disable=SC2053 # a pattern
        if [[ $name == $pattern ]]; then unset "$name"; fi
      done <<<"${patterns// /$'\n'}"
    done
  done <"${BASH_SOURCE[0]%/*}/environment.txt"
  export LC_ALL=C.UTF-8
}

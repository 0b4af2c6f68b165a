#!/bin/bash
# For bash: clean_environment takes away what environment.txt lists, but not the groups that are named. libpq's variables
# have their usual meaning where the user names the database. Read with `.`.

clean_environment() {
  local group patterns pattern name exported
  exported=$(compgen -A export) || true
  while read -r group patterns; do
    if [[ $group == '#' || " $* " == *" $group "* ]]; then continue; fi
    for name in $exported; do
      # The patterns must not become names of files, so they are read as words and not expanded.
      while read -r pattern; do
        # shellcheck disable=SC2053 # a pattern is what it is
        if [[ $name == $pattern ]]; then unset "$name"; fi
      done <<<"${patterns// /$'\n'}"
    done
  done <"${BASH_SOURCE[0]%/*}/environment.txt"
  export LC_ALL=C.UTF-8
}

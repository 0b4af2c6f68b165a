"""What of the user's shell must not reach what the tools start: variables by which other programs would look for another
server, speak to it in another way, go through a proxy to this very machine, or start a JVM differently.

Python calls clean(). A shell script does the same with

  eval "$(python3 -IS tools/environment.py [GROUP…])"

where the groups named are kept: libpq's variables have their usual meaning where the user names the database."""

import fnmatch
import os
import re
import shlex
import sys

# As a shell's patterns.
GROUPS = {
    "libpq": ["PG*"],
    "proxy": ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"],
    "java": ["CLASSPATH", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"],
    "locale": ["LC_*", "LANG", "LANGUAGE", "TZ"],
    "shell": ["BASH_ENV", "ENV", "CDPATH", "GREP_OPTIONS", "POSIXLY_CORRECT", "CURL_HOME"],
}
LOCALE = "C.UTF-8"
HERE = "localhost,127.0.0.1,::1"


def changes(environment, keep=()):
    """Name → value of what has to change; None: it goes."""
    patterns = [one for group, some in GROUPS.items() if group not in keep for one in some]
    found = {name: None for name in environment if any(fnmatch.fnmatchcase(name, one) for one in patterns)}
    if "locale" not in keep:
        found["LC_ALL"] = LOCALE
    if "proxy" in keep:
        for name in ("no_proxy", "NO_PROXY"):
            found[name] = ",".join(filter(None, (environment.get(name), HERE)))
    return found


def cleaned(environment, keep=()):
    new = changes(environment, keep)
    kept = {name: value for name, value in environment.items() if name not in new}
    return kept | {name: value for name, value in new.items() if value is not None}


def clean(keep=()):
    """Of this process, and so of all that it starts. A proxy that is kept is not for this machine."""
    new = cleaned(os.environ, keep)
    os.environ.clear()
    os.environ.update(new)


def main():
    for name, value in changes(os.environ, sys.argv[1:]).items():
        if re.fullmatch(r"[A-Za-z_]\w*", name):  # no other name can be a variable of the shell
            print(f"unset {name}" if value is None else f"export {name}={shlex.quote(value)}")


if __name__ == "__main__":
    unknown = set(sys.argv[1:]) - set(GROUPS)
    if unknown:
        sys.exit(f"environment.py knows no group {', '.join(sorted(unknown))}; it knows {', '.join(GROUPS)}")
    main()

"""Removes the variables listed in environment.txt from an environment. For Python; environment.sh does the same for bash."""

import fnmatch
import os
import pathlib

LISTED = pathlib.Path(__file__).resolve().with_suffix(".txt").read_text().splitlines()
GROUPS = {group: patterns for group, *patterns in (line.split() for line in LISTED if not line.startswith("#"))}
LOCALE = "C.UTF-8"
HERE = "localhost,127.0.0.1,::1"


def cleaned(environment, keep=()):
    """A copy without the listed variables, except those of the groups in keep. Proxies that are kept are not used for this
    machine."""
    patterns = [one for group, some in GROUPS.items() if group not in keep for one in some]
    kept = {name: value for name, value in environment.items()
            if not any(fnmatch.fnmatchcase(name, one) for one in patterns)}
    if "proxy" in keep:
        for name in ("no_proxy", "NO_PROXY"):
            kept[name] = ",".join(filter(None, (environment.get(name), HERE)))
    return kept | {"LC_ALL": LOCALE}


def clean(keep=()):
    """Cleans the environment of this process, and so of every process it starts."""
    new = cleaned(os.environ, keep)
    os.environ.clear()
    os.environ.update(new)

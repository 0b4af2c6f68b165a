"""Process information from the system."""

import contextlib
import os
import pathlib
import re

TICK = os.sysconf("SC_CLK_TCK")


def pids():
    return [int(entry.name) for entry in pathlib.Path("/proc").glob("[0-9]*")]


def stat_of(pid):
    """The fields of its stat after the name, the state first; None if it is gone or a zombie."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields


def children(parent):
    return [pid for pid in pids() if (stat_of(pid) or "  ")[1] == str(parent)]


def group(leader):
    return [pid for pid in pids() if (stat_of(pid) or "   ")[2] == str(leader)]


def cpu_seconds(pid, with_dead_children=False):
    """0 when it has gone."""
    fields = stat_of(pid)
    return sum(map(int, fields[11:15 if with_dead_children else 13])) / TICK if fields else 0


def memory(processes, field):
    """Sum in MB of a field of smaps_rollup over all processes: Rss, or Pss, which counts shared pages once."""
    total = 0
    for pid in processes:
        with contextlib.suppress(OSError):
            text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += int(re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE).group(1))
    return total / 1000

"""Free ports on 127.0.0.1 for servers to be started."""

import contextlib
import functools
import itertools
import pathlib
import random
import socket

FIRST, LAST = 10000, 65535
OUTGOING = pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port():
    return free_ports(1)


def free_ports(count):
    """The first of so many consecutive ports, none of which this process was given before."""
    row = range(0)
    for port in itertools.islice(order(), LAST - FIRST):
        if port != row.stop:
            row = range(port, port)
        row = range(row.start, port + 1) if is_free(port) else range(0)
        if len(row) == count:
            return row.start
    raise AssertionError(f"no {count} free ports in a row")


@functools.cache
def order():
    """All ports that the system does not use for outgoing connections, which could take one before its server starts.
    Beginning at a random place, so that two processes choosing at the same time do not collide."""
    low, high = map(int, OUTGOING.read_text().split())
    ports = [port for port in range(FIRST, LAST + 1) if not low <= port <= high] or list(range(FIRST, LAST + 1))
    start = random.randrange(len(ports))
    return itertools.cycle(ports[start:] + ports[:start])


def is_free(port):
    with contextlib.suppress(OSError), socket.socket() as s:
        s.bind(("127.0.0.1", port))
        return True
    return False

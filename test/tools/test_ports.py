"""Ports for the tests' servers."""

import pathlib
import socket
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import ports  # noqa: E402

ROW = 100


def given(count):
    return [port for first in (ports.free_ports(ROW) for _ in range(count)) for port in range(first, first + ROW)]


def test_no_port_is_given_twice():
    some = given(100)
    assert len(set(some)) == len(some)


def test_no_connection_could_take_one():
    """Uses all available ports, so that no range can span an excluded one."""
    low, high = map(int, ports.OUTGOING.read_text().split())
    assert not [port for port in given((ports.LAST - ports.FIRST) // ROW) if low <= port <= high or port > ports.LAST]


def test_port_that_somebody_holds_is_not_free():
    with socket.socket() as held:
        port = ports.free_port()
        assert ports.is_free(port)
        held.bind(("127.0.0.1", port))
        assert not ports.is_free(port)

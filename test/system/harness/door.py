"""An entry point for containers: haproxy, which sends requests to ready servers, as a cluster does. Requests from
outside are balanced individually, calls between services by connection, as in a cluster's network."""

import contextlib
import csv
import pathlib
import socket
import subprocess
import tempfile

from ports import free_port

from .wait import wait_for

CONFIG = """\
global
  maxconn 4096
  stats socket {folder}/stats
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 60s
{checks}frontend shop
  bind 127.0.0.1:{port}
  use_backend %[path,field(2,/)] if {{ path,field(2,/) -m str {names} }}
  default_backend order
"""
CHECKS = """\
  timeout check 500ms
  option httpchk GET /readyz
  default-server check inter 200ms fall 1 rise 1
"""


class Door:
    """places: for each service the addresses that its containers may have. inside: where other containers reach it.
    checked: it finds out itself who is ready."""

    def __init__(self, places, inside="127.0.0.1", checked=True):
        self.folder = tempfile.TemporaryDirectory(prefix="skald-door-")
        self.port = free_port()
        self.inside = {name: f"{inside}:{free_port()}" for name in places}
        config = pathlib.Path(self.folder.name) / "haproxy.cfg"
        config.write_text(CONFIG.format(folder=self.folder.name, port=self.port, names=" ".join(places),
                                        checks=CHECKS if checked else "")
                          + "".join(self.backend(name, places[name]) for name in places))
        self.log = open(pathlib.Path(self.folder.name) / "log", "w+")
        self.process = subprocess.Popen(["haproxy", "-db", "-f", config], stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=self.log)
        wait_for("the front door", lambda: self.states() or self.process.poll() is not None)
        assert self.process.poll() is None, pathlib.Path(self.log.name).read_text()

    def backend(self, name, addresses):
        servers = "".join(f"  server {address} {address}:8080\n" for address in addresses)
        return (f"backend {name}\n{servers}"
                f"listen {name}-inside\n  mode tcp\n  bind {self.inside[name]}\n{servers}")

    def states(self):
        """The state of each server, by backend and address; empty while the door is not open yet."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as s:
            s.connect(f"{self.folder.name}/stats")
            s.sendall(b"show stat\n")
            rows = csv.DictReader(s.makefile("r").read().lstrip("# ").splitlines())
            return {(row["pxname"], row["svname"]): row["status"] for row in rows
                    if row["svname"] not in ("FRONTEND", "BACKEND")}
        return {}

    def wait_for_exactly(self, addresses):
        """Waits until it sends requests to exactly these servers, from outside and from inside: each side has its own
        checks."""
        wanted = set(addresses)

        def known():
            states = self.states()
            return states and all((status == "UP") == (server in wanted) for (_, server), status in states.items())

        wait_for("the front door's view of who is ready", known, 60)

    def close(self):
        self.process.terminate()
        self.process.wait(10)
        self.log.close()
        self.folder.cleanup()

"""Fluent Bit with the project's configurations, and container logs in containerd's format."""

import datetime
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request

import msgpack
from ports import free_port

from .cluster import ROOT
from .opensearch import LOGGING
from .wait import wait_for

PROGRAM = os.environ.get("FLUENT_BIT") or shutil.which("fluent-bit")
LOCAL = ROOT / "deploy/local/fluent-bit.yaml"
TAG_PREFIX = "kube.var.log.containers."
STOP_SECONDS = 30
PART = 16 * 1024  # what containerd puts into one line of a file
FORWARDED = 500  # lines at once
GIVEN_UP = ("errors", "retries_failed", "dropped_records")  # of an output: each stands for lines that never arrive


def destination(url):
    """The variables for an OpenSearch without users or certificates."""
    address = urllib.parse.urlsplit(url)
    return {"OPENSEARCH_HOST": address.hostname, "OPENSEARCH_PORT": str(address.port), "OPENSEARCH_TLS": "off"}


class FluentBit:
    """Can be killed and restarted; it then continues from its state."""

    def __init__(self, folder, config, path, env, within=()):
        """within: a command that runs the one behind it."""
        assert PROGRAM, "fluent-bit is not in the PATH; FLUENT_BIT names one elsewhere"
        self.command, self.log = [*within, PROGRAM, "-c", config], folder / "fluent-bit.log"
        self.env = os.environ | {"LOG_PATH": str(path), "STATE_FOLDER": str(folder / "state")} | env
        self.process = None

    def start(self):
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env)
        return self

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        assert self.process.wait(STOP_SECONDS) == 0, self.log.read_text()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.stop()


class NodeAgent(FluentBit):
    """The cluster's configuration with other addresses. Tails the container logs of a folder."""

    def __init__(self, folder, env, within=()):
        self.forward_port, self.http_port = free_port(), free_port()
        self.containers = folder / "containers"
        self.containers.mkdir()
        self.lay_out(folder / "config")
        super().__init__(folder, folder / "config/fluent-bit.yaml", self.containers / "*_skald_*.log", env, within)

    def lay_out(self, folder):
        """Like a mounted ConfigMap: files are reached through a link."""
        addresses = {" port: 24224\n": f" port: {self.forward_port}\n", " http_port: 2020\n": f" http_port: {self.http_port}\n",
                     TAG_PREFIX: f"kube{self.containers}/".replace("/", ".")}
        (folder / "..now").mkdir(parents=True)
        (folder / "..data").symlink_to("..now")
        for path in LOGGING.glob("*.yaml"):
            text = path.read_text()
            for ours, other in addresses.items():
                assert path.name != "fluent-bit.yaml" or text.count(ours) == 1, ours
                text = text.replace(ours, other)
            (folder / "..now" / path.name).write_text(text)
            (folder / path.name).symlink_to(f"..data/{path.name}")

    def start(self):
        super().start()
        wait_for("Fluent Bit", lambda: self.ask("uptime"))
        return self

    def ask(self, what):
        """None while it reports nothing about that."""
        assert self.process.poll() is None, self.log.read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/api/v1/{what}", timeout=10) as answer:
                return json.load(answer)
        except OSError:
            return None

    def outputs(self, *names):
        """The sum of these metrics over its outputs."""
        metrics = wait_for("its metrics", lambda: self.ask("metrics"))
        return sum(output[name] for output in metrics["output"].values() for name in names)

    def given_up(self):
        """The number of lines that its outputs have given up on."""
        return self.outputs(*GIVEN_UP)

    def forward(self, tag, messages):
        """Like an application's appender: a message and copies of some of its fields, each with its own second."""
        now = int(time.time()) - len(messages)
        entries = [[now + number, {"message": one, "logger": "of.another", "level": "INFO"}]
                   for number, one in enumerate(messages)]
        with socket.create_connection(("127.0.0.1", self.forward_port)) as connection:
            for at in range(0, len(entries), FORWARDED):
                chunk = [tag, entries[at:at + FORWARDED], {"chunk": str(at)}]
                connection.sendall(msgpack.packb(chunk, use_bin_type=False))
                assert msgpack.unpackb(connection.recv(64)) == {"ack": str(at)}

    def container(self, pod, namespace="skald", name="order"):
        return self.containers / f"{pod}_{namespace}_{name}-{'0123456789abcdef' * 4}.log"


def container_log(lines, stream="stdout"):
    """Lines in containerd's format: each with its time and stream, long ones split into parts."""
    began = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    written = []
    for number, line in enumerate(lines):
        when = (began + datetime.timedelta(microseconds=number)).isoformat(timespec="microseconds") + "789Z"
        parts = [line[i:i + PART] for i in range(0, len(line), PART)] or [b""]
        for part in parts:
            written.append(f"{when} {stream} {'F' if part is parts[-1] else 'P'} ".encode() + part + b"\n")
    return b"".join(written)

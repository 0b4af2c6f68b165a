"""The image and its containers, through the docker command."""

import json
import os
import random
import re
import shlex
import subprocess

from .client import Client
from .cluster import ROOT
from .server import DEFECTS
from .wait import wait_for

DOCKERFILE = ROOT / "deploy/image/Dockerfile"
PORT = 8080
UID = 10001
# As a cluster's strictest policy has it, and without a shell, so that nothing can lean on one.
CONFINED = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--memory", "96m",
            "--pids-limit", "16", *(part for shell in ("dash", "bash")
                                    for part in ("--volume", f"/dev/null:/usr/bin/{shell}:ro"))]


def run(*arguments, timeout=60, **options):
    return subprocess.run(["docker", *map(str, arguments)], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                          timeout=timeout, **options)


def docker(*arguments, **options):
    """Its output; it must succeed."""
    done = run(*arguments, **options)
    assert done.returncode == 0, f"docker {' '.join(map(str, arguments))}: {done.stderr}{done.stdout[-2000:]}"
    return done.stdout.strip()


def inspect(kind, name):
    return json.loads(docker(kind, "inspect", name))[0]


def build(name, *options):
    """IMAGE_BUILD_OPTIONS has additional options for this machine, such as another base."""
    more = shlex.split(os.environ.get("IMAGE_BUILD_OPTIONS", ""))
    docker("build", *more, *options, "--file", DOCKERFILE, "--tag", name, ROOT, timeout=1800)


class Network:
    """A private bridge with chosen addresses. This machine has the first one."""

    def __init__(self):
        self.name = f"skald-test-{os.getpid()}"
        for number in random.sample(range(256), 20):
            self.prefix = f"10.213.{number}"
            done = run("network", "create", "--subnet", f"{self.prefix}.0/24", "--gateway", self.gateway, self.name)
            if done.returncode == 0:
                return
        raise AssertionError(f"no free range of addresses: {done.stderr}")

    @property
    def gateway(self):
        return f"{self.prefix}.1"

    @property
    def subnet(self):
        return f"{self.prefix}.0/24"

    def address(self, number):
        return f"{self.prefix}.{number}"

    def remove(self):
        docker("network", "rm", self.name)


def environment(settings):
    return [part for name, value in settings.items() for part in ("--env", f"{name}={value}")]


class Container:
    """A serving container at its own address."""

    def __init__(self, image, network, address, name, arguments, hosts, settings):
        self.name, self.address = name, address
        self.client = Client(lambda path: (address, PORT))
        docker("run", "--detach", "--name", name, "--hostname", name, "--network", network.name, "--ip", address,
               *CONFINED, *hosts, *environment(settings), image, *arguments)

    def is_ready(self):
        try:
            return self.client.get("/readyz", timeout=2).status == 200
        except OSError:
            return False

    def state(self):
        return inspect("container", self.name)["State"]

    def wait_ready(self):
        wait_for(f"{self.name} ready", lambda: self.is_ready() or not self.state()["Running"], 60)
        assert self.state()["Running"], f"{self.name} ended: {self.log()}"

    def log(self):
        done = run("logs", self.name)
        return done.stdout + done.stderr

    def memory(self):
        """Its memory in MB, as counted against its limit."""
        used = docker("stats", "--no-stream", "--format", "{{.MemUsage}}", self.name).split()[0]
        number, unit = re.fullmatch(r"([\d.]+)(\w+)", used).groups()
        return float(number) * {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}[unit] / 1e6

    def proc(self, file):
        """Lines of a file of /proc of every process in it."""
        pids = docker("top", self.name, "-eo", "pid").split()[1:]
        lines = []
        for pid in pids:
            with open(f"/proc/{pid}/{file}") as f:
                lines += f.read().splitlines()
        return lines

    def terminate(self):
        docker("kill", "--signal", "TERM", self.name)

    def wait(self, seconds=60):
        """Waits for it to exit, which must succeed, and removes it."""
        status = int(docker("wait", self.name, timeout=seconds))
        log = self.log()
        assert status == 0, f"{self.name} ended with {status}: {log[-4000:]}"
        found = [defect for defect in DEFECTS if defect in log]
        assert not found, f"{self.name} logged {found}: {log[-4000:]}"
        self.remove()
        return log

    def remove(self):
        run("rm", "--force", self.name)

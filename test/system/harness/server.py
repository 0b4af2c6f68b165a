"""`skald serve` and `skald relay` as processes, with their log in a file."""

import contextlib
import os
import pathlib
import resource
import signal
import subprocess
import tempfile

from ports import free_port

from . import process
from .client import Client
from .cluster import ROOT
from .wait import wait_for

SKALD = pathlib.Path(os.environ.get("SKALD_BIN", ROOT / "build/skald")).resolve()
SANITIZED = SKALD.is_file() and b"__asan_init" in SKALD.read_bytes()
SLOWER = 4 if SANITIZED else 1  # how much more time a sanitized executable may take
DEFECTS = ("AddressSanitizer", "LeakSanitizer", "runtime error:", "ThreadSanitizer", "Assertion `", "*** stack smashing")
STOP_SECONDS = 40

live = []  # servers whose logs a failed test shows


def environment(**settings):
    """An environment without the caller's configuration, with only what a process needs to run."""
    kept = {name: value for name, value in os.environ.items()
            if name in ("PATH", "HOME", "LANG", "TMPDIR") or name.endswith("SAN_OPTIONS")}
    return kept | {name: str(value) for name, value in settings.items()}


def skald(*arguments, timeout=120, **settings):
    """Runs a command of the executable to completion."""
    return subprocess.run([SKALD, *arguments], env=environment(**settings), capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=timeout)


class Server:
    command = "serve"
    descriptors = None  # (soft, hard) limit of file descriptors; None: the caller's

    def __init__(self, *names, port=None, **settings):
        self.names = names
        self.port = port or free_port()
        self.settings = settings
        self.process = None
        self.log = tempfile.NamedTemporaryFile("w+", prefix="skald-log-")
        self.client = Client(lambda path: ("127.0.0.1", self.port))

    def program(self):
        """The command line."""
        return [SKALD, self.command, *self.names]

    def spawn(self):
        """Starts the process and does not wait for it."""
        self.process = subprocess.Popen(
            self.program(), stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT,
            env=environment(HOST="127.0.0.1", PORT=self.port, **self.settings), start_new_session=True,
            preexec_fn=self.descriptors and (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, self.descriptors)))
        live.append(self)

    def start(self):
        self.spawn()
        wait_for(f"health of {self}", lambda: self.is_healthy() or self.process.poll() is not None, 30 * SLOWER)
        assert self.process.poll() is None, f"{self} ended with {self.process.returncode}: {self.tail()}"

    def is_healthy(self):
        try:
            return self.client.get("/health", timeout=5).status == 200
        except OSError:
            return False

    def running(self):
        return self.process is not None and self.process.poll() is None

    def pids(self):
        """All live processes of the server's group."""
        return process.group(self.process.pid)

    def workers(self):
        return process.children(self.process.pid)

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def wait(self, seconds=STOP_SECONDS):
        """The exit status; checks that no process of the group is left."""
        status = self.process.wait(seconds)
        wait_for(f"the end of all processes of {self}", lambda: not self.pids(), 10)
        live.remove(self)
        return status

    def stop(self):
        """A clean shutdown: status 0, and no defect was logged."""
        self.terminate()
        status = self.wait()
        assert status == 0, f"{self} ended with {status}: {self.tail()}"
        self.check_log()

    def kill(self):
        """kill -9 for all its processes."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.wait()

    @contextlib.contextmanager
    def frozen(self):
        """It is stopped: connections stay open, without responses."""
        os.killpg(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self.process.pid, signal.SIGCONT)

    def end(self):
        """For cleanup only: ends it in any state."""
        if self in live:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.wait()

    def text(self):
        return pathlib.Path(self.log.name).read_text(errors="replace")

    def tail(self, lines=20, since=0):
        return "\n".join(self.text()[since:].splitlines()[-lines:])

    def check_log(self):
        text = self.text()
        found = [defect for defect in DEFECTS if defect in text]
        assert not found, f"{self} logged {found}: {self.tail(200)}"

    def __str__(self):
        return f"skald {self.command} {' '.join(self.names)} on port {self.port}".replace("  ", " ")

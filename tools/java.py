"""Java programs as plain background processes: the artifacts of a pom in deploy/local, start, readiness, stop.

A process is found again by its working directory, which is its own folder, so no state can become stale. The folder holds
NAME.log and the program's own files. Run as a command, this file only downloads the artifacts of the given poms, by
default those of deploy/local/pom.xml."""

import fcntl
import functools
import hashlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import environment

ROOT = pathlib.Path(__file__).resolve().parent.parent
LOCAL = ROOT / "deploy/local"
POM = LOCAL / "pom.xml"
CACHE = ROOT / ".cache/java"
OLDEST_JAVA = 17
START_SECONDS = 120
STOP_SECONDS = 60
RELEASE_SECONDS = 5
PAUSE = 0.05
# Only the first-tier compiler: half the CPU time until ready. To measure throughput, set JAVA_OPTIONS to the empty string.
FAST_START = "-XX:TieredStopAtLevel=1"


class Failure(Exception):
    """An error reported to the user without a traceback."""


@functools.cache
def find_java():
    """The JVM of JAVA_HOME, otherwise the one on the path."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which(f"{home}/bin/java" if home else "java")
    said = subprocess.run([java, "-version"], capture_output=True, text=True,
                          env=environment.cleaned(os.environ)).stderr if java else ""
    version = re.search(r'version "(\d+)', said)
    if home and (not version or int(version[1]) < OLDEST_JAVA):
        raise Failure(f"JAVA_HOME is {home}, which has no Java {OLDEST_JAVA} or newer. Unset it, or set it to one that has.")
    if not version or int(version[1]) < OLDEST_JAVA:
        raise Failure(f"Java {OLDEST_JAVA} or newer is required. Install it: tools/install_packages stack")
    return java


def digest(*parts):
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]


def artifacts(pom):
    """The folder with every artifact of the pom, downloaded once per version of the pom."""
    folder = CACHE / digest(pom.read_bytes())
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            fetch(pom, folder)
    return folder


def fetch(pom, folder):
    name = pom.relative_to(ROOT)
    if not shutil.which("mvn"):
        raise Failure(f"Maven is required to download the artifacts of {name}. Install it: tools/install_packages stack")
    print(f"Downloading the artifacts of {name}", file=sys.stderr)
    new = folder.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    done = subprocess.run(["mvn", "-B", "-q", "-f", pom, f"-Djars={new}", "process-resources"],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise Failure(f"{done.stdout}The artifacts of {name} could not be downloaded; see the error above.")
    new.rename(folder)


def check_free(port):
    """Another listener on the port would be mistaken for the program being started. A program that was just killed may hold
    its port, and everything else it had open, for a moment."""
    deadline = time.monotonic() + RELEASE_SECONDS
    while error := refusal(port):
        if time.monotonic() >= deadline:
            raise Failure(f"Cannot listen on 127.0.0.1 port {port}: {error.strerror}. Choose another port.")
        time.sleep(PAUSE)


def refusal(port):
    """Why the port cannot be listened on, or None."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
            s.listen()
        except OSError as error:
            return error
    return None


def write_config(path, template, **settings):
    """The template of deploy/local, followed by the settings of this process."""
    lines = [f"{name.replace('_', '.')}={value}" for name, value in settings.items()]
    path.write_text((LOCAL / template).read_text() + "\n# Of this process alone.\n" + "\n".join(lines) + "\n")


class Program:
    """One Java process, started by this command or by an earlier one."""

    def __init__(self, folder, name, heap, pom=POM):
        self.folder = pathlib.Path(folder).resolve()
        self.name, self.heap, self.pom = name, heap, pom
        self.log = self.folder / f"{name}.log"
        self.new_archive = self.folder / f"{name}.jsa"
        self.child = None

    def pid(self):
        """The Java process that runs in the folder, or None."""
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(entry / "cwd") == str(self.folder) and os.readlink(entry / "exe").endswith("/java"):
                    return int(entry.name)
            except OSError:
                pass  # it has ended, or belongs to another user
        return None

    def archive(self):
        """The class data archive of an earlier run: it halves the CPU time of a start."""
        made = os.stat(os.path.realpath(find_java())).st_mtime_ns
        return CACHE / f"{self.name}-{digest(self.pom.read_bytes(), str(made).encode())}.jsa"

    def command(self, *arguments):
        # With a small heap the serial collector needs the least memory.
        return [find_java(), f"-Xms{self.heap}", f"-Xmx{self.heap}", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError",
                *os.environ.get("JAVA_OPTIONS", FAST_START).split(), "-Djava.awt.headless=true",
                f"-Dlog4j2.configurationFile={LOCAL / 'log4j2.properties'}", "-cp", f"{artifacts(self.pom)}/*",
                *map(str, arguments)]

    def run(self, main, *arguments):
        """Runs to completion, which must succeed; its output goes to the log."""
        with open(self.log, "a") as log:
            status = subprocess.run(self.command(main, *arguments), cwd=self.folder, stdin=subprocess.DEVNULL,
                                    env=environment.cleaned(os.environ), stdout=log, stderr=log).returncode
        if status:
            raise Failure(self.explain(f"{main} failed with status {status}"))

    def start(self, main, *arguments):
        archive = self.archive()
        share = f"-XX:SharedArchiveFile={archive}" if archive.exists() else f"-XX:ArchiveClassesAtExit={self.new_archive}"
        with open(self.log, "a") as log:
            self.child = subprocess.Popen(
                self.command(share, "-Xlog:cds=off", "-Xlog:cds+dynamic=off", main, *arguments), cwd=self.folder,
                env=environment.cleaned(os.environ), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True)

    def ended(self):
        """How it ended, or None while it runs."""
        if self.child:
            status = self.child.poll()
            return None if status is None else f"with status {status}"
        return None if self.pid() else "before this command began"

    def wait_until(self, what, condition, seconds=START_SECONDS):
        """The first true value of condition(). The process must stay alive meanwhile."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            if ended := self.ended():
                raise Failure(self.explain(f"{self.name} ended {ended}; there was no {what}"))
            if time.monotonic() >= deadline:
                raise Failure(self.explain(f"{self.name}: no {what} within {seconds} s"))
            time.sleep(PAUSE)
        return found

    def stop(self):
        pid = self.pid()
        if not pid:
            return
        os.kill(pid, signal.SIGTERM)
        if self.gone_within(STOP_SECONDS):
            self.keep_archive()
            return
        print(f"{self.name} did not stop within {STOP_SECONDS} s; killing it", file=sys.stderr)
        os.kill(pid, signal.SIGKILL)
        self.gone_within(STOP_SECONDS)

    def keep_archive(self):
        """Keeps this run's class data archive for later runs; safe if several processes do it at once."""
        if self.new_archive.exists():
            archive = self.archive()
            beside = archive.with_suffix(f".{os.getpid()}")
            shutil.move(self.new_archive, beside)
            beside.replace(archive)

    def gone_within(self, seconds):
        deadline = time.monotonic() + seconds
        while self.pid():
            if time.monotonic() >= deadline:
                return False
            time.sleep(PAUSE)
        return True

    def explain(self, what, lines=20):
        try:
            end = self.log.read_text(errors="replace").splitlines()[-lines:]
        except OSError:
            end = []
        return "\n".join([*end, f"{what}; see the end of {self.log} above."])


def fetch_named():
    for pom in sys.argv[1:] or [POM]:
        artifacts(pathlib.Path(pom).resolve())


def main_of(function):
    """Runs a command; a Failure is printed, with exit status 1. Maven may fetch through a proxy."""
    environment.clean(keep=("proxy", "java"))
    try:
        sys.exit(function())
    except Failure as failure:
        print(failure, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main_of(fetch_named)

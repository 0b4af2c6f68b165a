"""Java programs as plain background processes: the artifacts of a pom in deploy/local, start, readiness, stop.

A process works in a folder of its own, which is how it is found again, so that nothing has to be remembered that could
be wrong. The folder holds NAME.log and what the program itself writes. Run as a command, this file only fetches the
artifacts of the poms that are named, of deploy/local/pom.xml without a name."""

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
# The first compiler alone: half the processor time until it is ready. To measure throughput, set JAVA_OPTIONS to nothing.
FAST_START = "-XX:TieredStopAtLevel=1"


class Failure(Exception):
    """What is told to the user; no traceback helps with it."""


@functools.cache
def find_java():
    """The JVM of JAVA_HOME, else the one on the path."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which(f"{home}/bin/java" if home else "java")
    said = subprocess.run([java, "-version"], capture_output=True, text=True,
                          env=environment.cleaned(os.environ)).stderr if java else ""
    version = re.search(r'version "(\d+)', said)
    if home and (not version or int(version[1]) < OLDEST_JAVA):
        raise Failure(f"JAVA_HOME is {home}, which has no Java {OLDEST_JAVA} or newer. Unset it, or set it to one that has.")
    if not version or int(version[1]) < OLDEST_JAVA:
        raise Failure(f"Java {OLDEST_JAVA} or newer is needed. Install it: tools/install_packages stack")
    return java


def digest(*parts):
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]


def artifacts(pom):
    """The folder with every artifact of the pom, fetched once for each content of the pom."""
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
        raise Failure(f"Maven is needed to fetch what {name} lists. Install it: tools/install_packages stack")
    print(f"Fetching what {name} lists", file=sys.stderr)
    new = folder.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    done = subprocess.run(["mvn", "-B", "-q", "-f", pom, f"-Djars={new}", "process-resources"],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise Failure(f"{done.stdout}What {name} lists could not be fetched; the reason stands above.")
    new.rename(folder)


def check_free(port):
    """Whoever else listens there would be taken for the program that is started. One that was just killed may hold its
    port, and all that it had open, for a moment longer."""
    deadline = time.monotonic() + RELEASE_SECONDS
    while error := refusal(port):
        if time.monotonic() >= deadline:
            raise Failure(f"Cannot listen on 127.0.0.1 port {port}: {error.strerror}. Give another port.")
        time.sleep(PAUSE)


def refusal(port):
    """Why nobody can listen on the port now, or None."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
            s.listen()
        except OSError as error:
            return error
    return None


def write_config(path, template, **settings):
    """The template of deploy/local with what only this process knows behind it."""
    lines = [f"{name.replace('_', '.')}={value}" for name, value in settings.items()]
    path.write_text((LOCAL / template).read_text() + "\n# Of this process alone.\n" + "\n".join(lines) + "\n")


class Program:
    """One Java process, whether this command has started it or an earlier one."""

    def __init__(self, folder, name, heap, pom=POM):
        self.folder = pathlib.Path(folder).resolve()
        self.name, self.heap, self.pom = name, heap, pom
        self.log = self.folder / f"{name}.log"
        self.new_archive = self.folder / f"{name}.jsa"
        self.child = None

    def pid(self):
        """The Java process that works in the folder. None: it does not run."""
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(entry / "cwd") == str(self.folder) and os.readlink(entry / "exe").endswith("/java"):
                    return int(entry.name)
            except OSError:
                pass  # it has ended, or is somebody else's
        return None

    def archive(self):
        """The classes of an earlier run, ready for use: half the processor time of a start."""
        made = os.stat(os.path.realpath(find_java())).st_mtime_ns
        return CACHE / f"{self.name}-{digest(self.pom.read_bytes(), str(made).encode())}.jsa"

    def command(self, *arguments):
        # Beside a small heap the serial collector needs the least memory.
        return [find_java(), f"-Xms{self.heap}", f"-Xmx{self.heap}", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError",
                *os.environ.get("JAVA_OPTIONS", FAST_START).split(), "-Djava.awt.headless=true",
                f"-Dlog4j2.configurationFile={LOCAL / 'log4j2.properties'}", "-cp", f"{artifacts(self.pom)}/*",
                *map(str, arguments)]

    def run(self, main, *arguments):
        """To its end, which must be a good one; what it prints goes into the log."""
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
        """How it ended, or None: it runs."""
        if self.child:
            status = self.child.poll()
            return None if status is None else f"with status {status}"
        return None if self.pid() else "before this command began"

    def wait_until(self, what, condition, seconds=START_SECONDS):
        """The first true value of condition(). The process must live as long."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            if ended := self.ended():
                raise Failure(self.explain(f"{self.name} gives no {what}, it ended {ended}"))
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
        print(f"{self.name} did not stop within {STOP_SECONDS} s and is killed", file=sys.stderr)
        os.kill(pid, signal.SIGKILL)
        self.gone_within(STOP_SECONDS)

    def keep_archive(self):
        """What this run left at its end serves all later ones; several may do this at once."""
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
        return "\n".join([*end, f"{what}; the end of {self.log} stands above."])


def fetch_named():
    for pom in sys.argv[1:] or [POM]:
        artifacts(pathlib.Path(pom).resolve())


def main_of(function):
    """Runs a command; a failure becomes its text and status 1. What Maven fetches may come through a proxy."""
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

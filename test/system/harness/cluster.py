"""A private PostgreSQL cluster, started by tools/cluster and removed with all its data."""

import atexit
import contextlib
import functools
import glob
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import urllib.parse

import psycopg2

from . import process
from .wait import wait_for

ROOT = pathlib.Path(__file__).resolve().parents[3]
COMMAND = ROOT / "tools/cluster"
EXTRA_CONNECTIONS = 300


def postgres_program(name):
    """In the PATH, or where Debian keeps PostgreSQL's."""
    found = shutil.which(name) or max(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), default=None,
                                      key=lambda path: int(path.split("/")[4]))
    assert found, f"{name} is not installed. Install it: tools/install_packages test"
    return found


@functools.cache
def fresh_data():
    """The data of a cluster that was never used. Making it takes longer than a start, so it is made once and copied."""
    one = Cluster()
    atexit.register(one.remove)
    one.tool("start")
    one.stop()
    return one.dir.resolve() / "data"


class Cluster:
    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="skald-test-"))
        self.folder.chmod(0o755)  # PostgreSQL may run as another user
        self.dir = self.folder / "pg"
        self.root_url = ""

    def tool(self, verb):
        done = subprocess.run([COMMAND, verb, self.dir], capture_output=True, text=True)
        assert done.returncode == 0, f"tools/cluster {verb}: {done.stderr}"
        return done.stdout.strip()

    def start(self):
        if not self.dir.exists():
            self.copy_data(fresh_data())
        self.root_url = self.tool("start")

    def copy_data(self, data):
        self.dir.mkdir()
        subprocess.run(["cp", "-a", "--sparse=always", data, self.dir / "data"], check=True)
        os.chown(self.dir, data.stat().st_uid, data.stat().st_gid)

    def stop(self):
        self.tool("stop")

    def allow_connections(self, count=EXTRA_CONNECTIONS):
        with contextlib.closing(self.connect()) as db, db.cursor() as cursor:
            cursor.execute(f"ALTER SYSTEM SET max_connections = {count}")
        self.stop()
        self.start()

    def listen(self, address, subnet, password):
        """Also listens on this address, with password authentication for this network."""
        with contextlib.closing(self.connect()) as db, db.cursor() as cursor:
            cursor.execute("ALTER ROLE skald PASSWORD %s", (password,))
            cursor.execute("ALTER SYSTEM SET listen_addresses = %s", (address,))
        with open(self.dir / "data/pg_hba.conf", "a") as rules:
            rules.write(f"host all all {subnet} scram-sha-256\n")
        self.stop()
        self.start()

    def processes(self):
        data = str(self.dir.resolve() / "data")
        found = []
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.readlink(entry / "cwd") == data:
                    found.append(int(entry.name))
        return found

    def kill(self):
        """Like a power failure: kills all processes at once, nothing more is written."""
        killed = self.processes()
        self.signal(killed, signal.SIGKILL)
        # One that still waits for the disk has left its folder, but keeps its sockets open.
        wait_for("the end of PostgreSQL", lambda: not self.processes() and not any(map(process.stat_of, killed)))

    @contextlib.contextmanager
    def frozen(self):
        """PostgreSQL keeps its connections open but does not respond."""
        pids = self.processes()
        try:
            self.signal(pids, signal.SIGSTOP)
            yield
        finally:
            self.signal(pids, signal.SIGCONT)

    @staticmethod
    def signal(pids, number):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # a backend may be ending
                os.kill(pid, number)

    def url(self, database="skald"):
        return urllib.parse.urlsplit(self.root_url)._replace(path="/" + database).geturl()

    def create_database(self, name):
        self.copy_database("template1", name)

    def copy_database(self, source, name):
        """The source must have no connections."""
        with contextlib.closing(self.connect("postgres")) as db, db.cursor() as cursor:
            cursor.execute(f'CREATE DATABASE "{name}" TEMPLATE "{source}"')

    def connect(self, database="skald"):
        db = psycopg2.connect(self.url(database))
        db.autocommit = True
        return db

    def remove(self):
        self.tool("remove")
        shutil.rmtree(self.folder)

"""`make run` from its user's view: it starts quickly, reports problems in a sentence, and leaves nothing behind. Each
test has its own SKALD_VAR and port. SKALD_BIN selects another executable."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request

import psycopg2
import pytest
from ports import free_port

ROOT = pathlib.Path(__file__).resolve().parents[2]
SKALD = pathlib.Path(os.environ.get("SKALD_BIN", ROOT / "build/skald")).resolve()
RUN = [ROOT / "tools/run"]
IS_ROOT = os.geteuid() == 0
START_SECONDS = 60

pytestmark = pytest.mark.plain


def wait_for(what, condition, seconds=START_SECONDS):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    pytest.fail(f"{what} did not come within {seconds} s")


def as_from_a_terminal():
    """A background job is started with these signals ignored, and a shell cannot trap ignored signals."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Shop:
    """One SKALD_VAR, and the runs on it."""

    def __init__(self, var):
        self.var = pathlib.Path(var)
        self.port = free_port()
        self.runs = []

    def env(self, **more):
        env = {k: v for k, v in os.environ.items() if k not in ("DATABASE_URL", "HOST", "MAKEFLAGS", "MAKELEVEL")}
        return env | {"SKALD_VAR": str(self.var), "PORT": str(self.port), "SKALD_BIN": str(SKALD)} | more

    def start(self, command=RUN, **env):
        log = tempfile.TemporaryFile("w+")
        run = subprocess.Popen(command, cwd=ROOT, env=self.env(**env), stdin=subprocess.DEVNULL, stdout=log,
                               stderr=subprocess.STDOUT, text=True, start_new_session=True,
                               preexec_fn=as_from_a_terminal)
        run.log = log
        self.runs.append(run)
        return run

    def serve(self, command=RUN, **env):
        """A run that has become ready."""
        run = self.start(command, **env)
        wait_for("its introduction", lambda: "Order a phone: curl" in said(run) or run.poll() is not None)
        assert run.poll() is None, said(run)
        assert self.healthy()
        return run

    def healthy(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def cluster(self):
        return self.var.joinpath("pg").resolve()

    def postmaster(self):
        try:
            return int(self.cluster().joinpath("data/postmaster.pid").read_text().split()[0])
        except (OSError, IndexError, ValueError):
            return None

    def processes(self):
        """All processes of this shop: with its SKALD_VAR in their environment, or working in its cluster."""
        mark, data, found = f"SKALD_VAR={self.var}\0".encode(), str(self.cluster() / "data"), []
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                environment = (entry / "environ").read_bytes()
                if mark in environment or os.readlink(entry / "cwd") == data:
                    if (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                        found.append((int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()))
        return found

    def end_runs(self):
        for run in self.runs:
            if run.poll() is None:
                run.send_signal(signal.SIGTERM)
        for run in self.runs:
            run.wait(60)
            run.log.close()
        self.runs.clear()

    def clean_up(self):
        self.end_runs()
        subprocess.run([ROOT / "tools/cluster", "remove", self.var / "pg"], check=True)


def said(run):
    run.log.seek(0)
    return run.log.read()


def refused(run):
    """The output of a run that must not start."""
    assert run.wait(START_SECONDS) != 0
    return said(run)


def stopped(run, shop, number=signal.SIGTERM, whole_group=False):
    (os.killpg if whole_group else os.kill)(run.pid, number)
    run.wait(60)
    assert shop.processes() == []
    return said(run)


@contextlib.contextmanager
def shop_in(folder):
    shop = Shop(pathlib.Path(folder) / "var")
    try:
        yield shop
    finally:
        shop.clean_up()


@pytest.fixture
def shop():
    with tempfile.TemporaryDirectory(prefix="skald-run-") as folder:
        os.chmod(folder, 0o755)
        with shop_in(folder) as made:
            yield made


@pytest.fixture(scope="module")
def used_folder():
    with tempfile.TemporaryDirectory(prefix="skald-run-") as folder:
        os.chmod(folder, 0o755)
        with shop_in(folder) as made:
            stopped(made.serve(), made)
            yield made


@pytest.fixture
def used(used_folder):
    """A shop whose cluster exists already, for the tests that need no fresh one."""
    yield used_folder
    used_folder.end_runs()


def test_first_and_second_run(shop):
    run = shop.serve()
    assert f"http://127.0.0.1:{shop.port}" in said(run)
    stopped(run, shop)
    durations = []
    for _ in range(3):  # a machine that is busy with something else may delay one
        began = time.monotonic()
        run = shop.serve()
        durations.append(time.monotonic() - began)
        stopped(run, shop)
        if durations[-1] < 2:
            return
    pytest.fail(f"no run started within 2 s: {durations}")


@pytest.mark.parametrize("number, whole_group", [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_make_run_stops_and_leaves_no_process(used, number, whole_group):
    run = used.serve(["make", "--no-print-directory", "run"])
    assert used.postmaster()
    stopped(run, used, number, whole_group)
    assert not used.healthy() and used.postmaster() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_to_the_script_alone_stops_everything(used, number):
    stopped(used.serve(), used, number)


@pytest.mark.parametrize("whole_group", [False, True])
def test_a_signal_while_the_cluster_is_made(shop, whole_group):
    run = shop.start()
    wait_for("the beginning of a cluster", lambda: (shop.var / "pg").exists())
    stopped(run, shop, signal.SIGINT if whole_group else signal.SIGTERM, whole_group)
    stopped(shop.serve(), shop)


def test_a_signal_while_the_server_starts(used):
    run = used.start()
    wait_for("the cluster", used.postmaster)
    stopped(run, used)


def test_port_that_is_busy_is_named(used):
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", used.port))
        taken.listen()
        text = refused(used.start())
    assert f"Port {used.port}" in text and "in use by another program" in text and f"PORT={used.port + 1} make run" in text
    assert used.processes() == []


@pytest.mark.parametrize("port", ["eighty", "70000", ""])
def test_port_that_is_none(used, port):
    run = used.start(PORT=port)
    if port == "":
        wait_for("the default port or a refusal", lambda: "8080" in said(run))
        return
    assert "PORT" in refused(run)


def test_second_run_on_the_same_folder_is_refused(used):
    run = used.serve()
    text = refused(used.start(PORT=str(free_port())))
    assert "Another 'make run' is using" in text and "SKALD_VAR=" in text
    assert used.healthy()
    stopped(run, used)


def kill_all(shop):
    for pid, _ in shop.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_for("the end of all processes", lambda: not shop.processes())


def test_start_after_everything_was_killed(used):
    used.serve()
    kill_all(used)
    assert used.postmaster()
    stopped(used.serve(), used)


def test_stale_pid_file_that_names_another_process(used):
    """Process ids are reused; another process of the same user would make PostgreSQL believe it is already running."""
    used.serve()
    kill_all(used)
    file = used.cluster() / "data/postmaster.pid"
    owner = file.stat()
    other = subprocess.Popen(["sleep", "600"], user=owner.st_uid if IS_ROOT else None)
    try:
        file.write_text(re.sub(r"\A\d+", str(other.pid), file.read_text()))
        stopped(used.serve(), used)
    finally:
        other.kill()
        other.wait()


def test_killed_script_takes_the_server_along_and_its_cluster_is_taken_over(used):
    run = used.serve()
    postmaster = used.postmaster()
    run.kill()
    wait_for("the server's end", lambda: not used.healthy())
    again = used.serve()
    assert used.postmaster() == postmaster
    stopped(again, used)


def test_broken_cluster_is_explained(shop):
    stopped(shop.serve(), shop)
    shop.cluster().joinpath("data/global/pg_control").unlink()
    text = refused(shop.start())
    assert "pg_control" in text and "DELETES ALL OF IT" in text and f"rm -rf {shop.cluster()}" in text
    assert shop.processes() == []


def test_folder_that_cannot_be_written(used):
    blocker = used.var / "file"
    blocker.write_text("")
    text = refused(used.start(SKALD_VAR=str(blocker / "var")))
    assert f"{blocker}/var is not writable" in text and "SKALD_VAR=" in text


ANOTHER_PROJECT = {"PGPORT": "9999", "PGHOST": "nowhere.invalid", "PGHOSTADDR": "192.0.2.1", "PGUSER": "nobody",
                   "PGDATABASE": "none", "PGSERVICE": "other", "PGTARGETSESSIONATTRS": "standby",
                   "PGOPTIONS": "-c datestyle=German"}


def test_variables_of_libpq_for_another_server_do_not_matter(shop, monkeypatch):
    run = shop.serve(**ANOTHER_PROJECT)
    hint = re.search("psql '(.*)'", said(run)).group(1)
    monkeypatch.setenv("PGPORT", ANOTHER_PROJECT["PGPORT"])
    with contextlib.closing(psycopg2.connect(hint)) as db, db.cursor() as cursor:
        cursor.execute('SELECT count(*) FROM "order".orders')
        assert cursor.fetchone() == (0,)


def test_executable_that_is_missing(used):
    assert "is not built. Build it: make" in refused(used.start(SKALD_BIN="/nowhere/skald"))


def test_given_database_is_used_and_left_running(used):
    with tempfile.TemporaryDirectory(prefix="skald-run-") as folder:
        os.chmod(folder, 0o755)
        other = pathlib.Path(folder) / "pg"
        url = subprocess.run([ROOT / "tools/cluster", "start", other], check=True, capture_output=True, text=True).stdout
        try:
            run = used.serve(DATABASE_URL=url.strip())
            assert used.postmaster() is None
            stopped(run, used)
            assert other.resolve().joinpath("data/postmaster.pid").exists()
        finally:
            subprocess.run([ROOT / "tools/cluster", "remove", other], check=True)


# What other work leaves in a shell; none of it may matter to a private server.
FOREIGN = {
    "another server": {"PGPORT": "9999", "PGHOST": "nowhere.invalid", "PGHOSTADDR": "192.0.2.1", "PGUSER": "somebody",
                       "PGDATABASE": "other", "PGPASSWORD": "wrong", "PGPASSFILE": "/nowhere", "PGCLUSTER": "9.1/none"},
    "another service": {"PGSERVICE": "other", "PGSERVICEFILE": "/nowhere"},
    "another kind of server": {"PGTARGETSESSIONATTRS": "standby", "PGLOADBALANCEHOSTS": "random"},
    "another way to speak": {"PGOPTIONS": "-c default_transaction_read_only=on", "PGTZ": "Asia/Tokyo",
                             "PGDATESTYLE": "German", "PGCLIENTENCODING": "LATIN1", "PGAPPNAME": "other"},
    "another way to prove who one is": {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": "/nowhere", "PGSSLCERT": "/nowhere",
                                        "PGCHANNELBINDING": "require", "PGREQUIREAUTH": "scram-sha-256",
                                        "PGGSSENCMODE": "require", "PGCONNECT_TIMEOUT": "soon"},
    "another place": {"LC_ALL": "tr_TR.UTF-8", "LANG": "xx_XX", "TZ": "Asia/Tokyo", "LANGUAGE": "ru"},
    "a way through somebody": {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9",
                               "ALL_PROXY": "http://127.0.0.1:9", "NO_PROXY": "", "no_proxy": ""},
}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_the_shell_has_set_for_other_programs_changes_nothing(used, what):
    run = used.serve(**FOREIGN[what])
    order = re.search(r"Order a phone: (curl .*)", said(run))[1]
    done = subprocess.run(["sh", "-c", order], capture_output=True, text=True, env={"PATH": os.environ["PATH"]}, check=True)
    assert '"status":"SUCCESS"' in done.stdout, said(run)
    stopped(run, used)


def test_the_url_that_is_told_holds_in_a_shell_with_another_port(used):
    run = used.serve(PGPORT="9999")
    url = re.search(r"psql '(.*)'", said(run))[1]
    asked = subprocess.run(["psql", "-XAtc", "SELECT current_user, current_setting('port')", url], capture_output=True,
                           text=True, env=os.environ | {"PGPORT": "9999", "PGUSER": "somebody", "PGDATABASE": "other"})
    assert asked.stdout == "skald|5432\n", asked.stderr
    stopped(run, used)


def test_folder_of_the_same_name_elsewhere(used):
    with tempfile.TemporaryDirectory(prefix="skald-run-") as folder:
        (pathlib.Path(folder) / "tools").mkdir()
        stopped(used.serve(["tools/run"], CDPATH=folder), used)
        stopped(used.serve(["make", "--no-print-directory", "run"], CDPATH=folder), used)


def test_database_of_one_service_alone_is_refused(used):
    text = refused(used.start(ORDER_DATABASE_URL="postgresql://skald@127.0.0.1:1/order"))
    assert "ORDER_DATABASE_URL is set, but DATABASE_URL is not" in text
    assert used.processes() == []


def test_variables_of_libpq_hold_for_a_given_database(used):
    """As its users know them: here they give the port that the address leaves out."""
    with tempfile.TemporaryDirectory(prefix="skald-run-") as folder:
        os.chmod(folder, 0o755)
        other = pathlib.Path(folder) / "pg"
        url = subprocess.run([ROOT / "tools/cluster", "start", other], check=True, capture_output=True, text=True).stdout
        try:
            address = url.strip().replace("port=5432", "")
            stopped(used.serve(DATABASE_URL=address, PGPORT="5432"), used)
            text = refused(used.start(DATABASE_URL=address, PGPORT="9999"))
            assert "9999" in text and "could not be migrated" in text
        finally:
            subprocess.run([ROOT / "tools/cluster", "remove", other], check=True)


def test_database_that_does_not_answer(used):
    text = refused(used.start(DATABASE_URL="postgresql://nobody@127.0.0.1:1/none"))
    assert "could not be migrated" in text


@pytest.mark.parametrize("name", ["a 'quoted\" näme, and, commas", "long/" * 25])
def test_folder_with_an_odd_name(name):
    with tempfile.TemporaryDirectory(prefix="skald-run-") as folder:
        os.chmod(folder, 0o755)
        place = pathlib.Path(folder) / name
        place.mkdir(parents=True)
        with shop_in(place) as shop:
            stopped(shop.serve(), shop)
            stopped(shop.serve(), shop)


@pytest.mark.skipif(not IS_ROOT, reason="only root lends its cluster to the user postgres")
def test_folder_that_only_root_may_enter():
    with tempfile.TemporaryDirectory(prefix="skald-run-") as folder:
        with shop_in(folder) as shop:
            run = shop.serve()
            lent = shop.cluster()
            assert lent.parent == pathlib.Path("/var/lib/skald") and (shop.var / "pg").is_symlink()
            assert str(lent) in said(run)
            stopped(run, shop)
            stopped(shop.serve(), shop)
            assert shop.cluster() == lent
        assert not lent.exists()


def test_missing_packages_without_root_name_the_command():
    """dpkg-query and sudo are stubs that know no package and grant nothing; the script runs as an ordinary user."""
    with tempfile.TemporaryDirectory(prefix="skald-run-") as folder:
        os.chmod(folder, 0o755)
        tools = pathlib.Path(folder) / "tools"
        tools.mkdir()
        shutil.copy(ROOT / "tools/install_packages", tools)
        for name in ("dpkg-query", "sudo"):
            (tools / name).write_text("#!/bin/sh\nexit 1\n")
            (tools / name).chmod(0o755)
        done = subprocess.run([tools / "install_packages", "run"], capture_output=True, text=True,
                              env={"PATH": f"{tools}:/usr/bin:/bin"}, user="nobody" if IS_ROOT else None)
    assert done.returncode == 1
    assert re.search(r"^  sudo apt-get install -y --no-install-recommends .*\blibuv1-dev\b", done.stderr, re.MULTILINE)


def test_nothing_missing_is_quick():
    began = time.monotonic()
    done = subprocess.run([ROOT / "tools/install_packages", "run"], capture_output=True, text=True)
    assert time.monotonic() - began < 0.5
    assert done.returncode == 0 and done.stdout == ""

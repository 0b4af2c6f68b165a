"""`make stack`: the shop as in a cluster, with Kafka between Billing and Notification. It passes the collections,
reports what failed, and leaves nothing behind."""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request

import pytest
from ports import free_ports
from services import SERVICES

from harness.check import ok, problem
from harness.client import Client
from harness.cluster import ROOT
from harness.goods import buy, new_user, past, refill, saga
from harness.server import SKALD, SLOWER
from harness.wait import wait_for
from test_newman import place, run

PORTS = len(SERVICES) + 6
PARTS = {
    "debezium": {"postgresql", "kafka", "connect", "debezium", "front-door"},
    "relay": {"postgresql", "kafka", "relay", "front-door"},
    "wal": {"postgresql", "front-door"},
}
UNWATCHED = {"WITHOUT_MONITORING": "1", "WITHOUT_LOGGING": "1"}
START_SECONDS = 240
PROMISED_SECONDS = 2


class Stack(Client):
    def __init__(self, folder):
        super().__init__(lambda path: ("127.0.0.1", self.port))
        self.var = pathlib.Path(folder) / "var"
        self.port = free_ports(PORTS)
        self.process = None
        self.log = pathlib.Path(folder) / "log"

    def start(self, events, **settings):
        """Without monitoring and logging by default."""
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [ROOT / "tools/stack"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env=os.environ | {"SKALD_VAR": str(self.var), "SKALD_BIN": str(SKALD), "PORT": str(self.port),
                                  "HOST": "127.0.0.1", "EVENTS": events} | (settings or UNWATCHED))
        return self

    def serve(self, events, **settings):
        self.start(events, **settings)
        wait_for("the stack", lambda: "The shop is listening" in self.said() or self.process.poll() is not None,
                 START_SECONDS * SLOWER)
        assert self.process.poll() is None, self.said()
        return self

    def said(self):
        return self.log.read_text()

    def end(self, number=signal.SIGTERM):
        """The exit status; checks that nothing is left."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(120)
        assert self.processes() == []
        return status

    def processes(self):
        """All processes with this folder in their environment or as their working directory."""
        mark, folder, found = f"SKALD_VAR={self.var}\0".encode(), str(self.var.resolve()), []
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.readlink(entry / "cwd").startswith(folder) or mark in (entry / "environ").read_bytes():
                    if (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                        found.append((int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()))
        return found

    def cluster_data(self):
        return (self.var / "stack/pg").resolve() / "data"

    def pid(self, tool):
        found = subprocess.run([ROOT / "tools" / tool, "pid", self.var / "stack" / tool], capture_output=True, text=True)
        return int(found.stdout or 0)

    def clean_up(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(120)
        for tool, verb in (("opensearch", "stop"), ("connect", "stop"), ("kafka", "stop"), ("cluster", "remove")):
            name = "pg" if tool == "cluster" else tool
            subprocess.run([ROOT / "tools" / tool, verb, self.var / "stack" / name], check=True)


@contextlib.contextmanager
def a_stack():
    with tempfile.TemporaryDirectory(prefix="skald-stack-") as folder:
        os.chmod(folder, 0o755)
        stack = Stack(folder)
        try:
            yield stack
        finally:
            stack.clean_up()


@pytest.fixture(scope="module", params=["debezium", "relay"])
def stack(request):
    with a_stack() as made:
        yield made.serve(request.param)
        assert made.end() == 0, made.said()


def told(stack, user):
    return [one["message"] for one in ok(stack.get(f"/notification/notification/{user['id']}"))]


def test_every_part_is_shown(stack, request):
    events = request.node.callspec.params["stack"]
    shown = set(re.findall(r"^  (\S+) +[\d.]+ s +\d+ MB  \S+", stack.said(), re.MULTILINE))
    assert shown == PARTS[events] | set(SERVICES)


@pytest.mark.parametrize("collection", ["hw_streaming_postman_collection.json", "hw_transactions_postman_collection.json"])
def test_collection(stack, tmp_path, collection):
    for i in range(2):
        done, result = run(collection, tmp_path / f"{i}.json", *place("env", stack))
        assert done.returncode == 0, done.stdout + done.stderr
        assert result["failures"] == [] and result["stats"]["assertions"]["total"] > 10


def test_four_notifications(stack):
    user = new_user(stack)
    assert refill(stack, user["billingId"], "100")
    assert buy(stack, user["billingId"], "48.7") is True
    assert buy(stack, user["billingId"], "333.33") is False
    wait_for("4 notifications", lambda: len(told(stack, user)) >= 4, PROMISED_SECONDS * SLOWER)
    texts = told(stack, user)
    assert len(texts) == 4
    assert "100" in texts[1] and "51.3" in texts[2] and "333.33" in texts[3]


def test_order_of_accounts_is_kept(stack):
    users = [new_user(stack) for _ in range(4)]
    for i in range(1, 21):
        for user in users:
            assert refill(stack, user["billingId"], f"{i}.5")
    for user in users:
        wait_for("21 notifications", lambda u=user: len(told(stack, u)) >= 21, 10 * SLOWER)
        sums = [re.search(r"refilled with ([\d.]+) ", text)[1] for text in told(stack, user)[1:]]
        assert sums == [f"{i}.50" for i in range(1, 21)]


def test_part_that_dies_ends_all_and_the_next_run_takes_over():
    with a_stack() as stack:
        stack.serve("relay")
        user = new_user(stack)
        os.kill(stack.pid("kafka"), signal.SIGKILL)
        assert stack.process.wait(120) == 1
        assert "kafka exited unexpectedly" in stack.said()
        assert stack.processes() == []

        stack.serve("relay")
        stack.process.kill()
        stack.process.wait()
        assert stack.pid("kafka"), "what is no child of it outlives its kill -9"
        stack.serve("relay")
        wait_for("the notification", lambda: len(told(stack, user)) == 1, 10 * SLOWER)
        assert stack.end(signal.SIGINT) == 0


def asked(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)
    except urllib.error.URLError:
        return {}


def test_watched_stack():
    """Prometheus sees all services up, and OpenSearch has their logs, including those of a failed saga."""
    with a_stack() as stack:
        stack.serve("wal", LOG_LEVEL="debug")
        addresses = dict(re.findall(r"^  (\S+) .* MB  (http://\S+)$", stack.said(), re.MULTILINE))
        assert {"prometheus", "opensearch", "ship-logs"} <= set(addresses)
        up = f"{addresses['prometheus']}/api/v1/query?query=up%7Bjob%3D%22skald%22%7D%3D%3D1"
        wait_for("all services in Prometheus", lambda: set(SERVICES) == {
            one["metric"]["service"] for one in asked(up).get("data", {}).get("result", [])}, 60)
        failed = problem(stack.post("/order/order/saga", saga(when=past())), 424)["orderId"]
        logs = f"{addresses['opensearch']}/app-logs-*/_search?q=saga_id:%22{failed}%22"
        wait_for("the saga's lines", lambda: asked(logs).get("hits", {}).get("hits"), 60)
        assert stack.end() == 0, stack.said()


@pytest.mark.parametrize("until", ["postgresql", "kafka"])
def test_signal_while_it_starts(until):
    with a_stack() as stack:
        stack.start("debezium")
        wait_for(until, lambda: f"  {until} " in stack.said(), START_SECONDS * SLOWER)
        assert stack.end() == 0


def test_part_that_does_not_start_is_explained():
    with a_stack() as stack:
        stack.serve("wal")
        assert stack.end() == 0
        stack.cluster_data().joinpath("global/pg_control").unlink()
        stack.start("wal")
        assert stack.process.wait(120) == 1
        assert "pg_control" in stack.said()
        assert stack.processes() == []


FOREIGN = {
    "PGPORT": "9999", "PGHOSTADDR": "192.0.2.1", "PGUSER": "somebody", "PGSERVICE": "other", "PGOPTIONS": "-c no=such",
    "PGDATESTYLE": "German", "PGSSLMODE": "verify-full", "PGTARGETSESSIONATTRS": "standby", "LC_ALL": "tr_TR.UTF-8",
    "http_proxy": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9", "CLASSPATH": "/nowhere",
    "JAVA_TOOL_OPTIONS": "-XX:+NoSuchOption", "KAFKA_OPTS": "-XX:+NoSuchOption", "KAFKA_TOPIC": "other",
    "KAFKA_GROUP": "other", "KAFKA_BROKERS": "127.0.0.1:9", "SAGA_OWNER": "everybody",
    "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "ORDER_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}


def test_what_the_shell_has_set_for_other_programs_changes_nothing():
    with a_stack() as stack:
        stack.serve("relay", **UNWATCHED | FOREIGN)
        user = new_user(stack)
        assert refill(stack, user["billingId"], "100")
        wait_for("both notifications", lambda: len(told(stack, user)) == 2, 30 * SLOWER)
        assert stack.end() == 0, stack.said()


@pytest.mark.parametrize("variable, value, sentence", [
    ("KAFKA_SETTINGS", "retention", "KAFKA_SETTINGS contains retention, which is not of the form name=value."),
    ("JAVA_HOME", "/nowhere", "JAVA_HOME is /nowhere, which has no Java")])
def test_variable_of_a_part_that_is_no_value_is_named(variable, value, sentence):
    with a_stack() as stack:
        stack.start("relay", **UNWATCHED | {variable: value})
        assert stack.process.wait(60 * SLOWER) == 1
        assert sentence in stack.said() and "Traceback" not in stack.said()


def test_port_that_is_busy_is_named():
    with a_stack() as stack, socket.socket() as taken:
        taken.bind(("127.0.0.1", stack.port + 3))
        taken.listen()
        stack.start("wal")
        assert stack.process.wait(120) == 1
        assert f"127.0.0.1 port {stack.port + 3}" in stack.said() and f"PORT={stack.port + 100} make stack" in stack.said()


def test_way_of_events_that_there_is_not():
    with a_stack() as stack:
        stack.start("pigeons")
        assert stack.process.wait(60) == 2
        assert "EVENTS must be debezium, relay or wal" in stack.said()

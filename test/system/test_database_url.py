"""Connection strings: several hosts, names that nobody resolves, and passwords that are written badly."""

import contextlib
import os
import socket
import struct
import subprocess
import tempfile
import time
import urllib.parse

import pytest
from ports import free_port

from harness.check import ok
from harness.goods import new_user, saga
from harness.server import SKALD, SLOWER, Server, environment, skald
from harness.shop import OneShop, opened
from harness.wait import wait_for

LIVE_SECONDS = 0.2 * SLOWER
NAME_SERVER = "127.0.0.153"
SECRET = "TopSecret"


# ---- names that a silent server does not resolve ----

class ServerWithNames(Server):
    """In a mount namespace of its own, where /etc/resolv.conf names our server."""

    def __init__(self, *names, **settings):
        super().__init__(*names, **settings)
        self.resolv_conf = tempfile.NamedTemporaryFile("w", prefix="skald-resolv-")
        self.resolv_conf.write(f"nameserver {NAME_SERVER}\n")
        self.resolv_conf.flush()
        os.chmod(self.resolv_conf.name, 0o644)

    def program(self):
        enter = 'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"'
        return ["unshare", "--map-root-user", "--mount", "sh", "-c", enter, "sh", self.resolv_conf.name, *super().program()]


@pytest.fixture
def name_server():
    """It takes questions and says nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((NAME_SERVER, 53))
        server.setblocking(False)
        yield server


def received(server):
    """All questions since the last time."""
    questions = b""
    with contextlib.suppress(BlockingIOError):
        while True:
            questions += server.recv(4096)
    return questions


@pytest.mark.parametrize("url", [
    "host=one.skald.test,two.skald.test port=5432,5433 dbname=skald user=skald target_session_attrs=read-write",
    "postgresql://skald@one.skald.test:5432,two.skald.test:5433/skald?target_session_attrs=read-write",
    "postgresql://skald@one.skald.test/skald"])
def test_silent_name_server_does_not_hold_up_the_process(name_server, url):
    server = ServerWithNames(WORKERS=1, DATABASE_URL=url)
    try:
        server.spawn()
        wait_for("a response", lambda: is_alive(server), 30 * SLOWER)
        asked, durations = b"", []
        failed = 'connection lost or refused: could not resolve host \\"one.skald.test\\": no response from the name server'
        until = time.monotonic() + 20 * SLOWER
        while failed not in server.text() and time.monotonic() < until:
            began = time.monotonic()
            assert server.client.get("/livez", timeout=30).status == 200
            durations.append(time.monotonic() - began)
            asked += received(name_server)
        assert b"one" in asked
        late = [duration for duration in durations if duration > LIVE_SECONDS]  # some are, on a machine under load
        assert len(late) <= len(durations) // 100 and max(durations) < 5 * LIVE_SECONDS
        assert failed in server.text()
        server.stop()
    finally:
        server.end()


def is_alive(server):
    try:
        return server.client.get("/livez", timeout=30).status == 200
    except OSError:
        return False


NOWHERE = "host=nowhere.invalid dbname=skald"
NOT_FOUND = 'could not resolve host \\"nowhere.invalid\\"'


def wait_said(server, text):
    wait_for(f"'{text}'", lambda: text in server.text(), 30 * SLOWER)
    assert "connection pointer is NULL" not in server.text()


def test_host_of_a_pool_that_is_not_known_is_named():
    server = Server(WORKERS=1, DATABASE_URL=NOWHERE)
    try:
        server.spawn()
        wait_said(server, f"connection lost or refused: {NOT_FOUND}")
        server.stop()
    finally:
        server.end()


class ShopWithoutEvents(OneShop):
    """Notification has its database, and reads the slot of one that is not known."""

    def prepare(self):
        settings = self.settings() | {"BILLING_DATABASE_URL": NOWHERE}
        self.servers["all"] = Server("notification", port=self.port, **settings)


def test_host_of_a_slot_that_is_not_known_is_named():
    with opened(ShopWithoutEvents(WORKERS=1)) as shop:
        wait_said(shop.server, f"slot billing_cdc: unavailable: {NOT_FOUND}")
        shop.stop()


# ---- several hosts ----

@contextlib.contextmanager
def silent_host():
    """A port that takes connections and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield listener.getsockname()[1]


class ShopOfSeveralHosts(OneShop):
    """The first host refuses, the second says nothing, the third is the one."""

    silent = None

    def settings(self):
        folder = urllib.parse.parse_qs(urllib.parse.urlsplit(self.cluster.root_url).query)["host"][0]
        url = (f"host=localhost,localhost,{folder} port={free_port()},{self.silent},5432 dbname=skald user=skald "
               "target_session_attrs=read-write")
        return {"DATABASE_URL": url, "WORKERS": 1} | self.more

    def run(self, command, *names):
        """Blocking commands wait ten seconds for the silent host at each connection: only one service's go that way."""
        url = self.settings()["DATABASE_URL"] if names else self.cluster.url()
        return skald(command, *names, DATABASE_URL=url)


def test_hosts_that_refuse_or_are_silent_are_left_for_the_next():
    with silent_host() as port:
        shop = ShopOfSeveralHosts()
        shop.silent = port
        with opened(shop):
            user = new_user(shop)
            assert ok(shop.post("/order/order/saga", saga()))
            wait_for("the notification, which comes over a replication connection",
                     lambda: ok(shop.get(f"/notification/notification/{user['id']}")), 30 * SLOWER)
            assert shop.run("migrate", "payment").returncode == 0
            assert shop.audit().returncode == 0
            shop.stop()


# ---- passwords ----

MALFORMED = [
    f"postgresql://skald:w0rd%zz{SECRET}@127.0.0.1:1/skald",
    f"postgresql://skald:w0rd@{SECRET}@127.0.0.1:1/skald",
    f"postgresql://skald:w0rd/{SECRET}@127.0.0.1:1/skald",
    f"postgresql://skald:{SECRET}/skald",
    f"postgressql://skald:{SECRET}@127.0.0.1:1/skald",
    f"host=127.0.0.1 port=1 dbname=skald user=skald password=my {SECRET}",
    f"host=127.0.0.1 port=1 dbname=skald user=skald password='it's {SECRET}'",
    f"host=127.0.0.1 port=1 dbname=skald user=skald password='{SECRET}",
]


@pytest.mark.parametrize("command", [("migrate", "billing"), ("audit",)])
@pytest.mark.parametrize("url", MALFORMED)
def test_malformed_url_shows_no_password(command, url):
    done = skald(*command, DATABASE_URL=url)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "the connection string cannot be used: " in said
    assert SECRET not in said


class Relay(Server):
    command = "relay"


@pytest.mark.parametrize("kind", [Server, Relay])
def test_process_with_a_malformed_url_shows_no_password(kind):
    """It goes on and says what is wrong, in its log and wherever it can be asked."""
    url = MALFORMED[0]
    server = kind(WORKERS=1, DATABASE_URL=url) if kind is Server else kind(DATABASE_URL=url)
    try:
        server.spawn()
        wait_for("the message", lambda: "the connection string cannot be used: " in server.text(), 30 * SLOWER)
        shown = server.text()
        for path in ("/health", "/metrics", "/debug/fibers"):
            shown += server.client.get(path).body.decode()
        assert SECRET not in shown
        server.terminate()
        server.wait()
        assert SECRET not in server.text()
    finally:
        server.end()


def test_help_shows_no_password():
    done = skald("serve", "--help", DATABASE_URL=MALFORMED[0])
    assert done.returncode == 0 and SECRET not in done.stdout + done.stderr


# ---- poolers ----

def startup_parameters(connection):
    """Of one connection, as a pooler sees them."""
    while True:
        size, code = struct.unpack("!II", connection.recv(8, socket.MSG_WAITALL))
        rest = connection.recv(size - 8, socket.MSG_WAITALL) if size > 8 else b""
        if code == 196608:
            parts = rest.rstrip(b"\0").split(b"\0")
            return dict(zip(parts[::2], parts[1::2]))
        connection.sendall(b"N")  # no TLS, no GSSAPI


@pytest.mark.parametrize("command", [("serve", "payment"), ("migrate", "payment")])
def test_session_begins_with_parameters_that_every_pooler_takes(command):
    """PgBouncer refuses others, above all options, unless it is told to ignore them."""
    with socket.create_server(("127.0.0.1", 0)) as pooler:
        url = f"postgresql://skald@127.0.0.1:{pooler.getsockname()[1]}/skald"
        settings = environment(DATABASE_URL=url, PORT=free_port(), EVENTS="off")
        with subprocess.Popen([SKALD, *command], env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                pooler.settimeout(30 * SLOWER)
                with pooler.accept()[0] as connection:
                    assert startup_parameters(connection) == {b"user": b"skald", b"database": b"skald",
                                                              b"application_name": b"skald", b"client_encoding": b"UTF8"}
            finally:
                process.kill()

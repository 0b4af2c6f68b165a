"""`skald migrate` with concurrency: readers that hold locks, and other processes that create the replication slot."""

import contextlib
import socket
import struct
import subprocess
import threading
import urllib.parse

import psycopg2
import psycopg2.extras
import pytest

from harness.cluster import Cluster
from harness.server import SKALD, SLOWER, environment, skald
from harness.wait import wait_for

SLOT = "billing_cdc"
END_SECONDS = 30 * SLOWER
STATEMENT_SECONDS = 5 * SLOWER
# As version 1 left Billing's tables; the second migration alters a table that everybody uses.
WITHOUT_TRACES = """DROP PUBLICATION billing_pub_traced;
                    ALTER PUBLICATION billing_pub SET TABLE billing.history_billings;
                    ALTER TABLE billing.history_billings DROP COLUMN traceparent;
                    DELETE FROM public.skald_migration WHERE service = 'billing' AND module = 'service' AND version = 2"""
HAS_TRACES = """SELECT EXISTS (SELECT 1 FROM information_schema.columns WHERE table_name = 'history_billings'
                AND column_name = 'traceparent') AND EXISTS (SELECT 1 FROM pg_publication WHERE pubname = 'billing_pub_traced')"""


class Migration:
    """`skald migrate SERVICE`, running. said: what is wrong; done: what was done, once it has ended."""

    def __init__(self, cluster, service="billing", **settings):
        self.done = ""
        self.process = subprocess.Popen(
            [SKALD, "migrate", service], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env=environment(DATABASE_URL=cluster.url(), **settings))
        self.said = ""
        self.listener = threading.Thread(target=self.listen)
        self.listener.start()

    def listen(self):
        for line in self.process.stderr:
            self.said += line

    def running(self):
        return self.process.poll() is None

    def wait_said(self, text):
        wait_for(f"'{text}'", lambda: text in self.said or not self.listener.is_alive(), END_SECONDS)
        assert text in self.said, self.said

    def end(self):
        """The exit status."""
        status = self.process.wait(END_SECONDS)
        self.listener.join()
        self.done += "" if self.process.stdout.closed else self.process.stdout.read()
        return status

    def close(self):
        self.process.kill()
        self.end()
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture
def cluster():
    one = Cluster()
    try:
        one.start()
        yield one
    finally:
        one.remove()


@pytest.fixture
def started(cluster):
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(contextlib.closing(Migration(cluster, **settings)))


def run(cluster, sql, *values):
    with contextlib.closing(cluster.connect()) as db, db.cursor() as cursor:
        cursor.execute(sql, values)
        return cursor.fetchall() if cursor.description else []


@contextlib.contextmanager
def transaction(cluster, sql):
    """A transaction that is left open."""
    with contextlib.closing(psycopg2.connect(cluster.url(), application_name="long reader")) as db:
        with db.cursor() as cursor:
            cursor.execute(sql)
        yield db


def migrated(started):
    first = started()
    assert first.end() == 0, first.said


# ---- locks ----

def test_reader_that_takes_long_holds_up_the_migration_and_nobody_else(cluster, started):
    migrated(started)
    run(cluster, WITHOUT_TRACES)
    with transaction(cluster, "SELECT count(*) FROM billing.history_billings") as reader:
        migration = started()
        migration.wait_said("migration 2 of billing cannot lock its tables; retrying for 60 s")
        assert "long reader, idle in transaction" in migration.said
        for _ in range(20):
            run(cluster, f"SET statement_timeout = '{STATEMENT_SECONDS}s'; "
                "INSERT INTO billing.history_billings (id) VALUES (gen_random_uuid())")
        assert migration.running() and run(cluster, HAS_TRACES) == [(False,)]
        reader.rollback()
        assert migration.end() == 0, migration.said
    assert run(cluster, HAS_TRACES) == [(True,)]
    assert run(cluster, "SELECT count(*) FROM billing.history_billings") == [(20,)]


def test_patience_with_a_reader_has_an_end(cluster, started):
    migrated(started)
    run(cluster, WITHOUT_TRACES)
    with transaction(cluster, "SELECT count(*) FROM billing.history_billings"):
        migration = started(MIGRATE_TIMEOUT="1s")
        assert migration.end() == 1
    assert "migration 2 could not lock its tables and has changed nothing" in migration.said
    assert "long reader, idle in transaction" in migration.said
    assert run(cluster, HAS_TRACES) == [(False,)]
    migrated(started)
    assert run(cluster, HAS_TRACES) == [(True,)]


SLOW_VACUUM = """ALTER TABLE billing.history_billings SET (autovacuum_vacuum_cost_delay = 100,
                 autovacuum_vacuum_cost_limit = 1, autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0)"""
VACUUMED = """SELECT pid FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'
              AND query LIKE 'autovacuum: VACUUM%%billing.history_billings%%'"""


def test_autovacuum_makes_way(cluster, started):
    """PostgreSQL cancels it when another session waits for its lock, but only after deadlock_timeout, which is a
    second."""
    migrated(started)
    run(cluster, WITHOUT_TRACES)
    run(cluster, SLOW_VACUUM)
    run(cluster, "INSERT INTO billing.history_billings (id) SELECT gen_random_uuid() FROM generate_series(1, 50000)")
    run(cluster, "DELETE FROM billing.history_billings")
    run(cluster, "ALTER SYSTEM SET autovacuum_naptime = '1s'")
    run(cluster, "ALTER SYSTEM SET deadlock_timeout = '1s'")
    run(cluster, "SELECT pg_reload_conf()")
    wait_for("autovacuum", lambda: run(cluster, VACUUMED), 2 * END_SECONDS)
    migration = started(MIGRATE_TIMEOUT="5s")
    assert migration.end() == 0, migration.said
    assert run(cluster, HAS_TRACES) == [(True,)]


# ---- the slot ----

def slot(cluster):
    """Whether it is ready, and its active pid; None if it does not exist."""
    found = run(cluster, "SELECT confirmed_flush_lsn IS NOT NULL, active_pid FROM pg_replication_slots WHERE slot_name = %s",
                SLOT)
    return found[0] if found else None


@contextlib.contextmanager
def slot_held_up(cluster, started):
    """Yields a migration whose slot cannot be completed, and the open transaction with writes that it waits for."""
    migrated(started)
    run(cluster, "SELECT pg_drop_replication_slot(%s)", SLOT)
    with transaction(cluster, "SELECT pg_current_xact_id()") as writer:
        maker = started()
        wait_for("the slot to be begun", lambda: slot(cluster), END_SECONDS)
        assert slot(cluster)[0] is False
        yield maker, writer


def test_slot_that_another_makes_is_waited_for(cluster, started):
    with slot_held_up(cluster, started) as (maker, writer):
        other = started()
        other.wait_said(f"process {slot(cluster)[1]} is making the replication slot {SLOT}; waiting until it is ready")
        assert other.running() and slot(cluster)[0] is False
        writer.rollback()
        assert (maker.end(), other.end()) == (0, 0), maker.said + other.said
    assert slot(cluster) == (True, None)


def test_slot_is_made_when_its_maker_is_gone(cluster, started):
    with slot_held_up(cluster, started) as (maker, writer):
        first = slot(cluster)[1]
        other = started()
        other.wait_said("is making the replication slot")
        run(cluster, "SELECT pg_terminate_backend(%s)", first)
        assert maker.end() == 1
        wait_for("the other to make it", lambda: slot(cluster) and slot(cluster)[1] not in (None, first), END_SECONDS)
        writer.rollback()
        assert other.end() == 0, other.said
    assert slot(cluster) == (True, None)


def test_patience_with_a_maker_has_an_end(cluster, started):
    with slot_held_up(cluster, started) as (maker, writer):
        other = started(MIGRATE_TIMEOUT="1s")
        assert other.end() == 1
        assert f"is still making the slot {SLOT}" in other.said
        writer.rollback()
        assert maker.end() == 0, maker.said


def test_slot_of_another_kind_is_not_taken_for_ours(cluster, started):
    migrated(started)
    run(cluster, "SELECT pg_drop_replication_slot(%s)", SLOT)
    run(cluster, "SELECT pg_create_physical_replication_slot(%s)", SLOT)
    migration = started()
    assert migration.end() == 1
    assert f"the physical replication slot {SLOT} belongs to no database or to another plugin" in migration.said


def test_slot_that_is_lost_is_told_of(cluster, started):
    """Its events are lost, but Billing keeps running."""
    migrated(started)
    run(cluster, "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
    cluster.stop()
    cluster.start()
    for _ in range(3):
        run(cluster, "SELECT pg_logical_emit_message(false, 'fill', repeat('x', 1000))")
        run(cluster, "SELECT pg_switch_wal()")
    run(cluster, "CHECKPOINT")
    assert run(cluster, "SELECT wal_status FROM pg_replication_slots WHERE slot_name = %s", SLOT) == [("lost",)]
    migration = started()
    assert migration.end() == 0
    assert f"the replication slot {SLOT} is lost: WAL that it needs has been removed" in migration.said
    run(cluster, "SELECT pg_drop_replication_slot(%s)", SLOT)
    again = started()
    assert (again.end(), again.said) == (0, "")
    assert slot(cluster) == (True, None)


# ---- a slot of a time before slots went along to standbys ----

@pytest.fixture
def old_slot(cluster, started):
    if run(cluster, "SELECT current_setting('server_version_num')::int < 170000") == [(True,)]:
        pytest.skip("slots go along to standbys from PostgreSQL 17 on")
    migrated(started)
    run(cluster, "SELECT pg_drop_replication_slot(%s)", SLOT)
    run(cluster, "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", SLOT)
    assert not goes_along(cluster)


def goes_along(cluster):
    return run(cluster, "SELECT failover FROM pg_replication_slots WHERE slot_name = %s", SLOT) == [(True,)]


def test_new_slot_goes_along_to_a_standby(cluster, started, old_slot):
    run(cluster, "SELECT pg_drop_replication_slot(%s)", SLOT)
    migrated(started)
    assert goes_along(cluster)


def test_old_slot_goes_along_to_a_standby(cluster, started, old_slot):
    position = run(cluster, "SELECT confirmed_flush_lsn::text FROM pg_replication_slots")
    migration = started()
    assert migration.end() == 0 and migration.said == ""
    assert goes_along(cluster)
    assert run(cluster, "SELECT confirmed_flush_lsn::text FROM pg_replication_slots") == position


def test_old_slot_that_is_read_is_told_of(cluster, started, old_slot):
    with contextlib.closing(psycopg2.connect(
            cluster.url(), connection_factory=psycopg2.extras.LogicalReplicationConnection)) as reader:
        reader.cursor().start_replication(SLOT, decode=False,
                                          options={"proto_version": "1", "publication_names": "billing_pub"})
        migration = started()
        assert migration.end() == 0
        assert f"the replication slot {SLOT} does not go along to a standby that takes over" in migration.said
        assert f"process {slot(cluster)[1]} reads it" in migration.said
        assert not goes_along(cluster)
    wait_for("the slot to be free", lambda: slot(cluster) == (True, None), END_SECONDS)
    migrated(started)
    assert goes_along(cluster)


# ---- databases of other versions ----

MODULES = "SELECT module, version, applied_at FROM public.skald_migration WHERE service = 'order' ORDER BY 1, 2"
OLD_MODULES = [("module 0", 1), ("module 0", 2)]  # as version 0.1.0 numbered them
NEW_MODULES = [("saga", 1), ("saga", 2)]


@pytest.fixture
def orders(started):
    return lambda: started(service="order")


def listed(cluster):
    return [row[:2] for row in run(cluster, MODULES) if row[0] != "service"]


def test_database_of_a_version_that_numbered_its_modules_is_carried_over(cluster, orders):
    assert orders().end() == 0
    run(cluster, "DELETE FROM public.skald_migration WHERE module = 'saga'")
    run(cluster, "UPDATE public.skald_migration SET applied_at = '2020-01-01' WHERE module = 'module 0'")
    assert listed(cluster) == OLD_MODULES
    again = orders()
    assert (again.end(), again.said, again.done) == (0, "", "")
    assert listed(cluster) == OLD_MODULES + NEW_MODULES
    assert {row[2].year for row in run(cluster, MODULES) if row[0] == "saga"} == {2020}


def test_version_that_numbered_its_modules_finds_nothing_to_apply(cluster, orders):
    """It looks for rows of the old name, and applies what has none."""
    assert orders().end() == 0
    assert listed(cluster) == OLD_MODULES + NEW_MODULES
    run(cluster, "DELETE FROM public.skald_migration WHERE module IN ('saga', 'module 0') AND version = 2")
    run(cluster, 'DROP TABLE "order".saga_operation')
    run(cluster, 'ALTER TABLE "order".saga DROP parked_state CASCADE, DROP parked_step CASCADE, DROP parked_reason, '
                 "DROP parked_at, DROP resumed_at")
    upgrade = orders()
    assert upgrade.end() == 0, upgrade.said
    assert upgrade.done == "order: 1 migration applied\n"
    assert listed(cluster) == OLD_MODULES + NEW_MODULES


# ---- databases that are not there ----

AUTHENTICATED = 9  # bytes of the message that a server begins with


class TranslatingServer:
    """Passes connections on to the cluster. A refused one is told so in German, as by a server with lc_messages = de_DE."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.refused = 0
        threading.Thread(target=self.accept, daemon=True).start()

    def url(self, database):
        return f"postgresql://skald@127.0.0.1:{self.listener.getsockname()[1]}/{database}?sslmode=disable&gssencmode=disable"

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.serve, args=(self.listener.accept()[0],), daemon=True).start()

    def serve(self, client):
        host = urllib.parse.parse_qs(urllib.parse.urlsplit(self.cluster.root_url).query)["host"][0]
        with client, socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):
            server.connect(f"{host}/.s.PGSQL.5432")
            server.sendall(client.recv(65536))
            first = b""
            while len(first) <= AUTHENTICATED:
                first += server.recv(65536)
            if first[AUTHENTICATED:][:1] == b"E":
                self.refused += 1
                fields = b"SFATAL\0VFATAL\0C3D000\0MDatenbank existiert nicht\0\0"
                first = first[:AUTHENTICATED] + b"E" + struct.pack("!I", len(fields) + 4) + fields
            client.sendall(first)
            back = threading.Thread(target=pass_on, args=(server, client))
            back.start()
            pass_on(client, server)
            back.join()

    def close(self):
        self.listener.close()


def pass_on(source, target):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def migrate(url):
    return skald("migrate", "order", DATABASE_URL=url)


def databases(cluster):
    return {row[0] for row in run(cluster, "SELECT datname FROM pg_database")}


def test_database_is_created_whatever_language_the_server_speaks(cluster):
    with contextlib.closing(TranslatingServer(cluster)) as server:
        done = migrate(server.url("neu"))
        assert done.returncode == 0, done.stderr
        assert server.refused == 1 and "neu" in databases(cluster)


def test_database_is_created_where_there_is_no_database_postgres(cluster):
    run(cluster, "DROP DATABASE postgres")
    done = migrate(cluster.url("more"))
    assert done.returncode == 0, done.stderr
    assert "more" in databases(cluster)


def test_closed_database_is_not_taken_for_a_missing_one(cluster):
    run(cluster, "CREATE DATABASE closed ALLOW_CONNECTIONS false")
    done = migrate(cluster.url("closed"))
    assert done.returncode == 1
    assert 'database "closed" is not currently accepting connections' in done.stderr


def test_role_that_may_create_no_database_is_told_so(cluster):
    run(cluster, "CREATE ROLE clerk LOGIN")
    done = migrate(cluster.url("more").replace("skald@", "clerk@"))
    assert done.returncode == 1
    assert "permission denied to create database" in done.stderr and "more" not in databases(cluster)

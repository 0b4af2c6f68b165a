"""The relay under faults: every row reaches its topic, in order per account, and the slot never runs ahead of the
broker."""

import collections
import contextlib
import itertools
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse
import uuid

import psycopg2
import pytest
from ports import free_port

from harness.cluster import Cluster
from harness.kafka import Broker, Relay
from harness.metrics import metric
from harness.server import SANITIZED, SLOWER, skald
from harness.wait import wait_for

ACCOUNTS = 4
ROWS = 1500  # of each account
BACKLOG = 1000
MEGABYTE = 1 << 20
INSERT = """INSERT INTO billing.history_billings (id, billing_id, sum, last_value_wallet, current_value_wallet,
            type_operation, status) VALUES (%s, %s, %s, 100, 99.5, 'BUY', 'SUCCESS') ON CONFLICT DO NOTHING"""
names = itertools.count()


@pytest.fixture(scope="module")
def stack(broker):
    cluster = Cluster()
    try:
        cluster.start()
        done = skald("migrate", "billing", DATABASE_URL=cluster.url())
        assert done.returncode == 0, done.stderr
        with contextlib.closing(cluster.connect()) as db, db.cursor() as cursor:
            cursor.execute("CREATE PUBLICATION relayed FOR TABLE billing.history_billings")
            cursor.execute("SELECT pg_drop_replication_slot('billing_cdc')")
        yield cluster, broker
    finally:
        cluster.remove()


class Place:
    """A private slot and topic for one test."""

    def __init__(self, cluster, broker):
        self.cluster, self.broker = cluster, broker
        self.prefix = f"place{next(names)}"
        self.slot = f"slot_{self.prefix}"
        self.topic = f"{self.prefix}.billing.history_billings"
        self.relays = []
        self.run("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", self.slot)
        broker.make_topic(self.topic)

    def run(self, sql, *values):
        with contextlib.closing(self.cluster.connect()) as db, db.cursor() as cursor:
            cursor.execute(sql, values)
            return cursor.fetchall() if cursor.description else []

    def relay(self, **settings):
        relay = Relay(**({"BILLING_DATABASE_URL": self.cluster.url(), "KAFKA_BROKERS": self.broker.address,
                          "KAFKA_TOPIC_PREFIX": self.prefix, "RELAY_SLOT": self.slot, "RELAY_PUBLICATION": "relayed"}
                         | settings))
        self.relays.append(relay)
        return relay

    def started(self, **settings):
        relay = self.relay(**settings)
        relay.start()
        return relay

    def lag(self):
        """WAL retained for the slot."""
        return self.run("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn) FROM pg_replication_slots "
                        "WHERE slot_name = %s", self.slot)[0][0]

    def drop_slot(self):
        wait_for("the slot to be free", lambda: not self.run(
            "SELECT 1 FROM pg_replication_slots WHERE slot_name = %s AND active", self.slot))
        self.run("SELECT pg_drop_replication_slot(%s)", self.slot)

    def values(self, topic=None):
        return [json.loads(record.value)["payload"] for record in self.broker.read(topic or self.topic)]

    def close(self):
        for relay in self.relays:
            relay.end()
            relay.check_log()
            print(relay.tail())
        self.drop_slot()


@pytest.fixture
def place(stack):
    with contextlib.closing(Place(*stack)) as one:
        yield one


class Load:
    """Each account's rows are numbered by their sum and written one by one, with retries."""

    def __init__(self, place):
        self.place = place
        self.accounts = [str(uuid.uuid4()) for _ in range(ACCOUNTS)]
        self.written = collections.Counter()
        self.threads = [threading.Thread(target=self.write, args=[account]) for account in self.accounts]

    def write(self, account):
        db = None
        for number in range(1, ROWS + 1):
            key = str(uuid.uuid4())
            while self.written[account] < number:
                try:
                    db = db or self.place.cluster.connect()
                    with db.cursor() as cursor:
                        cursor.execute(INSERT, [key, account, number])
                    self.written[account] = number
                except psycopg2.OperationalError:
                    db = None
        db.close()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *error):
        for thread in self.threads:
            thread.join()

    def wait(self, share):
        wait_for(f"{share} of the load", lambda: sum(self.written.values()) >= share * ACCOUNTS * ROWS, 120 * SLOWER)

    def check(self):
        """Checks that nothing is lost, duplicates come after their first occurrence, and an account has one
        partition."""
        wait_for("all records", lambda: self.place.broker.count(self.place.topic) >= ACCOUNTS * ROWS, 60 * SLOWER)
        wait_for("the slot to catch up", lambda: self.place.lag() < MEGABYTE, 30 * SLOWER)
        found, partitions, ids = collections.defaultdict(list), collections.defaultdict(set), set()
        for record in self.place.broker.read(self.place.topic):
            row = json.loads(record.value)["payload"]["after"]
            assert json.loads(record.key)["payload"] == {"billing_id": row["billing_id"]}
            partitions[row["billing_id"]].add(record.partition)
            if row["id"] not in ids:
                ids.add(row["id"])
                found[row["billing_id"]].append(row["sum"])
        for account in self.accounts:
            assert found[account] == list(range(1, ROWS + 1)), f"account {account}"
            assert len(partitions[account]) == 1


def test_kill_9_under_load(place):
    relay = place.started()
    with Load(place) as load:
        for share in (0.1, 0.3, 0.5, 0.7):
            load.wait(share)
            relay.kill()
            relay = place.started()
    load.check()
    relay.stop()


def test_restart_of_postgresql(place):
    relay = place.started()
    with Load(place) as load:
        load.wait(0.2)
        place.cluster.kill()
        place.cluster.start()
        load.wait(0.6)
        place.cluster.stop()
        place.cluster.start()
    load.check()
    relay.stop()


def test_broker_away(place):
    relay = place.started(RELAY_IN_FLIGHT=1 << 16)
    with Load(place) as load:
        load.wait(0.2)
        place.broker.kill()
        wait_for("the relay to notice", lambda: relay.client.get("/health").status == 503)
        load.wait(0.7)
        assert metric(relay, "skald_relay_in_flight_bytes") <= 1 << 16
        assert metric(relay, "skald_relay_lag_bytes") > 0 or metric(relay, "skald_relay_lag_seconds") > 0
        place.broker.start()
    load.check()
    wait_for("health", relay.is_healthy)
    relay.stop()


def test_ends_without_its_broker(place):
    relay = place.started(DRAIN_TIMEOUT="1s")
    place.broker.kill()
    place.run(INSERT, str(uuid.uuid4()), None, 1)
    relay.stop()
    place.broker.start()
    assert place.broker.count(place.topic) == 0
    again = place.started()
    wait_for("the row", lambda: place.broker.count(place.topic) == 1)
    again.stop()


class Front:
    """PostgreSQL behind a TCP port."""

    def __init__(self, cluster):
        socket_folder, = urllib.parse.parse_qs(urllib.parse.urlsplit(cluster.url()).query)["host"]
        self.folder = tempfile.TemporaryDirectory(prefix="skald-front-")
        self.port = free_port()
        self.sockets = []
        config = pathlib.Path(self.folder.name) / "haproxy.cfg"
        config.write_text(f"defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 1h\n  timeout server 1h\n"
                          f"listen postgresql\n  bind 127.0.0.1:{self.port}\n"
                          f"  server one {socket_folder}/.s.PGSQL.5432\n")
        self.process = subprocess.Popen(["haproxy", "-db", "-f", config], stdin=subprocess.DEVNULL)

    def url(self, cluster):
        there = urllib.parse.urlsplit(cluster.url())
        return there._replace(netloc=f"{there.username}@127.0.0.1:{self.port}", query="").geturl()

    def vanish(self):
        """Like a machine that is gone: connections break, and connection attempts get no response, because the listen
        queue is full and not served."""
        self.process.kill()
        self.process.wait()
        port = ("127.0.0.1", self.port)
        self.sockets = [socket.socket() for _ in range(4)]
        self.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sockets[0].bind(port)
        self.sockets[0].listen(0)
        for one in self.sockets[1:]:
            one.setblocking(False)
            one.connect_ex(port)

    def close(self):
        self.process.kill()
        self.process.wait()
        for one in self.sockets:
            one.close()
        self.folder.cleanup()


def test_postgresql_whose_machine_is_gone_holds_up_nothing_else(place):
    with contextlib.closing(Front(place.cluster)) as front:
        relay = place.started(BILLING_DATABASE_URL=front.url(place.cluster), RELAY_HEARTBEAT="50ms")
        wait_for("the slot to be read", lambda: metric(relay, "skald_relay_postgres_connected") == 1)
        front.vanish()
        wait_for("the loss", lambda: metric(relay, "skald_relay_postgres_connected") == 0)
        lost = metric(relay, "skald_relay_errors_total", at="postgres")
        wait_for("an attempt to have hung", lambda: metric(relay, "skald_relay_errors_total", at="postgres") > lost)
        beats = metric(relay, "skald_relay_records_total")
        wait_for("heartbeats", lambda: metric(relay, "skald_relay_records_total") > beats + 20)
        relay.stop()


def test_metrics_tell_what_goes_on(place):
    relay = place.started()
    assert metric(relay, "skald_relay_kafka_connected") == metric(relay, "skald_relay_postgres_connected") == 1
    for _ in range(10):
        place.run(INSERT, str(uuid.uuid4()), None, 1)
    wait_for("the records", lambda: metric(relay, "skald_relay_records_total") == 10)
    wait_for("the transactions", lambda: metric(relay, "skald_relay_transactions_total") == 10)
    wait_for("nothing in flight", lambda: metric(relay, "skald_relay_in_flight_records") == 0)
    place.run("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s", place.slot)
    wait_for("the loss to be counted", lambda: metric(relay, "skald_relay_errors_total", at="postgres") == 1)
    wait_for("health", relay.is_healthy)
    place.broker.kill()
    place.run(INSERT, str(uuid.uuid4()), None, 1)
    wait_for("the row in flight", lambda: metric(relay, "skald_relay_in_flight_records") == 1)
    wait_for("its age", lambda: metric(relay, "skald_relay_lag_seconds") > 0)
    wait_for("the loss of the broker", lambda: metric(relay, "skald_relay_kafka_connected") == 0, 60 * SLOWER)
    place.broker.start()
    wait_for("nothing in flight", lambda: metric(relay, "skald_relay_in_flight_records") == 0, 60 * SLOWER)
    relay.stop()


def refused_by_kafka(relay):
    return metric(relay, "skald_relay_errors_total", at="kafka")


def test_record_that_kafka_refuses_is_sent_until_it_takes_it(place):
    place.broker.set_topic(place.topic, "max.message.bytes", 500)
    relay = place.started()
    assert refused_by_kafka(relay) == 0
    place.run(INSERT, str(uuid.uuid4()), None, 1)
    wait_for("two refusals", lambda: refused_by_kafka(relay) >= 2, 60 * SLOWER)
    assert place.lag() > 0 and place.broker.count(place.topic) == 0
    assert "Kafka refused a record, restarting behind the last confirmed transaction" in relay.text()
    assert metric(relay, "skald_relay_errors_total", at="postgres") == 0
    place.broker.set_topic(place.topic, "max.message.bytes", 100_000)
    wait_for("the row", lambda: place.broker.count(place.topic) == 1, 60 * SLOWER)
    wait_for("its position", lambda: place.lag() == 0)
    relay.stop()


def test_batch_larger_than_the_topic_takes_goes_in_parts(place):
    """Each of its records would fit."""
    place.broker.set_topic(place.topic, "max.message.bytes", 20_000)
    relay = place.started()
    place.broker.kill()
    for number in range(1, BACKLOG + 1):
        place.run(INSERT, str(uuid.uuid4()), None, number)
    wait_for("the backlog", lambda: metric(relay, "skald_relay_in_flight_records") == BACKLOG)
    place.broker.start()
    wait_for("the rows", lambda: place.broker.count(place.topic) >= BACKLOG, 60 * SLOWER)
    wait_for("their position", lambda: place.lag() == 0)
    assert refused_by_kafka(relay) >= 1, "the batches were small enough"
    relay.stop()


def test_what_is_behind_a_refused_record_is_not_sent_again_and_again(place):
    place.broker.set_topic(place.topic, "max.message.bytes", 100_000)
    relay = place.started()
    place.run("BEGIN; INSERT INTO billing.history_billings (id, sum, status) VALUES (%s, 0, %s);" +
              "INSERT INTO billing.history_billings (id, billing_id, sum, status) SELECT gen_random_uuid(), "
              "gen_random_uuid(), n, 'S' FROM generate_series(1, %s) n; COMMIT", str(uuid.uuid4()),
              random.Random(1).randbytes(100_000).hex(), BACKLOG)
    wait_for("two refusals", lambda: refused_by_kafka(relay) >= 2, 60 * SLOWER)
    count, refused = place.broker.count(place.topic), refused_by_kafka(relay)
    assert count <= BACKLOG
    wait_for("more refusals", lambda: refused_by_kafka(relay) >= refused + 3, 60 * SLOWER)
    assert place.broker.count(place.topic) == count
    assert metric(relay, "skald_relay_lag_seconds") > 0
    place.broker.set_topic(place.topic, "max.message.bytes", 1_000_000)
    wait_for("the position", lambda: place.lag() == 0, 60 * SLOWER)
    assert sorted({value["after"]["sum"] for value in place.values()}) == list(range(BACKLOG + 1))
    relay.stop()


def test_lag_is_told_whatever_else_is_in_flight(place):
    relay = place.started(RELAY_HEARTBEAT="50ms")
    wait_for("heartbeats", lambda: metric(relay, "skald_relay_records_total") > 1)
    place.broker.kill()
    wait_for("heartbeats in flight", lambda: metric(relay, "skald_relay_in_flight_records") > 2)
    place.run("SELECT pg_switch_wal()")
    seen = metric(relay, "skald_relay_lag_bytes")
    place.run("CREATE TEMPORARY TABLE elsewhere (n integer)")
    wait_for("the server's word", lambda: metric(relay, "skald_relay_lag_bytes") > seen)
    place.run(INSERT, str(uuid.uuid4()), None, 1)
    wait_for("its age", lambda: metric(relay, "skald_relay_lag_seconds") > 0)
    place.broker.start()
    wait_for("the end of the lag", lambda: metric(relay, "skald_relay_lag_seconds") == 0, 60 * SLOWER)
    relay.stop()


def test_lag_outlives_the_connection(place):
    """The broker is down, and PostgreSQL too for a moment: the age of unconfirmed records is kept."""
    relay = place.started()
    place.broker.kill()
    place.run(INSERT, str(uuid.uuid4()), None, 1)
    wait_for("its age", lambda: metric(relay, "skald_relay_lag_seconds") > 0)
    before = metric(relay, "skald_relay_lag_seconds")
    place.run("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s", place.slot)
    wait_for("the loss to be counted", lambda: metric(relay, "skald_relay_errors_total", at="postgres") == 1)
    assert metric(relay, "skald_relay_lag_seconds") > before
    wait_for("the row in flight again", lambda: metric(relay, "skald_relay_in_flight_records") == 2)
    assert metric(relay, "skald_relay_lag_seconds") > before
    place.run("SELECT pg_switch_wal()")
    wait_for("the bytes", lambda: metric(relay, "skald_relay_lag_bytes") > MEGABYTE)
    place.broker.start()
    wait_for("the end of the lag", lambda: metric(relay, "skald_relay_lag_seconds") == 0, 60 * SLOWER)
    relay.stop()


@pytest.fixture
def strict_place(stack):
    """On a broker without automatic topic creation."""
    broker = Broker(KAFKA_SETTINGS="auto.create.topics.enable=false")
    try:
        broker.start()
        with contextlib.closing(Place(stack[0], broker)) as one:
            yield one
    finally:
        broker.remove()


def test_topic_that_is_gone_loses_nothing(strict_place):
    """It also does not switch to the publication of older versions."""
    place = strict_place
    relay = place.started(RELAY_PUBLICATION="billing_pub_traced")
    place.run(INSERT, str(uuid.uuid4()), None, 1)
    wait_for("the row", lambda: place.broker.count(place.topic) == 1)
    wait_for("its position", lambda: place.lag() == 0)
    place.broker.delete_topic(place.topic)
    place.broker.kill()
    place.broker.start()
    wait_for("health", relay.is_healthy, 60 * SLOWER)
    place.run(INSERT, str(uuid.uuid4()), None, 2)
    wait_for("the topic to be missed", lambda: refused_by_kafka(relay) >= 1, 60 * SLOWER)
    assert re.search("UNKNOWN_(TOPIC|PARTITION)", relay.text()) and place.lag() > 0
    place.broker.make_topic(place.topic)
    wait_for("the row", lambda: place.broker.count(place.topic) == 1, 90 * SLOWER)
    read = [line for line in (place.cluster.dir / "postgresql.log").read_text().splitlines()
            if f'START_REPLICATION SLOT "{place.slot}"' in line]
    assert read and all('"billing_pub_traced"' in line for line in read)
    relay.stop()


def test_takes_no_processor_from_the_server_it_reads(place):
    """Checks all threads, because Kafka's do most of the work."""
    relay = place.started()
    threads = [int(thread) for pid in relay.pids() for thread in os.listdir(f"/proc/{pid}/task")]
    assert len(threads) > 2 and {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_BATCH}


def resident(relay):
    status = pathlib.Path(f"/proc/{relay.process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) * 1024


@pytest.mark.skipif(SANITIZED, reason="the sanitizers' own memory hides the relay's")
def test_huge_transaction_in_little_memory(place):
    count = 100_000
    relay = place.started(RELAY_IN_FLIGHT=MEGABYTE)
    place.run("INSERT INTO billing.history_billings (id, billing_id, sum, status) "
              "SELECT gen_random_uuid(), gen_random_uuid(), n, 'S' FROM generate_series(1, %s) n", count)
    most = 0

    def all_there():
        nonlocal most
        most = max(most, resident(relay))
        return place.broker.count(place.topic) == count

    wait_for("all records", all_there, 120)
    assert metric(relay, "skald_relay_bytes_total") > 200 * MEGABYTE
    assert most < 64 * MEGABYTE, most
    relay.stop()
    assert place.broker.count(place.topic) == count, "nothing came twice"


def running_ms(pid):
    """CPU time of a process."""
    return int(pathlib.Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6


def slow_down(pid, seconds):
    """Limits a process to a hundredth of a CPU for this time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        before = running_ms(pid)
        wait_for("its turn", lambda: running_ms(pid) > before + 10, pause=0.002)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(1)
        os.kill(pid, signal.SIGCONT)


def test_large_transaction_of_others_is_waited_for(place):
    """PostgreSQL says nothing while it spills and reads what is not published; a connection given up for that would begin
    again, without end. What is left to spill behind the commit is nearly all that its memory for decoding takes."""
    place.run("CREATE TABLE public.bulk (n integer)")
    relay = place.started()
    sender, = place.run("SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s", place.slot)[0]
    with contextlib.closing(place.cluster.connect()) as db, db.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO public.bulk SELECT generate_series(1, 2000000)")
        cursor.execute("SELECT pg_current_wal_insert_lsn()")
        end, = cursor.fetchone()
        wait_for("all that is to be read", lambda: place.run(
            "SELECT sent_lsn >= %s FROM pg_stat_replication WHERE pid = %s", end, sender) == [(True,)], 120)
        cursor.execute("COMMIT")
    slow_down(sender, 30)
    assert metric(relay, "skald_relay_errors_total", at="postgres") == 0
    place.run(INSERT, str(uuid.uuid4()), None, 1)
    wait_for("the row", lambda: place.broker.count(place.topic) == 1, 60 * SLOWER)
    assert metric(relay, "skald_relay_errors_total", at="postgres") == 0
    place.run("DROP TABLE public.bulk")
    relay.stop()


def test_server_spills_little_at_once(place):
    """By default it would keep much more than this in memory, and be silent while spilling it."""
    place.run("CREATE TABLE public.bulk (n integer)")
    relay = place.started()
    place.run("INSERT INTO public.bulk SELECT generate_series(1, 50000)")
    wait_for("a spill", lambda: place.run(
        "SELECT spill_bytes > 0 FROM pg_stat_replication_slots WHERE slot_name = %s", place.slot) == [(True,)])
    place.run("DROP TABLE public.bulk")
    relay.stop()


def test_standby_takes_over(place):
    first, second = place.started(), place.relay()
    second.spawn()
    wait_for("the second to wait", lambda: "another process reads it" in second.text(), 30 * SLOWER)
    wait_for("the second to be well", second.is_healthy)
    place.run(INSERT, str(uuid.uuid4()), None, 1)
    wait_for("the first row", lambda: place.broker.count(place.topic) == 1)
    wait_for("its position", lambda: place.lag() == 0)
    first.kill()
    place.run(INSERT, str(uuid.uuid4()), None, 2)
    wait_for("the second row", lambda: place.broker.count(place.topic) == 2)
    second.stop()


def test_idle_slot_holds_back_nothing(place):
    relay = place.started()
    place.run("CREATE TABLE IF NOT EXISTS public.elsewhere (n integer, t text)")
    for _ in range(5):
        place.run("INSERT INTO public.elsewhere SELECT n, repeat('x', 500) FROM generate_series(1, 10000) n")
        place.run("SELECT pg_switch_wal()")
        wait_for("the slot to follow", lambda: place.lag() < 10000)
    assert place.broker.count(place.topic) == 0
    relay.stop()
    assert place.lag() < 10000


def test_position_is_told_at_the_end(place):
    relay = place.started()
    place.run(INSERT, str(uuid.uuid4()), None, 1)
    wait_for("the row", lambda: place.broker.count(place.topic) == 1)
    relay.stop()
    again = place.started()
    place.run(INSERT, str(uuid.uuid4()), None, 2)
    wait_for("the next row", lambda: place.broker.count(place.topic) >= 2)
    again.stop()
    assert sorted(value["after"]["sum"] for value in place.values()) == [1, 2]


def test_type_not_known_is_refused_at_start(place):
    place.run("CREATE TABLE public.places (id integer PRIMARY KEY, at point)")
    place.run("CREATE PUBLICATION places FOR TABLE public.places")
    relay = place.relay(RELAY_PUBLICATION="places", RELAY_REFUSED_DELAY="0s")
    relay.spawn()
    assert relay.wait() == 1
    assert "table public.places, column at: values of type point (oid 600) cannot be sent" in relay.text()
    place.run("DROP PUBLICATION places; DROP TABLE public.places")


def test_type_not_known_is_refused_in_the_publication_for_what_is_older(place):
    place.run("CREATE TABLE public.areas (id integer PRIMARY KEY, at point)")
    place.run("ALTER PUBLICATION billing_pub ADD TABLE public.areas")
    try:
        relay = place.relay(RELAY_PUBLICATION="billing_pub_traced", RELAY_REFUSED_DELAY="0s")
        relay.spawn()
        assert relay.wait() == 1
        assert "table public.areas, column at: values of type point (oid 600) cannot be sent" in relay.text()
    finally:
        place.run("ALTER PUBLICATION billing_pub DROP TABLE public.areas")
        place.run("DROP TABLE public.areas")


def refused_changes(relay):
    return metric(relay, "skald_relay_errors_total", at="change")


def test_relay_that_has_refused_ends_by_itself(place):
    place.run("CREATE TABLE public.spots (id integer PRIMARY KEY, at point)")
    place.run("CREATE PUBLICATION spots FOR TABLE public.spots")
    relay = place.relay(RELAY_PUBLICATION="spots", RELAY_REFUSED_DELAY="2s")
    relay.spawn()
    wait_for("the refusal", lambda: relay.running() and "stopped: " in relay.text(), 30 * SLOWER)
    assert refused_changes(relay) == 1
    assert relay.wait() == 1
    place.run("DROP PUBLICATION spots; DROP TABLE public.spots")


def test_type_not_known_is_refused_in_the_stream(place):
    place.run("CREATE TABLE public.shapes (id integer PRIMARY KEY)")
    place.run("ALTER PUBLICATION relayed ADD TABLE public.shapes")
    try:
        relay = place.started()
        place.run("INSERT INTO public.shapes VALUES (1)")
        wait_for("the first row", lambda: f"{place.prefix}.public.shapes" in place.broker.topics() and
                 place.broker.count(f"{place.prefix}.public.shapes") == 1)
        place.run("ALTER TABLE public.shapes ADD area box")
        before = place.run("SELECT pg_current_wal_lsn()::text")[0][0]
        assert refused_changes(relay) == 0
        place.run("INSERT INTO public.shapes VALUES (2)")
        wait_for("the refusal", lambda: refused_changes(relay) == 1)
        health = relay.client.get("/health")
        assert health.status == 503 and b"it has stopped; see its log" in health.body
        assert relay.running(), "its metrics can be read"
        relay.terminate()
        assert relay.wait() == 1
        assert "table public.shapes, column area: values of type box (oid 603) cannot be sent" in relay.text()
        assert place.run("SELECT confirmed_flush_lsn <= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s",
                         before, place.slot) == [(True,)], "the row is still to come"
        assert place.broker.count(f"{place.prefix}.public.shapes") == 1
    finally:
        place.run("ALTER PUBLICATION relayed DROP TABLE public.shapes")
        place.run("DROP TABLE public.shapes")


def test_altered_table_is_described_anew(place):
    """Each value's schema names its columns, also where it is as long as that of the value before."""
    topic = f"{place.prefix}.public.things"
    place.run("CREATE TABLE public.things (id integer PRIMARY KEY, a text)")
    place.run("ALTER PUBLICATION relayed ADD TABLE public.things")
    place.broker.make_topic(topic)
    try:
        place.started()
        for number, change in enumerate(("RENAME a TO b", "RENAME b TO c", "RENAME c TO d", "ADD e integer")):
            place.run("INSERT INTO public.things VALUES (%s)", number)
            place.run(f"ALTER TABLE public.things {change}")
        place.run("INSERT INTO public.things VALUES (4)")
        wait_for("the rows", lambda: place.broker.count(topic) == 5)
        values = [json.loads(record.value) for record in place.broker.read(topic)]
        named = [[column["field"] for field in value["schema"]["fields"] if field["field"] == "after"
                  for column in field["fields"]] for value in values]
        assert named == [list(value["payload"]["after"]) for value in values]
        assert sorted(named) == [["id", "a"], ["id", "b"], ["id", "c"], ["id", "d"], ["id", "d", "e"]]
    finally:
        place.run("ALTER PUBLICATION relayed DROP TABLE public.things")
        place.run("DROP TABLE public.things")


def test_what_stands_before_a_refusal_is_published_once(place):
    """However often the relay is restarted."""
    for number in range(20):
        place.run(INSERT, str(uuid.uuid4()), None, number)
    place.run("INSERT INTO billing.history_billings (id, status) VALUES (gen_random_uuid(), repeat('x', 2000000))")
    for _ in range(2):
        relay = place.relay(RELAY_REFUSED_DELAY="0s")
        relay.spawn()
        assert relay.wait() == 1
        assert "is larger than Kafka takes" in relay.text()
    assert sorted(value["after"]["sum"] for value in place.values()) == list(range(20))


def test_deletes_truncates_and_heartbeats(place):
    relay = place.started(RELAY_TRUNCATES="on", RELAY_SCHEMAS="off", RELAY_KEY_COLUMNS="none", RELAY_HEARTBEAT="100ms")
    key = str(uuid.uuid4())
    place.run(INSERT, key, None, 1)
    place.run("DELETE FROM billing.history_billings WHERE id = %s", key)
    wait_for("insert, delete and tombstone", lambda: place.broker.count(place.topic) == 3)
    place.run("TRUNCATE billing.history_billings")
    wait_for("truncate", lambda: place.broker.count(place.topic) == 4)
    beats = f"__debezium-heartbeat.{place.prefix}"
    wait_for("heartbeats", lambda: beats in place.broker.topics() and place.broker.count(beats) > 3)
    relay.stop()
    records = place.broker.read(place.topic)
    of_row = [record for record in records if record.key == json.dumps({"id": key}, separators=(",", ":")).encode()]
    assert [record.value and json.loads(record.value)["op"] for record in of_row] == ["c", "d", None]
    truncate, = [record for record in records if record.key is None]
    assert json.loads(truncate.value)["op"] == "t"
    beat = place.broker.read(beats)[0]
    assert (beat.partition, beat.key) == (0, json.dumps({"serverName": place.prefix}, separators=(",", ":")).encode())
    assert list(json.loads(beat.value)) == ["ts_ms"]


def test_no_tombstones(place):
    relay = place.started(RELAY_TOMBSTONES="off")
    key = str(uuid.uuid4())
    place.run(INSERT, key, None, 1)
    place.run("DELETE FROM billing.history_billings WHERE id = %s", key)
    place.run(INSERT, str(uuid.uuid4()), None, 2)
    wait_for("three records", lambda: place.broker.count(place.topic) == 3)
    relay.stop()
    assert sorted(value["op"] for value in place.values()) == ["c", "c", "d"]


def test_key_column_that_is_not_there(place):
    relay = place.relay(RELAY_KEY_COLUMNS="billing.history_billings:account", RELAY_REFUSED_DELAY="0s")
    relay.spawn()
    assert relay.wait() == 1
    assert "account" in relay.text()


def test_takes_no_arguments():
    done = skald("relay", "now")
    assert (done.returncode, done.stderr) == (2, "skald: relay takes no arguments\n")


def test_bad_setting():
    done = skald("relay", RELAY_DECIMALS="float")
    assert done.returncode == 2 and "double | string | precise" in done.stderr

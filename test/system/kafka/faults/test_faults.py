"""One fault at a time under a load of 20,000 operations, on the whole path from Billing to Notification. After each,
the audit finds exactly one notification per operation, in order per account."""

import contextlib
import time

import confluent_kafka
import psycopg2.extras
import pytest

from harness.metrics import metric
from harness.wait import wait_for
from harness.way import warnings
from poison import poison

LOAD = 20000
OUTAGE_SECONDS = 30
PARTITIONS = 4
NOTICE_SECONDS = 10


def test_kill_of_the_relay(way):
    way.replica()
    relay = way.started(way.relay())
    with way.load(LOAD) as wait:
        for share in (0.1, 0.3, 0.5, 0.7):
            wait(share)
            relay.kill()
            relay = way.started(way.relay())
    way.assert_sound()
    relay.stop()


def test_kill_of_one_replica_of_notification_and_of_both(way):
    one, other = way.replica(), way.replica()
    with way.publisher("relay"):
        with way.load(LOAD) as wait:
            wait(0.2, of=way.told)
            one.kill()
            wait(0.4)
            third = way.replica()
            wait(0.6, of=way.told)
            other.kill()
            third.kill()
            wait(0.8)
            way.replica()
        way.assert_sound()


def test_kill_of_connect(way, connect):
    way.replica()
    with way.publisher("debezium", connect):
        with way.load(LOAD) as wait:
            wait(0.2, of=way.told)
            connect.kill()
            connect.start()
        way.assert_sound()


@pytest.mark.parametrize(("publisher", "shares"), [("relay", (0.2, 0.5, 0.8)), ("debezium", (0.4,))])
def test_kill_of_the_broker(way, request, publisher, shares):
    way.replica(), way.replica()
    connect = request.getfixturevalue("connect") if publisher == "debezium" else None
    with way.publisher(publisher, connect):
        with way.load(LOAD) as wait:
            for share in shares:
                wait(share)
                way.broker.kill()
                way.broker.start()
        way.assert_sound()


@pytest.mark.parametrize(("publisher", "ends"), [("relay", ("kill", "stop")), ("debezium", ("kill",))])
def test_restart_of_postgresql(way, request, publisher, ends):
    """By a crash, and by a clean shutdown."""
    way.replica()
    connect = request.getfixturevalue("connect") if publisher == "debezium" else None
    with way.publisher(publisher, connect):
        with way.load(LOAD) as wait:
            for share, end in zip((0.2, 0.6), ends):
                wait(share)
                way.shop.forget_connections()
                getattr(way.shop.cluster, end)()
                way.shop.cluster.start()
        way.assert_sound()


def test_broker_unreachable_for_half_a_minute(way):
    """Everything keeps running and reports the problem once."""
    replicas = way.replica(), way.replica()
    with way.publisher("relay") as relay:
        with way.load(LOAD) as wait:
            wait(0.3)
            way.broker.kill()
            until = time.monotonic() + OUTAGE_SECONDS
            for server in replicas:
                wait_for("the loss of the broker", lambda s=server: metric(s, "notification_source_connected") == 0)
            wait_for("the relay to notice", lambda: not relay.is_healthy())
        wait_for("lag", lambda: metric(relay, "skald_relay_lag_bytes") > 0)
        known = [len(warnings(server)) for server in (relay, *replicas)]
        while time.monotonic() < until:
            assert all(server.is_healthy() for server in replicas) and relay.running()
            time.sleep(0.2)
        assert [len(warnings(server)) for server in (relay, *replicas)] == known, "they try on quietly"
        way.broker.start()
        way.assert_sound()
        wait_for("health", relay.is_healthy)
        for server in replicas:
            wait_for("the connection", lambda s=server: metric(s, "notification_source_connected") == 1)


@contextlib.contextmanager
def slot_held(way):
    """Holds the slot with a reader that confirms nothing."""
    with contextlib.closing(psycopg2.connect(
            way.shop.database_url, connection_factory=psycopg2.extras.LogicalReplicationConnection)) as db:
        db.cursor().start_replication("billing_cdc", decode=False,
                                      options={"proto_version": "1", "publication_names": "billing_pub"})
        yield


def test_slot_held_by_another(way):
    way.replica()
    relay = way.started(way.relay())
    with way.load(LOAD) as wait:
        wait(0.2)
        relay.kill()
        wait_for("the slot to be free", lambda: not way.slot_is_read())
        with slot_held(way):
            relay = way.started(way.relay())
            wait_for("the relay to stand by", lambda: "another process reads it" in relay.text())
            told = way.told()
            wait(0.6)
            assert relay.is_healthy(), "it stands by"
            assert way.told() == told
    way.assert_sound()
    relay.stop()


def test_poison_in_the_topic(way):
    way.replica(), way.replica()
    kinds = poison()
    assert len(kinds) >= 20
    producer = confluent_kafka.Producer({"bootstrap.servers": way.broker.address})
    with way.publisher("relay"):
        with way.load(LOAD) as wait:
            for i, value in enumerate(kinds.values()):
                wait((i + 1) / (len(kinds) + 1))
                producer.produce(way.topic, value, None, i % PARTITIONS)
                assert producer.flush(NOTICE_SECONDS) == 0
        way.assert_sound()
    dead = way.shop.value("notification", "SELECT count(*) FROM notification.dead_letters WHERE position LIKE %s",
                          f"{way.topic}/%")
    assert dead == len(kinds)

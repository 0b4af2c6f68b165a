"""Notification with a real broker: every event once, in order, despite crashes; poison becomes dead letters and stops
nothing."""

import itertools
import json
import os
import random
import re
import signal
import time
import uuid

import confluent_kafka
import pytest
from ports import free_port

from harness.check import ok, pages
from harness.cluster import ROOT
from harness.goods import new_user, unique
from harness.metrics import metric
from harness.server import SLOWER, Server
from harness.wait import wait_for
from harness.way import warnings
from poison import as_kept, envelope, poison, row

PARTITIONS = 4
LOAD = 8000
FREEZE_SECONDS = 10
HEAL_SECONDS = 30
TAKE_OVER_SECONDS = 20  # a dead member counts as one only after its session's timeout
HAND_OVER_SECONDS = 4   # less than that timeout: who leaves in order says so
SAMPLES = ROOT / "test/fuzz/corpus/envelope"
SAMPLE_ID = "6f1c0e1e-2f2b-4b1e-9a53-0d9f0f6c9a11"
SAMPLE_ACCOUNT = "0b0a4f6e-6f0e-4b0e-8a55-1f0f2f6c9a22"


class Stream:
    """A private topic, the records sent to it, and the processes that read it as one group."""

    def __init__(self, shop, broker):
        self.shop = shop
        self.broker = broker
        self.topic = unique("postgres.billing.history_billings")
        # Not idempotent: a broker that dies with requests in flight can end an idempotent producer, and what is tested
        # here absorbs repeats.
        self.producer = confluent_kafka.Producer({"bootstrap.servers": broker.address, "linger.ms": 2, "acks": "all",
                                                  "max.in.flight": 1, "message.timeout.ms": 0})
        self.users = []
        self.sent = {}  # account: how many operations
        self.lsn = random.randrange(1 << 40)
        self.positions = {}  # what was given as a name: topic/partition/offset
        self.replicas = []

    def make_topic(self):
        self.broker.make_topic(self.topic, PARTITIONS)

    def add_users(self, count):
        self.users += [new_user(self.shop) for _ in range(count)]
        self.sent |= {user["billingId"]: 0 for user in self.users if user["billingId"] not in self.sent}

    def replica(self, group="notification"):
        one = Server("notification", DATABASE_URL=self.shop.database_url, USER_URL=self.shop.base_url, WORKERS=1,
                     EVENTS="kafka", KAFKA_BROKERS=self.broker.address, KAFKA_TOPIC=self.topic,
                     KAFKA_GROUP=f"{group}-{self.topic}")
        one.start()
        self.replicas.append(one)
        return one

    def close(self):
        self.producer.purge()
        for one in self.replicas:
            one.end()
            one.check_log()

    # ---- sending ----

    def put(self, value, partition=0, key=None, name=None, headers=None):
        def on_delivery(error, message):
            assert not error, error
            self.positions[name] = f"{message.topic()}/{message.partition()}/{message.offset()}"
        while True:
            try:
                self.producer.produce(self.topic, value, key, partition, on_delivery=on_delivery if name else None,
                                      headers=headers or [])
                return
            except BufferError:
                self.producer.poll(0.1)

    def flush(self):
        wait_for("confirmation of all records", lambda: self.producer.flush(1) == 0, 120)

    def event(self, account):
        """The account's next operation; its wallet value is the operation's number."""
        self.sent[account] += 1
        self.lsn += random.randrange(1, 500)
        return envelope(row(account, current_value_wallet=self.sent[account]), lsn=self.lsn)

    def load(self, count, spread=False):
        """Operations of all users in turn; spread: an account's come over all partitions."""
        for i in range(count):
            account = self.users[i % len(self.users)]["billingId"]
            partition = random.randrange(PARTITIONS) if spread else i % len(self.users) % PARTITIONS
            self.put(json.dumps(self.event(account)), partition, key=account)
            if i % 1000 == 0:
                self.producer.poll(0)

    # ---- what became of it ----

    def total(self):
        return sum(self.sent.values())

    def stored(self):
        return self.shop.value("notification", "SELECT count(*) FROM notification.notifications "
                               "WHERE billing_id::text = ANY(%s)", list(self.sent))

    def wait_stored(self, seconds=60, count=None):
        wanted = self.total() if count is None else count
        wait_for(f"{wanted} notifications", lambda: self.stored() >= wanted, seconds * SLOWER)

    def assert_told_in_order(self):
        assert self.stored() == self.total()
        for user in self.users:
            path = f"/notification/notification/{user['id']}"
            wallets = [int(re.search(r"now holds (\d+)", one["message"])[1]) for one in ok(self.shop.get(path))]
            assert wallets == list(range(1, self.sent[user["billingId"]] + 1))

    def dead(self):
        return {position: (reason, payload) for position, reason, payload in self.shop.query(
            "notification", "SELECT position, reason, payload FROM notification.dead_letters "
            "WHERE position LIKE %s", self.topic + "/%")}


@pytest.fixture
def stream(shop, broker):
    one = Stream(shop, broker)
    one.make_topic()
    try:
        yield one
    finally:
        one.close()


def handled(server, result):
    return metric(server, "notification_events_total", result=result)


def test_every_version_and_form(stream):
    names = [path.name for path in sorted(SAMPLES.glob("debezium-*"))]
    assert len(names) >= 7
    account = str(uuid.uuid4())
    stream.sent[account] = 0
    for name in names:
        text = (SAMPLES / name).read_text()
        assert SAMPLE_ID in text and SAMPLE_ACCOUNT in text
        stream.put(text.replace(SAMPLE_ID, str(uuid.uuid4())).replace(SAMPLE_ACCOUNT, account), key=b"{}",
                   headers=[("__debezium.oldkey", b"{}")])
        stream.sent[account] += 1
    for more in ({"sum": "12.50"}, {"sum": None, "last_value_wallet": None, "current_value_wallet": None},
                 {"sum": 10 ** 30}, {"column_of_the_future": [1, {"a": None}]}, {"type_operation": "ÄNDERN 🦊"}):
        stream.put(json.dumps(envelope(row(account, **more))))
        stream.sent[account] += 1
    stream.flush()
    stream.replica()
    stream.wait_stored()
    texts = {message for message, in stream.shop.query(
        "notification", "SELECT message FROM notification.notifications WHERE billing_id = %s", account)}
    assert "You paid 123.45 from your wallet, which now holds 876.55." in texts
    assert "Your wallet was refilled with 12.50 and now holds 0.00." in texts, texts
    assert stream.dead() == {}


def test_what_is_no_operation_is_passed_over(stream):
    stream.add_users(1)
    account = stream.users[0]["billingId"]
    passed = [None, (SAMPLES / "heartbeat").read_bytes(), (SAMPLES / "tombstone-schema").read_bytes()]
    passed += [json.dumps(envelope(row(account), op)) for op in "udrtm"]
    for value in passed:
        stream.put(value, key=b'{"id":"x"}')
    stream.load(1)
    stream.flush()
    server = stream.replica()
    stream.wait_stored()
    stream.assert_told_in_order()
    wait_for("all to be passed over", lambda: handled(server, "ignored") == len(passed))
    wait_for("the operation to be counted", lambda: handled(server, "stored") == 1)
    assert stream.dead() == {}


def test_poison_is_put_aside_and_stops_nothing(stream):
    kinds = poison()
    assert len(kinds) >= 20
    stream.add_users(PARTITIONS)
    server = stream.replica()
    for i, (name, value) in enumerate(kinds.items()):
        stream.put(value, i % PARTITIONS, name=name)
        stream.load(PARTITIONS)
    stream.flush()
    stream.wait_stored()
    stream.assert_told_in_order()
    wait_for("all dead letters", lambda: len(stream.dead()) >= len(kinds), 30 * SLOWER)
    dead = stream.dead()
    assert set(dead) == set(stream.positions.values())
    for name, value in kinds.items():
        reason, payload = dead[stream.positions[name]]
        assert reason, name
        assert payload == as_kept(value), name
    wait_for("all to be counted", lambda: handled(server, "dead") == len(kinds))
    again = stream.replica("again")  # reads it all a second time
    wait_for("the second reading", lambda: handled(again, "dead") == len(kinds)
             and handled(again, "stored") == stream.total(), 30 * SLOWER)
    assert stream.dead() == dead
    stream.assert_told_in_order()


def test_poison_of_a_topic_made_anew_is_kept_beside_the_old(stream):
    """Its offsets start again, so earlier dead letters have the same positions."""
    for text in ("the first", "the second"):
        stream.put(text)
        stream.flush()
        server = stream.replica()
        wait_for("the poison", lambda server=server: handled(server, "dead") == 1)
        server.stop()
        stream.broker.delete_topic(stream.topic)
        wait_for("its end", lambda: stream.topic not in stream.broker.topics())
        stream.make_topic()
    assert sorted(payload for _, payload in stream.dead().values()) == ["the first", "the second"]
    positions = sorted(stream.dead())
    assert positions[0] == f"{stream.topic}/0/0" and positions[1].startswith(f"{stream.topic}/0/0 ")


def test_order_of_an_account_whatever_the_partition(stream):
    stream.add_users(5)
    batches = []
    for _ in range(40):
        user = random.choice(stream.users)["billingId"]
        batches.append([json.dumps(stream.event(user)) for _ in range(25)])
    random.shuffle(batches)
    for batch in batches:
        for value in batch:
            stream.put(value, random.randrange(PARTITIONS))
    stream.flush()
    stream.replica()
    stream.wait_stored()
    stream.assert_told_in_order()
    user = stream.users[0]
    path = f"/notification/notification/{user['id']}"
    assert pages(stream.shop, f"{path}?page_size=7") == ok(stream.shop.get(path))


def test_replicas_share_and_hand_over_without_a_repeat(stream):
    stream.add_users(8)
    first = stream.replica()
    stream.load(LOAD // 4)
    second = stream.replica()
    stream.load(LOAD // 4)
    third = stream.replica()
    stream.load(LOAD // 4)
    stream.flush()
    stream.wait_stored(120)
    for one in (first, second, third):
        wait_for(f"a share for {one}", lambda one=one: metric(one, "notification_rebalances_total") > 0)
    for _ in range(3):
        stream.load(400)
        stream.flush()
        stream.wait_stored()
    # Counted when it is stored, a moment later; what is read twice is counted twice.
    wait_for("each to be counted once", lambda: sum(handled(one, "stored") for one in (first, second, third)) == stream.total())
    assert handled(second, "stored") > 0 and handled(third, "stored") > 0
    second.stop()
    stream.load(400)
    stream.flush()
    stream.wait_stored(HAND_OVER_SECONDS)
    third.stop()
    first.stop()
    last = stream.replica()
    stream.load(400)
    stream.flush()
    stream.wait_stored(HAND_OVER_SECONDS)
    wait_for("the last ones to be counted", lambda: handled(last, "stored") == 400)
    stream.assert_told_in_order()


def test_kill_of_one_and_of_all_under_load(stream):
    stream.add_users(8)
    one, other = stream.replica(), stream.replica()

    def both_work():
        """A single consumer may finish everything before the other one has joined."""
        stream.load(100)
        stream.flush()
        return handled(one, "stored") > 0 and handled(other, "stored") > 0

    wait_for("work of both", both_work, pause=0.1)
    stream.load(LOAD // 2)
    wait_for("work in progress", lambda: stream.stored() < stream.total())
    one.kill()
    stream.load(LOAD // 4)
    stream.flush()
    stream.wait_stored(TAKE_OVER_SECONDS + 60)
    third = stream.replica()
    stream.load(LOAD // 4)
    wait_for("work in progress", lambda: stream.stored() < stream.total())
    other.kill()
    third.kill()
    stream.flush()
    stream.replica()
    stream.wait_stored(TAKE_OVER_SECONDS + 60)
    stream.assert_told_in_order()


def test_lag_is_shown_and_database_down_loses_nothing(stream):
    stream.add_users(4)
    server = stream.replica()
    stream.load(400)
    stream.flush()
    stream.wait_stored()
    stream.shop.forget_connections()
    with stream.shop.cluster.frozen():
        stream.load(4000)
        stream.flush()
        wait_for("the lag", lambda: metric(server, "notification_lag_records") == 4000, 30)
        assert metric(server, "notification_source_connected") == 1
        assert metric(server, "notification_lag_seconds") > 0
    stream.wait_stored(HEAL_SECONDS)
    wait_for("no lag", lambda: metric(server, "notification_lag_records") == 0)
    wait_for("no lag", lambda: metric(server, "notification_lag_seconds") == 0)
    stream.assert_told_in_order()


def test_kill_with_a_batch_in_hand(stream):
    """Records read but not stored are read again by the group."""
    stream.add_users(4)
    server = stream.replica()
    stream.load(40)
    stream.flush()
    stream.wait_stored()
    stream.shop.forget_connections()
    with stream.shop.cluster.frozen():
        stream.load(400)
        stream.flush()
        wait_for("a batch in hand, for longer than offsets wait", lambda: metric(server, "notification_lag_seconds") > 1)
        server.kill()
    stream.replica()
    stream.wait_stored(TAKE_OVER_SECONDS)
    stream.assert_told_in_order()


def test_fetching_goes_on_as_soon_as_there_is_room(stream):
    """Not a second after all was fetched ahead that may be: eight megabytes, and compressed each fetch brings more."""
    count, fetches = 20_000, 8  # at least: two megabytes at once of more than twenty
    stream.producer = confluent_kafka.Producer({"bootstrap.servers": stream.broker.address, "compression.codec": "lz4"})
    stream.add_users(4)
    for i in range(count):
        account = stream.users[i % len(stream.users)]["billingId"]
        padding = random.randbytes(512).hex() * 8
        stream.put(json.dumps(stream.event(account) | {"padding": padding}), key=account)
    stream.flush()
    stream.replica()
    seen = {}  # how many are stored: when that was first seen

    def stored():
        total = stream.stored()
        seen.setdefault(total, time.monotonic())
        return total

    wait_for("all of them", lambda: stored() == count, 60, 0.02)
    moments = [when for total, when in seen.items() if total]
    pauses = [later - sooner for sooner, later in itertools.pairwise(moments) if later - sooner > 0.5]
    assert len(pauses) < fetches / 2, pauses
    stream.assert_told_in_order()


def test_topic_made_later_is_found(shop, broker):
    late = Stream(shop, broker)
    try:
        server = late.replica()
        wait_for("the connection", lambda: metric(server, "notification_source_connected") == 1)
        late.make_topic()
        late.add_users(1)
        late.load(5)
        late.flush()
        late.wait_stored(HEAL_SECONDS)
        late.assert_told_in_order()
    finally:
        late.close()


def test_broker_frozen_for_longer_than_a_session(stream):
    """It keeps its connections without responding; afterwards it finds all sessions expired."""
    stream.add_users(8)
    one, other = stream.replica(), stream.replica()
    stream.load(LOAD // 4)
    wait_for("work in progress", lambda: 0 < stream.stored())
    pid = stream.broker.pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        until = time.monotonic() + FREEZE_SECONDS
        while time.monotonic() < until:
            assert one.is_healthy() and other.is_healthy()
    finally:
        os.kill(pid, signal.SIGCONT)
    stream.load(LOAD // 4)
    stream.flush()
    stream.wait_stored(HEAL_SECONDS)
    stream.assert_told_in_order()


def test_starts_without_a_broker(stream):
    """Without a listener it is healthy, and reads as soon as a broker is up."""
    nobody = free_port()
    server = Server("notification", DATABASE_URL=stream.shop.database_url, USER_URL=stream.shop.base_url, WORKERS=1,
                    EVENTS="kafka", KAFKA_BROKERS=f"127.0.0.1:{nobody}", KAFKA_TOPIC=stream.topic)
    stream.replicas.append(server)
    server.start()
    wait_for("a word on it", lambda: any("no broker of" in line["message"] for line in warnings(server)))
    assert server.is_healthy() and metric(server, "notification_source_connected") == 0
    server.stop()

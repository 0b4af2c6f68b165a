"""Debezium as the chart runs it: a standalone Connect worker, with the same files as in the chart's ConfigMap. It
publishes every operation, keeps no state, and continues from the slot's position."""

import json
import os
import urllib.parse
import uuid

import java
import pytest
from ports import free_port

from harness.cluster import ROOT
from harness.goods import new_user, refill
from harness.kafka import Broker
from harness.shop import OneShop, opened
from harness.wait import wait_for

FILES = ROOT / "deploy/chart/skald/files/debezium"
TOPIC = "postgres.billing.history_billings"
HEARTBEAT = "__debezium-heartbeat.postgres"
ROUNDS = 20
SECONDS = 120
# What Debezium may do in the chart's databases.
ROLE = "CREATE ROLE billing_cdc LOGIN REPLICATION IN ROLE pg_read_all_data"


class Debezium:
    def __init__(self, folder, broker, database):
        self.folder = folder
        self.port = free_port()
        # On this machine the connectors are on the class path, and PostgreSQL listens on a unix socket only.
        place = urllib.parse.parse_qs(urllib.parse.urlsplit(database).query)
        socket = f"{place['host'][0]}/.s.PGSQL.{place.get('port', ['5432'])[0]}"
        self.write("worker.properties", {"plugin.path": folder, "listeners": f"http://127.0.0.1:{self.port}",
                                         "offset.storage.file.filename": folder / "offsets"})
        self.write("connector.properties", {
            "driver.socketFactory": "org.newsclub.net.unix.AFUNIXSocketFactory$FactoryArg",
            "driver.socketFactoryArg": socket, "driver.sslmode": "disable"})
        os.environ |= {"KAFKA_BROKERS": broker.address, "CDC_HOST": "localhost", "CDC_PORT": "5432", "CDC_DATABASE": "skald",
                       "CDC_USER": "billing_cdc", "CDC_PASSWORD": ""}
        self.program = java.Program(folder, "standalone", "256m")

    def write(self, name, more):
        (self.folder / name).write_text((FILES / name).read_text() + "".join(f"{key}={value}\n" for key, value in more.items()))

    def start(self):
        self.program.start("org.apache.kafka.connect.cli.ConnectStandalone", self.folder / "worker.properties",
                           self.folder / "connector.properties")
        self.program.wait_until("running connector", self.is_running)

    def is_running(self):
        """The check of the chart's probes."""
        connect = f"http://127.0.0.1:{self.port}/connectors/billing-cdc/tasks/0/status"
        return os.system(f"curl -sf -m 4 {connect} | grep -q RUNNING") == 0

    def stop_and_forget(self):
        """Like a replaced pod: its /tmp is lost."""
        self.program.stop()
        (self.folder / "offsets").unlink(missing_ok=True)


@pytest.fixture(scope="module")
def shop():
    with opened(OneShop(EVENTS="off")) as one:
        one.execute("billing", ROLE)
        yield one
        one.stop()


@pytest.fixture(scope="module")
def broker():
    one = Broker()
    try:
        one.start()
        for topic, partitions in ((TOPIC, 4), (HEARTBEAT, 1)):
            one.make_topic(topic, partitions)
        yield one
    finally:
        one.remove()


@pytest.fixture
def debezium(shop, broker, tmp_path):
    one = Debezium(tmp_path, broker, shop.database_url)
    try:
        yield one
    finally:
        one.stop_and_forget()


def operate(shop, account):
    for _ in range(ROUNDS):
        assert refill(shop, account, 1)


def test_a_replaced_pod_goes_on_where_the_slot_stands(shop, broker, debezium):
    account = new_user(shop)["billingId"]
    debezium.start()
    operate(shop, account)
    wait_for("the first events", lambda: broker.count(TOPIC) >= ROUNDS + 1, SECONDS)
    debezium.stop_and_forget()
    operate(shop, account)
    debezium.start()
    operate(shop, account)
    done = {row[0] for row in shop.query("billing", "SELECT id FROM billing.history_billings")}
    assert len(done) == 3 * ROUNDS + 1
    wait_for("every operation", lambda: published(broker) >= {str(one) for one in done}, SECONDS)
    assert published(broker) == {str(one) for one in done}
    assert set(broker.topics()) == {TOPIC, HEARTBEAT}


def published(broker):
    found = set()
    for record in broker.read(TOPIC):
        value = json.loads(record.value)
        assert value["schema"] and json.loads(record.key)["payload"]["billing_id"] == value["payload"]["after"]["billing_id"]
        found.add(value["payload"]["after"]["id"])
    assert all(uuid.UUID(one) for one in found)
    return found

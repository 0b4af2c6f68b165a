"""The dashboards' panels of the relay and Kafka, and the alerts for a broker that is down."""

import pytest

from harness.goods import new_user, refill
from harness.kafka import Relay
from harness.load import traffic
from harness.prometheus import Prometheus, expressions, needs_kafka
from harness.shop import SevenShops, opened

TOPIC = "postgres.billing.history_billings"


@pytest.fixture(scope="module")
def shop(broker):
    broker.make_topic(TOPIC)
    with opened(SevenShops(EVENTS="kafka", KAFKA_BROKERS=broker.address)) as one:
        one.servers["relay"] = Relay(BILLING_DATABASE_URL=one.cluster.url("billing"), KAFKA_BROKERS=broker.address)
        one.servers["relay"].start()
        yield one
        one.assert_sound()
        one.stop()


@pytest.fixture(scope="module")
def prometheus(shop):
    with Prometheus(shop.ports | {"relay": shop.servers["relay"].port}) as one:
        yield one


def test_every_panel_shows_something_and_nothing_fires(shop, prometheus):
    user = new_user(shop)
    with traffic(lambda: refill(shop, user["billingId"], "1")):
        prometheus.wait_data([one for one in expressions() if needs_kafka(one) or "notification_" in one
                              and "lag_bytes" not in one])
        assert prometheus.firing() == {}


def test_broker_away(shop, prometheus, broker):
    broker.kill()
    try:
        prometheus.wait_firing("SkaldRelayStopped", "SkaldConsumerStopped")
        assert [one["source"] for one in prometheus.firing()["SkaldConsumerStopped"]] == ["kafka"]
    finally:
        broker.start()
    prometheus.wait_over("SkaldRelayStopped", "SkaldConsumerStopped")

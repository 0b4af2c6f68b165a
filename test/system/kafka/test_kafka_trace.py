"""A trace through Kafka: the relay passes it in a header, and the value stays unchanged."""

import json

import pytest

from harness.goods import new_user, refill
from harness.kafka import Broker, Relay
from harness.shop import OneShop, opened
from harness.wait import wait_for
from test_trace import DEBUG, header, new_trace, stored

TOPIC = "postgres.billing.history_billings"
COLUMNS = ["id", "billing_id", "sum", "last_value_wallet", "current_value_wallet", "type_operation", "status"]


@pytest.fixture(scope="module")
def broker():
    one = Broker()
    try:
        one.start()
        one.make_topic(TOPIC)
        yield one
    finally:
        one.remove()


def test_from_the_header_of_a_request_to_the_header_of_a_record(broker):
    with opened(OneShop(EVENTS="kafka", KAFKA_BROKERS=broker.address, **DEBUG)) as shop:
        relay = Relay(BILLING_DATABASE_URL=shop.cluster.url(), KAFKA_BROKERS=broker.address)
        try:
            relay.start()
            user = new_user(shop)
            trace, span = new_trace()
            assert refill(shop, user["billingId"], "5", traceparent=header(trace, span))
            found = stored(shop, trace)
            shop.settle()
            kept = dict(shop.query("billing", "SELECT id::text, traceparent FROM billing.history_billings"))
            published = {json.loads(one.value)["payload"]["after"]["id"]: one for one in broker.read(TOPIC)}
            relay.stop()
        finally:
            relay.end()
        assert trace in kept[found[0]["event_id"]]
        assert {row: one.headers for row, one in published.items()} == {
            row: (("traceparent", text.encode()),) for row, text in kept.items()}
        for one in published.values():
            assert list(json.loads(one.value)["payload"]["after"]) == COLUMNS
            assert b"traceparent" not in one.value
        shop.stop()


def test_a_column_that_readers_are_to_see(broker):
    """RELAY_TRACE_COLUMN=none: then Notification finds the trace in the row."""
    with opened(OneShop(EVENTS="kafka", KAFKA_BROKERS=broker.address, KAFKA_TOPIC="plain.billing.history_billings",
                        KAFKA_GROUP="plain", **DEBUG)) as shop:
        broker.make_topic("plain.billing.history_billings")
        relay = Relay(BILLING_DATABASE_URL=shop.cluster.url(), KAFKA_BROKERS=broker.address, KAFKA_TOPIC_PREFIX="plain",
                      RELAY_TRACE_COLUMN="none")
        try:
            relay.start()
            user = new_user(shop)
            trace, span = new_trace()
            assert refill(shop, user["billingId"], "5", traceparent=header(trace, span))
            assert stored(shop, trace)
            rows = broker.read("plain.billing.history_billings")
            wait_for("the records", lambda: len(broker.read("plain.billing.history_billings")) == 2)
            assert all(one.headers == () for one in rows)
            assert all(list(json.loads(one.value)["payload"]["after"]) == COLUMNS + ["traceparent"] for one in rows)
            relay.stop()
        finally:
            relay.end()
        shop.stop()

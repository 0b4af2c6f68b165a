"""Handover between Debezium and the relay under load, in both directions, as in docs/runbooks/event-handover.md: the
same slot and topic, and exactly one notification per operation."""

import collections
import json

from harness.wait import wait_for

LOAD = 20000


def standby(way):
    """It finds the slot in use, and is healthy."""
    relay = way.started(way.relay())
    wait_for("the relay to stand by", lambda: "another process reads it" in relay.text())
    assert relay.is_healthy()
    return relay


def check_topic(way):
    """Checks the records of either publisher: keys are accounts, each in one partition, in order of the operations.
    Returns the number of operations."""
    partitions, wallets, seen = collections.defaultdict(set), collections.defaultdict(list), set()
    for record in way.broker.read(way.topic):
        row = json.loads(record.value)["payload"]["after"]
        assert json.loads(record.key)["payload"] == {"billing_id": row["billing_id"]}
        partitions[row["billing_id"], record.key].add(record.partition)
        if row["id"] not in seen:
            seen.add(row["id"])
            wallets[row["billing_id"]].append((row["last_value_wallet"], row["current_value_wallet"]))
    assert all(len(found) == 1 for found in partitions.values())
    assert len(partitions) == len(wallets), "both make the same key of an account"
    for account, steps in wallets.items():
        assert all(before[1] == after[0] for before, after in zip(steps, steps[1:])), account
    return len(seen)


def test_from_debezium_to_the_relay_and_back(way, connect):
    way.replica(), way.replica()
    before = way.history()
    way.start_debezium(connect)
    try:
        with way.load(LOAD) as wait:
            wait(0.2, of=way.told)
            relay = standby(way)
            connect.suspend()
            wait(0.5, of=way.told)
            relay.stop()
            connect.resume()
            wait(0.8, of=way.told)
            relay = standby(way)
            connect.suspend()
        way.assert_sound()
        relay.stop()
    finally:
        connect.unregister()
    assert check_topic(way) == way.history() - before


def test_from_the_relay_to_a_debezium_without_offsets_and_back(way, connect):
    way.replica(), way.replica()
    before = way.history()
    relay = way.started(way.relay())
    try:
        with way.load(LOAD) as wait:
            wait(0.3, of=way.told)
            relay.stop()
            way.start_debezium(connect)
            wait(0.6, of=way.told)
            connect.suspend()
            relay = way.started(way.relay())
        way.assert_sound()
        relay.stop()
    finally:
        connect.unregister()
    assert check_topic(way) == way.history() - before

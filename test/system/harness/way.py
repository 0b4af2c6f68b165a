"""The event path: Billing's replication slot, a publisher, a private topic, and replicas of Notification."""

import contextlib
import json

from .goods import new_user, unique
from .kafka import Relay
from .load import operations
from .server import SLOWER, Server
from .wait import wait_for

LOOK = 0.1  # seconds between two looks at what costs the database something
NOTIFIED_SECONDS = 180


def warnings(server):
    lines = [json.loads(line) for line in server.text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["level"] in ("WARN", "ERROR")]


class Way:
    """The shop's own Notification must read nothing (EVENTS=off)."""

    def __init__(self, shop, broker):
        self.shop, self.broker = shop, broker
        self.prefix = unique("way")
        self.topic = f"{self.prefix}.billing.history_billings"
        self.servers = []
        broker.make_topic(self.topic)

    def started(self, server):
        self.servers.append(server)
        server.start()
        return server

    def spawned(self, server):
        """Starts it without waiting."""
        self.servers.append(server)
        server.spawn()
        return server

    def relay(self, **settings):
        return Relay(BILLING_DATABASE_URL=self.shop.database_url, KAFKA_BROKERS=self.broker.address,
                     KAFKA_TOPIC_PREFIX=self.prefix, **settings)

    def replica(self):
        return self.started(Server("notification", DATABASE_URL=self.shop.database_url, USER_URL=self.shop.base_url,
                                   WORKERS=1, EVENTS="kafka", KAFKA_BROKERS=self.broker.address, KAFKA_TOPIC=self.topic,
                                   KAFKA_GROUP=self.topic))

    def start_debezium(self, connect, **settings):
        """Its offsets are stored by prefix, so each path begins without any."""
        connect.register(self.shop.database_url, topic_prefix=self.prefix, **settings)

    @contextlib.contextmanager
    def publisher(self, name, connect=None):
        """The relay or Debezium, in its production configuration."""
        if name == "relay":
            relay = self.started(self.relay())
            yield relay
            relay.stop()
        else:
            self.start_debezium(connect)
            try:
                yield connect
            finally:
                connect.unregister()

    def close(self):
        for server in self.servers:
            server.end()
            server.check_log()

    # ---- the load, and what becomes of it ----

    def history(self):
        return self.shop.value("billing", "SELECT count(*) FROM billing.history_billings")

    def told(self):
        return self.shop.value("notification", "SELECT count(*) FROM notification.notifications")

    @contextlib.contextmanager
    def load(self, count, users=8):
        """Operations of several users, over concurrent connections. Yields a function that waits for a share of
        them."""
        accounts = [new_user(self.shop)["billingId"] for _ in range(users)]
        before = self.history()

        def wait(share, of=self.history):
            wait_for(f"{share} of the load", lambda: of() >= before + share * count, NOTIFIED_SECONDS * SLOWER, LOOK)

        with operations(self.shop.base_url, accounts, count):
            yield wait
        assert self.history() >= before + count

    def wait_notified(self, seconds=NOTIFIED_SECONDS):
        wait_for("a notification for each operation", lambda: self.told() >= self.history(), seconds * SLOWER, LOOK)

    def assert_sound(self):
        """Exactly one notification for each operation, in the order of each account."""
        self.wait_notified()
        self.shop.assert_sound()

    def slot_is_read(self):
        return self.shop.value("billing", "SELECT active FROM pg_replication_slots WHERE slot_name = 'billing_cdc'")

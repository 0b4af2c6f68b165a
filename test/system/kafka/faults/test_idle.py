"""A shortened hour in which Billing is idle and everything else is busy: with either reader the slot retains no WAL."""

import contextlib

import pytest

from harness.goods import new_user, refill
from harness.server import Server
from harness.wait import wait_for

# A busy hour's worth of log segments, most of which are switched to rather than filled.
SEGMENTS = 60
SEGMENT = 16 << 20
ROWS = 2000
READERS = ("wal", "relay", "debezium")


@contextlib.contextmanager
def reading(way, name, request):
    if name == "wal":
        server = way.started(Server("notification", DATABASE_URL=way.shop.database_url, USER_URL=way.shop.base_url,
                                    WORKERS=1, EVENTS="wal", BILLING_DATABASE_URL=way.shop.database_url))
        yield
        server.stop()
        return
    way.replica()
    connect = request.getfixturevalue("connect") if name == "debezium" else None
    with way.publisher(name, connect):
        yield


def held_back(way):
    """WAL that the server retains for the slot."""
    return way.shop.value("billing", "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) "
                          "FROM pg_replication_slots WHERE slot_name = 'billing_cdc'")


@pytest.mark.parametrize("reader", READERS)
def test_idle_hour_holds_back_no_wal(way, request, reader):
    databases = ["elsewhere", way.shop.database("billing")]  # of the same server, and the same database
    with contextlib.closing(way.shop.cluster.connect("postgres")) as db, db.cursor() as cursor:
        cursor.execute("DROP DATABASE IF EXISTS elsewhere")
    way.shop.cluster.create_database("elsewhere")
    with reading(way, reader, request), contextlib.ExitStack() as stack:
        wait_for("the slot to be read", way.slot_is_read, 60)
        others = [stack.enter_context(contextlib.closing(way.shop.cluster.connect(name))) for name in databases]
        cursors = [stack.enter_context(db.cursor()) for db in others]
        for cursor in cursors:
            cursor.execute("CREATE TABLE IF NOT EXISTS public.busy (n integer, t text)")
        start = way.shop.value("billing", "SELECT pg_current_wal_lsn()::text")
        for i in range(SEGMENTS):
            cursor = cursors[i % len(cursors)]
            cursor.execute("INSERT INTO public.busy SELECT n, repeat('x', 500) FROM generate_series(1, %s) n", [ROWS])
            cursor.execute("SELECT pg_switch_wal()")
            if i % 10 == 9:
                cursor.execute("CHECKPOINT")
                wait_for("the slot to follow", lambda: held_back(way) < SEGMENT, 30)
        assert way.shop.value("billing", "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), %s)", start) > (SEGMENTS - 2) * SEGMENT
        user = new_user(way.shop)
        assert refill(way.shop, user["billingId"], "1")
        way.assert_sound()

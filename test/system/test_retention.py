"""Expired rows are deleted, however many there are and however slow deletion is."""

import uuid

import pytest

from harness.check import ok
from harness.goods import payment, saga
from harness.server import SLOWER
from harness.shop import OneShop, opened
from harness.wait import wait_for

MANY = 12000  # at a millisecond each more than one statement may take
OLD_SAGAS = """
    INSERT INTO "order".saga (id, type, state, owner, input, created_at, finished_at)
    SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || substr(md5(n::text), 1, 20))::uuid,
           'order', 'SUCCEEDED', '', '{}', at, at
    FROM generate_series(1, %s) n, (SELECT now() - interval '2 hours' AS at) t"""
OLD_TRAIL = """
    INSERT INTO "order".saga_operation (id, saga_id, action) SELECT gen_random_uuid(), id, 'retry' FROM "order".saga"""
OLD_KEYS = """
    INSERT INTO payment.idempotency (key, fingerprint, status, body, created_at)
    SELECT 'old-' || n, '', 200, '{}', now() - interval '25 hours' FROM generate_series(1, %s) n"""


@pytest.fixture(scope="module")
def shop():
    with opened(OneShop(SAGA_RETENTION="1h", WORKERS=1)) as one:
        yield one
        one.assert_sound()
        one.stop()


def slow_down(shop, table):
    """Makes deleting a row take a millisecond."""
    shop.execute("order", f"""
        CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep(0.001); RETURN OLD; END $$;
        CREATE TRIGGER slow BEFORE DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION slow()""")


def count(shop, table):
    return shop.value("order", f"SELECT count(*) FROM {table}")


def test_old_sagas(shop):
    """Including the operators' commands; recent and unfinished sagas stay."""
    shop.server.stop()
    shop.execute("order", OLD_SAGAS, MANY)
    shop.execute("order", OLD_TRAIL)
    slow_down(shop, '"order".saga')
    shop.start()
    order = ok(shop.post("/order/order/saga", saga()))[0]["id"]
    wait_for("the old ones to be gone", lambda: count(shop, '"order".saga') == 1, 90 * SLOWER, pause=0.2)
    assert ok(shop.get(f"/order/saga/{order}"))["state"] == "SUCCEEDED"
    assert count(shop, '"order".saga_operation') == 0


def test_old_keys(shop):
    """Keys of the last day stay, and those whose request has not ended."""
    key, body = str(uuid.uuid4()), payment()
    first = ok(shop.post("/payment/payment", body, key=key))
    shop.server.stop()
    shop.execute("payment", OLD_KEYS, MANY)
    shop.execute("payment", "UPDATE payment.idempotency SET status = 0 WHERE key = 'old-1'")
    slow_down(shop, "payment.idempotency")
    shop.start()
    wait_for("the old ones to be gone", lambda: count(shop, "payment.idempotency") == 2, 90 * SLOWER, pause=0.2)
    assert ok(shop.post("/payment/payment", body, key=key)) == first
    shop.execute("payment", "DELETE FROM payment.idempotency WHERE key = 'old-1'")

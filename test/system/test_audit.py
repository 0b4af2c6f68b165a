"""`skald audit`: clean on a used shop, and each broken rule is found, with the row."""

import contextlib
import uuid

import pytest

from harness.check import ok, problem
from harness.goods import buy, line, new_user, past, refill, saga, set_slot, set_stock
from harness.shop import OneShop, opened

SAGA = "/order/order/saga"


@pytest.fixture(scope="module")
def used():
    """A used shop, stopped, so that nothing repairs what a test breaks."""
    with opened(OneShop()) as shop:
        user = new_user(shop)
        refill(shop, user["billingId"], "1000")
        buy(shop, user["billingId"], "1.5")
        buy(shop, user["billingId"], "5000")
        shop.item, shop.slot, shop.account = set_stock(shop, 10), set_slot(shop, 3), user["billingId"]
        lines = [line(shop.item, 2, 10), line("made to order", 1, 5)]
        shop.good = ok(shop.post(SAGA, saga(lines, shop.slot, shop.account)))
        shop.good_order = shop.good[0]["id"]
        ok(shop.post(SAGA, saga()))
        shop.bad_order = refunded_order(shop, lines)
        shop.settle()
        shop.stop()
        yield shop


def refunded_order(shop, lines):
    """An order that was rolled back after its money had been taken."""
    refunds = "SELECT count(*) FROM billing.history_billings WHERE type_operation = 'REFUND'"
    for _ in range(200):
        order = problem(shop.post(SAGA, saga(lines, past(), shop.account)), 424)["orderId"]
        if shop.value("billing", refunds):
            return order
    raise AssertionError("the delivery was always refused before the money was taken")


@contextlib.contextmanager
def changed(shop, tables, statements):
    """Executes the statements, and restores the tables after the test."""
    saved = {name: shop.value("order", f"SELECT coalesce(jsonb_agg(to_jsonb(t)), '[]')::text FROM {name} t")
             for name in tables}
    try:
        for sql, *values in statements:
            assert shop.execute("order", sql, *values) == 1, (sql, values)
        yield
    finally:
        for name in tables:
            shop.execute("order", f"TRUNCATE {name}")
            shop.execute("order", f"INSERT INTO {name} OVERRIDING SYSTEM VALUE "
                         f"SELECT * FROM jsonb_populate_recordset(NULL::{name}, %s::jsonb)", saved[name])


def test_used_shop_is_clean(used):
    done = used.audit()
    assert done.returncode == 0, done.stdout + done.stderr


def assert_found(shop, *marks):
    done = shop.audit()
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    for mark in marks:
        assert mark in said, (mark, said)


ORDERS, SAGAS = '"order".orders', '"order".saga'
PAYMENTS, LINES, DELIVERIES = "payment.payments", "warehouse.reservations", "delivery.deliveries"
ACCOUNTS, HISTORY, NOTES = "billing.accounts", "billing.history_billings", "notification.notifications"

# What is broken: the tables concerned, and statements with the order's id for %s.
GOOD_ORDER_BREAKS = {
    "order of an ended saga still pending": ([ORDERS], ["UPDATE \"order\".orders SET status = 'PENDING' WHERE id = %s"]),
    "order canceled though its saga succeeded": ([ORDERS], ["UPDATE \"order\".orders SET status = 'CANCELED' WHERE id = %s"]),
    "payment missing": ([PAYMENTS], ["DELETE FROM payment.payments WHERE order_id = %s"]),
    "payment canceled": ([PAYMENTS], ["UPDATE payment.payments SET status = 'CANCELED' WHERE order_id = %s"]),
    "payment over another sum": ([PAYMENTS], ["UPDATE payment.payments SET cost = cost + 0.01 WHERE order_id = %s"]),
    "payment twice": ([PAYMENTS], ["INSERT INTO payment.payments SELECT gen_random_uuid(), order_id, cost, status "
                                   "FROM payment.payments WHERE order_id = %s"]),
    "delivery missing": ([DELIVERIES], ["DELETE FROM delivery.deliveries WHERE order_id = %s"]),
    "delivery canceled": ([DELIVERIES, "delivery.slots"],
                          ["WITH gone AS (UPDATE delivery.deliveries SET status = 'CANCELED' WHERE order_id = %s "
                           "RETURNING time_delivery) UPDATE delivery.slots s SET taken = taken - 1 FROM gone "
                           "WHERE s.time_delivery = gone.time_delivery"]),
    "delivery twice": ([DELIVERIES], ["INSERT INTO delivery.deliveries SELECT gen_random_uuid(), order_id, "
                                      "time_delivery, status, false FROM delivery.deliveries WHERE order_id = %s"]),
    "line missing": ([LINES], ["DELETE FROM warehouse.reservations WHERE order_id = %s AND NOT from_stock"]),
    "line canceled": ([LINES], ["UPDATE warehouse.reservations SET status = 'CANCELED' "
                                "WHERE order_id = %s AND NOT from_stock"]),
    "line of another amount": ([LINES], ["UPDATE warehouse.reservations SET amount = amount + 1 "
                                         "WHERE order_id = %s AND NOT from_stock"]),
    "line twice": ([LINES], ["INSERT INTO warehouse.reservations SELECT gen_random_uuid(), order_id, item, amount, status, "
                             "false FROM warehouse.reservations WHERE order_id = %s AND NOT from_stock"]),
}

BAD_ORDER_BREAKS = {
    "order pending": ([ORDERS], ["UPDATE \"order\".orders SET status = 'PENDING' WHERE id = %s"]),
    "order successful though rolled back": ([ORDERS], ["UPDATE \"order\".orders SET status = 'SUCCESS' WHERE id = %s"]),
    "payment not canceled": ([PAYMENTS], ["UPDATE payment.payments SET status = 'SUCCESS' WHERE order_id = %s"]),
    "delivery not canceled": ([DELIVERIES], ["UPDATE delivery.deliveries SET status = 'SCHEDULED', in_slot = false "
                                             "WHERE order_id = %s"]),
    "line not canceled": ([LINES], ["UPDATE warehouse.reservations SET status = 'RESERVED', from_stock = false "
                                    "WHERE order_id = %s AND item = 'made to order'"]),
}


@pytest.mark.parametrize("tables,statements", GOOD_ORDER_BREAKS.values(), ids=GOOD_ORDER_BREAKS)
def test_successful_order(used, tables, statements):
    with changed(used, tables, [(sql, used.good_order) for sql in statements]):
        assert_found(used, used.good_order)
    assert used.audit().returncode == 0


@pytest.mark.parametrize("tables,statements", BAD_ORDER_BREAKS.values(), ids=BAD_ORDER_BREAKS)
def test_canceled_order(used, tables, statements):
    with changed(used, tables, [(sql, used.bad_order) for sql in statements]):
        assert_found(used, used.bad_order)
    assert used.audit().returncode == 0


def test_saga_that_never_ended(used):
    """It is not in flight either: its lease has expired."""
    lost = str(uuid.uuid4())
    with changed(used, [ORDERS, '"order".contents', SAGAS], [
        ("INSERT INTO \"order\".orders VALUES (%s, 'PENDING', true)", lost),
        ("INSERT INTO \"order\".contents VALUES (%s, 0, 'phone', 1, 5)", lost),
    ]):
        assert_found(used, lost)


def test_refund_that_is_missing(used):
    """Wallet and history agree, but the money was not refunded."""
    with changed(used, [ACCOUNTS, HISTORY], [
        ("UPDATE billing.accounts a SET wallet = wallet - h.sum FROM billing.history_billings h "
         "WHERE h.type_operation = 'REFUND' AND a.id = h.billing_id AND a.id = %s", used.account),
        ("DELETE FROM billing.history_billings WHERE type_operation = 'REFUND' AND billing_id = %s", used.account),
    ]):
        assert_found(used)


def test_refund_that_came_twice(used):
    with changed(used, [ACCOUNTS, HISTORY, NOTES], [
        ("UPDATE billing.accounts a SET wallet = wallet + h.sum FROM billing.history_billings h "
         "WHERE h.type_operation = 'REFUND' AND a.id = h.billing_id AND a.id = %s", used.account),
        ("INSERT INTO billing.history_billings SELECT gen_random_uuid(), billing_id, sum, current_value_wallet, "
         "current_value_wallet + sum, type_operation, status FROM billing.history_billings WHERE "
         "type_operation = 'REFUND' AND billing_id = %s", used.account),
    ]):
        assert_found(used)


@pytest.mark.parametrize("change", ["available + 1", "available - 1"])
def test_stock_that_is_not_what_was_put_there(used, change):
    """Available and reserved stock must change together."""
    with changed(used, ["warehouse.stock"], [
        (f"UPDATE warehouse.stock SET available = {change}, reserved = reserved + 1 WHERE item = %s", used.item),
    ]):
        assert_found(used, used.item)


def test_stock_reserved_for_nobody(used):
    with changed(used, ["warehouse.stock"], [("UPDATE warehouse.stock SET reserved = 0 WHERE item = %s", used.item)]):
        assert_found(used, used.item)


@pytest.mark.parametrize("change", ["0", "taken + 1"])
def test_slot_that_does_not_count_its_deliveries(used, change):
    with changed(used, ["delivery.slots"], [
        (f"UPDATE delivery.slots SET taken = {change} WHERE time_delivery = %s", used.slot),
    ]):
        assert_found(used, used.slot[:10])


@pytest.mark.parametrize("change", ["wallet + 0.01", "wallet - 0.01", "0"])
def test_wallet_that_is_not_its_history(used, change):
    with changed(used, [ACCOUNTS], [(f"UPDATE billing.accounts SET wallet = {change} WHERE id = %s", used.account)]):
        assert_found(used, used.account)


def test_history_row_that_does_not_add_up(used):
    with changed(used, [HISTORY], [("UPDATE billing.history_billings SET current_value_wallet = current_value_wallet + 1 "
                                    "WHERE type_operation = 'REFILL' AND billing_id = %s", used.account)]):
        assert_found(used, used.account)


def test_account_whose_history_is_gone(used):
    lost = str(uuid.uuid4())
    with changed(used, [ACCOUNTS], [("INSERT INTO billing.accounts VALUES (%s, 5)", lost)]):
        assert_found(used, lost)


def test_history_row_without_its_notification(used):
    row = used.query("billing", "SELECT id::text FROM billing.history_billings WHERE type_operation = 'REFILL'")[0][0]
    with changed(used, [NOTES], [("DELETE FROM notification.notifications WHERE history_id = %s", row)]):
        assert_found(used, row)


def test_notification_of_nothing(used):
    row = str(uuid.uuid4())
    with changed(used, [NOTES], [("INSERT INTO notification.notifications (id, history_id, message) "
                                  "VALUES (gen_random_uuid(), %s, 'x')", row)]):
        assert_found(used, row)


def test_notifications_in_another_order_than_the_operations(used):
    row = used.query("billing", "SELECT id::text FROM billing.history_billings WHERE type_operation = 'REFILL'")[0][0]
    with changed(used, [NOTES], [("UPDATE notification.notifications SET lsn = -1 WHERE history_id = %s", row)]):
        assert_found(used, f"right after row {row}")
    assert used.audit().returncode == 0


def test_audit_without_a_database(used):
    done = used.run("audit")
    assert done.returncode == 0
    used.cluster.stop()
    try:
        done = used.run("audit")
        assert done.returncode != 0, done.stdout
        assert "order" in done.stdout + done.stderr, "it says what it could not see"
    finally:
        used.restart_database()

"""Seven services in separate processes, each with its own database: the same behaviour."""

import contextlib
import time
import uuid

import pytest

from harness.check import done, ok, problem
from harness.goods import (buy, history, line, new_account, new_user, past, payment, person, refill, saga, set_slot,
                           set_stock, stock, taken, wallet)
from harness.server import SLOWER, Server
from harness.shop import SERVICES, SevenShops, opened
from harness.wait import wait_for

SAGA = "/order/order/saga"


@pytest.fixture(scope="module")
def seven():
    with opened(SevenShops(REQUEST_TIMEOUT="6s")) as shops:
        yield shops
        shops.assert_sound()
        shops.stop()


@pytest.fixture(autouse=True)
def all_there(seven):
    yield
    for server in seven.servers.values():
        assert server.is_healthy(), server


def test_each_has_its_own_database(seven):
    for name in SERVICES:
        assert seven.tables(name)
        assert seven.value(name, "SELECT count(DISTINCT schemaname) FROM pg_tables WHERE schemaname NOT IN "
                           "('pg_catalog', 'information_schema', 'public')") == 1


def test_good_order(seven):
    account, item, when = new_account(seven, 1000), set_stock(seven, 5), set_slot(seven, 2)
    order, paid, delivery, items = ok(seven.post(SAGA, saga([line(item, 2)], when, account)))
    assert ok(seven.get(f"/order/order/{order['id']}")) == order
    assert ok(seven.get(f"/payment/payment/{paid['id']}")) == paid
    assert ok(seven.get(f"/delivery/delivery/{delivery['id']}")) == delivery
    assert [ok(seven.get(f"/warehouse/warehouse/{one['id']}")) for one in items] == items
    assert float(wallet(seven, account)) == 753.1 and stock(seven, item) == (3, 2) and taken(seven, when) == 1


@pytest.mark.parametrize("step", ["payment", "warehouse", "delivery"])
def test_failing_order(seven, step):
    account, item = new_account(seven, 1 if step == "payment" else 1000), set_stock(seven, 1 if step == "warehouse" else 5)
    answer = seven.post(SAGA, saga([line(item, 2)], past() if step == "delivery" else None, account))
    body = problem(answer, 424)
    assert body["step"] == step
    assert ok(seven.get(f"/order/order/{body['orderId']}"))["status"] == "CANCELED"
    assert wallet(seven, account) == (1 if step == "payment" else 1000)
    assert stock(seven, item) == (1 if step == "warehouse" else 5, 0)
    kinds = [kind for kind, status in history(seven, account) if status == "SUCCESS"]
    assert kinds.count("BUY") == kinds.count("REFUND")


def test_four_notifications(seven):
    user = new_user(seven)
    refill(seven, user["billingId"], "100")
    assert buy(seven, user["billingId"], "48.7") is True
    assert buy(seven, user["billingId"], "333.33") is False
    path = f"/notification/notification/{user['id']}"
    wait_for("4 notifications", lambda: len(ok(seven.get(path))) >= 4, 2 * SLOWER)
    assert len(ok(seven.get(path))) == 4


@contextlib.contextmanager
def away(seven, name):
    """Kills the process, and restarts it after the block."""
    seven.servers[name].kill()
    try:
        yield
    finally:
        seven.servers[name].start()


def frozen(seven, name):
    return seven.servers[name].frozen()


def state(seven, order):
    return ok(seven.get(f"/order/saga/{order}"))["state"]


@pytest.mark.parametrize("name,gone", [("payment", away), ("payment", frozen), ("billing", frozen), ("warehouse", away)])
def test_participant_that_is_gone_for_long(seven, name, gone):
    """The order is rolled back, and the participant's possible action is compensated when it is back: not a cent is
    lost."""
    account, item = new_account(seven, 1000), set_stock(seven, 5)
    with gone(seven, name):
        accepted = seven.post(SAGA, saga([line(item, 2)], account=account), Prefer="respond-async")
        assert accepted.status == 202, accepted
        order = accepted.headers["location"].rsplit("/", 1)[1]
        wait_for("the rollback", lambda: state(seven, order) == "COMPENSATING", 20 * SLOWER)
        view = ok(seven.get(f"/order/saga/{order}"))
        assert view["failedStep"] == ("payment" if name == "billing" else name)
    wait_for("the saga's end", lambda: state(seven, order) == "COMPENSATED", 30 * SLOWER)
    assert ok(seven.get(f"/order/order/{order}"))["status"] == "CANCELED"
    assert wallet(seven, account) == 1000
    assert stock(seven, item) == (5, 0)


def test_participant_that_is_gone_for_a_moment(seven):
    """It is retried until it is back, and the order succeeds."""
    with away(seven, "delivery"):
        accepted = seven.post(SAGA, saga(), Prefer="respond-async")
        order = accepted.headers["location"].rsplit("/", 1)[1]
        assert state(seven, order) == "RUNNING"
    wait_for("the saga's end", lambda: state(seven, order) in ("SUCCEEDED", "COMPENSATED"), 30 * SLOWER)
    assert state(seven, order) == "SUCCEEDED"


@pytest.mark.timed
def test_others_go_on_beside_one_that_is_frozen(seven):
    with frozen(seven, "delivery"):
        began = time.monotonic()
        ok(seven.post("/payment/payment", payment()))
        ok(seven.get("/warehouse/stock/" + set_stock(seven, 1)))
        new_user(seven)
        assert time.monotonic() - began < 2 * SLOWER


def test_registration_without_billing_leaves_no_user_behind(seven):
    """Neither a user without an account nor an account without a user, whatever the response was."""
    body = person()
    with away(seven, "billing"):
        answer = seven.post("/user/user", body)
        assert answer.status in (503, 504), answer
        problem(answer, answer.status)
    seven.settle()
    users = seven.query("user", 'SELECT billing_id::text, registered FROM "user".users WHERE name = %s', body["name"])
    assert all(registered for _, registered in users)
    for account, _ in users:
        assert ok(seven.get(f"/billing/billing/{account}"))["wallet"] == 0
    known = {row[0] for row in seven.query("user", 'SELECT billing_id::text FROM "user".users')}
    opened_by_registration = {row[0] for row in seven.query(
        "billing", "SELECT s.billing_id::text FROM billing.step s JOIN billing.accounts a ON a.id = s.billing_id "
        "WHERE s.sum = 0")}
    assert opened_by_registration <= known


def test_registration_is_repeated_under_its_key(seven):
    body, key = person(), str(uuid.uuid4())
    with frozen(seven, "billing"):
        with contextlib.suppress(OSError):
            seven.post("/user/user", body, key=key, timeout=1)
    seven.settle()
    user = ok(wait_for("an answer", lambda: answered(seven.post("/user/user", body, key=key)), 20 * SLOWER))
    assert done(seven.put(f"/billing/billing/refill/{user['billingId']}/5"))
    assert seven.value("user", 'SELECT count(*) FROM "user".users WHERE name = %s', body["name"]) == 1


def answered(answer):
    return answer if answer.status == 200 else None


def test_notifications_wait_for_their_service(seven):
    with away(seven, "notification"):
        user = new_user(seven)
        for _ in range(10):
            refill(seven, user["billingId"], "1")
    wait_for("11 notifications", lambda: len(ok(seven.get(f"/notification/notification/{user['id']}"))) == 11, 10 * SLOWER)


def test_notifications_wait_for_the_user_service(seven):
    user = new_user(seven)
    with away(seven, "user"):
        refill(seven, user["billingId"], "1")
    wait_for("2 notifications", lambda: len(ok(seven.get(f"/notification/notification/{user['id']}"))) == 2, 20 * SLOWER)


def test_order_service_dies_in_the_middle(seven):
    account = new_account(seven, 1000)
    orders = []
    for _ in range(5):
        accepted = [seven.post(SAGA, saga([line(price=1)], account=account), Prefer="respond-async") for _ in range(5)]
        orders += [one.headers["location"].rsplit("/", 1)[1] for one in accepted]
        seven.servers["order"].kill()
        seven.servers["order"].start()
    for order in orders:
        wait_for("the saga's end", lambda o=order: state(seven, o) == "SUCCEEDED", 30 * SLOWER)
    assert wallet(seven, account) == 975


def test_ending_order_process_hands_its_sagas_over(seven):
    """Takeover does not wait for the lease, which is longer than the test."""
    settings = seven.settings() | {"SAGA_LEASE": "60s", "DRAIN_TIMEOUT": "1s"}
    leaving, staying = Server("order", **settings), Server("order", **settings)
    try:
        leaving.start()
        with away(seven, "delivery"):
            accepted = leaving.client.post(SAGA, saga(), Prefer="respond-async")
            order = accepted.headers["location"].rsplit("/", 1)[1]
            owner = seven.value("order", 'SELECT owner FROM "order".saga WHERE id = %s', order)
            assert f":{leaving.port}/" in owner
            staying.start()
            leaving.stop()
            assert "unfinished sagas" in leaving.text()
        wait_for("the saga's end", lambda: state(seven, order) in ("SUCCEEDED", "COMPENSATED"), 30 * SLOWER)
        owner = seven.value("order", 'SELECT owner FROM "order".saga WHERE id = %s', order)
        assert f":{leaving.port}/" not in owner
        staying.stop()
    finally:
        leaving.end()
        staying.end()


def test_ending_order_process_finishes_what_it_can(seven):
    """A saga without a waiting client is finished as well."""
    leaving = Server("order", **seven.settings() | {"SAGA_LEASE": "600s"})
    try:
        leaving.start()
        locations = [leaving.client.post(SAGA, saga(), Prefer="respond-async").headers["location"] for _ in range(20)]
        leaving.stop()
    finally:
        leaving.end()
    states = [state(seven, location.rsplit("/", 1)[1]) for location in locations]
    assert states == ["SUCCEEDED"] * 20

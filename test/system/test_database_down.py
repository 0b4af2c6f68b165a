"""PostgreSQL goes down and comes back: fast 503s meanwhile, nothing lost, and no restart of the shop needed."""

import concurrent.futures
import threading
import time
import uuid

import pytest

from harness.check import ok, problem
from harness.goods import line, new_account, new_user, order, payment, person, saga, set_stock, stock, wallet
from harness.server import SLOWER
from harness.shop import OneShop, opened
from harness.wait import wait_for

HEAL_SECONDS = 15
WITHIN_SECONDS = 1


@pytest.fixture(scope="module")
def shop():
    with opened(OneShop(REQUEST_TIMEOUT="5s")) as one:
        yield one
        one.assert_sound()
        one.stop()


REQUESTS = [
    ("GET", f"/order/order/{uuid.uuid4()}", None), ("POST", "/order/order", order()), ("POST", "/order/order/saga", saga()),
    ("POST", "/payment/payment", payment()), ("GET", f"/payment/payment/{uuid.uuid4()}", None),
    ("DELETE", f"/delivery/delivery/{uuid.uuid4()}", None), ("GET", "/warehouse/stock/phone", None),
    ("POST", "/user/user", person()), ("PUT", f"/billing/billing/refill/{uuid.uuid4()}/5", None),
    ("PUT", f"/billing/billing/{uuid.uuid4()}/5", None), ("GET", f"/notification/notification/{uuid.uuid4()}", None),
    ("GET", "/order/saga", None), ("GET", "/health", None),
]


def assert_refuses(shop):
    """Checks that everything returns 503 with Retry-After within a second."""
    for method, path, body in REQUESTS:
        began = time.monotonic()
        answer = shop.request(method, path, body, key=str(uuid.uuid4()) if body else None)
        took = time.monotonic() - began
        problem(answer, 503)
        assert int(answer.headers["retry-after"]) >= 1, answer
        assert took < WITHIN_SECONDS * SLOWER, (path, took)


def healthy(shop):
    return shop.server.is_healthy()


@pytest.mark.timed
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_away_and_back(shop, how):
    user = new_user(shop)
    assert ok(shop.put(f"/billing/billing/refill/{user['billingId']}/10"))["status"]
    made = ok(shop.post("/order/order/saga", saga()))
    pids = shop.server.pids()
    shop.forget_connections()
    getattr(shop.cluster, how)()
    wait_for("the news to arrive", lambda: not healthy(shop), WITHIN_SECONDS * SLOWER)
    assert_refuses(shop)
    assert shop.get("/metrics").status == 200
    shop.restart_database()
    wait_for("health", lambda: healthy(shop), HEAL_SECONDS)
    assert shop.server.pids() == pids, "nothing was restarted"
    assert ok(shop.get(f"/order/order/{made[0]['id']}")) == made[0]
    assert wallet(shop, user["billingId"]) == 10
    ok(shop.post("/order/order/saga", saga(account=user["billingId"], contents=[line(price=1)])))
    shop.settle()
    # Their users may have been looked up while the database was down; the lookup is retried.
    wait_for("three notifications", lambda: len(ok(shop.get(f"/notification/notification/{user['id']}"))) == 3,
             HEAL_SECONDS)


@pytest.mark.timed
def test_start_without_a_database(shop):
    """It starts, reports unready, and recovers."""
    shop.stop()
    shop.forget_connections()
    shop.cluster.stop()
    shop.server.spawn()
    wait_for("an answer", lambda: answers(shop), 10 * SLOWER)
    problem(shop.get("/health"), 503)
    assert_refuses(shop)
    shop.restart_database()
    wait_for("health", lambda: healthy(shop), HEAL_SECONDS)
    ok(shop.post("/order/order/saga", saga()))


def answers(shop):
    try:
        return shop.get("/health").status
    except OSError:
        return None


@pytest.mark.timed
def test_frozen_database_holds_nobody_for_ever(shop):
    """It neither responds nor disconnects, as when its disk hangs."""
    with shop.cluster.frozen():
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers_ = list(pool.map(lambda _: shop.post("/payment/payment", payment()), range(8)))
        took = time.monotonic() - began
    for answer in answers_:
        assert answer.status in (503, 504), answer
        problem(answer, answer.status)
    assert took < 5 + 2 * SLOWER
    wait_for("health", lambda: healthy(shop), HEAL_SECONDS)
    ok(shop.post("/payment/payment", payment()))


def test_away_and_back_under_load(shop):
    """Acknowledged orders persist; the outcome of the others is found by their key."""
    account, item = new_account(shop, 100000), set_stock(shop, 100000)
    body = saga([line(item, 1, 1)], account=account)
    sent, ended = [], threading.Event()

    def work(_):
        while not ended.is_set():
            key = str(uuid.uuid4())
            answer = shop.post("/order/order/saga", body, key=key)
            sent.append((key, answer))
            if answer.status == 503:
                ended.wait(0.1)  # no busy loop while the shop refuses

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        workers = [pool.submit(work, i) for i in range(8)]
        try:
            for how in ("stop", "kill"):
                count = succeeded(sent)
                wait_for("sagas", lambda c=count: succeeded(sent) > c + 20, 30 * SLOWER)
                shop.forget_connections()
                getattr(shop.cluster, how)()
                wait_for("refusals", lambda: sent[-1][1].status == 503, 10)
                shop.restart_database()
                wait_for("health", lambda: healthy(shop), HEAL_SECONDS)
        finally:
            ended.set()
        for worker in workers:
            worker.result()
    assert {answer.status for _, answer in sent} <= {200, 202, 409, 503, 504, 424}
    shop.settle()
    orders = set()
    def nothing_done(answer):
        """Whether this problem guarantees that nothing was done. A sample of those is retried; any other may have
        become an order."""
        return answer.status == 503 and answer.json["type"] == "urn:skald:problem:unavailable"

    refused = [pair for pair in sent if nothing_done(pair[1])]
    told = [pair for pair in sent if not nothing_done(pair[1])]
    for key, answer in told + refused[:: max(1, len(refused) // 100)]:
        again = shop.post("/order/order/saga", body, key=key)
        assert again.status in (200, 424), again
        if answer.status == 200:
            assert again.body == answer.body
        if again.status == 200:
            orders.add(again.json[0]["id"])
    shop.settle()
    assert wallet(shop, account) == 100000 - len(orders)
    assert stock(shop, item) == (100000 - len(orders), len(orders))
    shop.assert_sound()


def succeeded(sent):
    return sum(answer.status == 200 for _, answer in sent)

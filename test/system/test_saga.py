"""The order's saga: all of it, or none of it."""

import concurrent.futures
import uuid
from decimal import Decimal

import pytest

from harness.check import ROLLED_BACK, is_uuid, next_page, ok, pages, problem
from harness.goods import (future, history, line, new_account, past, saga, set_slot, set_stock, stock, taken,
                           wallet)
from harness.server import SLOWER
from harness.wait import wait_for

PATH = "/order/order/saga"
ENDED = {"SUCCEEDED", "COMPENSATED"}


def participants(shop, order):
    """The statuses of all payments, reservations and deliveries of an order."""
    return {service: [row[0] for row in shop.query(service, f"SELECT status FROM {service}.{table} WHERE order_id = %s",
                                                   order)]
            for service, table in (("payment", "payments"), ("warehouse", "reservations"), ("delivery", "deliveries"))}


def assert_nothing_holds(shop, order):
    """Checks that everything the saga created is canceled."""
    assert ok(shop.get(f"/order/order/{order}"))["status"] == "CANCELED"
    for service, statuses in participants(shop, order).items():
        assert not {"SUCCESS", "RESERVED", "SCHEDULED"} & set(statuses), (service, statuses)


def rolled_back(shop, answer, step):
    """The body of a 424 caused by this step."""
    body = problem(answer, 424)
    assert body["status"] == ROLLED_BACK
    assert body["step"] == step
    assert body["reason"]
    assert_nothing_holds(shop, body["orderId"])
    return body


def test_success(shop):
    when = future().removesuffix(":00")
    lines = [line("phone", 2, 123.45), line("case", 3, 0.1), line("gift", 1, 0)]
    order, payment, delivery, items = ok(shop.post(PATH, saga(lines, when)))
    assert set(order) == {"id", "contents", "status"} and order["status"] == "SUCCESS"
    assert [(one["item"], one["amount"], one["price"]) for one in order["contents"]] == [
        ("phone", 2, Decimal("123.45")), ("case", 3, Decimal("0.1")), ("gift", 1, 0)]
    assert payment == {"id": payment["id"], "orderId": order["id"], "cost": Decimal("247.2"), "status": "SUCCESS"}
    assert delivery == {"id": delivery["id"], "orderId": order["id"], "timeDelivery": when.removesuffix(":00"),
                        "status": "SCHEDULED"}
    assert items == [{"id": one["id"], "orderId": order["id"], "item": name, "status": "RESERVED"}
                     for one, name in zip(items, ["phone", "case", "gift"])] and len(items) == 3
    assert all(is_uuid(one["id"]) for one in (order, payment, delivery, *items, *order["contents"]))
    assert ok(shop.get(f"/order/order/{order['id']}")) == order
    assert ok(shop.get(f"/payment/payment/{payment['id']}")) == payment
    assert ok(shop.get(f"/delivery/delivery/{delivery['id']}")) == delivery
    assert [ok(shop.get(f"/warehouse/warehouse/{one['id']}")) for one in items] == items


def test_answer_is_complete_at_once(shop):
    """Everything in the response is stored before it is sent."""
    for _ in range(20):
        order = ok(shop.post(PATH, saga([line(), line()])))[0]["id"]
        assert participants(shop, order) == {"payment": ["SUCCESS"], "warehouse": ["RESERVED"] * 2,
                                             "delivery": ["SCHEDULED"]}
        assert ok(shop.get(f"/order/order/{order}"))["status"] == "SUCCESS"


def test_lines_of_one_item(shop):
    item = set_stock(shop, 10)
    items = ok(shop.post(PATH, saga([line(item, 1), line(item, 2), line(item, 3)])))[3]
    assert len({one["id"] for one in items}) == 3
    assert stock(shop, item) == (4, 6)


def test_longest_order(shop):
    lines = [line(f"item {i}", i + 1, i) for i in range(500)]
    order, payment, _, items = ok(shop.post(PATH, saga(lines)))
    assert payment["cost"] == sum((i + 1) * i for i in range(500))
    assert [one["item"] for one in items] == [one["item"] for one in order["contents"]] == [one["item"] for one in lines]


def test_wallet_is_charged(shop):
    account = new_account(shop, 300)
    ok(shop.post(PATH, saga([line(amount=2)], account=account)))
    assert wallet(shop, account) == Decimal("53.1")
    assert history(shop, account) == [("CREATE", "SUCCESS"), ("BUY", "SUCCESS")]


def test_wallet_may_be_emptied(shop):
    account = new_account(shop, 123.45)
    ok(shop.post(PATH, saga(account=account)))
    assert wallet(shop, account) == 0


def resources(shop):
    """A sufficient wallet, item and slot."""
    return new_account(shop, 1000), set_stock(shop, 10), set_slot(shop, 2)


def assert_untouched(shop, account, item, when):
    assert wallet(shop, account) == 1000
    assert stock(shop, item) == (10, 0)
    assert taken(shop, when) == 0


def assert_refunded_once(shop, account):
    """The money may or may not have been taken before another step failed; in either case it must be back."""
    operations = history(shop, account)[1:]
    assert operations in ([], [("BUY", "SUCCESS"), ("REFUND", "SUCCESS")])


def test_time_in_the_past(shop):
    account, item, when = resources(shop)
    body = rolled_back(shop, shop.post(PATH, saga([line(item, 2)], past(), account)), "delivery")
    assert "future" in body["reason"]
    assert_untouched(shop, account, item, when)
    assert_refunded_once(shop, account)


def test_slot_that_is_full(shop):
    account, item, when = resources(shop)
    full = set_slot(shop, 1)
    ok(shop.post(PATH, saga(when=full)))
    rolled_back(shop, shop.post(PATH, saga([line(item, 2)], full, account)), "delivery")
    assert_untouched(shop, account, item, when)
    assert_refunded_once(shop, account)
    assert taken(shop, full) == 1


def test_stock_that_is_short(shop):
    account, item, when = resources(shop)
    short = set_stock(shop, 1)
    body = rolled_back(shop, shop.post(PATH, saga([line(item, 2), line(short, 2)], when, account)), "warehouse")
    assert short in body["reason"]
    assert_untouched(shop, account, item, when)
    assert_refunded_once(shop, account)
    assert stock(shop, short) == (1, 0)


def test_wallet_that_holds_too_little(shop):
    account, item, when = resources(shop)
    poor = new_account(shop, 246.89)
    rolled_back(shop, shop.post(PATH, saga([line(item, 2)], when, poor)), "payment")
    assert_untouched(shop, account, item, when)
    assert wallet(shop, poor) == Decimal("246.89")
    assert history(shop, poor) == [("CREATE", "SUCCESS"), ("BUY", "FAILED")]


def test_wallet_that_does_not_exist(shop):
    account, item, when = resources(shop)
    rolled_back(shop, shop.post(PATH, saga([line(item, 2)], when, str(uuid.uuid4()))), "payment")
    assert_untouched(shop, account, item, when)


def test_everything_fails_at_once(shop):
    poor, short = new_account(shop, 1), set_stock(shop, 0)
    body = problem(shop.post(PATH, saga([line(short)], past(), poor)), 424)
    assert body["step"] in ("payment", "warehouse", "delivery")
    assert_nothing_holds(shop, body["orderId"])
    assert wallet(shop, poor) == 1 and stock(shop, short) == (0, 0)


def test_rolled_back_money_comes_back_every_time(shop):
    """Repeated, because the progress at the time of the failure differs each time."""
    account = new_account(shop, 200)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: shop.post(PATH, saga(when=past(), account=account)), range(40)))
    assert {answer.status for answer in answers} == {424}
    assert wallet(shop, account) == 200
    bought = history(shop, account).count(("BUY", "SUCCESS"))
    assert history(shop, account).count(("REFUND", "SUCCESS")) == bought


def test_many_orders_for_too_little_of_everything(shop):
    account, item, when = new_account(shop, 70), set_stock(shop, 9), set_slot(shop, 8)
    body = saga([line(item, 1, 10)], when, account)
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: shop.post(PATH, body), range(32)))
    shop.settle()
    succeeded = [answer for answer in answers if answer.status == 200]
    assert {answer.status for answer in answers} == {200, 424}
    count = len(succeeded)
    assert 1 <= count <= 7
    assert wallet(shop, account) == 70 - 10 * count
    assert stock(shop, item) == (9 - count, count)
    assert taken(shop, when) == count
    for answer in answers:
        if answer.status == 424:
            assert_nothing_holds(shop, answer.json["orderId"])


def test_last_piece_goes_to_exactly_one(shop):
    """Only stock is scarce, so no rollback returns an item that another order could have taken."""
    item = set_stock(shop, 5)
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: shop.post(PATH, saga([line(item)])), range(16)))
    assert sorted(answer.status for answer in answers) == [200] * 5 + [424] * 11
    assert stock(shop, item) == (0, 5)


def poll(shop, location):
    """Waits for the saga's end and returns it."""
    def ended():
        view = ok(shop.get(location))
        return view if view["state"] in ENDED else None
    return wait_for(f"the end of {location}", ended, 20 * SLOWER)


@pytest.mark.parametrize("prefer", ["respond-async", "respond-async, wait=10", "wait=10,  RESPOND-ASYNC", "x, respond-async"])
def test_async_answer(shop, prefer):
    answer = shop.post(PATH, saga(), Prefer=prefer)
    assert answer.status == 202, answer
    location = answer.headers["location"]
    assert location.startswith("/order/saga/")
    view = poll(shop, location)
    assert view["state"] == "SUCCEEDED" and view["id"] == location.rsplit("/", 1)[1]
    assert ok(shop.get(f"/order/order/{view['id']}"))["status"] == "SUCCESS"


@pytest.mark.parametrize("prefer", ["wait=10", "respond-asynchronously", "x-respond-async", ""])
def test_other_preferences_are_answered_at_the_end(shop, prefer):
    assert ok(shop.post(PATH, saga(), Prefer=prefer))[0]["status"] == "SUCCESS"


def test_async_saga_that_fails(shop):
    account = new_account(shop, 500)
    location = shop.post(PATH, saga(when=past(), account=account), Prefer="respond-async").headers["location"]
    view = poll(shop, location)
    assert view["state"] == "COMPENSATED" and view["failedStep"] == "delivery" and view["reason"]
    assert_nothing_holds(shop, view["id"])
    assert wallet(shop, account) == 500


def test_view_of_a_saga(shop):
    order = ok(shop.post(PATH, saga()))[0]["id"]
    view = ok(shop.get(f"/order/saga/{order}"))
    assert (view["id"], view["type"], view["state"]) == (order, "order", "SUCCEEDED")
    assert view["failedStep"] is None and view["reason"] is None
    assert view["createdAt"] <= view["finishedAt"]
    assert {step["name"] for step in view["steps"]} == {"payment", "warehouse", "delivery"}
    assert all(step["state"] == "DONE" and step["attempts"] >= 1 and step["status"] == 200 for step in view["steps"])
    problem(shop.get(f"/order/saga/{uuid.uuid4()}"), 404)


def test_view_of_a_failed_saga(shop):
    order = problem(shop.post(PATH, saga(when=past())), 424)["orderId"]
    view = ok(shop.get(f"/order/saga/{order}"))
    assert (view["state"], view["failedStep"]) == ("COMPENSATED", "delivery")
    assert view["reason"]


def test_pages_of_sagas(shop):
    made = [ok(shop.post(PATH, saga()))[0]["id"] for _ in range(7)]
    failed = [problem(shop.post(PATH, saga(when=past())), 424)["orderId"] for _ in range(3)]
    everything = [one["id"] for one in pages(shop, "/order/saga?page_size=4")]
    assert len(set(everything)) == len(everything) == shop.value("order", 'SELECT count(*) FROM "order".saga')
    assert everything[-10:] == made + failed
    succeeded = pages(shop, "/order/saga?state=SUCCEEDED&page_size=3")
    assert {one["state"] for one in succeeded} == {"SUCCEEDED"}
    assert [one["id"] for one in succeeded][-7:] == made
    assert [one["id"] for one in pages(shop, "/order/saga?page_size=2&state=COMPENSATED")][-3:] == failed
    assert ok(shop.get("/order/saga?state=RUNNING")) == [] and ok(shop.get("/order/saga?state=COMPENSATING")) == []


def test_size_of_a_page(shop):
    for _ in range(3):
        ok(shop.post(PATH, saga()))
    answer = shop.get("/order/saga?page_size=2")
    assert len(ok(answer)) == 2
    address = next_page(answer)
    assert address.startswith("/order/saga?") and "page_size=2" in address
    assert ok(shop.get(address))[0]["id"] not in {one["id"] for one in answer.json}
    assert len(ok(shop.get("/order/saga?page_size=1000000"))) >= 3

"""Idempotency-Key: a retry acts once, and both requests get the same response."""

import collections
import concurrent.futures
import uuid

import pytest

from harness.check import done, ok, problem
from harness.goods import (delivery, history, line, new_account, order, past, payment, person, reservation, saga, set_stock,
                           stock, wallet)
from harness.server import SLOWER
from harness.wait import wait_for

Call = collections.namedtuple("Call", "method path body other status")


def refill_call(shop):
    account = new_account(shop, 100)
    return Call("PUT", f"/billing/billing/refill/{account}/5", None, f"/billing/billing/refill/{account}/6", 200)


def buy_call(shop):
    account = new_account(shop, 100)
    return Call("PUT", f"/billing/billing/{account}/5", None, f"/billing/billing/{account}/6", 200)


def refused_buy_call(shop):
    account = new_account(shop, 100)
    return Call("PUT", f"/billing/billing/{account}/500", None, f"/billing/billing/{account}/1", 200)


CALLS = {
    "order": lambda shop: Call("POST", "/order/order", order(), order(contents=[line("lamp")]), 200),
    "payment": lambda shop: Call("POST", "/payment/payment", payment(), payment(cost=5), 200),
    "reservations": lambda shop: Call("POST", "/warehouse/warehouse", [reservation()], [reservation()] * 2, 200),
    "stock": lambda shop: Call("POST", "/warehouse/warehouse", [reservation(item=set_stock(shop, 9))], [reservation()], 200),
    "delivery": lambda shop: Call("POST", "/delivery/delivery", delivery(), delivery(), 200),
    "user": lambda shop: Call("POST", "/user/user", person(), person(), 200),
    "account": lambda shop: Call("POST", "/billing/billing", {"wallet": 5}, {"wallet": 6}, 200),
    "refill": refill_call,
    "buy": buy_call,
    "refused buy": refused_buy_call,
    "saga": lambda shop: Call("POST", "/order/order/saga", saga(account=new_account(shop, 500)), saga(), 200),
    "failing saga": lambda shop: Call("POST", "/order/order/saga", saga(when=past(), account=new_account(shop, 500)),
                                      saga(), 424),
}


@pytest.fixture(params=CALLS.values(), ids=CALLS)
def call(request, shop):
    return request.param(shop)


def send(shop, call, key, **headers):
    return shop.request(call.method, call.path, call.body, key=key, **headers)


def send_other(shop, call, key):
    """A different request with the same key: another body, or another path if there is no body."""
    if call.body is None:
        return shop.request(call.method, call.other, key=key)
    return shop.request(call.method, call.path, call.other, key=key)


def assert_same(first, second):
    assert (second.status, second.body) == (first.status, first.body)
    assert second.headers["content-type"] == first.headers["content-type"]


def test_second_gets_the_first_answer_and_nothing_happens(shop, call):
    key = str(uuid.uuid4())
    first = send(shop, call, key)
    assert first.status == call.status, first
    assert "idempotent-replayed" not in first.headers
    shop.settle()
    before = shop.digest()
    for _ in range(2):
        second = send(shop, call, key)
        assert_same(first, second)
        assert second.headers.get("idempotent-replayed") == "true", second
    shop.settle()
    assert shop.digest() == before


def test_another_request_under_the_same_key_is_422(shop, call):
    key = str(uuid.uuid4())
    first = send(shop, call, key)
    shop.settle()
    before = shop.digest()
    problem(send_other(shop, call, key), 422)
    assert shop.digest() == before
    assert_same(first, send(shop, call, key))


def test_another_key_acts_again(shop, call):
    first, second = send(shop, call, str(uuid.uuid4())), send(shop, call, str(uuid.uuid4()))
    assert second.status == call.status
    assert "idempotent-replayed" not in second.headers
    if b'"id"' in first.body:
        assert second.body != first.body


def test_at_the_same_time(shop, call):
    """A request during the first one gets 409; all later ones get the first response."""
    key = str(uuid.uuid4())
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: send(shop, call, key), range(12)))
    last = send(shop, call, key)
    assert last.status == call.status, last
    assert last.headers["idempotent-replayed"] == "true"
    for answer in answers:
        if answer.status == 409:
            problem(answer, 409)
            assert int(answer.headers["retry-after"]) >= 0
        else:
            assert_same(last, answer)
    assert any(answer.status != 409 for answer in answers)
    assert sum("idempotent-replayed" not in answer.headers for answer in answers if answer.status != 409) <= 1


def test_at_the_same_time_money_moves_once(shop):
    account, key = new_account(shop, 100), str(uuid.uuid4())
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda _: shop.put(f"/billing/billing/{account}/30", key=key), range(12)))
    assert wallet(shop, account) == 70
    assert history(shop, account) == [("CREATE", "SUCCESS"), ("BUY", "SUCCESS")]


def test_at_the_same_time_one_saga_runs(shop):
    account, item, key = new_account(shop, 100), set_stock(shop, 10), str(uuid.uuid4())
    body = saga([line(item, 3, 10)], account=account)
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda _: shop.post("/order/order/saga", body, key=key), range(12)))
    shop.settle()
    assert wallet(shop, account) == 70
    assert stock(shop, item) == (7, 3)


def test_async_saga_is_replayed_too(shop):
    """The retry may come while the saga runs (409) or after its end, when it gets the outcome."""
    key, body = str(uuid.uuid4()), saga()
    first = shop.post("/order/order/saga", body, key=key, Prefer="respond-async")
    assert first.status == 202
    shop.settle()
    second = shop.post("/order/order/saga", body, key=key)
    assert ok(second)[0]["id"] == first.headers["location"].rsplit("/", 1)[1]
    assert second.headers["idempotent-replayed"] == "true"


def test_key_may_be_quoted_or_bare(shop):
    """The draft requires a quoted string, but many clients send bare text."""
    key, body = str(uuid.uuid4()), payment()
    first = shop.post("/payment/payment", body, key=f'"{key}"')
    assert_same(first, shop.post("/payment/payment", body, key=key))


def test_longest_key(shop):
    key, body = uuid.uuid4().hex * 7 + "~" * 31, payment()
    first = shop.post("/payment/payment", body, key=key)
    ok(first)
    assert_same(first, shop.post("/payment/payment", body, key=key))
    problem(shop.post("/payment/payment", body, key=key + "x"), 400)


def test_services_have_keys_of_their_own(shop):
    key = str(uuid.uuid4())
    ok(shop.post("/payment/payment", payment(), key=key))
    ok(shop.post("/order/order", order(), key=key))
    ok(shop.post("/billing/billing", {}, key=key))


def test_refused_body_leaves_the_key_free(shop):
    """Nothing was done, so there is nothing to replay."""
    key = str(uuid.uuid4())
    problem(shop.post("/payment/payment", payment(cost=-1), key=key), 422, "/cost")
    ok(shop.post("/payment/payment", payment(), key=key))


def test_missing_account_under_a_key(shop):
    missing, key = f"/billing/billing/refill/{uuid.uuid4()}/5", str(uuid.uuid4())
    for _ in range(2):
        assert ok(shop.put(missing, key=key)) == {"status": False}


@pytest.fixture
def parked(shop):
    """The path of a saga that is parked amid its compensation: the input of another, under an order of its own."""
    model = ok(shop.post("/order/order/saga", saga()))[0]["id"]
    order = model[:-1] + ("1" if model[-1] == "0" else "0")  # an id of the same moment, as lists are sorted by it
    shop.execute("order", 'INSERT INTO "order".orders (id, status, saga) VALUES (%s, %s, true)', order, "PENDING")
    assert shop.execute(
        "order", 'INSERT INTO "order".saga (id, type, state, owner, due_at, input, failed_step, reason, parked_state, '
        "parked_step, parked_reason, parked_at) SELECT %s, type, 'PARKED', owner, 'infinity', input, 'delivery', 'full', "
        "'COMPENSATING', 'payment', 'refused', now() FROM \"order\".saga WHERE id = %s", order, model) == 1
    yield f"/order/saga/{order}"
    wait_for("the compensation", lambda: ok(shop.get(f"/order/saga/{order}"))["state"] == "COMPENSATED", 20 * SLOWER)


@pytest.mark.parametrize("first,other", [
    (None, {"reason": "by mistake"}), ({"reason": "it is back"}, {"reason": "by mistake"}), ({"reason": "it is back"}, None)])
def test_an_optional_body_is_part_of_the_request(shop, parked, first, other):
    key = str(uuid.uuid4())
    assert done(shop.post(f"{parked}/retry", first, key=key))
    problem(shop.post(f"{parked}/retry", other, key=key), 422)
    again = shop.post(f"{parked}/retry", first, key=key)
    assert done(again) and again.headers["idempotent-replayed"] == "true"


def test_a_body_that_no_field_is_read_from_is_part_of_the_request(shop):
    account, key = new_account(shop, 100), str(uuid.uuid4())
    path = f"/billing/billing/{account}/5"
    assert done(shop.put(path, {"note": "first"}, key=key))
    problem(shop.put(path, {"note": "second"}, key=key), 422)
    problem(shop.put(path, key=key), 422)
    assert wallet(shop, account) == 95


def test_get_takes_no_key(shop):
    made = ok(shop.post("/payment/payment", payment()))
    path, key = f"/payment/payment/{made['id']}", str(uuid.uuid4())
    for _ in range(2):
        answer = shop.get(path, key=key)
        assert ok(answer) == made
        assert "idempotent-replayed" not in answer.headers

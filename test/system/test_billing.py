"""Users, their accounts and the money in them."""

import concurrent.futures
import uuid
from decimal import Decimal

import pytest

from harness.check import done, ok, problem
from harness.goods import buy, history, new_account, new_user, person, refill, wallet


def test_user_gets_an_empty_account(shop):
    user = new_user(shop)
    assert user["billingId"] != user["id"]
    assert ok(shop.get(f"/billing/billing/{user['billingId']}")) == {"id": user["billingId"], "wallet": 0}
    assert history(shop, user["billingId"]) == [("CREATE", "SUCCESS")]


def test_user_by_billing_id(shop):
    user = new_user(shop)
    assert ok(shop.get(f"/user/user/billing_id/{user['billingId']}")) == user
    problem(shop.get(f"/user/user/billing_id/{user['id']}"), 404)


def test_changed_user_keeps_the_account(shop):
    user = new_user(shop)
    changed = person()
    assert done(shop.put(f"/user/user/{user['id']}", changed | {"billingId": str(uuid.uuid4())}))
    assert ok(shop.get(f"/user/user/{user['id']}")) == user | changed


@pytest.mark.parametrize("body,wallet_then", [({}, 0), ({"wallet": 0}, 0), ({"wallet": 51.3}, Decimal("51.3")),
                                              ({"wallet": None}, 0)])
def test_account(shop, body, wallet_then):
    made = ok(shop.post("/billing/billing", body))
    assert made["wallet"] == wallet_then
    assert shop.query("billing", "SELECT sum, last_value_wallet, current_value_wallet, type_operation, status "
                      "FROM billing.history_billings WHERE billing_id = %s", made["id"]) == \
        [(wallet_then, 0, wallet_then, "CREATE", "SUCCESS")]


def test_refill_and_buy(shop):
    account = ok(shop.post("/billing/billing", {}))["id"]
    assert refill(shop, account, "100") is True
    assert wallet(shop, account) == 100
    assert buy(shop, account, "48.7") is True
    assert wallet(shop, account) == Decimal("51.3")
    assert buy(shop, account, "51.31") is False
    assert wallet(shop, account) == Decimal("51.3")
    assert buy(shop, account, "51.3") is True
    assert wallet(shop, account) == 0
    assert shop.query("billing", "SELECT type_operation, status, sum, last_value_wallet, current_value_wallet FROM "
                      "billing.history_billings WHERE billing_id = %s ORDER BY id", account) == [
        ("CREATE", "SUCCESS", 0, 0, 0),
        ("REFILL", "SUCCESS", 100, 0, 100),
        ("BUY", "SUCCESS", Decimal("48.7"), 100, Decimal("51.3")),
        ("BUY", "FAILED", Decimal("51.31"), Decimal("51.3"), Decimal("51.3")),
        ("BUY", "SUCCESS", Decimal("51.3"), Decimal("51.3"), 0),
    ]


def test_no_such_account_is_false_and_leaves_no_history(shop, unchanged):
    missing = str(uuid.uuid4())
    assert refill(shop, missing, "5") is False
    assert buy(shop, missing, "5") is False
    problem(shop.get(f"/billing/billing/{missing}"), 404)


@pytest.mark.parametrize("total", ["1e2", "100.00", "100.0"])
def test_sums_in_the_path_may_be_any_number(shop, total):
    account = new_account(shop, 0)
    assert refill(shop, account, total)
    assert wallet(shop, account) == 100


@pytest.mark.parametrize("total", ["0", "0.00", "-5", "1.001", "abc", "1e400", "99999999999999999999999999999999999999",
                                   "NaN", "Infinity", "0x10", "1,5", "+5", "%F0", "%00", "5%20", "1e-3"])
@pytest.mark.parametrize("operation", ["/refill", ""])
def test_bad_sums(shop, operation, total, unchanged_account):
    answer = shop.put(f"/billing/billing{operation}/{unchanged_account}/{total}")
    assert answer.status in (400, 422)
    problem(answer, answer.status)


@pytest.fixture
def unchanged_account(shop):
    account = new_account(shop, 10)
    yield account
    assert wallet(shop, account) == 10
    assert history(shop, account) == [("CREATE", "SUCCESS")]


def test_wallet_that_would_overflow(shop):
    account = new_account(shop, 90000000000000000)
    problem(shop.put(f"/billing/billing/refill/{account}/0.01"), 422)
    assert wallet(shop, account) == 90000000000000000


def test_a_wallet_is_never_overdrawn_by_many_at_once(shop):
    account = new_account(shop, 10)
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        bought = list(pool.map(lambda _: buy(shop, account, "0.7"), range(24)))
    assert bought.count(True) == 14
    assert wallet(shop, account) == Decimal("0.2")
    assert sorted(history(shop, account)[1:]) == [("BUY", "FAILED")] * 10 + [("BUY", "SUCCESS")] * 14


def test_concurrent_operations_add_up(shop):
    account = new_account(shop, 0)
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert all(pool.map(lambda i: refill(shop, account, f"{i}.01"), range(1, 49)))
    assert wallet(shop, account) == sum(Decimal(f"{i}.01") for i in range(1, 49))
    rows = shop.query("billing", "SELECT last_value_wallet, current_value_wallet FROM billing.history_billings "
                      "WHERE billing_id = %s ORDER BY current_value_wallet", account)
    assert all(before == earlier for (before, _), (_, earlier) in zip(rows[1:], rows)), "the history has no gaps"

"""The participants' barrier: with duplicate, late or concurrent calls, and uncommitted counterparts, stock, slots and
wallets are taken once and returned once."""

import concurrent.futures
import contextlib
import decimal
import urllib.parse
import uuid

import psycopg2
import pytest

from harness import goods
from harness.check import done, ok, problem
from harness.wait import wait_for

CENT = decimal.Decimal("0.01")


def side_by_side(count, work):
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


def new_id():
    return str(uuid.uuid4())


@pytest.fixture
def transaction(shop):
    """A connection whose transaction stays open until the test ends it."""
    with contextlib.closing(psycopg2.connect(shop.database_url)) as connection:
        yield connection


def execute(connection, sql, *values):
    with connection.cursor() as cursor:
        cursor.execute(sql, values)


def is_waited_for(shop, pid):
    with contextlib.closing(psycopg2.connect(shop.database_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) > 0 FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))", (pid,))
        return cursor.fetchone()[0]


def while_open(shop, transaction, request, end):
    """Sends the request, waits until it blocks on the open transaction, ends that, and returns the response."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(request)
        try:
            wait_for("somebody to wait for the open transaction",
                     lambda: is_waited_for(shop, transaction.info.backend_pid))
            assert not answer.done()
        finally:
            end()
        return answer.result()


class Payment:
    """A payment from a wallet of 100."""

    path, rows, resource, status = "/payment/step/", "payment.payments", "/payment/payment/", "SUCCESS"
    one_step = decimal.Decimal("30.5")

    def __init__(self, shop):
        self.shop, self.saga = shop, new_id()
        self.account = goods.new_account(shop, 100)
        self.body = {"orderId": new_id(), "cost": self.one_step, "billingId": self.account}

    def held(self):
        return 100 - goods.wallet(self.shop, self.account)

    def take_again(self, transaction):
        """Billing has committed before the payment's row is written."""


class Delivery:
    """A delivery in a slot for 3."""

    path, rows, resource, status = "/delivery/step/", "delivery.deliveries", "/delivery/delivery/", "SCHEDULED"
    one_step = 1

    def __init__(self, shop):
        self.shop, self.saga = shop, new_id()
        self.time = goods.set_slot(shop, 3)
        self.body = {"orderId": new_id(), "timeDelivery": self.time}

    def held(self):
        return goods.taken(self.shop, self.time)

    def set_capacity(self, capacity):
        return self.shop.put("/delivery/slot/" + self.time, {"capacity": capacity})

    def take_again(self, transaction):
        execute(transaction, "UPDATE delivery.slots SET taken = taken + 1 WHERE time_delivery = %s", self.time)


class Warehouse:
    """Three lines of two items, one of them named twice; 9 of each in stock."""

    path, rows, resource, status = "/warehouse/step/", "warehouse.reservations", "/warehouse/warehouse/", "RESERVED"
    one_step = 5

    def __init__(self, shop):
        self.shop, self.saga = shop, new_id()
        self.items = [f'{name} "{new_id()}" \\ {{,}}' for name in ("phone", "чехол")]
        for item in self.items:
            self.set_stock(item, 9)
        self.amounts = [(self.items[0], 1), (self.items[1], 2), (self.items[0], 2)]
        self.body = {"orderId": new_id(), "lines": [{"item": i, "amount": n} for i, n in self.amounts]}

    def set_stock(self, item, available):
        ok(self.shop.put("/warehouse/stock/" + urllib.parse.quote(item, safe=""), {"available": available}))

    def stock(self, item):
        return goods.stock(self.shop, urllib.parse.quote(item, safe=""))

    def held(self):
        stocks = [self.stock(item) for item in self.items]
        assert [available + reserved for available, reserved in stocks] == [9, 9]
        return sum(reserved for _, reserved in stocks)

    def take_again(self, transaction):
        for item, amount in self.amounts:
            execute(transaction, "UPDATE warehouse.stock SET available = available - %s, reserved = reserved + %s "
                    "WHERE item = %s", amount, amount, item)


@pytest.fixture(params=[Payment, Delivery, Warehouse], ids=lambda kind: kind.__name__.lower())
def step(request, shop):
    return request.param(shop)


def act(step, saga=None, **changes):
    return step.shop.put(step.path + (saga or step.saga), step.body | changes)


def cancel(step, saga=None):
    return step.shop.put(step.path + (saga or step.saga) + "/cancel", step.body)


def rows(body):
    return body if isinstance(body, list) else [body]


def test_a_repeat_gets_the_first_answer_and_acts_once(step):
    first = ok(act(step))
    assert {row["status"] for row in rows(first)} == {step.status}
    assert ok(act(step)) == first
    assert step.held() == step.one_step


def test_repeats_side_by_side_act_once(step):
    answers = side_by_side(8, lambda _: ok(act(step)))
    assert all(answer == answers[0] for answer in answers)
    assert step.held() == step.one_step


def test_cancels_side_by_side_give_back_once(step):
    ok(act(step))
    assert side_by_side(8, lambda _: done(cancel(step))) == [True] * 8
    assert step.held() == 0


def test_a_late_action_is_refused(step):
    assert done(cancel(step))
    problem(act(step), 409)
    assert step.held() == 0


def test_an_action_repeated_after_its_cancel_is_refused(step):
    ok(act(step))
    assert done(cancel(step))
    problem(act(step), 409)
    assert step.held() == 0


def test_action_and_cancel_in_any_order_hold_nothing_in_the_end(step):
    side_by_side(8, lambda i: cancel(step) if i % 2 else act(step))
    assert done(cancel(step))
    assert step.held() == 0


def remember(step, transaction):
    """Acts, saves the rows, and reverts the action including the barrier's rows."""
    ids = [row["id"] for row in rows(ok(act(step)))]
    execute(transaction, f"CREATE TEMP TABLE kept AS SELECT * FROM {step.rows} WHERE id = ANY(%s::uuid[])", ids)
    transaction.commit()
    for row in ids:
        assert done(step.shop.delete(step.resource + row))
    return ids


def act_uncommitted(step, transaction):
    """The action, paused before its commit."""
    ids = remember(step, transaction)
    execute(transaction, f"INSERT INTO {step.rows} SELECT * FROM kept")
    step.take_again(transaction)
    return ids


def statuses(step, ids):
    return {ok(step.shop.get(step.resource + row))["status"] for row in ids}


def test_a_cancel_waits_for_an_uncommitted_action(step, transaction):
    ids = act_uncommitted(step, transaction)
    assert done(while_open(step.shop, transaction, lambda: cancel(step), transaction.commit))
    assert statuses(step, ids) == {"CANCELED"}
    assert step.held() == 0


def test_a_cancel_of_an_action_that_rolls_back_refuses_its_repeat(step, transaction):
    ids = act_uncommitted(step, transaction)
    assert done(while_open(step.shop, transaction, lambda: cancel(step), transaction.rollback))
    problem(act(step), 409)
    assert statuses(step, ids) == {"CANCELED"}
    assert step.held() == 0


def test_a_repeat_waits_for_the_uncommitted_first(step, transaction):
    act_uncommitted(step, transaction)
    repeated = ok(while_open(step.shop, transaction, lambda: act(step), transaction.commit))
    assert {row["status"] for row in rows(repeated)} == {step.status}
    assert step.held() == step.one_step


def test_an_action_waits_for_an_uncommitted_cancel(step, transaction):
    ids = remember(step, transaction)
    execute(transaction, "UPDATE kept SET status = 'CANCELED'")
    execute(transaction, f"INSERT INTO {step.rows} SELECT * FROM kept")
    problem(while_open(step.shop, transaction, lambda: act(step), transaction.commit), 409)
    assert statuses(step, ids) == {"CANCELED"}
    assert done(cancel(step))
    assert step.held() == 0


def test_the_last_of_the_stock_goes_to_as_many_as_it_lasts_for(shop):
    item, body = goods.set_stock(shop, 5), {"orderId": new_id()}
    body["lines"] = [{"item": item, "amount": 1}]
    sagas = [new_id() for _ in range(16)]
    answers = side_by_side(16, lambda i: shop.put("/warehouse/step/" + sagas[i], body).status)
    assert sorted(answers) == [200] * 5 + [409] * 11
    assert goods.stock(shop, item) == (0, 5)
    side_by_side(16, lambda i: done(shop.put(f"/warehouse/step/{sagas[i]}/cancel", body)))
    assert goods.stock(shop, item) == (5, 0)


def test_reservations_of_several_items_in_opposite_order_all_end(shop):
    items = [goods.set_stock(shop, 100) for _ in range(2)]

    def reserve(i):
        body = {"orderId": new_id(), "lines": [{"item": item, "amount": 1} for item in items[::(-1) ** i]]}
        saga = new_id()
        ok(shop.put("/warehouse/step/" + saga, body))
        return done(shop.put(f"/warehouse/step/{saga}/cancel", body))

    assert side_by_side(16, reserve) == [True] * 16
    assert [goods.stock(shop, item) for item in items] == [(100, 0)] * 2


def test_a_reservation_that_waits_decides_by_the_stock_it_waited_for(shop, transaction):
    step = Warehouse(shop)
    step.set_stock(step.items[0], 0)
    execute(transaction, "UPDATE warehouse.stock SET available = 9 WHERE item = %s", step.items[0])
    ok(while_open(shop, transaction, lambda: act(step), transaction.commit))
    assert step.held() == step.one_step


def test_one_short_line_refuses_all_and_stays_refused_when_stock_comes(shop):
    step = Warehouse(shop)
    step.set_stock(step.items[0], 2)
    assert step.items[0] in problem(act(step), 409)["detail"]
    assert [step.stock(item) for item in step.items] == [(2, 0), (9, 0)]
    step.set_stock(step.items[0], 9)
    problem(act(step), 409)
    assert done(cancel(step))
    assert step.held() == 0


def test_stock_that_was_never_taken_is_not_given_back(shop):
    item, saga = goods.unique("made-to-order"), new_id()
    body = {"orderId": new_id(), "lines": [{"item": item, "amount": 2}]}
    assert [line["status"] for line in ok(shop.put("/warehouse/step/" + saga, body))] == ["RESERVED"]
    ok(shop.put("/warehouse/stock/" + item, {"available": 4}))
    assert done(shop.put(f"/warehouse/step/{saga}/cancel", body))
    assert goods.stock(shop, item) == (4, 0)


def test_a_changed_reservation_moves_its_stock(shop):
    item = goods.set_stock(shop, 4)
    line = goods.reservation(item=item, amount=3)
    [made] = ok(shop.post("/warehouse/warehouse", [line]))
    path = "/warehouse/warehouse/" + made["id"]
    without_amount = {name: value for name, value in line.items() if name != "amount"}
    assert goods.stock(shop, item) == (1, 3)
    assert done(shop.put(path, without_amount | {"status": "CANCELED"}))
    assert goods.stock(shop, item) == (4, 0)
    assert done(shop.put(path, without_amount))
    assert goods.stock(shop, item) == (1, 3)
    problem(shop.put(path, line | {"amount": 5}), 409)
    assert goods.stock(shop, item) == (1, 3)
    assert done(shop.put(path, line | {"amount": 4}))
    assert goods.stock(shop, item) == (0, 4)
    assert done(shop.delete(path))
    assert goods.stock(shop, item) == (4, 0)


def test_a_refused_post_changes_nothing_and_its_key_may_be_used_again(shop):
    item, key = goods.set_stock(shop, 1), new_id()
    lines = [goods.reservation(item=name, amount=2) for name in (goods.unique("made-to-order"), item)]
    problem(shop.post("/warehouse/warehouse", lines, key=key), 409)
    assert goods.stock(shop, item) == (1, 0)
    ok(shop.put("/warehouse/stock/" + item, {"available": 2}))
    first = ok(shop.post("/warehouse/warehouse", lines, key=key))
    assert shop.post("/warehouse/warehouse", lines, key=key).json == first
    assert goods.stock(shop, item) == (0, 2)


def test_a_full_slot_refuses_and_a_cancel_frees_it(shop):
    step = Delivery(shop)
    sagas = [new_id() for _ in range(12)]
    answers = side_by_side(12, lambda i: act(step, sagas[i]).status)
    assert sorted(answers) == [200] * 3 + [409] * 9
    problem(step.set_capacity(2), 409, "/capacity")
    problem(shop.post("/delivery/delivery", goods.delivery(timeDelivery=step.time)), 409)
    side_by_side(12, lambda i: done(cancel(step, sagas[i])))
    assert step.held() == 0


def test_a_delivery_that_waits_decides_by_the_slot_it_waited_for(shop, transaction):
    step = Delivery(shop)
    ok(step.set_capacity(0))
    execute(transaction, "UPDATE delivery.slots SET capacity = 1 WHERE time_delivery = %s", step.time)
    ok(while_open(shop, transaction, lambda: act(step), transaction.commit))
    assert step.held() == 1


def test_a_changed_delivery_moves_its_place(shop):
    here, there = Delivery(shop), Delivery(shop)
    ok(there.set_capacity(0))
    path = "/delivery/delivery/" + ok(shop.post("/delivery/delivery", goods.delivery(timeDelivery=here.time)))["id"]
    problem(shop.put(path, goods.delivery(timeDelivery=there.time)), 409)
    assert (here.held(), there.held()) == (1, 0)
    ok(there.set_capacity(1))
    assert done(shop.put(path, goods.delivery(timeDelivery=there.time)))
    assert (here.held(), there.held()) == (0, 1)
    assert done(shop.put(path, goods.delivery(timeDelivery=there.time, status="CANCELED")))
    assert there.held() == 0
    assert done(shop.put(path, goods.delivery(timeDelivery=there.time)))
    assert there.held() == 1
    assert done(shop.delete(path))
    assert there.held() == 0


def test_a_time_that_is_not_in_the_future_is_refused_unless_it_was_taken_before(shop):
    step = Delivery(shop)
    problem(act(step, timeDelivery=goods.past()), 422, "/timeDelivery")
    first = ok(act(step))
    assert ok(act(step, timeDelivery=goods.past())) == first


def history(shop, account):
    return shop.query("billing", "SELECT sum, last_value_wallet, current_value_wallet, type_operation, status "
                      "FROM billing.history_billings WHERE billing_id = %s", account)


def test_the_history_of_a_busy_wallet_is_one_chain(shop):
    account = goods.new_account(shop, 10)

    def operate(i):
        if i % 4 == 0:
            return goods.refill(shop, account, "1.75")
        if i % 4 == 1:
            return goods.buy(shop, account, "3.1")
        saga, body = new_id(), {"billingId": account, "sum": decimal.Decimal("2.25")}
        bought = shop.put(f"/billing/step/{saga}/buy", body)
        assert bought.status in (200, 409), bought
        return i % 4 == 2 or done(shop.put(f"/billing/step/{saga}/refund", body))

    side_by_side(32, operate)
    found = history(shop, account)
    wallet = goods.wallet(shop, account)
    taken = [row for row in found if row[3:] == ("BUY", "SUCCESS")]
    failed = [row for row in found if row[3:] == ("BUY", "FAILED")]
    added = [row for row in found if row[3] != "BUY"]
    kinds = [row[3] for row in found]
    assert (kinds.count("CREATE"), kinds.count("REFILL"), kinds.count("BUY")) == (1, 8, 24)
    assert all(last == current < amount for amount, last, current, _, _ in failed)
    assert all(last - amount == current >= 0 for amount, last, current, _, _ in taken)
    assert all(last + amount == current for amount, last, current, _, _ in added)
    assert sum(row[0] for row in added) - sum(row[0] for row in taken) == wallet
    # Each change begins where another ended: the values before and the values after differ by the chain's ends only.
    before, after = (sorted(row[i] for row in taken + added) for i in (1, 2))
    assert sorted(before + [wallet]) == sorted(after + [0])


def change_wallet(transaction, account, change):
    """The effect of a refill or, if negative, a purchase, left uncommitted."""
    kind = "BUY" if change < 0 else "REFILL"
    execute(transaction, "WITH a AS (UPDATE billing.accounts SET wallet = wallet + %s WHERE id = %s RETURNING wallet) "
            "INSERT INTO billing.history_billings SELECT %s, %s, %s, wallet - %s, wallet, %s, 'SUCCESS' FROM a",
            change, account, new_id(), account, abs(change), change, kind)


def test_a_buy_that_waits_decides_by_the_wallet_it_waited_for(shop, transaction):
    step = Payment(shop)

    def buy(total):
        return while_open(shop, transaction, lambda: shop.put(f"/billing/billing/{step.account}/{total}"),
                          transaction.commit)

    change_wallet(transaction, step.account, 400)
    assert done(buy(470))
    change_wallet(transaction, step.account, 5)
    ok(while_open(shop, transaction, lambda: act(step), transaction.commit))
    change_wallet(transaction, step.account, -3)
    assert not done(buy(4))
    half = decimal.Decimal("0.5")
    assert goods.wallet(shop, step.account) == 1 + half
    assert {row[1:] for row in history(shop, step.account) if row[3] == "BUY"} == {
        (500, 30, "BUY", "SUCCESS"), (35, 4 + half, "BUY", "SUCCESS"), (4 + half, 1 + half, "BUY", "SUCCESS"),
        (1 + half, 1 + half, "BUY", "FAILED")}


def test_a_refused_buy_leaves_one_failed_row_and_stays_refused(shop):
    step = Payment(shop)
    step.body["cost"] = 100 + CENT
    first = problem(act(step), 409)
    assert first["detail"] == "the wallet holds too little"
    assert goods.refill(shop, step.account, 50)
    assert problem(act(step), 409) == first
    assert done(cancel(step))
    assert sorted(row[3:] for row in history(shop, step.account)) == [
        ("BUY", "FAILED"), ("CREATE", "SUCCESS"), ("REFILL", "SUCCESS")]
    assert goods.wallet(shop, step.account) == 150


def test_a_refund_is_one_history_row(shop):
    step = Payment(shop)
    ok(act(step))
    side_by_side(4, lambda _: done(cancel(step)))
    refunds = [row for row in history(shop, step.account) if row[3] == "REFUND"]
    assert refunds == [(step.one_step, 100 - step.one_step, 100, "REFUND", "SUCCESS")]


def test_a_payment_from_no_account_is_refused(shop):
    step = Payment(shop)
    problem(act(step, billingId=new_id()), 409)
    assert step.held() == 0


def test_an_account_is_opened_once_and_closed_for_good(shop):
    saga, body = new_id(), {"billingId": new_id()}
    account = body["billingId"]
    opened = side_by_side(4, lambda _: ok(shop.put(f"/billing/step/{saga}/open", body)))
    assert opened == [{"id": account, "wallet": 0}] * 4
    assert [row[3:] for row in history(shop, account)] == [("CREATE", "SUCCESS")]
    problem(shop.put(f"/billing/step/{new_id()}/open", body), 409)
    assert side_by_side(4, lambda _: done(shop.put(f"/billing/step/{saga}/close", body))) == [True] * 4
    problem(shop.put(f"/billing/step/{saga}/open", body), 409)
    problem(shop.get("/billing/billing/" + account), 404)


def test_a_wallet_never_grows_beyond_what_can_be_stored(shop):
    account, key = goods.new_account(shop, 80_000_000_000_000_000), new_id()
    more = f"/billing/billing/refill/{account}/20000000000000000"
    problem(shop.put(more, key=key), 422)
    assert goods.buy(shop, account, "79999999999999999.5")
    assert done(shop.put(more, key=key))
    assert done(shop.put(more, key=key))
    assert goods.wallet(shop, account) == decimal.Decimal("20000000000000000.5")

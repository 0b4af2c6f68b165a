"""The barrier of the saga's participants: whatever comes twice, late, side by side or while its counterpart is still
uncommitted, stock, slots and wallets are taken once and given back once."""

import concurrent.futures
import contextlib
import decimal
import json
import time
import urllib.error
import urllib.request
import uuid

import psycopg2
import pytest

FUTURE = "2099-06-26T16:00"
PATIENCE = 10


def call(shop, method, path, body=None, key=None):
    """The status and the decoded body of one request; money stays exact."""
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Idempotency-Key"] = key
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(shop.base_url + path, data=data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, json.load(answer, parse_float=decimal.Decimal)
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, json.load(refusal)


def side_by_side(count, work):
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


def new_id():
    return str(uuid.uuid4())


def future_slot():
    """A time of its own for each test: slots outlive them."""
    return f"2{uuid.uuid4().int % 900 + 100:03d}-01-01T{uuid.uuid4().int % 24:02d}:{uuid.uuid4().int % 60:02d}:07"


@pytest.fixture
def database(shop):
    with contextlib.closing(psycopg2.connect(shop.database_url)) as connection:
        yield connection


def one(connection, sql, *values):
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        row = cursor.fetchone()
    return row


def execute(connection, sql, *values):
    with connection.cursor() as cursor:
        cursor.execute(sql, values)


def wait_until_blocked_by(shop, connection):
    """Returns when a session waits for a lock that the connection's transaction holds."""
    pid = connection.info.backend_pid
    deadline = time.monotonic() + PATIENCE
    with contextlib.closing(psycopg2.connect(shop.database_url)) as observer:
        observer.autocommit = True
        while time.monotonic() < deadline:
            if one(observer, "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))", pid)[0]:
                return
    pytest.fail("nobody waits for the open transaction")


def while_open(shop, connection, request, end):
    """Sends the request, sees it wait for the connection's open transaction, ends that, and gives the answer."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(request)
        try:
            wait_until_blocked_by(shop, connection)
            assert not answer.done()
        finally:
            end()
        return answer.result(PATIENCE)


class Payment:
    """A payment from a wallet of 100."""

    def __init__(self, shop):
        self.shop, self.saga = shop, new_id()
        _, account = call(shop, "POST", "/billing/billing", {"wallet": 100})
        self.account = account["id"]
        self.body = {"orderId": new_id(), "cost": 30.5, "billingId": self.account}

    path, row, done = "/payment/step/", "payment.payments", "SUCCESS"

    def held(self):
        return 100 - call(self.shop, "GET", "/billing/billing/" + self.account)[1]["wallet"]

    one_step = 30.5


class Delivery:
    """A delivery in a slot for 3."""

    def __init__(self, shop):
        self.shop, self.saga, self.slot = shop, new_id(), "/delivery/slot/" + (when := future_slot())
        call(shop, "PUT", self.slot, {"capacity": 3})
        self.body = {"orderId": new_id(), "timeDelivery": when}

    path, row, done, one_step = "/delivery/step/", "delivery.deliveries", "SCHEDULED", 1

    def held(self):
        return call(self.shop, "GET", self.slot)[1]["taken"]


class Warehouse:
    """Three lines of two items, one of them named twice; 9 of each in stock."""

    def __init__(self, shop):
        self.shop, self.saga = shop, new_id()
        self.items = [f'{name} "{new_id()}" \\ {{,}}' for name in ("phone", "чехол")]
        for item in self.items:
            call(shop, "PUT", self.stock_path(item), {"available": 9})
        lines = [(self.items[0], 1), (self.items[1], 2), (self.items[0], 2)]
        self.body = {"orderId": new_id(), "lines": [{"item": item, "amount": amount} for item, amount in lines]}

    path, row, done, one_step = "/warehouse/step/", "warehouse.reservations", "RESERVED", 5

    @staticmethod
    def stock_path(item):
        return "/warehouse/stock/" + urllib.request.quote(item, safe="")

    def stock(self, item):
        _, record = call(self.shop, "GET", self.stock_path(item))
        return record["available"], record["reserved"]

    def held(self):
        stocks = [self.stock(item) for item in self.items]
        assert [available + reserved for available, reserved in stocks] == [9, 9]
        return sum(reserved for _, reserved in stocks)


@pytest.fixture(params=[Payment, Delivery, Warehouse], ids=lambda kind: kind.__name__.lower())
def step(request, shop):
    return request.param(shop)


def act(step):
    return call(step.shop, "PUT", step.path + step.saga, step.body)


def cancel(step):
    return call(step.shop, "PUT", step.path + step.saga + "/cancel", step.body)


def rows(answer):
    return answer if isinstance(answer, list) else [answer]


def test_a_repeat_gets_the_first_answer_and_acts_once(step):
    first = act(step)
    assert first[0] == 200
    assert {row["status"] for row in rows(first[1])} == {step.done}
    assert act(step) == first
    assert step.held() == step.one_step


def test_repeats_side_by_side_act_once(step):
    answers = side_by_side(8, lambda _: act(step))
    assert [status for status, _ in answers] == [200] * 8
    assert all(answer == answers[0] for answer in answers)
    assert step.held() == step.one_step


def test_cancels_side_by_side_give_back_once(step):
    act(step)
    assert side_by_side(8, lambda _: cancel(step)) == [(200, {"status": True})] * 8
    assert step.held() == 0


def test_a_late_action_is_refused(step):
    assert cancel(step) == (200, {"status": True})
    status, problem = act(step)
    assert (status, problem["status"]) == (409, 409)
    assert step.held() == 0


def test_an_action_repeated_after_its_cancel_is_refused(step):
    act(step)
    cancel(step)
    assert act(step)[0] == 409
    assert step.held() == 0


def test_action_and_cancel_in_any_order_hold_nothing_in_the_end(step):
    side_by_side(8, lambda i: cancel(step) if i % 2 else act(step))
    assert cancel(step)[0] == 200
    assert step.held() == 0


def uncommitted_again(step, connection):
    """Undoes the action by hand and repeats its row in a transaction that stays open, as if it were paused there."""
    first = act(step)[1]
    for row in rows(first):
        execute(connection, f"CREATE TEMP TABLE IF NOT EXISTS kept AS SELECT * FROM {step.row} LIMIT 0")
        execute(connection, f"INSERT INTO kept SELECT * FROM {step.row} WHERE id = %s", row["id"])
        execute(connection, f"DELETE FROM {step.row} WHERE id = %s", row["id"])
    connection.commit()
    execute(connection, f"INSERT INTO {step.row} SELECT * FROM kept")
    return [row["id"] for row in rows(first)]


def statuses(connection, step, ids):
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT DISTINCT status FROM {step.row} WHERE id = ANY(%s::uuid[])", (ids,))
        return {status for (status,) in cursor}


def test_a_cancel_waits_for_an_uncommitted_action(step, database):
    ids = uncommitted_again(step, database)
    assert while_open(step.shop, database, lambda: cancel(step), database.commit) == (200, {"status": True})
    assert statuses(database, step, ids) == {"CANCELED"}
    assert step.held() == 0


def test_a_cancel_of_an_action_that_rolls_back_refuses_its_repeat(step, database):
    ids = uncommitted_again(step, database)
    assert while_open(step.shop, database, lambda: cancel(step), database.rollback)[0] == 200
    assert statuses(database, step, ids) == {"CANCELED"}
    assert act(step)[0] == 409


def test_an_action_waits_for_an_uncommitted_cancel(step, database):
    ids = uncommitted_again(step, database)
    execute(database, f"UPDATE {step.row} SET status = 'CANCELED' WHERE id = ANY(%s::uuid[])", ids)
    status, _ = while_open(step.shop, database, lambda: act(step), database.commit)
    assert status == 409
    assert statuses(database, step, ids) == {"CANCELED"}


def test_the_last_of_the_stock_goes_to_as_many_as_it_lasts_for(shop):
    first = Warehouse(shop)
    call(shop, "PUT", first.stock_path(first.items[0]), {"available": 5})
    body = {"orderId": new_id(), "lines": [{"item": first.items[0], "amount": 1}]}
    sagas = [new_id() for _ in range(16)]
    answers = side_by_side(16, lambda i: call(shop, "PUT", first.path + sagas[i], body)[0])
    assert sorted(answers) == [200] * 5 + [409] * 11
    assert first.stock(first.items[0]) == (0, 5)
    side_by_side(16, lambda i: call(shop, "PUT", first.path + sagas[i] + "/cancel", body))
    assert first.stock(first.items[0]) == (5, 0)


def test_reservations_of_several_items_in_opposite_order_all_end(shop):
    first = Warehouse(shop)
    for item in first.items:
        call(shop, "PUT", first.stock_path(item), {"available": 100})

    def reserve(i):
        items = first.items if i % 2 else first.items[::-1]
        body = {"orderId": new_id(), "lines": [{"item": item, "amount": 1} for item in items]}
        saga = new_id()
        acted = call(shop, "PUT", first.path + saga, body)[0]
        return acted, call(shop, "PUT", first.path + saga + "/cancel", body)[0]

    assert side_by_side(16, reserve) == [(200, 200)] * 16
    assert [first.stock(item) for item in first.items] == [(100, 0)] * 2


def test_a_reservation_that_waits_decides_by_the_stock_it_waited_for(shop, database):
    step = Warehouse(shop)
    call(shop, "PUT", step.stock_path(step.items[0]), {"available": 0})
    execute(database, "UPDATE warehouse.stock SET available = 9 WHERE item = %s", step.items[0])
    assert while_open(shop, database, lambda: act(step), database.commit)[0] == 200
    assert step.held() == step.one_step


def test_one_short_line_refuses_all_and_stays_refused_when_stock_comes(shop):
    step = Warehouse(shop)
    call(shop, "PUT", step.stock_path(step.items[0]), {"available": 2})
    status, problem = act(step)
    assert status == 409
    assert step.items[0] in problem["detail"]
    assert [step.stock(item) for item in step.items] == [(2, 0), (9, 0)]
    call(shop, "PUT", step.stock_path(step.items[0]), {"available": 9})
    assert act(step)[0] == 409
    assert cancel(step)[0] == 200
    assert step.held() == 0


def test_stock_that_was_never_taken_is_not_given_back(shop):
    item, saga = new_id(), new_id()
    body = {"orderId": new_id(), "lines": [{"item": item, "amount": 2}]}
    status, lines = call(shop, "PUT", "/warehouse/step/" + saga, body)
    assert (status, lines[0]["status"]) == (200, "RESERVED")
    call(shop, "PUT", "/warehouse/stock/" + item, {"available": 4})
    assert call(shop, "PUT", f"/warehouse/step/{saga}/cancel", body)[0] == 200
    assert call(shop, "GET", "/warehouse/stock/" + item)[1] == {"item": item, "available": 4, "reserved": 0}


def test_a_changed_reservation_moves_its_stock(shop):
    item = new_id()
    stock = "/warehouse/stock/" + item
    call(shop, "PUT", stock, {"available": 4})
    line = {"orderId": new_id(), "item": item, "amount": 3, "status": "RESERVED"}
    _, [made] = call(shop, "POST", "/warehouse/warehouse", [line])
    path = "/warehouse/warehouse/" + made["id"]
    canceled = {"orderId": line["orderId"], "item": item, "status": "CANCELED"}

    def left():
        record = call(shop, "GET", stock)[1]
        return record["available"], record["reserved"]

    assert left() == (1, 3)
    assert call(shop, "PUT", path, canceled) == (200, {"status": True})
    assert left() == (4, 0)
    assert call(shop, "PUT", path, canceled | {"status": "RESERVED"})[1] == {"status": True}
    assert left() == (1, 3), "without an amount it stays what it was"
    assert call(shop, "PUT", path, line | {"amount": 5})[0] == 409
    assert left() == (1, 3)
    assert call(shop, "PUT", path, line | {"amount": 4})[1] == {"status": True}
    assert call(shop, "DELETE", path) == (200, {"status": True})
    assert left() == (4, 0)


def test_a_refused_post_changes_nothing_and_its_key_may_be_used_again(shop):
    item, key = new_id(), new_id()
    stock = "/warehouse/stock/" + item
    call(shop, "PUT", stock, {"available": 1})
    lines = [{"orderId": new_id(), "item": name, "amount": 2, "status": "RESERVED"} for name in (new_id(), item)]
    assert call(shop, "POST", "/warehouse/warehouse", lines, key)[0] == 409
    assert call(shop, "GET", stock)[1]["available"] == 1
    call(shop, "PUT", stock, {"available": 2})
    first = call(shop, "POST", "/warehouse/warehouse", lines, key)
    assert first[0] == 200
    assert call(shop, "POST", "/warehouse/warehouse", lines, key) == first
    assert call(shop, "GET", stock)[1] == {"item": item, "available": 0, "reserved": 2}


def test_a_full_slot_refuses_and_a_cancel_frees_it(shop):
    step = Delivery(shop)
    sagas = [new_id() for _ in range(12)]
    answers = side_by_side(12, lambda i: call(shop, "PUT", step.path + sagas[i], step.body)[0])
    assert sorted(answers) == [200] * 3 + [409] * 9
    assert call(shop, "PUT", step.slot, {"capacity": 2})[0] == 409
    assert call(shop, "POST", "/delivery/delivery", step.body | {"status": "SCHEDULED"})[0] == 409
    side_by_side(12, lambda i: call(shop, "PUT", step.path + sagas[i] + "/cancel", step.body))
    assert call(shop, "GET", step.slot)[1] == {"timeDelivery": step.body["timeDelivery"], "capacity": 3, "taken": 0}


def test_a_delivery_that_waits_decides_by_the_slot_it_waited_for(shop, database):
    step = Delivery(shop)
    call(shop, "PUT", step.slot, {"capacity": 0})
    execute(database, "UPDATE delivery.slots SET capacity = 1 WHERE time_delivery = %s", step.body["timeDelivery"])
    assert while_open(shop, database, lambda: act(step), database.commit)[0] == 200
    assert step.held() == 1


def test_a_changed_delivery_moves_its_place(shop):
    here, there = Delivery(shop), Delivery(shop)
    call(shop, "PUT", there.slot, {"capacity": 0})
    _, made = call(shop, "POST", "/delivery/delivery", here.body | {"status": "SCHEDULED"})
    path = "/delivery/delivery/" + made["id"]
    assert call(shop, "PUT", path, there.body | {"status": "SCHEDULED"})[0] == 409
    assert (here.held(), there.held()) == (1, 0)
    call(shop, "PUT", there.slot, {"capacity": 1})
    assert call(shop, "PUT", path, there.body | {"status": "SCHEDULED"}) == (200, {"status": True})
    assert (here.held(), there.held()) == (0, 1)
    assert call(shop, "PUT", path, there.body | {"status": "CANCELED"}) == (200, {"status": True})
    assert there.held() == 0
    assert call(shop, "PUT", path, there.body | {"status": "SCHEDULED"}) == (200, {"status": True})
    assert call(shop, "DELETE", path) == (200, {"status": True})
    assert there.held() == 0


def test_a_time_that_is_not_in_the_future_is_refused_unless_it_was_taken_before(shop):
    past, saga = {"orderId": new_id(), "timeDelivery": "2020-01-01T10:00"}, new_id()
    status, problem = call(shop, "PUT", "/delivery/step/" + saga, past)
    assert (status, problem["pointer"]) == (422, "/timeDelivery")
    first = call(shop, "PUT", "/delivery/step/" + saga, past | {"timeDelivery": FUTURE})
    assert first[0] == 200
    assert call(shop, "PUT", "/delivery/step/" + saga, past) == first


def history(database, account):
    with database.cursor() as cursor:
        cursor.execute("SELECT sum, last_value_wallet, current_value_wallet, type_operation, status "
                       "FROM billing.history_billings WHERE billing_id = %s", (account,))
        found = cursor.fetchall()
    database.rollback()
    return found


def test_the_history_of_a_busy_wallet_is_one_chain(shop, database):
    account = call(shop, "POST", "/billing/billing", {"wallet": 10})[1]["id"]
    path = "/billing/billing/"

    def operate(i):
        if i % 4 == 0:
            return call(shop, "PUT", f"{path}refill/{account}/1.75")
        if i % 4 == 1:
            return call(shop, "PUT", f"{path}{account}/3.1")
        saga, body = new_id(), {"billingId": account, "sum": 2.25}
        bought = call(shop, "PUT", f"/billing/step/{saga}/buy", body)
        return bought if i % 4 == 2 else call(shop, "PUT", f"/billing/step/{saga}/refund", body)

    answers = side_by_side(32, operate)
    assert {status for status, _ in answers} <= {200, 409}
    wallet = call(shop, "GET", path + account)[1]["wallet"]
    found = history(database, account)
    assert len([row for row in found if row[3] == "CREATE"]) == 1
    assert len([row for row in found if row[3] == "REFILL"]) == 8
    assert len([row for row in found if row[3] == "BUY"]) == 24
    taken = [row for row in found if row[3:] == ("BUY", "SUCCESS")]
    failed = [row for row in found if row[3:] == ("BUY", "FAILED")]
    assert all(last == current < amount for amount, last, current, _, _ in failed)
    assert all(last - amount == current >= 0 for amount, last, current, _, _ in taken)
    added = [row for row in found if row[3] != "BUY"]
    assert all(last + amount == current for amount, last, current, _, _ in added)
    assert sum(row[0] for row in added) - sum(row[0] for row in taken) == wallet
    # Each change begins where another ended: as a multiset, the values before and after differ by the two ends only.
    before, after = (sorted(row[i] for row in taken + added) for i in (1, 2))
    assert sorted(before + [wallet]) == sorted(after + [0])


def test_a_buy_that_waits_decides_by_the_wallet_it_waited_for(shop, database):
    step = Payment(shop)
    execute(database, "UPDATE billing.accounts SET wallet = 500 WHERE id = %s", step.account)
    path = f"/billing/billing/{step.account}/450"
    assert while_open(shop, database, lambda: call(shop, "PUT", path), database.commit) == (200, {"status": True})
    execute(database, "UPDATE billing.accounts SET wallet = 31 WHERE id = %s", step.account)
    assert while_open(shop, database, lambda: act(step), database.commit)[0] == 200
    execute(database, "UPDATE billing.accounts SET wallet = 3 WHERE id = %s", step.account)
    assert while_open(shop, database, lambda: call(shop, "PUT", path), database.commit) == (200, {"status": False})
    assert [row[1:] for row in history(database, step.account)][1:] == [
        (500, 50, "BUY", "SUCCESS"), (31, decimal.Decimal("0.5"), "BUY", "SUCCESS"), (3, 3, "BUY", "FAILED")]


def test_a_refused_buy_leaves_one_failed_row_and_stays_refused(shop, database):
    step = Payment(shop)
    step.body["cost"] = 100.01
    first = act(step)
    assert (first[0], first[1]["detail"]) == (409, "the wallet holds too little")
    call(shop, "PUT", f"/billing/billing/refill/{step.account}/50")
    assert act(step) == first
    assert cancel(step)[0] == 200
    assert [row[3:] for row in history(database, step.account)] == [
        ("CREATE", "SUCCESS"), ("BUY", "FAILED"), ("REFILL", "SUCCESS")]
    assert step.held() == -50


def test_a_payment_from_no_account_is_refused(shop):
    step = Payment(shop)
    step.body["billingId"] = new_id()
    assert act(step)[0] == 409
    assert cancel(step)[0] == 200


def test_an_account_is_opened_once_and_closed_for_good(shop, database):
    saga, account = new_id(), {"billingId": new_id()}
    opened = (200, {"id": account["billingId"], "wallet": 0})
    assert side_by_side(4, lambda _: call(shop, "PUT", f"/billing/step/{saga}/open", account)) == [opened] * 4
    assert [row[3:] for row in history(database, account["billingId"])] == [("CREATE", "SUCCESS")]
    assert call(shop, "PUT", f"/billing/step/{new_id()}/open", account)[0] == 409
    assert side_by_side(4, lambda _: call(shop, "PUT", f"/billing/step/{saga}/close", account)) == [
        (200, {"status": True})] * 4
    assert call(shop, "PUT", f"/billing/step/{saga}/open", account)[0] == 409
    assert call(shop, "GET", "/billing/billing/" + account["billingId"])[0] == 404


def test_a_wallet_never_grows_beyond_what_can_be_stored(shop):
    account = call(shop, "POST", "/billing/billing", {"wallet": 80_000_000_000_000_000})[1]["id"]
    key = new_id()
    refill = f"/billing/billing/refill/{account}/20000000000000000"
    assert call(shop, "PUT", refill, key=key)[0] == 422
    assert call(shop, "PUT", refill, key=key)[0] == 422
    assert call(shop, "PUT", f"/billing/billing/{account}/79999999999999999.5") == (200, {"status": True})
    assert call(shop, "PUT", refill, key=key) == (200, {"status": True})
    assert call(shop, "PUT", refill, key=key) == (200, {"status": True})
    assert call(shop, "GET", "/billing/billing/" + account)[1]["wallet"] == decimal.Decimal("20000000000000000.5")

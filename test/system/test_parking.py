"""Sagas that cannot continue by themselves are parked; operators can retry, skip and cancel."""

import concurrent.futures
import contextlib
import uuid

import pytest

from harness.check import done, ok, pages, problem
from harness.gate import Gate
from harness.goods import line, new_account, past, person, saga, set_stock, stock, wallet
from harness.metrics import metric, scrape
from harness.server import SLOWER, Server
from harness.shop import SevenShops, opened
from harness.wait import wait_for

SAGA = "/order/order/saga"
ENDED = ("SUCCEEDED", "COMPENSATED")
REFUSALS = 3


@pytest.fixture(scope="module")
def seven():
    """Delivery and Billing are called through gates."""
    shop = SevenShops(SAGA_PARK_REFUSALS=REFUSALS, SAGA_PARK_AFTER="6s", SAGA_ATTEMPT_TIMEOUT="500ms", SAGA_LEASE="3s")
    with contextlib.ExitStack() as stack:
        shop.gates = {name: Gate(shop.ports[name]) for name in ("delivery", "billing")}
        for name, gate in shop.gates.items():
            stack.callback(gate.close)
            shop.more[f"{name.upper()}_URL"] = gate.url
        yield stack.enter_context(opened(shop))
        shop.assert_sound()
        shop.stop()


@pytest.fixture
def another(seven):
    """A second process of Order."""
    server = Server("order", **seven.settings())
    try:
        server.start()
        yield server
        server.stop()
    finally:
        server.end()


def view(shop, order):
    return ok(shop.get(f"/order/saga/{order}"))


def state(shop, order):
    return view(shop, order)["state"]


def reaches(shop, order, *states):
    wait_for(f"one of {states} of {order}", lambda: state(shop, order) in states, 20 * SLOWER)
    return view(shop, order)


def park(shop, **request):
    """The id of an order whose delivery refuses its compensation. The gate must be refusing."""
    answer = shop.post(SAGA, saga(when=past(), **request))
    assert answer.status == 202 and answer.json["state"] == "PARKED", answer
    assert answer.headers["location"] == f"/order/saga/{answer.json['id']}"
    return answer.json["id"]


def retry(shop, order, **options):
    return shop.post(f"/order/saga/{order}/retry", **options)


def skip(shop, order, step="delivery", reason="undone by hand", **options):
    return shop.post(f"/order/saga/{order}/skip", {"step": step, "reason": reason}, **options)


def trail(shop, order):
    return [(one["action"], one["step"], one["reason"], one["by"]) for one in view(shop, order)["operations"]]


def assert_rolled_back(shop, order):
    found = reaches(shop, order, *ENDED)
    assert found["state"] == "COMPENSATED" and found["parked"] is None
    assert ok(shop.get(f"/order/order/{order}"))["status"] == "CANCELED"
    return found


def settle(shop, order):
    """The gate must be open."""
    assert done(retry(shop, order))
    return assert_rolled_back(shop, order)


def epoch(shop, order):
    return shop.value("order", 'SELECT epoch FROM "order".saga WHERE id = %s', order)


def test_undoing_that_is_refused(seven):
    """All other steps are compensated; then retries stop, and the order waits."""
    account, item = new_account(seven, 1000), set_stock(seven, 5)
    gate = seven.gates["delivery"]
    with gate.refusing("/cancel"):
        before = gate.refused
        order = park(seven, contents=[line(item, 2)], account=account)
        assert gate.refused == before + REFUSALS
        assert wallet(seven, account) == 1000 and stock(seven, item) == (5, 0)
        found = view(seven, order)
        assert (found["state"], found["failedStep"], found["finishedAt"]) == ("PARKED", "delivery", None)
        assert (found["parked"]["step"], found["parked"]["state"]) == ("delivery", "COMPENSATING")
        assert "409: out of order" in found["parked"]["reason"] and found["parked"]["at"] >= found["createdAt"]
        assert {one["name"]: one["state"] for one in found["steps"]}["payment"] == "UNDONE"
        assert ok(seven.get(f"/order/order/{order}"))["status"] == "PENDING"
        assert order in [one["id"] for one in pages(seven, "/order/saga?state=PARKED&page_size=1")]
        assert order not in [one["id"] for one in ok(seven.get("/order/saga?state=COMPENSATING"))]
    settle(seven, order)
    assert wallet(seven, account) == 1000 and stock(seven, item) == (5, 0)


def test_parked_sagas_outlive_their_process(seven):
    """A retried saga that is parked again proves that due sagas were claimed; the other one was left alone."""
    with seven.gates["delivery"].refusing("/cancel"):
        quiet, asked = park(seven), park(seven)
        seven.servers["order"].kill()
        seven.servers["order"].start()
        was = epoch(seven, quiet)
        first = view(seven, asked)["parked"]["at"]
        assert done(retry(seven, asked))
        wait_for("the second parking", lambda: (view(seven, asked)["parked"] or {"at": first})["at"] > first, 20 * SLOWER)
        assert state(seven, quiet) == "PARKED" and epoch(seven, quiet) == was
    settle(seven, quiet)
    settle(seven, asked)


def test_answer_comes_with_the_key(seven):
    """A retry with the same key gets the outcome."""
    key, body = str(uuid.uuid4()), saga(when=past())
    with seven.gates["delivery"].refusing("/cancel"):
        order = seven.post(SAGA, body, key=key).json["id"]
        problem(seven.post(SAGA, body, key=key), 409)
    settle(seven, order)
    again = problem(seven.post(SAGA, body, key=key), 424)
    assert (again["orderId"], again["step"]) == (order, "delivery")


def test_outage_is_waited_for(seven):
    """A participant without a response leads to parking by time, not by number of attempts."""
    gate = seven.gates["delivery"]
    with gate.refusing("/cancel", status=503):
        before = gate.refused
        order = seven.post(SAGA, saga(when=past()), Prefer="respond-async").json["id"]
        wait_for("more calls than refusals are borne", lambda: gate.refused > before + REFUSALS, 20 * SLOWER)
        assert state(seven, order) == "COMPENSATING"
        parked = reaches(seven, order, "PARKED")["parked"]
        assert parked["step"] == "delivery" and "503" in parked["reason"] and "in time" in parked["reason"]
    settle(seven, order)


def test_skip(seven):
    gate = seven.gates["delivery"]
    with gate.refusing("/cancel"):
        order = park(seven)
        problem(skip(seven, order, step="payment"), 409)
        problem(seven.post(f"/order/saga/{order}/skip", {"step": "delivery"}), 422, "/reason")
        problem(seven.post(f"/order/saga/{order}/skip", {"reason": "x"}), 422, "/step")
        before = gate.refused
        assert done(skip(seven, order, X_Operator="maksim"))
        found = assert_rolled_back(seven, order)
        assert gate.refused == before
    assert {one["name"]: one["state"] for one in found["steps"]} == {
        "payment": "UNDONE", "warehouse": "UNDONE", "delivery": "SKIPPED"}
    assert trail(seven, order) == [("skip", "delivery", "undone by hand", "maksim")]


def test_skipped_step_stays_skipped(seven):
    """Even if the next step fails too, and if another process takes over."""
    account = new_account(seven, 1000)
    with seven.gates["delivery"].refusing("/cancel"), seven.servers["warehouse"].frozen():
        order = seven.post(SAGA, saga(when=past(), account=account), Prefer="respond-async").json["id"]
        first = reaches(seven, order, "PARKED")["parked"]["step"]
        assert first in ("delivery", "warehouse")
        assert done(skip(seven, order, step=first))
        second = reaches(seven, order, "PARKED")["parked"]["step"]
        assert {first, second} == {"delivery", "warehouse"}
        seven.servers["order"].kill()
        seven.servers["order"].start()
        assert done(skip(seven, order, step=second))
        assert_rolled_back(seven, order)
    assert [one[:2] for one in trail(seven, order)] == [("skip", first), ("skip", second)]
    assert wallet(seven, account) == 1000


def test_trail(seven):
    with seven.gates["delivery"].refusing("/cancel"):
        order = park(seven)
        problem(retry(seven, order, X_Operator="x" * 201), 400)
        problem(retry(seven, order, body={"reason": 5}), 422, "/reason")
        assert state(seven, order) == "PARKED" and trail(seven, order) == []
        assert done(retry(seven, order, body={"reason": "it is back"}, X_Operator="maksim"))
        wait_for("the second parking", lambda: state(seven, order) == "PARKED", 20 * SLOWER)
    settle(seven, order)
    assert trail(seven, order) == [("retry", "delivery", "it is back", "maksim"), ("retry", "delivery", None, None)]
    times = [one["at"] for one in view(seven, order)["operations"]]
    assert times == sorted(times)


def test_command_with_a_key_is_done_once(seven):
    key = str(uuid.uuid4())
    problem(retry(seven, str(uuid.uuid4()), key=key), 404)
    with seven.gates["delivery"].refusing("/cancel"):
        order, key = park(seven), str(uuid.uuid4())
        problem(skip(seven, order, step="payment", key=key), 409)
        again = skip(seven, order, step="payment", key=key)
        problem(again, 409)  # a refusal is not kept
        assert "idempotent-replayed" not in again.headers
        assert done(retry(seven, order, key=key + "2"))
        replay = retry(seven, order, key=key + "2")
        assert done(replay) and replay.headers["idempotent-replayed"] == "true"
        assert len(trail(seven, order)) == 1
        reaches(seven, order, "PARKED")
    settle(seven, order)


def test_what_no_command_can_do(seven):
    nobody = str(uuid.uuid4())
    good = ok(seven.post(SAGA, saga()))[0]["id"]
    bad = problem(seven.post(SAGA, saga(when=past())), 424)["orderId"]
    for command in ("retry", "cancel"):
        problem(seven.post(f"/order/saga/{nobody}/{command}"), 404)
        problem(seven.post(f"/order/saga/x/{command}"), 400)
        for order in (good, bad):
            assert "has ended" in problem(seven.post(f"/order/saga/{order}/{command}"), 409)["detail"]
    problem(skip(seven, nobody), 404)
    problem(skip(seven, good), 409)
    with seven.gates["delivery"].refusing("/cancel"):
        order = park(seven)
        assert "parked" in problem(seven.post(f"/order/saga/{order}/cancel"), 409)["detail"]
    with seven.gates["delivery"].refusing("/cancel", status=503):
        assert done(retry(seven, order))
        assert "COMPENSATING" in problem(retry(seven, order), 409)["detail"]
        problem(skip(seven, order), 409)
        assert "already" in problem(seven.post(f"/order/saga/{order}/cancel"), 409)["detail"]
    assert_rolled_back(seven, order)
    problem(seven.get("/order/saga?state=LOST"), 400)


def test_cancel_by_another_process(seven, another):
    """The process that drives the saga is fenced, and its client is told to query the saga."""
    account, key = new_account(seven, 1000), str(uuid.uuid4())
    body = saga(account=account)
    with concurrent.futures.ThreadPoolExecutor(1) as pool, seven.servers["delivery"].frozen():
        waiting = pool.submit(seven.post, SAGA, body, key=key)
        order = wait_for("the saga", lambda: [one["id"] for one in ok(seven.get("/order/saga?state=RUNNING"))])[0]
        assert done(another.client.post(f"/order/saga/{order}/cancel", {"reason": "the customer rang"}, X_Operator="maksim"))
        assert state(seven, order) == "COMPENSATING"
    found = assert_rolled_back(seven, order)
    assert (found["failedStep"], found["reason"]) == (None, "canceled by an operator")
    assert trail(seven, order) == [("cancel", None, "the customer rang", "maksim")]
    assert waiting.result().status == 202 and waiting.result().json["id"] == order
    answer = problem(seven.post(SAGA, body, key=key), 424)
    assert answer["step"] is None and answer["reason"] == answer["detail"] == "canceled by an operator"
    assert wallet(seven, account) == 1000


def test_cancel_against_the_end(seven, another):
    """Repeatedly, at random moments: an order is either canceled, as the operator was told, or a normal successful
    one."""
    account = new_account(seven, 100000)

    def both(i):
        order = seven.post(SAGA, saga([line(price=1)], account=account), Prefer="respond-async").json["id"]
        for _ in range(i % 10):
            ok(seven.get(f"/order/saga/{order}"))
        if i % 10 == 9:
            reaches(seven, order, *ENDED)
        where = another.client if i % 2 else seven
        return order, where.post(f"/order/saga/{order}/cancel")

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        results = list(pool.map(both, range(80)))
    for order, answer in results:
        assert answer.status in (200, 409), answer
        ended = reaches(seven, order, *ENDED)["state"]
        assert (ended == "COMPENSATED") == (answer.status == 200), (ended, answer)
    assert len({answer.status for _, answer in results}) == 2, "one of the two always came first"
    good = sum(answer.status == 409 for _, answer in results)
    assert wallet(seven, account) == 100000 - good


def test_registration(seven):
    body = person()
    with seven.gates["billing"].refusing("/open", "/close"):
        answer = seven.post("/user/user", body)
        assert "operator" in problem(answer, 503)["detail"]
        parked = ok(seven.get("/user/saga?state=PARKED"))
        assert [one["type"] for one in parked] == ["registration"]
    path = f"/user/saga/{parked[0]['id']}"
    assert done(seven.post(f"{path}/retry", X_Operator="maksim"))
    wait_for("the end", lambda: ok(seven.get(path))["state"] == "COMPENSATED", 20 * SLOWER)
    assert [one["by"] for one in ok(seven.get(path))["operations"]] == ["maksim"]
    assert seven.value("user", 'SELECT count(*) FROM "user".users WHERE name = %s', body["name"]) == 0


def test_metrics(seven, another):
    """Every process reports the same number, which survives them; parking is counted where it happened."""
    def parked(server):
        return metric(server, "skald_sagas_parked", type="order")

    servers = [seven.servers["order"], another]
    with seven.gates["delivery"].refusing("/cancel"):
        before = scrape(servers[0]).total("skald_saga_parkings_total", type="order", step="delivery")
        orders = [park(seven), park(seven)]
        assert scrape(servers[0]).total("skald_saga_parkings_total", type="order", step="delivery") == before + 2
    for server in servers:
        wait_for("the parked", lambda one=server: parked(one) == 2, 20 * SLOWER)
    assert scrape(servers[0]).total("skald_sagas_running") == 0
    servers[0].kill()
    servers[0].start()
    wait_for("the parked, after a restart", lambda: scrape(servers[0]).total("skald_sagas_parked", type="order") == 2,
             20 * SLOWER)
    for order in orders:
        settle(seven, order)
    for server in servers:
        wait_for("none", lambda one=server: parked(one) == 0, 20 * SLOWER)


def test_audit_names_them(seven):
    """They are neither a violation nor settled."""
    with seven.gates["delivery"].refusing("/cancel"):
        orders = [park(seven), park(seven)]
    found = seven.audit()
    assert found.returncode == 0, found.stdout + found.stderr
    assert all(f"saga {order} (order) is parked" in found.stdout for order in orders)
    assert "2 parked sagas" in found.stdout and found.stdout.endswith("checked: clean except for parked sagas\n")
    for order in orders:
        settle(seven, order)
    seven.settle()
    assert seven.audit().stdout.endswith("checked: clean\n")


def test_process_that_ends_keeps_nothing(seven):
    """It keeps not even a saga that it took over and cannot read."""
    server = seven.servers["order"]
    seven.execute("order", 'INSERT INTO "order".saga (id, type, state, owner, due_at, input) VALUES '
                  "(gen_random_uuid(), 'unheard-of', 'RUNNING', '', clock_timestamp(), '{}')")
    mine = "SELECT owner <> '' FROM \"order\".saga WHERE type = 'unheard-of'"
    try:
        wait_for("the takeover", lambda: seven.value("order", mine), 20 * SLOWER)
        server.stop()
        assert not seven.value("order", mine)
    finally:
        seven.execute("order", "DELETE FROM \"order\".saga WHERE type = 'unheard-of'")
    server.start()


def test_takeovers_leave_room_for_requests():
    """A process that restarts with more sagas than it may drive keeps serving, and completes all of them in time."""
    stuck, most, fibers = 100, 10, 64
    shop = SevenShops(SAGA_LEASE="3s")
    with contextlib.ExitStack() as stack:
        gate = Gate(shop.ports["delivery"])
        stack.callback(gate.close)
        shop.more["DELIVERY_URL"] = gate.url
        stack.enter_context(opened(shop))
        server = shop.servers["order"]
        with gate.refusing("/cancel", status=503):
            for _ in range(stuck):
                assert shop.post(SAGA, saga(when=past()), Prefer="respond-async").status == 202
            wait_for("sagas that cannot end", lambda: in_state(shop, "COMPENSATING") == stuck, 20 * SLOWER)
            server.kill()
            server.settings |= {"MAX_FIBERS": fibers, "SAGA_RUNNING_MAX": most}
            server.start()
            taken, seen = most * 3 // 2, gate.refused
            wait_for("takeovers", lambda: metric(server, "skald_saga_takeovers_total") >= taken, 20 * SLOWER)
            wait_for("sagas being driven", lambda: gate.refused >= seen + 4 * taken, 20 * SLOWER)
            assert scrape(server).total("skald_sagas_running") == taken
            problem(shop.post(SAGA, saga()), 503)
            ok(shop.get("/order/saga?state=COMPENSATING"))
        wait_for("all to end", lambda: in_state(shop, "COMPENSATED") == stuck, 60 * SLOWER)
        ok(shop.post(SAGA, saga()))
        shop.assert_sound()
        shop.stop()


def in_state(shop, name):
    return shop.value("order", 'SELECT count(*) FROM "order".saga WHERE state = %s', name)

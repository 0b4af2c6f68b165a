"""The server's processes: clean shutdown, workers that die, and a start after a crash."""

import concurrent.futures
import contextlib
import os
import signal
import socket
import threading
import time
import uuid

import pytest

from harness.check import ok, problem
from harness.client import read_answer
from harness.goods import line, new_account, new_user, payment, person, refill, saga, set_stock, stock, wallet
from harness.logs import Receiver
from harness.process import cpu_seconds
from harness.server import SLOWER, STOP_SECONDS, Server
from harness.shop import OneShop, opened
from harness.wait import wait_for

DRAIN_SECONDS = 4
LOCK_SECONDS = 3  # lock_timeout: so long may a statement wait, and what was sent with it or right behind it


@pytest.fixture(scope="module")
def shop():
    with opened(OneShop(WORKERS=2, DRAIN_TIMEOUT=f"{DRAIN_SECONDS}s")) as one:
        yield one
        one.settle()
        one.stop()


@pytest.fixture(autouse=True)
def running(shop):
    if not shop.server.running():
        shop.start()


@contextlib.contextmanager
def held(shop, service, sql, *values):
    """Holds the statement's locks until the block ends."""
    db = shop.cluster.connect(shop.database(service))
    db.autocommit = False
    try:
        with db.cursor() as cursor:
            cursor.execute(sql, values)
        yield
    finally:
        db.close()


def locked(shop, account):
    return held(shop, "billing", "SELECT FROM billing.accounts WHERE id = %s FOR UPDATE", account)


def wait_blocked(shop, count=1):
    wait_for("who waits for the lock", lambda: shop.value(
        "billing", "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") >= count)


class SilentServer:
    """It takes every connection and never responds."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.socket.setblocking(False)
        self.url = "http://127.0.0.1:%d" % self.socket.getsockname()[1]
        self.taken = []

    def connections(self):
        with contextlib.suppress(BlockingIOError):
            while True:
                self.taken.append(self.socket.accept()[0])
        return len(self.taken)

    def close(self):
        for connection in [self.socket, *self.taken]:
            connection.close()


def refuses_connections(shop):
    try:
        with shop.connect(timeout=1) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            return read_answer(connection) is None
    except OSError:
        return True


@pytest.mark.timed
def test_requests_in_flight_are_finished_before_the_end(shop):
    account = new_account(shop, 100)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        with locked(shop, account):
            buying = pool.submit(shop.put, f"/billing/billing/{account}/30")
            wait_blocked(shop)
            shop.server.terminate()
            wait_for("nobody new to be let in", lambda: refuses_connections(shop), 2 * SLOWER)
            assert shop.server.running()
        answer = buying.result()
    assert ok(answer) == {"status": True}
    assert answer.headers.get("connection") == "close"
    began = time.monotonic()
    assert shop.server.wait() == 0
    assert time.monotonic() - began < 2 * SLOWER
    shop.start()
    assert wallet(shop, account) == 70


def test_saga_in_flight_is_finished_before_the_end(shop):
    account = new_account(shop, 500)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        with locked(shop, account):
            ordering = pool.submit(shop.post, "/order/order/saga", saga(account=account))
            wait_blocked(shop)
            shop.server.terminate()
        order = ok(ordering.result())[0]["id"]
    assert shop.server.wait() == 0
    shop.start()
    assert ok(shop.get(f"/order/order/{order}"))["status"] == "SUCCESS"


@pytest.mark.timed
def test_the_end_is_bounded(shop):
    """A request that cannot be finished does not keep the server running indefinitely."""
    account = new_account(shop, 100)
    with concurrent.futures.ThreadPoolExecutor(2) as pool, locked(shop, account):
        def buy():
            with contextlib.suppress(OSError):
                shop.put(f"/billing/billing/{account}/30")
        pool.submit(buy)
        wait_blocked(shop)
        began = time.monotonic()
        shop.server.terminate()
        shop.server.wait()
        assert time.monotonic() - began < DRAIN_SECONDS + 4 * SLOWER
    shop.start()
    shop.assert_sound()


@pytest.mark.timed
def test_idle_server_ends_at_once(shop):
    with shop.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_answer(connection).status == 200
        began = time.monotonic()
        shop.server.terminate()
        assert shop.server.wait() == 0
        assert time.monotonic() - began < 2 * SLOWER, "a connection that is kept alive is no reason to stay"


class NotificationAlone(OneShop):
    def prepare(self):
        self.servers["all"] = Server("notification", port=self.port, **self.settings())


@pytest.mark.timed
def test_a_drain_that_waits_for_a_silent_service_is_idle():
    """Fibers that must wait on after they were canceled do so asleep."""
    with contextlib.closing(SilentServer()) as silent, opened(NotificationAlone(WORKERS=1, USER_URL=silent.url)) as shop:
        shop.execute("billing", "INSERT INTO billing.history_billings (id, billing_id, sum, last_value_wallet, "
                      "current_value_wallet, type_operation, status) SELECT gen_random_uuid(), gen_random_uuid(), 0, 0, 0, "
                      "'CREATE', 'SUCCESS' FROM generate_series(1, 8)")  # one transaction: one batch of events
        wait_for("concurrent look-ups of their recipients", lambda: silent.connections() >= 8, 20 * SLOWER)
        processes = shop.server.pids()
        before = sum(map(cpu_seconds, processes))
        shop.server.terminate()
        spent = [0]

        def ended():
            spent.append(sum(map(cpu_seconds, processes)) - before)
            return shop.server.process.poll() is not None

        began = time.monotonic()
        wait_for("the end of the process", ended, STOP_SECONDS)
        assert time.monotonic() - began > 0.5, "it did not have to wait"
        assert max(spent) < 0.1 * SLOWER
        assert shop.server.wait() == 0


@pytest.mark.timed
def test_unready_process_serves_on_for_the_delay(shop):
    """So that a load balancer can notice before any request is refused."""
    with opened(OneShop(WORKERS=2, DRAIN_DELAY="3s")) as one:
        with one.connect() as kept:
            began = time.monotonic()
            one.server.terminate()
            problem(wait_for("a process no longer ready", lambda: not_ready(one), 2 * SLOWER), 503)
            assert one.get("/livez").status == 200
            answer = one.post("/order/order/saga", saga())
            assert ok(answer)[0]["status"] == "SUCCESS"
            assert answer.headers.get("connection") == "close"
            kept.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert read_answer(kept).headers.get("connection") == "close"
            assert one.server.running()
        assert one.server.wait() == 0
        assert 3 <= time.monotonic() - began < 3 + 3 * SLOWER


def not_ready(shop):
    answer = shop.get("/readyz")
    return answer if answer.status != 200 else None


def test_a_kept_connection_begins_nothing_once_the_end_has_begun():
    """While running requests are being finished. A worker learns of the shutdown later than the supervisor."""
    with opened(OneShop(WORKERS=1, DRAIN_TIMEOUT="30s")) as one, contextlib.ExitStack() as open_connections:
        account, other = new_account(one, 100), new_account(one, 100)
        request = f"PUT /billing/billing/{other}/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()
        kept = [open_connections.enter_context(one.connect()) for _ in range(20)]
        done = 0

        def refused():
            nonlocal done
            answer = ask(kept[-1], request)
            if answer.status != 200:
                return answer
            done += 1
            if answer.headers.get("connection") == "close":
                kept.pop()
            return None

        for connection in kept:
            assert "close" not in ask(connection, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").headers.get("connection", "")
        with locked(one, account):
            begun = one.post("/order/order/saga", saga(account=account), Prefer="respond-async")
            assert begun.status == 202
            wait_blocked(one)
            one.server.terminate()
            wait_for("nobody new to be let in", lambda: refuses_connections(one), 2 * SLOWER)
            answer = wait_for("a refusal", refused, (LOCK_SECONDS + 2) * SLOWER)
            problem(answer, 503)
            assert answer.headers["connection"] == "close"
            assert int(answer.headers["retry-after"]) >= 0
            assert kept[-1].recv(1) == b""
        assert one.server.wait() == 0
        one.start()
        assert wallet(one, other) == 100 - done
        one.assert_sound()
        one.stop()


def ask(kept, request):
    kept.sendall(request)
    return read_answer(kept)


def test_no_request_of_a_kept_connection_is_begun_and_cut(shop):
    """Each has a complete response, or was not executed."""
    accounts = [new_account(shop, 0) for _ in range(8)]
    answered = threading.Semaphore(0)

    def work(account):
        done = 0
        request = f"PUT /billing/billing/refill/{account}/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()
        with contextlib.suppress(ConnectionError):
            while True:
                with shop.connect() as kept:
                    answer, persistent = None, True
                    while persistent:
                        kept.sendall(request)
                        answer = read_answer(kept)
                        if answer is None:
                            return done
                        assert answer.status in (200, 503), answer
                        done += answer.status == 200
                        answered.release()
                        persistent = answer.headers.get("connection") != "close"
        return done

    with concurrent.futures.ThreadPoolExecutor(len(accounts)) as pool:
        workers = [pool.submit(work, account) for account in accounts]
        for _ in range(40 * len(accounts)):
            assert answered.acquire(timeout=30 * SLOWER)
        shop.server.terminate()
        done = [worker.result() for worker in workers]
    assert shop.server.wait() == 0
    shop.start()
    assert [wallet(shop, account) for account in accounts] == done


def test_all_that_an_end_can_take_is_within_its_bound():
    """The sagas of two services that cannot be released, and log lines that are never acknowledged."""
    with Receiver(reads=False) as nobody, opened(OneShop(WORKERS=1, DRAIN_TIMEOUT="1s",
                                                         LOG_FORWARD=f"127.0.0.1:{nobody.port}")) as one:
        def register():
            with contextlib.suppress(OSError):
                one.post("/user/user", person())

        with contextlib.ExitStack() as stack:
            pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(1))
            account = new_account(one, 100)
            stack.enter_context(held(one, "billing", "LOCK TABLE billing.accounts"))
            assert one.post("/order/order/saga", saga(account=account), Prefer="respond-async").status == 202
            pool.submit(register)
            wait_blocked(one, 2)
            for service in ("order", "user"):
                stack.enter_context(held(one, service, f'LOCK TABLE "{service}".saga'))
            one.server.terminate()
            assert one.server.wait() == 0, "nobody had to be killed"
        one.start()
        one.assert_sound()
        one.stop()


def test_interrupt_is_an_orderly_end_too(shop):
    os.killpg(shop.server.process.pid, signal.SIGINT)
    assert shop.server.wait() == 0


def test_killed_worker_is_replaced(shop):
    before = set(shop.server.workers())
    assert len(before) == 2
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    wait_for("another worker", lambda: len(set(shop.server.workers()) - {victim}) == 2, 10)
    for _ in range(20):
        ok(shop.post("/payment/payment", payment()))
    assert shop.server.running()


def test_killed_master_leaves_no_worker_behind(shop):
    """An orphan would keep accepting connections on the port, next to its successor."""
    os.kill(shop.server.process.pid, signal.SIGKILL)
    shop.server.wait()
    shop.start()
    ok(shop.post("/payment/payment", payment()))


@pytest.mark.timed
def test_workers_killed_under_load(shop):
    """Each time the other worker continues; requests without a response are retried with the same key."""
    account, item, user = new_account(shop, 100000), set_stock(shop, 100000), new_user(shop)
    body = saga([line(item, 1, 1)], account=account)
    ended, sent, errors = threading.Event(), [], []

    def work(_):
        while not ended.is_set():
            key = str(uuid.uuid4())
            sent.append(key)
            try:
                refill(shop, user["billingId"], "1", key=key)
                shop.post("/order/order/saga", body, key=key)
            except OSError as error:
                errors.append(error)

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        workers = [pool.submit(work, i) for i in range(6)]
        try:
            for i in range(6):
                count = len(sent)
                wait_for("requests", lambda c=count: len(sent) > c + 20, 30 * SLOWER)
                victims = sorted(shop.server.workers())
                os.kill(victims[i % len(victims)], signal.SIGKILL)
                wait_for("another worker", lambda v=victims: len(set(shop.server.workers()) - {v[i % len(v)]}) == 2, 10)
        finally:
            ended.set()
        for worker in workers:
            worker.result()
    assert errors, "the kills hit nobody, so nothing was tested"
    shop.settle()
    for key in sent:
        refill(shop, user["billingId"], "1", key=key)
        assert shop.post("/order/order/saga", body, key=key).status in (200, 424)
    shop.settle()
    orders = shop.value("order", 'SELECT count(*) FROM "order".orders o JOIN "order".contents c ON c.order_id = o.id '
                        "WHERE c.item = %s AND o.status = 'SUCCESS'", item)
    assert wallet(shop, user["billingId"]) == len(sent)
    assert wallet(shop, account) == 100000 - orders
    assert stock(shop, item) == (100000 - orders, orders)
    shop.assert_sound()


def test_keys_live_through_a_crash(shop):
    account, key = new_account(shop, 100), str(uuid.uuid4())
    first = shop.put(f"/billing/billing/{account}/30", key=key)
    order_key, body = str(uuid.uuid4()), saga(account=account, contents=[line(price=5)])
    ordered = shop.post("/order/order/saga", body, key=order_key)
    shop.kill()
    shop.start()
    again = shop.put(f"/billing/billing/{account}/30", key=key)
    assert (again.status, again.body) == (first.status, first.body)
    assert again.headers["idempotent-replayed"] == "true"
    ordered_again = shop.post("/order/order/saga", body, key=order_key)
    assert (ordered_again.status, ordered_again.body) == (ordered.status, ordered.body)
    assert ordered_again.headers["idempotent-replayed"] == "true"
    assert wallet(shop, account) == 65


def test_accepted_sagas_live_through_a_crash(shop):
    """202 is a guarantee: such a saga reaches its end even if the server dies before it."""
    item = set_stock(shop, 1000)
    locations = []
    for _ in range(10):
        answers = [shop.post("/order/order/saga", saga([line(item)]), Prefer="respond-async") for _ in range(10)]
        assert {answer.status for answer in answers} == {202}
        locations += [answer.headers["location"] for answer in answers]
        shop.kill()
        shop.start()
    for location in locations:
        wait_for(f"the end of {location}", lambda at=location: ok(shop.get(at))["state"] == "SUCCEEDED", 30 * SLOWER)
    assert stock(shop, item) == (900, 100)
    shop.assert_sound()

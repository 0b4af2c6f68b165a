"""Slow, numerous or vanished clients: each costs the shop a bounded time, and what they started is finished."""

import concurrent.futures
import contextlib
import socket
import struct
import time

import pytest

from harness.check import ok, problem
from harness.client import encode, read_answer
from harness.goods import line, payment, saga, set_stock, stock, wallet, new_account
from harness.metrics import scrape
from harness.server import SLOWER
from harness.shop import OneShop, opened
from harness.wait import wait_for

IDLE_SECONDS = 1
REQUEST_SECONDS = 2


@pytest.fixture(scope="module")
def shop():
    """Short timeouts, to keep the tests fast."""
    with opened(OneShop(IDLE_TIMEOUT=f"{IDLE_SECONDS}s", REQUEST_TIMEOUT=f"{REQUEST_SECONDS}s", MAX_IN_FLIGHT=16,
                        WORKERS=1)) as one:
        yield one
        one.stop()


def closed_within(connection, seconds):
    connection.settimeout(seconds)
    began = time.monotonic()
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return time.monotonic() - began


def drip(connection, data, seconds):
    """Sends a byte at intervals until the server closes the connection. Returns whether it did."""
    deadline = time.monotonic() + seconds
    connection.settimeout(0.05)
    for byte in data:
        if time.monotonic() > deadline:
            return False
        try:
            connection.sendall(bytes([byte]))
            if connection.recv(4096) == b"":
                return True
        except socket.timeout:
            continue
        except OSError:
            return True
    return False


@pytest.mark.timed
def test_silent_client_is_cut(shop):
    with shop.connect() as connection:
        assert closed_within(connection, 5 * IDLE_SECONDS) < 4 * IDLE_SECONDS


@pytest.mark.parametrize("data", [
    b"POST /payment/payment HTTP/1.1\r\nX: " + b"a" * 1000,
    b"POST /payment/payment HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + b" " * 1000,
    b"POST /payment/payment HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 200,
], ids=["head", "body", "chunks"])
def test_slow_sender_is_cut(shop, data):
    """If each byte extended the deadline, a slow sender could hold a connection forever."""
    before = shop.digest()
    with shop.connect() as connection:
        assert drip(connection, data, 5 * IDLE_SECONDS)
    assert shop.digest() == before


def test_others_are_served_beside_slow_senders(shop):
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            connection = stack.enter_context(shop.connect())
            connection.sendall(b"POST /payment/payment HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        ok(shop.post("/payment/payment", payment()))


def test_client_that_does_not_read_its_answers(shop):
    request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    with shop.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(0.5)
        with contextlib.suppress(OSError):
            for _ in range(2000):
                connection.sendall(request)
        ok(shop.get("/health"))


def test_saga_of_a_client_that_vanished_is_finished(shop):
    item, account = set_stock(shop, 5), new_account(shop, 100)
    body = encode(saga([line(item, 2, 10)], account=account))
    for _ in range(2):
        with shop.connect() as connection:
            connection.sendall(b"POST /order/order/saga HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    made = 'SELECT count(*) FROM "order".contents WHERE item = %s'
    with contextlib.suppress(AssertionError):  # a reset may overtake the request: then nothing was asked
        wait_for("the orders", lambda: shop.value("order", made, item) == 2, 1)
    shop.settle()
    count = shop.value("order", made, item)
    assert stock(shop, item) == (5 - 2 * count, 2 * count)
    assert wallet(shop, account) == 100 - 20 * count


def locked(shop, account):
    """Locks the account."""
    db = shop.cluster.connect(shop.database("billing"))
    db.autocommit = False
    with db.cursor() as cursor:
        cursor.execute("SELECT FROM billing.accounts WHERE id = %s FOR UPDATE", (account,))
    return contextlib.closing(db)


@pytest.mark.timed
def test_a_request_has_a_deadline(shop):
    account = new_account(shop, 10)
    with locked(shop, account):
        began = time.monotonic()
        answer = shop.put(f"/billing/billing/{account}/1")
        took = time.monotonic() - began
    assert answer.status in (503, 504), answer
    problem(answer, answer.status)
    assert int(answer.headers["retry-after"]) >= 0
    assert took < REQUEST_SECONDS + 2 * SLOWER


@pytest.mark.parametrize("milliseconds,seconds", [(300, 0.3), (60_000, REQUEST_SECONDS), ("soon", REQUEST_SECONDS)])
def test_a_caller_can_only_shorten_the_deadline(shop, milliseconds, seconds):
    account = new_account(shop, 10)
    with locked(shop, account):
        began = time.monotonic()
        answer = shop.put(f"/billing/billing/{account}/1", X_Request_Timeout_Ms=str(milliseconds))
        took = time.monotonic() - began
    problem(answer, 504)
    assert seconds <= took < seconds + 1.2 * SLOWER


def test_too_many_at_once_are_told_to_come_again(shop):
    account = new_account(shop, 1000)
    with locked(shop, account), concurrent.futures.ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda _: shop.put(f"/billing/billing/{account}/1"), range(40)))
    busy = [answer for answer in answers if answer.status == 503]
    assert busy, answers
    for answer in busy:
        problem(answer, 503)
        assert int(answer.headers["retry-after"]) >= 0
    ok(shop.get("/health"))


def test_busy_process_still_says_that_it_lives():
    """Otherwise a supervisor would kill busy processes when they are needed most."""
    most = 4
    with opened(OneShop(MAX_IN_FLIGHT=most, WORKERS=1)) as shop:
        account = new_account(shop, 1000)
        with concurrent.futures.ThreadPoolExecutor(most + 1) as pool, locked(shop, account):
            buying = [pool.submit(shop.put, f"/billing/billing/{account}/1") for _ in range(most + 1)]
            wait_for("one too many", lambda: any(one.done() for one in buying))
            answers = [shop.request(method, path) for method in ("GET", "HEAD") for path in (
                "/livez", "/readyz", "/health", "/metrics?x=y", "/actuator/prometheus", "/debug/fibers")]
            refused = [one.result() for one in buying if one.done()]
        assert [answer.status for answer in answers] == [200] * len(answers), answers
        assert len(refused) == 1, "there was room meanwhile"
        problem(refused[0], 503)
        shop.stop()


def test_answers_after_all_this(shop):
    with shop.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_answer(connection).status == 200
    shop.assert_sound()


# ---- as many connections as there may be ----

class LimitedShop(OneShop):
    """Its processes may open only so many descriptors: (soft, hard)."""

    def __init__(self, descriptors, **settings):
        super().__init__(WORKERS=1, **settings)
        self.descriptors = descriptors

    def prepare(self):
        super().prepare()
        self.server.descriptors = self.descriptors


def is_served(connection):
    connection.sendall(b"GET /order/saga?page_size=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = read_answer(connection)
    return answer is not None and answer.status == 200


def served_connection(shop):
    """Whoever asked for the shop's health just before may not have left yet."""
    connection = shop.connect()
    if is_served(connection):
        return connection
    connection.close()
    return None


@contextlib.contextmanager
def connections(shop, count):
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(wait_for("a connection", lambda: served_connection(shop), 10 * SLOWER))
               for _ in range(count)]


@contextlib.contextmanager
def idle_connections(shop, count):
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(shop.connect()) for _ in range(count)]


def warnings(shop):
    return [line for line in shop.server.text().splitlines() if '"WARN"' in line and "descriptors" in line]


def test_the_soft_limit_of_descriptors_is_raised():
    with opened(LimitedShop((128, 1024), MAX_CONNECTIONS=300)) as shop:
        with connections(shop, 300) as all_of_them:
            assert all(is_served(one) for one in all_of_them)
        assert warnings(shop) == []
        shop.stop()


def test_a_hard_limit_of_descriptors_lowers_the_number_of_connections():
    """The shop says so once, keeps those it has, answers probes, and counts whom it refuses."""
    with opened(LimitedShop((200, 200), MAX_CONNECTIONS=2048)) as shop:
        assert len(warnings(shop)) == 1 and "MAX_CONNECTIONS" in warnings(shop)[0]
        with connections(shop, 1) as [first], idle_connections(shop, 300) as others:
            assert is_served(first)
            answer = shop.get("/order/saga?page_size=1")
            problem(answer, 503)
            assert answer.headers["connection"] == "close" and int(answer.headers["retry-after"]) >= 0
            for _ in range(50):  # more than there are places kept free
                assert ok(shop.get("/livez")) == {"status": "ok"}
            refused = scrape(shop.server).total("skald_http_connections_refused_total")
            assert 100 < refused < 300
            assert is_served(first)
            told = [line for line in shop.server.text().splitlines() if "connections refused" in line]
            assert 1 <= len(told) <= 3
        wait_for("a place", lambda: shop.get("/order/saga?page_size=1").status == 200)
        shop.stop()


def test_beyond_the_most_connections_probes_are_answered():
    with opened(OneShop(WORKERS=1, MAX_CONNECTIONS=3)) as shop, connections(shop, 3) as all_of_them:
        for path in ("/livez", "/readyz", "/metrics"):
            answer = shop.get(path)
            assert answer.status == 200 and answer.headers["connection"] == "close"
        assert scrape(shop.server).total("skald_http_connections_refused_total") == 0
        problem(shop.post("/payment/payment", payment()), 503)
        wait_for("the refused one", lambda: scrape(shop.server).total("skald_http_connections_refused_total") == 1)
        assert all(is_served(one) for one in all_of_them)

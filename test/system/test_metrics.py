"""Metrics: each one in docs/metrics.md exists, is well-formed, and changes when its event happens."""

import concurrent.futures
import contextlib
import os
import random
import re
import shutil
import signal
import string
import subprocess
import uuid

import pytest
from ports import free_port

from harness.check import ok, problem, refused
from harness.client import read_answer
from harness.cluster import ROOT
from harness.goods import (buy, line, new_account, new_user, past, payment, refill, saga, set_slot, set_stock, unique)
from harness.kafka import Relay
from harness.metrics import documented, metric, scrape
from harness.server import SLOWER, Server
from harness.shop import OneShop, SevenShops, opened
from harness.wait import wait_for

HTTP_BUCKETS = ["0.005", "0.01", "0.025", "0.05", "0.075", "0.1", "0.25", "0.5", "0.75", "1", "2.5", "5", "7.5", "10",
                "+Inf"]
METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW", "PROPFIND"]
REQUESTS = 100_000
CLIENTS = 100


@pytest.fixture(scope="module")
def one():
    """A whole shop with two workers and short saga retries."""
    with opened(OneShop(WORKERS="2", SAGA_ATTEMPT_TIMEOUT="300ms")) as shop:
        yield shop


@pytest.fixture(scope="module")
def seven():
    with opened(SevenShops(SAGA_ATTEMPT_TIMEOUT="300ms")) as shop:
        yield shop


@pytest.fixture(scope="module")
def relay():
    """Without a broker, which it does not need to report its metrics."""
    nowhere = free_port()
    server = Relay(BILLING_DATABASE_URL=f"postgresql://127.0.0.1:{nowhere}/none", KAFKA_BROKERS=f"127.0.0.1:{nowhere}")
    try:
        server.spawn()
        wait_for("the relay's metrics", lambda: answers(server), 30 * SLOWER)
        yield server
    finally:
        server.end()


def answers(server):
    try:
        return server.client.get("/metrics").status == 200
    except OSError:
        return False


def everything(shop):
    """The metrics of all processes of a shop, as if it were one."""
    return [scrape(server) for server in shop.servers.values()]


def total(shop, name, **labels):
    return sum(one.total(name, **labels) for one in everything(shop))


@contextlib.contextmanager
def moving(shop, name, by=None, **labels):
    """The block raises the metric, by exactly the given amount if there is one."""
    before = total(shop, name, **labels)
    yield
    wanted = before + (by or 0)
    wait_for(f"a rise of {name} {labels} from {before:g}" + (f" to {wanted:g}" if by else ""),
             lambda: total(shop, name, **labels) >= wanted if by else total(shop, name, **labels) > before, 20 * SLOWER)
    if by:
        assert total(shop, name, **labels) == wanted


def reaches(shop, name, value, **labels):
    wait_for(f"{name} {labels} of {value:g}", lambda: total(shop, name, **labels) == value, 20 * SLOWER)


@contextlib.contextmanager
def locked(shop, service, table):
    """Locks the table's rows."""
    with contextlib.closing(shop.cluster.connect(shop.database(service))) as db, db.cursor() as cursor:
        db.autocommit = False
        cursor.execute(f"LOCK TABLE {table}")
        yield
        db.rollback()


# ---- the set of them ----

def test_code_and_documentation_name_the_same(one, relay):
    with contextlib.ExitStack() as stack:
        kafka = Server("notification", DATABASE_URL=one.cluster.url(), EVENTS="kafka", KAFKA_BROKERS=f"127.0.0.1:{free_port()}")
        stack.callback(kafka.end)
        kafka.start()
        found = {}
        for server in (one.server, relay, kafka):
            found |= scrape(server).types
    wanted = documented()
    sparse = {"http_client_request_duration_seconds", "skald_saga_step_duration_seconds"}  # other tests see them
    assert set(found) | sparse == set(wanted)
    assert {name: wanted[name] for name in found} == found


def source_names():
    """Names of metrics in the sources: string literals that consist of such a name."""
    pattern = re.compile(r'"((?:http|ktor_http|skald|notification|process)_[a-z_]+)"')
    found = set()
    for path in (ROOT / "src").rglob("*.c"):
        if path != ROOT / "src/log/record.c":  # the names of the logs' fields
            found |= {name for name in pattern.findall(path.read_text()) if not name.endswith("_pub")}
    return found


def test_sources_name_no_other(one):
    assert source_names() - set(documented()) == set()


def test_promtool_finds_nothing(one, seven, relay):
    promtool = shutil.which("promtool")
    assert promtool, "promtool is not installed. Install it: tools/install_packages test"
    ok(one.post("/order/order/saga", saga()))
    ok(seven.post("/order/order/saga", saga()))
    for server in (one.server, relay, *seven.servers.values()):
        text = scrape(server).text
        done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True)
        assert (done.returncode, done.stdout + done.stderr) == (0, ""), f"{server}: {done.stdout}{done.stderr}"


def test_both_addresses_answer_the_same(one):
    assert scrape(one.server).types == scrape(one.server, "/actuator/prometheus").types


def test_names_of_ktor_can_be_left_out(one):
    with contextlib.ExitStack() as stack:
        server = Server("payment", DATABASE_URL=one.cluster.url(), METRICS_KTOR="off")
        stack.callback(server.end)
        server.start()
        names = scrape(server).types
    assert not [name for name in names if name.startswith("ktor")]
    assert "http_server_request_duration_seconds" in names


# ---- how many there are ----

def word():
    return "".join(random.choices(string.ascii_lowercase, k=random.randint(1, 24)))


def random_path(shop):
    prefix = random.choice(["/", "/order/", "/order/order/", "/payment/payment/", "/billing/billing/refill/", "/metrics/"])
    return prefix + random.choice([str(uuid.uuid4()), word(), word() + "/" + word()]) + random.choice(["", "?a=" + word()])


def request_at_random(shop):
    shop.request(random.choice(METHODS + [word().upper()]), random_path(shop))


def every_kind_once(shop):
    scrape(shop.server)  # which is a request as well
    for method in METHODS:
        for prefix in ("/", "/order/", "/order/order/", "/payment/payment/", "/billing/billing/refill/", "/billing/billing/",
                       "/metrics/", "/actuator/"):
            for rest in (str(uuid.uuid4()), "word", "word/word"):
                shop.request(method, prefix + rest)


def by_wrk(shop, seconds=2):
    done = subprocess.run([shutil.which("wrk"), "-t", "2", "-c", "32", "-d", f"{seconds}s", "-s",
                           ROOT / "test/system/random_requests.lua", shop.base_url], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return int(re.search(r"^RESULT requests=(\d+)$", done.stdout, re.MULTILINE)[1])


@pytest.mark.timed
def test_the_series_stay_the_same_whatever_is_asked(one):
    every_kind_once(one)
    before = scrape(one.server).series()
    for _ in range(1000):
        request_at_random(one)
    assert scrape(one.server).series() == before
    count = 0
    while count < REQUESTS // SLOWER:
        asked = by_wrk(one)
        assert asked, "wrk got no answers"
        count += asked
    after = scrape(one.server)
    assert after.series() == before
    assert after.total("http_server_request_duration_seconds_count") >= count
    print(f"{count} random requests, {len(before)} samples in {len(after.text)} bytes before and after")


# ---- HTTP ----

def too_large(shop):
    with shop.connect() as connection:
        connection.sendall(b"POST /payment/payment HTTP/1.1\r\nHost: shop\r\nContent-Length: 2000000\r\n\r\n")
        return read_answer(connection)


def test_requests_are_counted_by_template_and_status(one):
    path, route = f"/payment/payment/{uuid.uuid4()}", "/payment/payment/{id}"
    name, other = "http_server_request_duration_seconds_count", {"http_route": "_OTHER"}
    with moving(one, name, by=1, http_route=route, http_request_method="GET", http_response_status_code="404",
                url_scheme="http"):
        problem(one.get(path), 404)
    with moving(one, name, by=1, http_route=route, http_request_method="HEAD", http_response_status_code="404"):
        assert one.request("HEAD", path).status == 404
    with moving(one, name, by=1, http_request_method="_OTHER", http_response_status_code="405", **other):
        problem(one.request("BREW", path), 405)
    with moving(one, name, by=1, http_request_method="POST", http_response_status_code="404", **other):
        problem(one.post("/nothing", {}), 404)
    with moving(one, name, by=1, http_request_method="GET", http_response_status_code="431", **other):
        problem(one.get("/health", X="x" * 40000), 431)
    with moving(one, name, by=1, http_request_method="POST", http_response_status_code="413", **other):
        problem(too_large(one), 413)
    with moving(one, name, by=1, http_route="/health", http_response_status_code="200"):
        ok(one.get("/health"))
    found = scrape(one.server)
    assert found.labels("http_server_request_duration_seconds_count", "error_type") <= {None, "500", "503", "504"}


def test_buckets(one):
    ok(one.get("/health"))
    labels = {"http_route": "/health", "http_response_status_code": "200"}
    found = scrape(one.server)
    assert sorted(found.labels("http_server_request_duration_seconds_bucket", "le"), key=float) == HTTP_BUCKETS
    counts = [found.total("http_server_request_duration_seconds_bucket", le=le, **labels) for le in HTTP_BUCKETS]
    assert counts == sorted(counts)
    assert counts[-1] == found.total("http_server_request_duration_seconds_count", **labels)
    assert found.total("http_server_request_duration_seconds_sum", **labels) > 0


def test_names_of_ktor(one):
    labels = {"address": f"127.0.0.1:{one.port}", "method": "GET", "route": "/payment/payment/{id}", "status": "404",
              "throwable": "n/a"}
    with moving(one, "ktor_http_server_requests_seconds_count", by=1, **labels):
        problem(one.get(f"/payment/payment/{uuid.uuid4()}"), 404)
    with moving(one, "ktor_http_server_requests_seconds_count", by=1, route="n/a", status="404", method="GET"):
        problem(one.get(f"/{word()}"), 404)
    found = scrape(one.server)
    assert {"0.05", "0.1", "0.2", "0.3", "0.4", "0.5", "20"} <= found.labels("ktor_http_server_requests_seconds_bucket", "le")
    assert found.total("ktor_http_server_requests_seconds_sum", **labels) > 0
    longest = found.total("ktor_http_server_requests_seconds_max", **labels)
    assert 0 < longest <= found.total("ktor_http_server_requests_seconds_sum", **labels) + 1e-9
    assert (found.total("ktor_http_server_requests_seconds_count")
            == found.total("http_server_request_duration_seconds_count"))


def test_calls_to_peers(seven):
    port = str(seven.ports["payment"])
    name = "http_client_request_duration_seconds_count"
    with moving(seven, name, by=1, server_address="127.0.0.1", server_port=port, http_request_method="PUT",
                http_response_status_code="200", url_scheme="http"):
        ok(seven.post("/order/order/saga", saga()))
    with moving(seven, name, server_port=str(seven.ports["delivery"]), http_response_status_code="422", error_type="422"):
        problem(seven.post("/order/order/saga", saga(when=past())), 424)


# ---- the database ----

def test_database(one):
    before = scrape(one.server)
    assert before.total("skald_db_connections", database="order") == 4  # 2 in each worker
    assert before.total("skald_db_connections_max", database="order") == 4
    for name in ("skald_db_groups_total", "skald_db_statements_total", "skald_db_batches_total",
                 "skald_db_batch_size_count", "skald_db_round_trip_seconds_count"):
        with moving(one, name, database="order"):
            ok(one.post("/payment/payment", payment()))
    found = scrape(one.server)
    assert found.total("skald_db_batch_size_bucket", le="64") == found.total("skald_db_batches_total")


def test_what_waits_for_the_database(one):
    asked = []

    def all_used():
        """The kernel chooses the worker for a request, so it may take many until both have enough."""
        if len(asked) < CLIENTS:
            asked.append(pool.submit(one.post, "/payment/payment", payment()))
        return len(asked) >= 24 and total(one, "skald_db_connections", state="used") == 4

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        with locked(one, "payment", "payment.payments"):
            wait_for("use of all connections", all_used)
            reaches(one, "http_server_active_requests", len(asked), http_request_method="POST")
            wait_for("a queue", lambda: metric(one.server, "skald_db_queued_groups") > 0)
            assert metric(one.server, "ktor_http_server_requests_active") >= 24
            assert metric(one.server, "skald_fibers") >= 24
        assert {done.result().status for done in asked} == {200}
    reaches(one, "http_server_active_requests", 0, http_request_method="POST")
    reaches(one, "skald_db_queued_groups", 0)
    reaches(one, "skald_db_connections", 4, state="idle")


def test_groups_are_sent_again_when_their_batch_fails(one):
    """lock_timeout ends every statement that waits for the lock."""
    before = metric(one.server, "skald_db_groups_resent_total")
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        with locked(one, "payment", "payment.payments"):
            asked = [pool.submit(one.post, "/payment/payment", payment()) for _ in range(24)]
            wait_for("a batch sent again", lambda: metric(one.server, "skald_db_groups_resent_total") > before)
        assert {done.result().status for done in asked} == {200}


# ---- sagas ----

def test_a_saga_that_succeeds(one):
    labels = {"service": "order", "type": "order"}
    with contextlib.ExitStack() as stack:
        for name, more in (("skald_sagas_started_total", {}), ("skald_sagas_total", {"outcome": "succeeded"}),
                           ("skald_saga_duration_seconds_count", {"outcome": "succeeded"})):
            stack.enter_context(moving(one, name, by=1, **labels, **more))
        stack.enter_context(moving(one, "skald_orders_total", by=1, outcome="success"))
        for step in ("payment", "warehouse", "delivery"):
            for name in ("skald_saga_calls_total", "skald_saga_step_duration_seconds_count"):
                stack.enter_context(moving(one, name, by=1, step=step, outcome="done", **labels))
        ok(one.post("/order/order/saga", saga()))
    with moving(one, "skald_sagas_total", by=1, service="user", type="registration", outcome="succeeded"):
        new_user(one)


def test_a_saga_that_is_undone(one):
    labels = {"service": "order", "type": "order"}
    with contextlib.ExitStack() as stack:
        for name in ("skald_sagas_total", "skald_saga_duration_seconds_count"):
            stack.enter_context(moving(one, name, by=1, outcome="compensated", **labels))
        stack.enter_context(moving(one, "skald_orders_total", by=1, outcome="canceled"))
        stack.enter_context(moving(one, "skald_saga_compensations_total", by=1, step="delivery", **labels))
        stack.enter_context(moving(one, "skald_saga_calls_total", by=1, step="delivery", outcome="refused", **labels))
        for step, outcome in (("delivery", "refused"), ("payment", "undone"), ("delivery", "undone")):
            stack.enter_context(moving(one, "skald_saga_step_duration_seconds_count", by=1, step=step, outcome=outcome, **labels))
        problem(one.post("/order/order/saga", saga(when=past())), 424)


def test_a_participant_that_is_away(seven):
    """All metrics that show an operator which saga is stuck, and where."""
    frozen = seven.servers["payment"].pids()
    labels = {"service": "order", "type": "order"}
    unanswered = {"server_port": str(seven.ports["payment"]), "error_type": "timeout"}
    with contextlib.ExitStack() as stack:
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
            stack.callback(os.kill, pid, signal.SIGCONT)
        stack.enter_context(moving_all(seven.servers["order"], (
            ("skald_saga_retries_total", {"step": "payment"}), ("skald_saga_calls_total", {"outcome": "unknown"}),
            ("http_client_request_duration_seconds_count", unanswered))))
        assert seven.post("/order/order/saga", saga(), Prefer="respond-async").status == 202
        order = seven.servers["order"]
        assert metric(order, "skald_sagas_running", state="running", **labels) == 1
        wait_for("an age of two seconds", lambda: metric(order, "skald_saga_oldest_seconds", **labels) > 2)
        with moving_all(order, (("skald_saga_compensations_total", {"step": "payment"}),
                                ("skald_saga_step_duration_seconds_count", {"step": "payment", "outcome": "maybe"}))):
            wait_for("the decision to undo", lambda: metric(order, "skald_sagas_running", state="compensating", **labels) == 1)
        assert metric(order, "skald_sagas_running", state="running", **labels) == 0
        assert metric(order, "skald_saga_oldest_seconds", **labels) > 3
    wait_for("its end", lambda: metric(order, "skald_sagas_running", **labels) == 0, 30 * SLOWER)
    assert metric(order, "skald_saga_oldest_seconds", **labels) == 0


@contextlib.contextmanager
def moving_all(server, metrics):
    before = scrape(server)
    yield
    for name, labels in metrics:
        wait_for(f"a rise of {name} {labels}",
                 lambda n=name, has=labels: scrape(server).total(n, **has) > before.total(n, **has), 20 * SLOWER)


# ---- business ----

def test_wallets(one):
    name = "skald_wallet_operations_total"
    with moving(one, name, by=1, operation="create", outcome="success"):
        account = new_account(one, 10)
    key = str(uuid.uuid4())
    with moving(one, name, by=1, operation="refill", outcome="success"):
        for _ in range(3):
            assert refill(one, account, "5", key=key)
    with moving(one, name, by=1, operation="buy", outcome="success"):
        assert buy(one, account, "1")
    with moving(one, name, by=1, operation="buy", outcome="failed"):
        assert not buy(one, account, "100")
    with moving(one, name, by=1, operation="buy", outcome="success"):
        ok(one.post("/order/order/saga", saga([line(price=2)], account=account)))
    with moving(one, name, by=1, operation="refund", outcome="success"), moving(one, name, by=1, operation="buy", outcome="success"):
        problem(one.post("/order/order/saga", saga([line(price=2)], account=account, when=past())), 424)
    with moving(one, name, by=1, operation="create", outcome="success"):
        new_user(one)
    before = total(one, name)
    assert not buy(one, uuid.uuid4(), "1")  # no account, so no row
    assert total(one, name) == before


def test_operations_are_the_rows_of_history(one):
    rows = one.value("billing", "SELECT count(*) FROM billing.history_billings")
    assert rows == total(one, "skald_wallet_operations_total")


def test_refusals(one):
    item = set_stock(one, 1)
    with moving(one, "skald_stock_refusals_total", by=1):
        problem(one.post("/order/order/saga", saga([line(item, amount=2)])), 424)
    with moving(one, "skald_delivery_refusals_total", by=1, reason="past"):
        problem(one.post("/order/order/saga", saga(when=past())), 424)
    with moving(one, "skald_delivery_refusals_total", by=1, reason="full"):
        problem(one.post("/order/order/saga", saga(when=set_slot(one, 0))), 424)


def test_idempotency_keys(one):
    key, body, name = unique("key"), payment(), "skald_idempotency_hits_total"
    ok(one.post("/payment/payment", body, key=key))
    with moving(one, name, by=1, service="payment", outcome="replayed"):
        ok(one.post("/payment/payment", body, key=key))
    with moving(one, name, by=1, service="payment", outcome="mismatched"):
        refused(one.post("/payment/payment", payment(), key=key))
    key, body = unique("key"), saga()
    with locked(one, "payment", "payment.payments"), moving(one, name, by=1, service="order", outcome="in_progress"):
        assert one.post("/order/order/saga", body, key=key, Prefer="respond-async").status == 202
        refused(one.post("/order/order/saga", body, key=key))
    one.settle()


# ---- change events ----

def add_history(shop, **columns):
    row = {"id": str(uuid.uuid4()), "billing_id": str(uuid.uuid4()), "sum": 1, "last_value_wallet": 1,
           "current_value_wallet": 1, "type_operation": "BUY", "status": "SUCCESS"} | columns
    shop.execute("billing", f"INSERT INTO billing.history_billings ({', '.join(row)}) VALUES ({', '.join(['%s'] * len(row))})",
                 *row.values())
    return row["id"]


def test_events():
    with opened(OneShop()) as shop:
        reaches(shop, "notification_source_connected", 1, source="wal")
        with moving(shop, "notification_events_total", by=1, result="stored"), moving(
                shop, "skald_notifications_total", by=1), moving(shop, "notification_delay_seconds_count", by=1):
            user = new_user(shop)
        shop.settle()
        assert refill(shop, user["billingId"], "1")
        with moving(shop, "notification_events_total", by=1, result="dead"):
            add_history(shop, type_operation=None)
        shop.execute("billing", "ALTER PUBLICATION billing_pub_traced SET (publish = 'insert, update')")
        shop.execute("billing", "ALTER TABLE billing.history_billings REPLICA IDENTITY FULL")
        with moving(shop, "notification_events_total", by=1, result="ignored"):
            shop.execute("billing", "UPDATE billing.history_billings SET status = status WHERE billing_id = %s "
                         "AND type_operation = 'REFILL'", user["billingId"])
        with moving(shop, "notification_unaddressed", by=1):
            add_history(shop)
        with locked(shop, "notification", "notification.notifications"):
            add_history(shop)
            wait_for("lag", lambda: metric(shop.server, "notification_lag_seconds", source="wal") > 0.5)
            wait_for("lag", lambda: metric(shop.server, "notification_lag_bytes", source="wal") > 0)
        reaches(shop, "notification_lag_seconds", 0, source="wal")
        reaches(shop, "notification_lag_bytes", 0, source="wal")
        shop.forget_connections()
        shop.cluster.stop()
        reaches(shop, "notification_source_connected", 0, source="wal")
        reaches(shop, "skald_db_connections", 0)
        wait_for("no word of the slot", lambda: not scrape(shop.server).values("skald_slot_active"))
        with moving(shop, "skald_db_errors_total", **{"class": "unavailable"}):
            problem(shop.get(f"/payment/payment/{uuid.uuid4()}"), 503)
        shop.restart_database()
        reaches(shop, "notification_source_connected", 1, source="wal")
        reaches(shop, "skald_slot_active", 1, slot="billing_cdc")


def test_a_slot_that_nobody_reads():
    with opened(OneShop(EVENTS="off", WORKERS="1")) as shop:
        slot = {"slot": "billing_cdc"}
        wait_for("the slot", lambda: scrape(shop.server).values("skald_slot_active", **slot) == [0.0])
        assert metric(shop.server, "skald_slot_lost", **slot) == 0
        with moving(shop, "skald_slot_lag_bytes", **slot), moving(shop, "skald_slot_wal_held_bytes", **slot):
            new_account(shop, 1)
        shop.execute("billing", "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
        shop.execute("billing", "SELECT pg_reload_conf()")
        for _ in range(4):
            add_history(shop)
            shop.query("billing", "SELECT pg_switch_wal()")
        shop.execute("billing", "CHECKPOINT")
        wait_for("the loss of the slot", lambda: scrape(shop.server).values("skald_slot_lost", **slot) == [1.0])
        assert not [name for name in scrape(shop.server).types if name.startswith("notification")]


def test_the_relay_tells_that_nothing_answers(relay):
    problem(relay.client.get("/health"), 503)
    assert metric(relay, "skald_relay_kafka_connected") == metric(relay, "skald_relay_postgres_connected") == 0


# ---- the processes ----

def test_process(one):
    found = scrape(one.server)
    version = re.search(r"version: '(.*?)'", (ROOT / "meson.build").read_text())[1]
    assert found.values("skald_build_info", version=version) == [1.0]
    assert metric(one.server, "skald_workers") == 2
    assert found.total("process_resident_memory_bytes") > 5e6
    assert 20 < found.total("process_open_fds") < found.total("process_max_fds")
    assert found.total("process_start_time_seconds") > 1.7e9
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(one.connect())
        wait_for("open connections", lambda: metric(one.server, "process_open_fds") >= found.total("process_open_fds") + 15)
    with moving(one, "process_cpu_seconds_total"), moving(one, "skald_loop_busy_seconds_total"):
        by_wrk(one, 1)


def test_every_worker_shows_all(one):
    """Every worker reports the same numbers while nothing happens."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for answer in pool.map(lambda _: one.get(f"/payment/payment/{uuid.uuid4()}"), range(200)):
            problem(answer, 404)
    labels = {"http_route": "/payment/payment/{id}", "http_response_status_code": "404"}
    seen = [scrape(one.server).total("http_server_request_duration_seconds_count", **labels) for _ in range(20)]
    assert set(seen) == {seen[0]}


def counters(found):
    """The samples that may never fall."""
    rising = {name for name, kind in found.types.items() if kind in ("counter", "histogram")}
    return {key: value for key, value in found.samples.items()
            if re.sub("_(bucket|sum|count)$", "", key[0]) in rising or key[0] in rising}


def test_a_killed_worker_takes_nothing_and_leaves_nothing():
    with opened(OneShop(WORKERS="2", SAGA_ATTEMPT_TIMEOUT="300ms")) as shop:
        for _ in range(20):
            ok(shop.post("/order/order/saga", saga()))
        for victim in range(2):
            kill_one(shop, victim)
        shop.settle()
        reaches(shop, "skald_orders_total", 22, outcome="success")
        assert total(shop, "skald_sagas_started_total", type="order") == 22
        reaches(shop, "skald_sagas_running", 0)
        assert total(shop, "skald_worker_restarts_total") == 2


def kill_one(shop, victim):
    before = scrape(shop.server)
    workers = sorted(shop.server.workers())
    with locked(shop, "payment", "payment.payments"):
        assert shop.post("/order/order/saga", saga(), Prefer="respond-async").status == 202
        reaches(shop, "skald_sagas_running", 1)
        with moving(shop, "skald_worker_restarts_total", by=1):
            os.kill(workers[victim], signal.SIGKILL)
            old = set(workers)
            wait_for("another worker", lambda: len(set(shop.server.workers()) - old) == 1, 10)
        reaches(shop, "skald_workers", 2)
        reaches(shop, "skald_db_connections_max", 4)
        reaches(shop, "skald_sagas_running", 1)  # still there, or taken over: not twice, not lost
    reaches(shop, "skald_sagas_running", 0)  # it may be in a pause between two attempts when the lock goes
    now = counters(scrape(shop.server))
    fallen = {key: (value, now.get(key)) for key, value in counters(before).items() if now.get(key, -1) < value}
    assert not fallen


def test_takeovers_keep_the_age():
    with opened(OneShop(WORKERS="1", SAGA_ATTEMPT_TIMEOUT="300ms")) as shop:
        with locked(shop, "payment", "payment.payments"):
            assert shop.post("/order/order/saga", saga(), Prefer="respond-async").status == 202
            age = wait_for("some age", lambda: max(0, metric(shop.server, "skald_saga_oldest_seconds", service="order") - 1))
            with moving(shop, "skald_saga_takeovers_total", by=1, service="order", type="order"):
                os.kill(shop.server.workers()[0], signal.SIGKILL)
                wait_for("the new worker", shop.server.is_healthy)
            assert metric(shop.server, "skald_saga_oldest_seconds", service="order") > age + 1
        shop.settle()


def test_every_metric_is_tested():
    """Lists metrics that no test of this file, of logs, clients, parked sagas or Kafka checks."""
    files = [ROOT / f"test/system/{name}.py" for name in ("test_metrics", "test_logs", "test_clients", "test_parking")]
    text = "".join(path.read_text() for path in (*files, *(ROOT / "test/system/kafka").glob("test_*.py")))
    assert [name for name in documented() if name not in text] == []

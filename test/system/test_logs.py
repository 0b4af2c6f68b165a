"""The log format, what must never be logged, changing levels, and forwarding that blocks nothing."""

import collections
import concurrent.futures
import json
import os
import pty
import re
import signal
import statistics
import subprocess
import time
import urllib.parse
import uuid

import pytest
from ports import free_port

from harness.check import ok
from harness.goods import (delivery, future, line, new_account, order, past, payment, refill, reservation, saga, set_slot,
                           set_stock, unique)
from harness.logs import Receiver, check_record, fields, records
from harness.metrics import metric
from harness.server import SKALD, SLOWER, Server, environment
from harness.shop import SERVICES, OneShop, SevenShops, opened
from harness.wait import wait_for

SLOWEST_SECONDS = 1
TAG = "app.logs.normal"
SECRETS = {"name": "Brunhildesecret", "email": "brunhilde.secret@example.org", "other": "sigurd.secret@example.org",
           "wallet": "73519.37", "more": "8241.63", "left": "81761", "password": "hushhush", "key": "key-of-brunhilde"}


def walk(shop):
    """Calls every endpoint at least once, with successes and refusals."""
    answers = []
    see = answers.append
    see(shop.post("/user/user", {"name": SECRETS["name"], "email": SECRETS["email"]}, key=SECRETS["key"]))
    see(shop.post("/user/user", {"name": SECRETS["name"], "email": SECRETS["email"]}, key=SECRETS["key"]))
    see(shop.post("/user/user", {"name": SECRETS["name"], "email": SECRETS["other"]}, key=SECRETS["key"]))
    see(shop.post("/user/user", {"name": SECRETS["name"], "email": SECRETS["name"]}))
    user = ok(answers[0])
    account = user["billingId"]
    see(shop.put(f"/user/user/{user['id']}", {"name": SECRETS["name"], "email": SECRETS["other"]}))
    see(shop.get(f"/user/user/{user['id']}"))
    see(shop.get(f"/user/user/billing_id/{account}"))
    see(shop.post("/billing/billing", {"wallet": float(SECRETS["wallet"])}))
    see(shop.put(f"/billing/billing/refill/{account}/{SECRETS['wallet']}"))
    see(shop.put(f"/billing/billing/refill/{account}/{SECRETS['more']}"))
    see(shop.put(f"/billing/billing/{account}/99999999"))
    see(shop.put(f"/billing/billing/{account}/0.001"))
    see(shop.get(f"/billing/billing/{account}"))
    item, when = set_stock(shop, 1), set_slot(shop, 1)
    for body in (saga([line(item)], when, account), saga([line(item)], when, account), saga(when=past(), account=account),
                 saga(account=str(uuid.uuid4())), saga(), {"contents": SECRETS["email"]}):
        see(shop.post("/order/order/saga", body))
    see(shop.get("/order/saga"))
    see(shop.get(f"/order/saga/{ok(shop.get('/order/saga'))[0]['id']}"))
    for service, path, body in (("order", "order/order", order()), ("payment", "payment/payment", payment()),
                                ("warehouse", "warehouse/warehouse", [reservation()]),
                                ("delivery", "delivery/delivery", delivery())):
        made = ok(shop.post(f"/{path}", body))
        made = made[0] if isinstance(made, list) else made
        see(shop.get(f"/{path}/{made['id']}"))
        see(shop.put(f"/{path}/{made['id']}", body[0] if isinstance(body, list) else body))
        see(shop.delete(f"/{path}/{made['id']}"))
        see(shop.get(f"/{path}/{SECRETS['email']}"))
    shop.settle()
    see(shop.get(f"/notification/notification/{user['id']}"))
    see(shop.get("/notification/notification"))
    see(shop.delete(f"/billing/billing/{account}"))
    see(shop.delete(f"/user/user/{user['id']}"))
    see(shop.post("/user/user", f'{{"name":"{SECRETS["name"]}","email":"{SECRETS["email"]}"'))
    for service in SERVICES:
        see(shop.get(f"/{service}/nothing"))
        see(shop.get(f"/{service}/{service}/{SECRETS['email']}"))
    return answers


@pytest.mark.parametrize("form", ["logstash", "ecs"])
def test_every_line_of_all_seven_services_is_a_documented_record(form):
    known = fields(form)
    seen = set()
    with opened(SevenShops(LOG_FORMAT=form, LOG_LEVEL="trace")) as shop:
        walk(shop)
        shop.stop()
        for name, server in shop.servers.items():
            found = records(server)
            for one in found:
                check_record(one, form, known)
                seen |= set(one)
            component = "component" if form == "logstash" else "service.name"
            assert name in {one[component] for one in found} <= {name}
            level = "level" if form == "logstash" else "log.level"
            assert {"DEBUG", "INFO"} <= {one[level].upper() for one in found}
    assert seen >= set(known) - {"error_code", "error.code"}, set(known) - seen


# A method has at most 32 bytes; a longer one is malformed, and no request is logged for it.
@pytest.mark.parametrize("method, status", [("BREW", 405), ("B" * 32, 405), ("B" * 33, 400), ("B" * 7000, 400)],
                         ids=["4", "32", "33", "7000"])
def test_a_method_that_nobody_knows_is_not_repeated(method, status):
    with opened(OneShop(LOG_FORMAT="logstash", LOG_LEVEL="debug")) as shop:
        assert shop.request(method, "/payment/payment").status == status
        shop.stop()
        logged = [one for one in records(shop.server) if "http_status" in one]
        assert [(one["http_method"], one["http_route"], one["message"]) for one in logged] == (
            [("_OTHER", "?", "_OTHER ?: 405")] if status == 405 else [])
        assert method not in shop.server.text()


def secrets_in(text):
    return [name for name, value in SECRETS.items() if value in text]


class SecretShop(OneShop):
    """Its PostgreSQL requires no password, so any is accepted."""

    def settings(self):
        url = urllib.parse.urlsplit(self.cluster.url())
        user, _, place = url.netloc.rpartition("@")
        return super().settings() | {"DATABASE_URL": url._replace(
            netloc=f"{user.partition(':')[0]}:{SECRETS['password']}@{place}").geturl()}


def test_secrets_addresses_and_wallets_are_in_no_line_at_info():
    with opened(SecretShop(LOG_FORMAT="logstash", REQUEST_TIMEOUT="2s")) as shop:
        answers = walk(shop)
        assert {200, 400, 404, 422, 424} <= {answer.status for answer in answers}
        shop.forget_connections()
        shop.cluster.kill()
        lost = shop.post("/user/user", {"name": SECRETS["name"], "email": SECRETS["email"]}, key=SECRETS["key"])
        assert lost.status == 503
        shop.restart_database()
        wait_for("the database", lambda: shop.get("/health").status == 200)
        shop.stop()
        text = shop.server.text()
    assert secrets_in(text) == []
    found = [json.loads(one) for one in text.splitlines()]
    assert collections.Counter(one["level"] for one in found)["WARN"] > 0, "the loss of the database is told"
    failed = collections.Counter(one["saga_id"] for one in found if one["logger_name"] == "saga" and "saga_id" in one)
    assert len(failed) == 3 and set(failed.values()) == {1}, "one line for each order that failed, none for the others"


def test_text_is_for_people():
    with opened(OneShop(LOG_FORMAT="text")) as shop:
        failed = shop.post("/order/order/saga", saga(when=past()))
        shop.stop()
        lines = shop.server.text().splitlines()
    shape = re.compile(r"\d\d:\d\d:\d\d\.\d{3}Z (TRACE|DEBUG|INFO |WARN |ERROR) (main|worker-\d+) +[a-z]+ +[a-z]+ +\S.*")
    assert all(shape.fullmatch(one) for one in lines), lines
    assert len([one for one in lines if f"saga_id={failed.json['orderId']}" in one and " trace_id=" in one]) == 1


def test_a_terminal_gets_colours():
    master, slave = pty.openpty()
    process = subprocess.Popen([SKALD, "serve", "payment"], stdin=subprocess.DEVNULL, stdout=slave, stderr=slave,
                               start_new_session=True,
                               env=environment(PORT=free_port(), DATABASE_URL="postgresql:///none?host=/nowhere"))
    os.close(slave)
    said = b""
    try:
        while b"is listening on" not in said:
            said += os.read(master, 4096)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(master)
    assert b"\x1b[32mINFO" in said and b"{" not in said


# ---- levels ----

def by_thread(server, **wanted):
    return {one["thread_name"] for one in records(server) if all(one[name] == value for name, value in wanted.items())}


def ask_until(shop, condition):
    """Requests over separate connections, so that every worker gets some."""
    def asked():
        shop.get(f"/payment/payment/{uuid.uuid4()}")
        return condition()
    wait_for("lines of every worker", asked, 30 * SLOWER)


@pytest.fixture
def leveled(tmp_path):
    path = tmp_path / "levels"
    path.write_text("warn\n")
    with opened(OneShop(WORKERS=2, LOG_FORMAT="logstash", LOG_LEVEL="info", LOG_LEVEL_FILE=path)) as shop:
        yield shop, path
        shop.stop()


def replace(path, text):
    """Like a mounted ConfigMap: the file is replaced."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


def test_levels_change_in_all_workers_while_they_run(leveled):
    shop, path = leveled
    server = shop.server
    assert not by_thread(server, level="DEBUG") and not by_thread(server, message="worker 0 answers")
    path.write_text("info,http=debug")
    server.process.send_signal(signal.SIGHUP)
    everybody = {"main", "worker-0", "worker-1"}
    wait_for("the new levels", lambda: by_thread(server, message="levels: info,http=debug") == everybody)
    ask_until(shop, lambda: by_thread(server, level="DEBUG", logger_name="http") == {"worker-0", "worker-1"})
    assert {one["logger_name"] for one in records(server) if one["level"] == "DEBUG"} == {"http"}
    replace(path, "error")
    wait_for("the replaced levels", lambda: by_thread(server, message="levels: error") >= {"worker-0", "worker-1"})
    before = len(records(server))
    for _ in range(20):
        shop.get(f"/payment/payment/{uuid.uuid4()}")
    assert [one for one in records(server)[before:] if one["message"] != "levels: error"] == []


def test_bad_levels_change_nothing(leveled):
    shop, path = leveled
    path.write_text("loud")
    shop.server.process.send_signal(signal.SIGHUP)
    wait_for("a warning of each", lambda: by_thread(
        shop.server, message=f"log levels unchanged: no valid levels in {path}: loud") == {"main", "worker-0", "worker-1"})
    wait_for("health, also of a worker that has just started", lambda: shop.get("/health").status == 200)
    path.unlink()
    shop.server.process.send_signal(signal.SIGHUP)
    wait_for("a warning of each", lambda: by_thread(
        shop.server, message=f"log levels unchanged: {path}: No such file or directory") == {
            "main", "worker-0", "worker-1"})
    assert not by_thread(shop.server, level="DEBUG")


def test_a_worker_that_is_started_again_has_the_levels_of_the_file(leveled):
    shop, path = leveled
    path.write_text("warn,http=debug")
    shop.server.process.send_signal(signal.SIGHUP)
    wait_for("the new levels", lambda: len(by_thread(shop.server, message="levels: warn,http=debug")) == 3)
    for pid in shop.server.workers():
        os.kill(pid, signal.SIGKILL)
    wait_for("new workers", lambda: shop.server.is_healthy() and len(shop.server.workers()) == 2)
    before = len(records(shop.server))
    ask_until(shop, lambda: {one["thread_name"] for one in records(shop.server)[before:] if one["level"] == "DEBUG"} == {
        "worker-0", "worker-1"})


# ---- forwarding ----

def forwarding(receiver, **settings):
    return {"LOG_FORWARD": f"127.0.0.1:{getattr(receiver, 'port', receiver)}", "LOG_FORMAT": "logstash",
            "LOG_LEVEL": "debug"} | settings


def flood(shop, count):
    """The duration in seconds of each request; each logs one or two lines."""
    def one(_):
        began = time.monotonic()
        assert shop.get(f"/payment/payment/{uuid.uuid4()}").status == 404
        return time.monotonic() - began
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return list(pool.map(one, range(count)))


def dropped_lines(shop):
    return metric(shop.server, "skald_log_dropped_total", output="forward")


def check_entries(receiver):
    for tag, entries, option in receiver.chunks:
        assert tag == TAG and set(option) == {"size", "chunk"}
        for when, record in entries:
            assert when.code == 0 and len(when.data) == 8
            told = json.loads(record["message"])
            assert record == {"message": record["message"], "logger": told["logger_name"], "thread": told["thread_name"],
                              "level": told["level"]}
            assert abs(int.from_bytes(when.data[:4], "big") - time.time()) < 3600


def test_what_is_forwarded_is_what_stdout_gets():
    with Receiver() as receiver, opened(SevenShops(**forwarding(receiver))) as shop:
        walk(shop)
        shop.stop()
        written = [one for server in shop.servers.values() for one in server.text().splitlines()
                   if json.loads(one)["thread_name"] != "main"]
        assert len(written) > 100
        assert collections.Counter(receiver.messages()) == collections.Counter(written)
        check_entries(receiver)
        assert len({option["chunk"] for _, _, option in receiver.chunks}) == len(receiver.chunks)


def test_what_the_supervisor_says_is_forwarded_by_the_next_worker():
    with Receiver() as receiver, opened(OneShop(**forwarding(receiver))) as shop:
        os.kill(shop.server.workers()[0], signal.SIGKILL)
        wait_for("its line", lambda: [one for one in map(json.loads, receiver.messages()) if one["thread_name"] == "main"
                                      and one["message"].startswith("worker 0 ended by signal 9")])
        wait_for("health", shop.server.is_healthy)
        shop.stop()


def test_text_on_stdout_is_forwarded_as_json():
    with Receiver() as receiver, opened(OneShop(**forwarding(receiver, LOG_FORMAT="text"))) as shop:
        shop.stop()
        known = fields("logstash")
        assert receiver.messages()
        for one in receiver.messages():
            check_record(json.loads(one), "logstash", known)


def test_a_slow_receiver_gets_everything_once_and_in_order():
    with Receiver(pause=0.05) as receiver, opened(OneShop(WORKERS=1, **forwarding(receiver))) as shop:
        flood(shop, 300)
        wait_for("all of it", lambda: len(receiver.entries()) >= 300)
        shop.stop()
        written = [one for one in shop.server.text().splitlines() if json.loads(one)["thread_name"] != "main"]
        assert receiver.messages() == written
        assert len(receiver.chunks) < len(written) / 3, "lines go together"


def test_what_was_not_acknowledged_is_sent_again_under_the_same_id():
    with Receiver(breaks=2) as receiver, opened(OneShop(WORKERS=1, **forwarding(receiver))) as shop:
        flood(shop, 50)
        wait_for("all of it", lambda: len(receiver.entries()) >= 50)
        shop.stop()
        assert len(receiver.broken) == 2 and set(receiver.broken) == {receiver.chunks[0][2]["chunk"]}
        written = [one for one in shop.server.text().splitlines() if json.loads(one)["thread_name"] != "main"]
        assert receiver.messages() == written


def check_unharmed(shop, count):
    """Requests while the receiver accepts nothing: more lines than the queue holds."""
    baseline = statistics.median(flood(shop, 200))
    took = flood(shop, count)
    assert max(took) < SLOWEST_SECONDS * SLOWER, f"slowest {max(took):.3f} s, at first {baseline:.4f} s"
    assert statistics.median(took) < 3 * baseline + 0.01 * SLOWER
    assert dropped_lines(shop) > 0
    assert metric(shop.server, "skald_log_dropped_total", output="stdout") == 0
    assert metric(shop.server, "skald_log_lines_total", level="debug") >= count
    assert metric(shop.server, "skald_log_forward_connected") == 0


def lost_lines(shop):
    return [int(one["message"].split()[0]) for one in records(shop.server)
            if one["message"].endswith("lines were not forwarded: the queue was full")]


@pytest.mark.timed
def test_a_receiver_that_is_away_costs_lines_and_no_time():
    port = free_port()
    with opened(OneShop(WORKERS=1, **forwarding(port))) as shop:
        check_unharmed(shop, 4000)
        told = [one for one in records(shop.server) if one["message"].startswith("cannot forward to")]
        assert len(told) == 1 and told[0]["level"] == "WARN" and "Connection refused" in told[0]["message"]
        with Receiver(port) as receiver:
            wait_for("the number of lost lines", lambda: lost_lines(shop), 60)
            dropped = dropped_lines(shop)
            assert metric(shop.server, "skald_log_forward_connected") == 1
            assert sum(lost_lines(shop)) == dropped
            shop.stop()
            written = [one for one in shop.server.text().splitlines() if json.loads(one)["thread_name"] != "main"]
            assert len(written) == len(receiver.messages()) + dropped
            assert set(receiver.messages()) <= set(written)
            check_entries(receiver)


@pytest.mark.timed
def test_a_receiver_that_does_not_read_costs_lines_and_no_time():
    with Receiver(reads=False) as receiver, opened(OneShop(WORKERS=1, **forwarding(receiver))) as shop:
        check_unharmed(shop, 4000)
        assert receiver.connections
        began = time.monotonic()
        shop.stop()
        assert time.monotonic() - began < 10 * SLOWER, "the end does not wait for it"
        assert "lines were not forwarded" in shop.server.text()


@pytest.mark.parametrize("value", ["nobody", "host:", ":24224", "host:0", "host:65536", "host:port", "::1:24224"])
def test_an_address_that_is_none(value):
    server = Server("payment", LOG_FORWARD=value)
    server.spawn()
    assert server.wait() == 2 and "LOG_FORWARD" in server.text()


def test_forwarding_to_a_name_and_from_many_workers():
    with Receiver() as receiver, opened(OneShop(WORKERS=3, **forwarding(receiver, LOG_FORWARD_TAG="shop.log",
                                                                        LOG_FORWARD=f"localhost:{receiver.port}"))) as shop:
        ask_until(shop, lambda: {one["thread"] for _, one in receiver.entries()} >= {"worker-0", "worker-1", "worker-2"})
        assert {tag for tag, _, _ in receiver.chunks} == {"shop.log"}
        assert metric(shop.server, "skald_log_forwarded_total") > 0
        shop.stop()

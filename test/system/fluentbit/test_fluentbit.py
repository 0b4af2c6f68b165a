"""A real Fluent Bit with the project's configurations, between the shop or container logs and a real OpenSearch."""

import concurrent.futures
import json
import os
import time
import uuid

import pytest
import yaml

from harness.check import problem
from harness.fluentbit import LOCAL, FluentBit, NodeAgent, container_log, destination
from harness.goods import new_user, past, refill, saga
from harness.logs import records
from harness.metrics import metric
from harness.opensearch import LOGGING, LOGS, OpenSearch, write_lines
from harness.secured_opensearch import VALUES
from harness.server import SLOWER
from harness.shop import OneShop, SevenShops, opened
from harness.wait import wait_for

LINES = int(os.environ.get("LOG_LINES", 5_000))
PATIENCE = 60 + LINES / 500  # seconds until the last line is there
SLOWEST_SECONDS = 1
TEMPLATE = json.loads((LOGGING / "index-template.json").read_text())["template"]["mappings"]["properties"]
WHEN = "2030-05-26T16:00:00"
OURS = {"message": "rolled back", "level": "INFO", "saga_id": "01a204e8-ea38-7e75-958a-f82b4519358f", "duration_ms": 11.302}
# What a container writes, and what of it is found; without a time of its own it has that of the container's line.
SAYS = (
    ({"@timestamp": WHEN + ".001Z"} | OURS, {"@timestamp": WHEN + ".001"} | OURS),
    ({"@timestamp": WHEN + ".002Z", "reason": "r" * 40_000} | OURS, {"@timestamp": WHEN + ".002", "reason": "r" * 40_000} | OURS),
    ({"@timestamp": WHEN + ".003Z", "log.level": "info", "message": "Максим 💳 \"\\\n"},
     {"@timestamp": WHEN + ".003", "log_level": "info", "message": "Максим 💳 \"\\\n"}),
    ({"@timestamp": "2030-05-26T18:00:00.004+0200", "message": "far"}, {"@timestamp": WHEN + ".004", "message": "far"}),
    ("no JSON", {"message": "no JSON"}),
    ("{broken", {"message": "{broken"}),
    ("[1,2]", {"message": "[1,2]"}),
    ({"message": "no time"}, {"message": "no time"}),
    ({"@timestamp": "yesterday", "message": "other words"}, {"message": "other words"}),
    ({"@timestamp": 17, "message": "a number"}, {"message": "a number"}),
    ({"log": "inner", "message": "both"}, {"log": "inner", "message": "both"}),
    ({"log": {"level": "a"}, "message": "an object"}, {"log": {"level": "a"}, "message": "an object"}),
    ({"kubernetes": {"pod_name": ["x"]}, "message": "in its place"}, {"message": "in its place"}),
)


@pytest.fixture(scope="module")
def opensearch():
    with OpenSearch() as one:
        one.set_up()
        yield one


@pytest.fixture(autouse=True)
def without_logs(opensearch):
    opensearch.call(LOGS, method="DELETE")


@pytest.fixture
def agent(opensearch, tmp_path):
    with NodeAgent(tmp_path, destination(opensearch.url)) as one:
        yield one


def wait_for_lines(opensearch, count):
    """Waits until all lines are stored, and checks for duplicates."""
    wait_for(f"{count} lines", lambda: opensearch.count() >= count, PATIENCE * SLOWER, pause=0.5)
    assert opensearch.count() == count


def assert_template_stands(opensearch):
    found = [one["mappings"]["properties"] for one in opensearch.call(f"{LOGS}/_mapping").values()]
    assert found and all(one.keys() == TEMPLATE.keys() for one in found)


def canonical(record):
    """The time to the millisecond: Fluent Bit writes it to the nanosecond."""
    return json.dumps(record | {"@timestamp": record["@timestamp"][:23]}, sort_keys=True)


def of_workers(shop):
    """The lines that workers forward, out of everything written."""
    return [one for server in shop.servers.values() for one in records(server) if one["thread_name"] != "main"]


def distinct(lines):
    """Identical lines of the same millisecond are stored once, such as two connections opened at the same time."""
    return set(map(canonical, lines))


def forwarding(agent, **settings):
    return {"LOG_FORWARD": f"127.0.0.1:{agent.forward_port}", "LOG_FORMAT": "logstash", "LOG_LEVEL": "debug"} | settings


# ---- forwarded ----

def test_failed_saga_is_found_by_its_id(opensearch, agent):
    """Every line of every service arrives unchanged and is acknowledged."""
    with opened(SevenShops(**forwarding(agent))) as shop:
        user = new_user(shop)
        assert refill(shop, user["billingId"], 200)
        failed = problem(shop.post("/order/order/saga", saga(when=past(), account=user["billingId"])), 424)["orderId"]
        shop.assert_sound()
        for server in shop.servers.values():
            wait_for("its acknowledgements", lambda one=server: metric(one, "skald_log_forwarded_total") > 0)
            assert metric(server, "skald_log_dropped_total", output="forward") == 0
        shop.stop()
        written = of_workers(shop)
    wait_for_lines(opensearch, len(distinct(written)))
    found = opensearch.find(f'saga_id:"{failed}"')
    assert {one["component"] for one in found} >= {"order", "payment", "warehouse", "delivery", "billing"}
    assert distinct(found) == distinct(one for one in written if one.get("saga_id") == failed)
    assert_template_stands(opensearch)
    assert agent.given_up() == 0


def ask(shop, count):
    """The duration in seconds of the slowest of the given number of requests; each logs at least one line."""
    def one(_):
        began = time.monotonic()
        assert shop.get(f"/payment/payment/{uuid.uuid4()}").status == 404
        return time.monotonic() - began
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return max(pool.map(one, range(count)))


def test_killed_under_load(opensearch, agent):
    """Requests do not wait for it, acknowledged lines arrive, and dropped lines are counted."""
    with opened(OneShop(WORKERS=1, **forwarding(agent))) as shop:
        dropped = lambda: metric(shop.server, "skald_log_dropped_total", output="forward")
        forwarded = lambda: metric(shop.server, "skald_log_forwarded_total")
        for count in (500, 6_000, 500):
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                slowest = pool.submit(ask, shop, count)
                wait_for("lines that have arrived", lambda: forwarded() > 0)
                agent.kill()
                assert slowest.result() < SLOWEST_SECONDS * SLOWER
            agent.start()
            wait_for("the connection", lambda: metric(shop.server, "skald_log_forward_connected") == 1, 60 * SLOWER)
        wait_for("its queue to be empty", lambda: forwarded() + dropped() >= len(of_workers(shop)), 60 * SLOWER)
        lost = dropped()
        assert lost > 0
        shop.stop()
        written = of_workers(shop)
    wait_for_lines(opensearch, len(distinct(written)) - lost)
    assert agent.given_up() == 0


def test_lines_that_others_forward(opensearch, agent, tmp_path):
    write_lines(tmp_path / "all", LINES)
    agent.forward("app.logs.normal", (tmp_path / "all").read_bytes().splitlines())
    wait_for_lines(opensearch, LINES)
    assert_template_stands(opensearch)
    assert agent.given_up() == 0


# ---- followed ----

def test_lines_of_containers(opensearch, agent):
    file = agent.container("order-5c9f8d-x2x4z")
    lines = [says if isinstance(says, str) else json.dumps(says, ensure_ascii=False) for says, _ in SAYS]
    log = container_log(map(str.encode, lines), "stderr")
    file.write_bytes(log)
    wait_for_lines(opensearch, len(SAYS))
    times = [line.split()[0].decode() for line in log.splitlines() if line.split()[2] == b"F"]
    where = {"stream": "stderr", "kubernetes": {
        "pod_name": "order-5c9f8d-x2x4z", "namespace_name": "skald", "container_name": "order", "docker_id": file.stem[-64:]}}
    wanted = [{"@timestamp": when} | found | where for when, (_, found) in zip(times, SAYS)]
    assert distinct(opensearch.find("*:*")) == distinct(wanted)
    assert_template_stands(opensearch)
    assert agent.given_up() == 0


def test_lines_wait_for_the_template(opensearch, agent):
    """A new OpenSearch accepts no lines until setup.sh has run."""
    until_then = yaml.safe_load(VALUES["config"]["opensearch.yml"])["action.auto_create_index"]
    opensearch.call("_cluster/settings", {"persistent": {"action.auto_create_index": until_then}}, "PUT")
    agent.container("early").write_bytes(container_log([b"early"]))
    wait_for("a line that is refused", lambda: agent.outputs("retries") > 0)
    assert opensearch.call(f"{LOGS}/_mapping") == {}
    opensearch.set_up()
    wait_for_lines(opensearch, 1)
    assert_template_stands(opensearch)
    assert agent.given_up() == 0


def test_other_namespaces_are_left_alone(opensearch, agent):
    agent.container("a", "accounting").write_bytes(container_log([b"theirs"]))
    agent.container("b").write_bytes(container_log([b"ours"]))
    wait_for_lines(opensearch, 1)
    assert opensearch.find("*:*")[0]["message"] == "ours"


def test_no_line_changes_the_mapping(opensearch, agent, tmp_path):
    """Mixed lines, the shop's and foreign ones; none is rejected."""
    write_lines(tmp_path / "all", LINES)
    agent.container("all").write_bytes(container_log((tmp_path / "all").read_bytes().splitlines()))
    wait_for_lines(opensearch, LINES)
    assert_template_stands(opensearch)
    assert agent.given_up() == 0


def test_goes_on_where_it_was_killed(opensearch, agent):
    """Each line arrives once, at whatever point it was killed."""
    total = 0
    with open(agent.container("growing"), "ab") as file:
        for _ in range(3):
            file.write(container_log(f"line {total + number}".encode() for number in range(1000)))
            file.flush()
            wait_for("some of them", lambda: opensearch.count() > total)
            total += 1000
            agent.kill()
            agent.start()
    wait_for_lines(opensearch, total)
    assert agent.given_up() == 0


# ---- on one machine ----

def test_local_stack(opensearch, tmp_path):
    write_lines(tmp_path / "all.log", LINES)
    with FluentBit(tmp_path, LOCAL, tmp_path / "all.log", destination(opensearch.url)):
        wait_for_lines(opensearch, LINES)
    assert_template_stands(opensearch)

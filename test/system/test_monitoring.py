"""A real Prometheus on the seven services: every panel of every dashboard has data, no alert fires on a healthy shop,
and the right ones fire for a stuck saga, a stopped consumer and a dead database, and resolve afterwards. The other
alerts are covered by their unit tests, which promtool also runs here."""

import contextlib
import os
import re
import subprocess

import pytest
import yaml

from harness.check import done, ok, problem
from harness.cluster import ROOT
from harness.goods import buy, line, new_user, past, refill, saga, set_slot, set_stock
from harness.load import traffic
from harness.metrics import documented
from harness.prometheus import (CONFIG, DASHBOARDS, RANGE, RULES, Prometheus, dashboards, expressions, needs_kafka,
                                variable_queries, visual_panels)
from harness.shop import SERVICES, SevenShops, opened

SAGA = "/order/order/saga"
UNIT_TESTS = ROOT / "deploy/prometheus/rules_test.yml"
RUNBOOKS = ROOT / "docs/runbooks"
PROCEDURES = {"event-handover"}  # pages without an alert
FOREIGN = ("up", "ALERTS", "container_", "kube_")  # of Prometheus, and of a cluster


# ---- what can be seen without a shop ----

def promtool(*arguments):
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def rules(kind):
    """The rules of a kind, alert or record, by name."""
    groups = [group for path in RULES.glob("*.yaml") for group in yaml.safe_load(path.read_text())["groups"]]
    return {rule[kind]: rule for group in groups for rule in group["rules"] if kind in rule}


def alerts():
    return rules("alert")


def test_rules_and_configuration_are_valid():
    promtool("check", "config", "--syntax-only", CONFIG)
    promtool("check", "rules", *RULES.glob("*.yaml"))


def test_alerts_fire_for_what_they_are_made_for():
    promtool("test", "rules", UNIT_TESTS)


def test_every_alert_is_tested_both_ways():
    fires, rests = set(), set()
    for group in yaml.safe_load(UNIT_TESTS.read_text())["tests"]:
        for case in group["alert_rule_test"]:
            (fires if case.get("exp_alerts") else rests).add(case["alertname"])
    assert fires == rests == set(alerts())


def test_every_alert_says_what_to_do():
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("critical", "warning"), name
        assert rule["annotations"]["summary"] and rule["annotations"]["description"], name
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{name}.md", name
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == set(alerts()) | {"README"} | PROCEDURES


@pytest.mark.parametrize("page", sorted(RUNBOOKS.glob("*.md")), ids=lambda path: path.stem)
def test_runbook_names_what_there_is(page):
    text = page.read_text()
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (RUNBOOKS / link).is_file(), link
    shown = {panel["title"] for one in dashboards().values() for panel in one["panels"]}
    shown |= {one["title"].removeprefix("Skald / ") for one in dashboards().values()}
    shown |= {link["title"] for one in dashboards().values() for link in one["links"]}
    shown |= {one["name"] for dashboard in dashboards().values() for one in dashboard["annotations"]["list"]}
    shown |= {one.get("label") for dashboard in dashboards().values() for one in dashboard["templating"]["list"]}
    shown |= {"Targets", "Service discovery", "italics"}  # Prometheus' own pages
    prose = re.sub(r"(?m)^    .*$|`[^`]*`|\*\*[^*]*\*\*", "", text).replace("\n", " ")
    assert set(re.findall(r"\*([^*]+)\*", prose)) <= shown
    if page.stem in alerts():
        assert re.findall(r"^## .*", text, re.MULTILINE) == [
            "## What it means", "## What to check", "## What to do", "## How to verify recovery"]


def metrics_in(expression):
    """The names of metrics in an expression, with a histogram's suffixes removed."""
    bare = re.sub(r"\{[^}]*\}|\bby \([^)]*\)|\[[^]]*\]|\"[^\"]*\"", " ", expression)
    names = re.findall(r"\bservice:[\w:]+|\b(?:skald|http|process|notification|ktor|container|kube)_\w+|\bup\b|\bALERTS\b", bare)
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in names}


def test_every_metric_is_one_that_the_shop_exposes():
    known = set(documented()) | set(rules("record"))
    for expression in [*expressions(), *(rule["expr"] for kind in ("alert", "record") for rule in rules(kind).values())]:
        found = metrics_in(expression)
        assert found, expression
        for grown in re.findall(r"\b(?:rate|increase)\((\w+?)(?:_bucket|_count|_sum)?[{[]", expression):
            assert grown.startswith(FOREIGN) or documented()[grown] in ("counter", "histogram"), expression
        assert {name for name in found if not name.startswith(FOREIGN)} <= known, expression


@pytest.mark.parametrize("path", sorted(DASHBOARDS.glob("*.json")), ids=lambda path: path.stem)
def test_dashboard_can_be_read(path):
    dashboard = dashboards()[path.stem]
    uids = {one["uid"] for one in dashboards().values()}
    assert len(uids) == len(dashboards()) and dashboard["uid"] == f"skald-{path.stem}"
    assert dashboard["title"] and dashboard["description"] and dashboard["tags"] == ["skald"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for target in re.findall(r'"/d/([\w-]+)', path.read_text()):
        assert target in uids, f"a link to {target}"
    for panel in visual_panels(dashboard):
        assert panel["title"] and panel["description"], panel
        if panel["type"] != "text":
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
            assert panel["targets"], panel["title"]


@pytest.mark.parametrize("name", sorted(dashboards()))
def test_panels_stand_beside_each_other(name):
    taken = {}
    for panel in dashboards()[name]["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        for place in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            assert taken.setdefault(place, panel["title"]) == panel["title"], f"{panel['title']} on {taken[place]}"


# ---- on a running shop ----

@pytest.fixture(scope="module")
def seven():
    with opened(SevenShops(REQUEST_TIMEOUT="6s")) as shop:
        yield shop
        shop.assert_sound()
        shop.stop()


@pytest.fixture(scope="module")
def prometheus(seven):
    with Prometheus(seven.ports) as one:
        yield one


def round_of_everything(shop, user):
    """One of each event of a healthy shop; mostly successful orders."""
    for _ in range(4):
        ok(shop.post(SAGA, saga([line(price=1)], account=user["billingId"])))
    problem(shop.post(SAGA, saga(when=past())), 424)
    problem(shop.post(SAGA, saga([line(set_stock(shop, 1), 2)])), 424)
    set_slot(shop, 1)
    refill(shop, user["billingId"], "10")
    assert buy(shop, user["billingId"], "1000000") is False
    body, key = {"name": "Maksim", "email": "a@example.org"}, user["id"]
    shop.post("/user/user", body, key=key)
    problem(shop.get(f"/order/order/{user['id']}"), 404)
    ok(shop.get(f"/notification/notification/{user['id']}"))


def test_every_panel_shows_something_and_nothing_fires(seven, prometheus):
    user = new_user(seven)
    refill(seven, user["billingId"], "100000")
    with traffic(lambda: round_of_everything(seven, user)):
        prometheus.wait_data([one for one in expressions() if not needs_kafka(one)])
        prometheus.wait_data(variable_queries())
        assert prometheus.firing() == {}
    for rule in prometheus.rules():
        assert rule["health"] == "ok", rule
    assert {rule["name"] for rule in prometheus.rules() if rule["type"] == "alerting"} == set(alerts())


def test_queries_of_the_runbooks_are_understood(seven):
    """Runs the read-only queries."""
    lines = {line.strip() for page in RUNBOOKS.glob("*.md") for line in page.read_text().splitlines()
             if line.startswith("    psql ") and "pg_drop" not in line}
    assert len(lines) > 5
    for line in lines:
        asked = subprocess.run(["bash", "-c", line], env=os.environ | seven.settings(), capture_output=True, text=True)
        assert asked.returncode == 0 and not asked.stderr, (line, asked.stderr)


def test_stuck_saga(seven, prometheus):
    """A saga that began ten minutes ago, according to its row, and whose delivery responds neither to the action nor to
    the compensation."""
    with seven.servers["delivery"].frozen():
        accepted = seven.post(SAGA, saga(), Prefer="respond-async")
        assert accepted.status == 202, accepted
        order = accepted.headers["location"].rsplit("/", 1)[1]
        seven.servers["order"].kill()
        assert seven.execute("order", 'UPDATE "order".saga SET created_at = created_at - interval \'10 min\' '
                             "WHERE id = %s", order) == 1
        seven.servers["order"].start()
        prometheus.wait_firing("SkaldSagaStuck", "SkaldTargetDown")
        assert [one["type"] for one in prometheus.firing()["SkaldSagaStuck"]] == ["order"]
        prometheus.wait_data(['skald_sagas_running{type="order"} > 0', 'skald_saga_calls_total{outcome="unknown"} > 0'])
    prometheus.wait_over("SkaldSagaStuck", "SkaldTargetDown")
    assert ok(seven.get(f"/order/order/{order}"))["status"] in ("SUCCESS", "CANCELED")


@contextlib.contextmanager
def closed_to_the_consumer(seven):
    """Billing's database accepts no new connections; Billing keeps its existing ones."""
    run = lambda sql: seven.execute("order", sql)
    seven.forget_connections()
    run("ALTER DATABASE billing ALLOW_CONNECTIONS false")
    try:
        run("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active")
        yield
    finally:
        run("ALTER DATABASE billing ALLOW_CONNECTIONS true")


def test_stopped_consumer(seven, prometheus):
    user = new_user(seven)
    with closed_to_the_consumer(seven):
        prometheus.wait_firing("SkaldConsumerStopped", "SkaldSlotInactive")
        assert done(seven.put(f"/billing/billing/refill/{user['billingId']}/1")), "Billing itself goes on"
        assert "SkaldTargetDown" not in prometheus.firing()
    prometheus.wait_over("SkaldConsumerStopped", "SkaldSlotInactive")


def test_dead_database(seven, prometheus):
    seven.forget_connections()
    seven.cluster.kill()
    try:
        with traffic(lambda: problem(seven.post(SAGA, saga()), 503)):
            prometheus.wait_firing("SkaldDatabaseDown", "SkaldErrorBudgetBurnsFast")
        prometheus.wait_firing_for("SkaldDatabaseDown", SERVICES)
        assert prometheus.has_data(f'sum(rate(skald_db_errors_total{{class="unavailable"}}[{RANGE}])) > 0')
    finally:
        seven.restart_database()
    prometheus.wait_over("SkaldDatabaseDown")

"""Logs in a real OpenSearch with the chart's template, sent the way Fluent Bit does."""

import json
import os
import re
import subprocess

import pytest

from harness.check import problem
from harness.goods import new_user, past, refill, saga
from harness.opensearch import LOGGING, LOGS, SHIP, OpenSearch, write_lines
from harness.shop import SERVICES, SevenShops, opened
from harness.wait import wait_for

LINES = int(os.environ.get("LOG_LINES", 50_000))
LINES_A_SECOND = 500  # at the very least
POLICY = json.loads((LOGGING / "retention-policy.json").read_text())["policy"]
OBJECTS = [json.loads(line) for line in (LOGGING / "saved-objects.ndjson").read_text().splitlines()]


@pytest.fixture(scope="module")
def opensearch():
    with OpenSearch() as one:
        one.set_up()
        yield one


@pytest.fixture(autouse=True)
def without_logs(opensearch):
    opensearch.call(LOGS, method="DELETE")


@pytest.fixture(scope="module")
def failed_saga():
    """(saga, log files) of a failed saga across services in separate processes."""
    with opened(SevenShops(LOG_LEVEL="debug")) as shop:
        user = new_user(shop)
        assert refill(shop, user["billingId"], 200)
        body = saga(when=past(), account=user["billingId"])
        failed = problem(shop.post("/order/order/saga", body), 424)["orderId"]
        shop.assert_sound()
        shop.stop()  # no more lines are written while they are sent and counted
        yield failed, [server.log.name for server in shop.servers.values()]


def lines_of(files):
    for name in files:
        with open(name) as file:
            yield from map(json.loads, file)


def mapping(opensearch):
    return [one["mappings"] for one in opensearch.call(f"{LOGS}/_mapping").values()]


def test_setup_can_be_repeated(opensearch):
    template = opensearch.call("_index_template/app-logs")
    assert "The index template is in place." in opensearch.set_up()
    assert opensearch.call("_index_template/app-logs") == template


def test_setup_tells_what_is_refused(opensearch, tmp_path):
    for name in ("setup.sh", "retention-policy.json"):
        (tmp_path / name).write_text((LOGGING / name).read_text())
    (tmp_path / "index-template.json").write_text('{"index_patterns": "app-logs-*", "template": {"nothing": 1}}')
    done = subprocess.run(["sh", tmp_path / "setup.sh"], env=os.environ | {"OPENSEARCH_URL": opensearch.url},
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "The index template is refused: 400" in done.stderr, done


def test_failed_saga_is_found_by_its_id(opensearch, failed_saga):
    """One query across all seven services finds exactly the lines with its id."""
    failed, files = failed_saga
    opensearch.ship(*files)
    written = [line for line in lines_of(files) if line.get("saga_id") == failed]
    found = opensearch.find(f'saga_id:"{failed}"')
    assert sorted(map(json.dumps, found)) == sorted(map(json.dumps, written))
    assert any(line["component"] == "order" and "422: must lie in the future" in json.dumps(line) for line in found)


def test_every_line_of_every_service_arrives(opensearch, failed_saga):
    files = failed_saga[1]
    opensearch.ship(*files)
    opensearch.call(f"{LOGS}/_refresh", method="POST")
    found = opensearch.call(f"{LOGS}/_search", {"size": 0, "aggs": {"by": {"terms": {"field": "component"}}}})
    counts = {bucket["key"]: bucket["doc_count"] for bucket in found["aggregations"]["by"]["buckets"]}
    written = [line["component"] for line in lines_of(files)]
    assert counts == {name: written.count(name) for name in set(written)}
    assert set(SERVICES) <= set(counts)


def test_every_field_of_a_line_can_be_searched(opensearch, failed_saga):
    opensearch.ship(*failed_saga[1])
    known = set(mapping(opensearch)[0]["properties"])
    assert {name for line in lines_of(failed_saga[1]) for name in line} <= known


def test_no_line_changes_the_mapping(opensearch, tmp_path):
    """No line is rejected, whatever it contains and wherever it comes from."""
    write_lines(tmp_path / "all.log", LINES)
    said = opensearch.ship(tmp_path / "all.log", timeout=60 + LINES / LINES_A_SECOND)
    assert said.startswith(f"{LINES} lines stored, 0 duplicates, 0 rejected"), said
    print(said)
    assert opensearch.count() == LINES
    template = json.loads((LOGGING / "index-template.json").read_text())["template"]["mappings"]
    kept = mapping(opensearch)
    assert kept and all(one["properties"].keys() == template["properties"].keys() for one in kept)
    assert len({json.dumps(one, sort_keys=True) for one in kept}) == 1


def test_nothing_is_there_twice(opensearch, tmp_path):
    write_lines(tmp_path / "some.log", 1000)
    opensearch.ship(tmp_path / "some.log")
    assert opensearch.ship(tmp_path / "some.log").startswith("0 lines stored, 1000 duplicates")
    assert opensearch.count() == 1000


def test_followed_while_it_is_written(opensearch, tmp_path):
    log = tmp_path / "growing.log"
    with subprocess.Popen([SHIP, opensearch.url, log], stdout=subprocess.PIPE, text=True) as shipper:
        try:
            log.write_text("first\nsec")
            wait_for("the whole line", lambda: opensearch.count() == 1)
            with open(log, "a") as file:
                file.write("ond\n")
            wait_for("the second line", lambda: opensearch.count('message:"second"') == 1)
            log.write_text("anew\n")
            wait_for("the file that began anew", lambda: opensearch.count('message:"anew"') == 1)
        finally:
            shipper.terminate()
        assert shipper.stdout.read().startswith("3 lines stored")
    assert shipper.returncode == 0


def test_what_is_refused_is_told(opensearch, tmp_path):
    """A line that cannot be indexed is reported; the others arrive."""
    opensearch.call("_cluster/settings", {"transient": {"action.auto_create_index": "app-logs-2030.*"}}, "PUT")
    try:
        (tmp_path / "two.log").write_text('{"@timestamp":"2029-01-01T00:00:00Z"}\n'
                                          '{"@timestamp":"2030-01-01T00:00:00Z"}\n')
        done = subprocess.run([SHIP, "--once", opensearch.url, tmp_path / "two.log"], capture_output=True, text=True,
                              timeout=60)
    finally:
        opensearch.call("_cluster/settings", {"transient": {"action.auto_create_index": None}}, "PUT")
    assert done.returncode == 1 and done.stdout.startswith("1 lines stored, 0 duplicates, 1 rejected"), done
    assert "index_not_found_exception" in done.stderr


def embedded(attributes):
    """The embedded JSON of a saved object."""
    source = json.loads(attributes["kibanaSavedObjectMeta"]["searchSourceJSON"])
    return source, {name: json.loads(attributes[name]) for name in ("visState", "panelsJSON") if name in attributes}


def test_saved_objects_refer_to_each_other():
    known = {(one["type"], one["id"]) for one in OBJECTS}
    assert len(known) == len(OBJECTS)
    for one in OBJECTS:
        assert all((ref["type"], ref["id"]) in known for ref in one["references"]), one
        if one["type"] != "index-pattern":
            names = re.findall(r'(?:indexRefName|panelRefName)\W+([\w.]+)', json.dumps(one["attributes"]))
            assert sorted(names) == sorted(ref["name"] for ref in one["references"]), one


@pytest.mark.parametrize("one", [one for one in OBJECTS if one["type"] in ("search", "visualization")],
                         ids=lambda one: one["id"])
def test_saved_search_works(opensearch, tmp_path, one):
    """Its query is valid and finds something, and its columns and groups can be searched."""
    write_lines(tmp_path / "some.log", 3000)
    opensearch.ship(tmp_path / "some.log")
    source, parts = embedded(one["attributes"])
    assert opensearch.count(source["query"]["query"] or "*:*") > 0
    known = mapping(opensearch)[0]["properties"]
    fields = one["attributes"].get("columns", [])
    fields += [agg["params"]["field"] for agg in parts.get("visState", {}).get("aggs", []) if "field" in agg["params"]]
    assert fields and all(field in known for field in fields), fields


def test_retention_is_for_our_indices_only():
    """The index state management plugin is not available, so only the policy's syntax is checked."""
    states = {state["name"]: state for state in POLICY["states"]}
    assert [pattern for one in POLICY["ism_template"] for pattern in one["index_patterns"]] == ["app-logs-*"]
    kept = states[POLICY["default_state"]]
    assert not kept["actions"] and kept["transitions"][0]["conditions"] == {"min_index_age": "14d"}
    assert any("delete" in action for action in states[kept["transitions"][0]["state_name"]]["actions"])

"""The chart's manifests for its values, with Helm 3 and 4, without a cluster."""

import json
import math
import os
import re
import subprocess

import pytest
import yaml
from conftest import CHART, FLAVOURS, PROFILES, SERVICES, containers, helm, kubernetes, objects, of_kind, pods, settings
from conftest import template

MIB = {"Mi": 1, "Gi": 1024}
VERSIONS = sorted(kubernetes.HELM)
STEPS = ("/payment/step/x", "/warehouse/step/x/cancel", "/delivery/step/x", "/billing/step/x/buy")
PUBLIC = {
    "order": ["/order/order", "/order/order/1", "/order/order/saga", "/order/saga", "/order/saga/1/retry"],
    "payment": ["/payment/payment"], "warehouse": ["/warehouse/warehouse/1", "/warehouse/stock/phone"],
    "delivery": ["/delivery/delivery", "/delivery/slot/2036-06-26T16:00"], "user": ["/user/user/billing_id/1"],
    "billing": ["/billing/billing/refill/1/2", "/billing/billing/1/2"], "notification": ["/notification/notification/1"],
}
# Allowed calls: caller → callees; all others are denied.
CALLS = {("order", "payment"), ("order", "warehouse"), ("order", "delivery"), ("payment", "billing"), ("user", "billing"),
         ("notification", "user")} | {("test", name) for name in SERVICES}


def mib(quantity):
    return int(quantity[:-2]) * MIB[quantity[-2:]]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("profile", PROFILES)
def test_lint(version, profile):
    done = helm(version, "lint", "--strict", CHART, *PROFILES[profile])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("profile", PROFILES)
def test_both_helms_make_the_same(profile, flavour):
    def made(version):
        found = sorted(objects(profile, flavour, version), key=lambda one: (one["kind"], one["metadata"]["name"]))
        return [one | {"data": sorted(one["data"])} if one["kind"] == "Secret" else one for one in found]

    assert made("helm3") == made("helm4")
    text = template("helm4", profile, flavour)
    assert "<no value>" not in text and "%!" not in text


@pytest.mark.parametrize("values", [
    {"replcas": 1}, {"services.odrer.replicas": 1}, {"services.order.replica": 1}, {"events": "pigeon"},
    {"config.WORKRS": 1}, {"databases.mode": "external"}, {"databases.existingSecrets.bill": "x"},
    {"kafka.mode": "external"}, {"route.kind": "door"}, {"route.httproute.gateway.create": "false"},
    {"config.DRAIN_TIMEOUT": "soon"}, {"image.name": "skald:latest"}, {"image.tag": "1"}, {"kafka.brokers": 0},
    {"databases.password": "hush"}, {"defaults.resources.requests.memry": "1Gi"}], ids=str)
def test_what_is_not_a_value_is_refused(values):
    for version in VERSIONS:
        done = helm(version, "template", CHART, "--kube-version", kubernetes.KUBERNETES, *settings(values))
        assert done.returncode != 0
        assert "schema" in done.stderr, done.stderr


def test_every_default_is_in_the_schema_and_the_other_way_round():
    def paths(schema, values, where=""):
        schema = definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
        named = schema.get("properties")
        if not named or not isinstance(values, dict) or schema.get("additionalProperties") is not False:
            return
        known = set(named) - {"global"}
        if where not in ("config", "databases.existingSecrets", "databases.perService") and values:
            assert known - set(values) - {"ephemeral-storage", "limits", "requests", "cpu", "memory", "walSize",
                                          "timeoutSeconds"} == set(), where
        for name in values:
            paths(named[name], values[name], f"{where}.{name}".strip("."))

    schema = json.loads((CHART / "values.schema.json").read_text())
    definitions = schema["definitions"]
    paths(schema, yaml.safe_load((CHART / "values.yaml").read_text()))


def test_every_setting_of_the_executable_can_be_given(skald_settings):
    given = set(json.loads((CHART / "values.schema.json").read_text())["properties"]["config"]["properties"])
    by_chart = set(next(one for one in objects() if one["metadata"]["name"] == "skald" and "data" in one)["data"]) - given
    databases = {f"{name.upper()}_DATABASE_URL" for name in SERVICES} | {"DATABASE_URL"}
    assert skald_settings - given - by_chart - databases - {"SAGA_OWNER", "KAFKA_TOPIC", "KAFKA_GROUP"} == set()
    assert given - skald_settings == {"SAGA_RUNNING_MOST"}  # a former name, still read


def milliseconds(duration):
    number, unit = re.fullmatch(r"(\d+)(ms|s|m)", duration).groups()
    return int(number) * {"ms": 1, "s": 1000, "m": 60000}[unit]


@pytest.fixture
def end_seconds():
    """How long a process may take after DRAIN_TIMEOUT, according to its --help."""
    return int(re.search(r"after SIGTERM; what is left is given back within (\d+)s more", skald_help())[1])


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_pod_may_take_as_long_as_its_process(profile, flavour, end_seconds):
    found = objects(profile, flavour)
    config = next(one for one in found if one["metadata"]["name"] == "skald" and "data" in one)["data"]
    most = milliseconds(config["DRAIN_DELAY"]) + milliseconds(config["DRAIN_TIMEOUT"]) + 1000 * end_seconds
    ours = {name: spec["terminationGracePeriodSeconds"] for name, spec, labels in pods(found)
            if labels["app.kubernetes.io/component"] in (*SERVICES, "relay")}
    assert len(ours) >= len(SERVICES) and all(1000 * seconds >= most for seconds in ours.values()), ours


@pytest.mark.parametrize("values,enough", [
    ({"config.DRAIN_TIMEOUT": "16s"}, 5 + 16), ({"config.DRAIN_DELAY": "20500ms"}, 20.5 + 10),
    ({"services.order.env.DRAIN_TIMEOUT": "1m"}, 5 + 60), ({"events": "relay", "config.DRAIN_TIMEOUT": "20s"}, 5 + 20)],
    ids=str)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_pod_that_would_be_killed_too_early_is_refused(version, values, enough, end_seconds):
    def made(seconds):
        return helm(version, "template", CHART, "--kube-version", kubernetes.KUBERNETES,
                    *settings(values | {"pod.terminationGracePeriodSeconds": seconds}))

    least = math.ceil(enough + end_seconds)
    assert made(least).returncode == 0
    refused = made(least - 1)
    assert refused.returncode != 0 and "pod.terminationGracePeriodSeconds is" in refused.stderr, refused.stderr


def skald_help():
    program = os.environ.get("SKALD_BIN", kubernetes.ROOT / "build/skald")
    return subprocess.run([program, "serve", "--help"], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def skald_settings():
    found = set(re.findall(r"^ *([A-Z][A-Z_]+)\b", skald_help(), re.MULTILINE))
    assert len(found) > 20
    return found - {"VARIABLE"}


def test_definitions_are_those_of_the_charts_that_are_installed():
    """If a chart's version changes, the module in definitions.py must change to the version that it installs."""
    import definitions

    pinned = dict(re.findall(r"^(\w+)_version=(\S+)$", (kubernetes.ROOT / "deploy/cluster/versions.sh").read_text(), re.M))
    assert {name: pinned[name] for name in definitions.CHARTS} == definitions.CHARTS
    assert f"<strimzi.version>{pinned['strimzi']}<" in (kubernetes.HERE / "strimzi/pom.xml").read_text()


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_nothing_floats(profile, flavour):
    for name, spec, _ in pods(objects(profile, flavour)):
        for container in containers(spec):
            assert re.search(r":v?\d[\w.-]*$|@sha256:", container["image"]), name
    for one in of_kind(objects(profile, flavour), "Cluster"):
        assert re.search(r":\d[\w.-]*$", one["spec"]["imageName"])
    for one in of_kind(objects(profile, flavour), "Kafka"):
        assert one["spec"]["kafka"]["version"] and one["spec"]["kafka"]["metadataVersion"]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_no_variable_is_there_twice(flavour):
    for name, spec, _ in pods(objects("cloud", flavour)):
        for container in containers(spec):
            names = [one["name"] for one in container.get("env", [])]
            assert len(names) == len(set(names)), (name, names)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_no_password_stands_in_the_open(flavour):
    secret = {one["data"]["password"] for one in of_kind(objects(flavour=flavour), "Secret")}
    open_text = json.dumps([one for one in objects(flavour=flavour) if one["kind"] != "Secret"])
    assert not any(word in open_text for word in secret)
    assert not re.search(r"://\w+:(?!\$)[^/@\s]+@", open_text)


def test_each_service_has_only_what_it_needs():
    for name, spec, labels in pods(objects()):
        variables = json.dumps([container.get("env", []) for container in containers(spec)])
        service = labels["app.kubernetes.io/component"]
        found = {one for one in SERVICES if f"skald-db-{one}\"" in variables}
        assert found == ({service} if service in SERVICES else {"billing"} if service == "debezium" else set()), name
        assert ("skald-db-cdc" in variables) == (service == "debezium")


def requests_of(found):
    """Memory requests in MiB: (the shop's own processes, everything)."""
    shop = other = 0
    for one in of_kind(found, "Deployment"):
        spec = one["spec"]["template"]["spec"]
        need = max(sum(mib(c["resources"]["requests"]["memory"]) for c in spec["containers"]),
                   *(mib(c["resources"]["requests"]["memory"]) for c in spec["initContainers"]))
        need *= one["spec"].get("replicas", 1)
        if one["metadata"]["name"].endswith("-debezium"):
            other += need
        else:
            shop += need
    for one in of_kind(found, "Cluster"):
        other += mib(one["spec"]["resources"]["requests"]["memory"]) * one["spec"]["instances"]
    for one in of_kind(found, "KafkaNodePool"):
        other += mib(one["spec"]["resources"]["requests"]["memory"]) * one["spec"]["replicas"]
    for one in of_kind(found, "Kafka"):
        other += mib(one["spec"]["entityOperator"]["topicOperator"]["resources"]["requests"]["memory"])
    return shop, shop + other


@pytest.mark.parametrize("events", ["debezium", "relay", "wal"])
def test_a_small_machine_is_enough(events, capsys):
    shop, total = requests_of(objects("minikube", events))
    with capsys.disabled():
        print(f"\nMinikube with {events}: the shop's processes ask for {shop} MiB, the release for {total} MiB")
    assert 0 < shop < 300
    assert shop < total < 1600


def matches(prefix, path):
    return path == prefix or path.startswith(prefix + "/")


@pytest.mark.parametrize("kind", ["httproute", "ingress"])
def test_only_public_paths_are_let_in(kind):
    paths = {}
    for one in of_kind(objects(flavour="ingress" if kind == "ingress" else "debezium"), "HTTPRoute", "Ingress"):
        for rule in one["spec"]["rules"]:
            for path in rule["http"]["paths"] if kind == "ingress" else rule["matches"]:
                backend = path["backend"]["service"] if kind == "ingress" else rule["backendRefs"][0]
                paths[path["path"] if kind == "ingress" else path["path"]["value"]] = backend["name"]
    assert paths
    for service, public in PUBLIC.items():
        for path in public:
            assert {name for prefix, name in paths.items() if matches(prefix, path)} == {f"skald-{service}"}, path
    for path in (*STEPS, "/metrics", "/debug/fibers", "/", "/health"):
        assert not any(matches(prefix, path) for prefix in paths), path


def selects(selector, labels):
    return all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items()) and all(
        labels.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", []))


def allows(policies, direction, pod, peer, port):
    key, side = {"ingress": ("Ingress", "from"), "egress": ("Egress", "to")}[direction]
    mine = [one["spec"] for one in policies if key in one["spec"]["policyTypes"] and selects(one["spec"]["podSelector"], pod)]
    return not mine or any(
        ("ports" not in rule or any(one["port"] == port for one in rule["ports"]))
        and (side not in rule or any(
            "namespaceSelector" not in one and "podSelector" in one and selects(one["podSelector"], peer) for one in rule[side]))
        for spec in mine for rule in spec.get(direction, []))


@pytest.mark.parametrize("profile", ["minikube", "cloud"])
@pytest.mark.parametrize("events", ["debezium", "relay", "wal"])
def test_who_may_reach_whom(profile, events):
    found = objects(profile, events)
    policies = of_kind(found, "NetworkPolicy")
    labels = {one["app.kubernetes.io/component"]: one for _, _, one in pods(found)}
    assert set(labels) == {*SERVICES, "test"} | ({events} - {"wal"})

    def reaches(one, other, port):
        return allows(policies, "egress", one, other, port) and allows(policies, "ingress", other, one, port)

    for one in labels:
        for other in SERVICES:
            assert reaches(labels[one], labels[other], "http") == ((one, other) in CALLS), (one, other)
    readers = {"notification" if events == "wal" else events}
    for cluster in of_kind(found, "Cluster"):
        database = {"cnpg.io/cluster": cluster["metadata"]["name"]}
        members = {role["name"] for role in cluster["spec"]["managed"]["roles"]} & set(SERVICES)
        for one in labels:
            expected = one in members or (one in readers and "billing" in members)
            assert reaches(labels[one], database, 5432) == expected, (one, database)
    kafka = {"strimzi.io/cluster": "skald", "strimzi.io/kind": "Kafka"}
    for one in labels:
        assert allows(policies, "egress", labels[one], kafka, 9092) == (events != "wal" and one in ("notification", events))
    for listener in [one["spec"]["kafka"]["listeners"][0] for one in of_kind(found, "Kafka")]:
        for one in labels:
            let_in = any(selects(peer["podSelector"], labels[one]) for peer in listener["networkPolicyPeers"])
            assert let_in == (one in ("notification", events))

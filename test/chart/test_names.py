"""Names out of the release, its namespace and the values: each is one that the API server and the operators take, or it
is refused with a sentence before there is any object."""

import re

import pytest
import yaml
from conftest import CHART, FLAVOURS, PROFILES, containers, helm, kubernetes, objects, pods, settings

VERSIONS = sorted(kubernetes.HELM)
LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
DOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
SUBDOMAIN = rf"(?=.{{1,253}}$){DOMAIN}"
SERVICE = r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"
LABEL_VALUE = r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?"
LABEL_KEY = rf"({DOMAIN}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?"
CLUSTER_MAX = 50  # of CloudNativePG's webhook
# The longest name that fits, and what makes it so.
LONGEST = [
    ("debezium", {}, 26), ("relay", {}, 26), ("separate", {}, 26),  # a broker's host
    ("wal", {"databases.mode": "separate"}, 34), ("kafka-external", {"databases.mode": "separate"}, 34),  # databases
    ("wal", {"logging.enabled": "true"}, 46),  # the Job of the logs
    ("wal", {}, 47), ("external-wal", {}, 50)]


def rendered(version, release, *arguments, namespace="shop", flavour="debezium", values=()):
    return helm(version, "template", release, CHART, "--namespace", namespace, "--kube-version", kubernetes.KUBERNETES,
                *settings(FLAVOURS[flavour] | dict(values)), *arguments)


def made(done):
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.load_all(done.stdout, yaml.CSafeLoader) if one]


def labels_in(tree):
    if isinstance(tree, list):
        for one in tree:
            yield from labels_in(one)
    elif isinstance(tree, dict):
        for name, value in tree.items():
            if name in ("labels", "matchLabels", "nodeSelector"):
                yield from value.items()
            yield from labels_in(value)


def is_name(pattern, text):
    return isinstance(text, str) and re.fullmatch(pattern, text) is not None


def faults(found):
    """What of the names in the objects would be refused: by the API server, or by an operator that derives others."""
    names = {(one["kind"], one["metadata"]["name"]) for one in found}
    pools = [name for kind, name in names if kind == "KafkaNodePool"]
    for kind, name in names:
        rule = SERVICE if kind in ("Service", "Cluster") else LABEL if kind in ("Job", "Pod") else SUBDOMAIN
        if not is_name(rule, name):
            yield kind, name
        if kind == "Cluster":
            if len(name) > CLUSTER_MAX or not is_name(SERVICE, f"{name}-rw"):
                yield kind, name
        if kind == "Kafka":
            derived = [f"{name}-kafka-bootstrap", *(f"{name}-{pool}-98" for pool in pools)]
            yield from ((kind, one) for one in derived if not is_name(SERVICE, one))
    for key, value in labels_in(found):
        if not is_name(LABEL_KEY, key) or not is_name(LABEL_VALUE, value):
            yield key, value
    for _, spec, _ in pods(found):
        yield from (("container", one["name"]) for one in containers(spec) if not is_name(LABEL, one["name"]))


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("profile", PROFILES)
def test_every_name_is_taken(profile, flavour):
    assert list(faults(objects(profile, flavour))) == []


@pytest.mark.parametrize("release, arguments, namespace, sentence", [
    ("1shop", [], "shop", 'the release\'s name, "1shop", is not a valid prefix of Service names'),
    ("shop.v2", [], "shop", '"shop.v2", is not a valid prefix of Service names'),
    ("123", [], "shop", '"123", is not a valid prefix of Service names'),
    ("shop", ["--set", "fullnameOverride=Shop_1"], "shop", 'fullnameOverride, "Shop_1", is not a valid prefix of Service names'),
    ("shop", ["--set", "fullnameOverride=shop-"], "shop", '"shop-", is not a valid prefix of Service names'),
    ("shop", ["--set", "fullnameOverride=-shop"], "shop", '"-shop", is not a valid prefix of Service names'),
    ("shop", ["--set", "fullnameOverride=магазин"], "shop", "is not a valid prefix of Service names"),
    ("shop", ["--set", "fullnameOverride=shop one"], "shop", '"shop one", is not a valid prefix of Service names'),
    ("shop", [], "Shop_1", '"Shop_1" is not a valid namespace'), ("shop", [], "s" * 64, "is not a valid namespace"),
    ("shop", ["--set", "nameOverride=other"], "shop", "nameOverride")], ids=str)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_name_that_no_object_can_have_is_refused(version, release, arguments, namespace, sentence):
    done = rendered(version, release, *arguments, namespace=namespace)
    assert done.returncode != 0 and done.stdout == ""
    assert sentence in done.stderr


@pytest.mark.parametrize("flavour, values, longest", LONGEST, ids=str)
@pytest.mark.parametrize("version", VERSIONS)
def test_the_longest_name_fits_and_a_longer_one_is_refused(version, flavour, values, longest):
    assert list(faults(made(rendered(version, "a" * longest, flavour=flavour, values=values)))) == []
    done = rendered(version, "a" * (longest + 1), flavour=flavour, values=values)
    assert done.returncode != 0 and f"has {longest + 1} characters; with these values at most {longest}" in done.stderr
    short = rendered(version, "a" * (longest + 1), "--set", "fullnameOverride=shop", flavour=flavour, values=values)
    assert list(faults(made(short))) == []


@pytest.mark.parametrize("name", ["true", "null", "no", "on", "y", "e1", "nan"])
def test_a_word_of_yaml_is_a_name_like_others(name):
    values = {"monitoring.enabled": "true", "logging.enabled": "true"}
    team = ["--set-string", f"commonLabels.team={name}"]
    assert list(faults(made(rendered("helm4", name, *team, namespace=name, values=values)))) == []


@pytest.mark.parametrize("release", ["123", "1e3", "0x1f", "1.5"])
def test_the_release_may_be_called_as_it_likes_beside_another_name(release):
    found = made(rendered("helm4", release, "--set", "fullnameOverride=shop,monitoring.enabled=true"))
    assert list(faults(found)) == []
    assert {one["metadata"]["labels"]["app.kubernetes.io/instance"] for one in found} == {release}


# Each value that becomes a name, with what it must not be.
NOT_NAMES = {
    "image.pullSecrets[0]": ["Pull", "a b", ""], "image.name": ["skald", "Skald:1", "skald:1 ", "a#b:1", "reg/:1"],
    "serviceAccount.name": ["Mine", "-a", "a_b"], "databases.external.secret": ["DSN", "a" * 254],
    "databases.existingSecrets.billing": ["Mine", "a..b"], "databases.storage.storageClass": ["Fast", "a/b"],
    "databases.backup.volumeSnapshotClass": ["Snap"], "databases.parameters.log line": ["on"],
    "databases.storage.size": ["1..2Gi", "big"], "kafka.storage.storageClass": ["Fast"],
    "defaults.priorityClassName": ["High"], "defaults.nodeSelector.disk": ["a b", "a" * 64],
    "defaults.spreadOver[0]": ["a b", ""], "defaults.podAnnotations.a b": ["c"],
    "services.order.env.A-B": ["c"], "services.order.env.SAGA_OWNER": ["me"],
    "services.order.env.ORDER_DATABASE_URL": ["postgresql://"], "relay.env.CDC_PASSWORD": ["x"],
    "defaults.podDisruptionBudget.maxUnavailable": ["half"], "commonLabels.team": ["the shop", "a" * 64, "-a"],
    "commonLabels.app\\.kubernetes\\.io/name": ["mine"], "commonLabels.a b": ["c"],
    "monitoring.labels.release": ["a b"], "monitoring.dashboards.labels.app\\.kubernetes\\.io/component": ["x"],
    "route.hosts[0]": ["Shop.example", "-a.example", "a..b", "a.", ".a", "a.-b", "10.0.0.1", "*", "a.*.b", "a_b",
                       "a" * 64 + ".example", ".".join(["a" * 50] * 5)],
    "route.annotations.a b": ["c"], "route.httproute.gateway.className": ["Envoy", ""],
    "route.httproute.gateway.name": ["Main"], "route.httproute.gateway.namespace": ["Gateways", "a.b"],
    "route.httproute.gateway.sectionName": ["Web"], "route.httproute.gateway.routesFrom[0]": ["A", ""],
    "route.httproute.gateway.tlsSecret": ["TLS"], "route.ingress.className": ["Nginx"], "route.ingress.tlsSecret": ["TLS"],
    "logging.namespace": ["Logs", "a.b", "", "a" * 64], "logging.secret": ["Admin", ""], "logging.caSecret": ["CA"],
    "databases.external.cidrs[0]": ["10.0.0.1", "here"], "debezium.settings.a b": ["c"],
    "debezium.settings.poll": ["1\n2"],
}


@pytest.mark.parametrize("path", NOT_NAMES)
def test_a_value_that_is_no_name_is_refused(path):
    for value in NOT_NAMES[path]:
        # As --set takes it; a comma or a brace would be its own sign.
        done = rendered("helm4", "shop", "--set-string", f"{path}={value}")
        assert done.returncode != 0 and "schema" in done.stderr, (path, value)


TEXTS = {
    "external-wal": ["databases.external.secret"], "backup": ["databases.backup.volumeSnapshotClass"],
    "tls": ["route.httproute.gateway.tlsSecret", "route.httproute.gateway.className", "route.httproute.gateway.routesFrom[0]",
            "route.httproute.gateway.annotations.note"],
    "given-gateway": ["route.httproute.gateway.name", "route.httproute.gateway.namespace",
                      "route.httproute.gateway.sectionName", "route.annotations.note"],
    "ingress": ["route.ingress.className", "route.ingress.tlsSecret"],
    "logging": ["logging.caSecret", "logging.secret", "logging.namespace", "logging.opensearchUrl", "logging.dashboardsUrl"],
    "monitoring": ["monitoring.labels.release", "monitoring.dashboards.labels.found", "monitoring.dashboards.folder"],
    "given-secrets": ["databases.existingSecrets.billing", "databases.existingSecrets.cdc"],
    "scheduling": ["serviceAccount.name", "commonLabels.team", "image.pullSecrets[0]", "defaults.nodeSelector.disk",
                   "defaults.podAnnotations.note", "defaults.priorityClassName", "services.order.env.SAGA_LEASE",
                   "defaults.spreadOver[0]"],
    "debezium": ["databases.storage.storageClass", "kafka.storage.storageClass", "databases.parameters.note",
                 "debezium.settings.note"],
    "relay": ["relay.env.NOTE"],
}


def kinds_of(tree, where=()):
    """Each leaf's place with its type."""
    if isinstance(tree, dict):
        return {one for name, value in tree.items() for one in kinds_of(value, (*where, str(name)))}
    if isinstance(tree, list):
        return {one for index, value in enumerate(tree) for one in kinds_of(value, (*where, index))}
    return {(where, type(tree))}


@pytest.mark.parametrize("flavour", TEXTS)
def test_a_text_that_looks_like_something_else_stays_a_text(flavour):
    def kinds(value):
        found = made(rendered("helm4", "shop", *(part for path in TEXTS[flavour] for part in ("--set-string", f"{path}={value}")),
                              flavour=flavour))
        return kinds_of([one for one in found if one["kind"] != "Secret"])

    expected = kinds("abc")
    for value in ("true", "null", "123", "1e3"):
        assert kinds(value) ^ expected == set(), value


def test_a_version_of_kafkas_metadata_stays_a_text():
    [kafka] = [one for one in made(rendered("helm4", "shop", "--set-string", "kafka.metadataVersion=4.3"))
               if one["kind"] == "Kafka"]
    assert kafka["spec"]["kafka"]["metadataVersion"] == "4.3"


def test_what_a_label_is_may_be_said_twice_and_ours_holds():
    values = {"monitoring.enabled": "true", "monitoring.labels.team": "prometheus", "commonLabels.team": "shop",
              "commonLabels.example\\.com/Cost_Center": "A_b.c"}
    found = made(rendered("helm4", "shop", values=values))
    teams = {one["kind"]: one["metadata"]["labels"]["team"] for one in found}
    assert teams["ServiceMonitor"] == teams["PrometheusRule"] == "prometheus" and teams["Service"] == "shop"
    assert {one["metadata"]["labels"]["example.com/Cost_Center"] for one in found} == {"A_b.c"}


@pytest.mark.parametrize("host", ["shop.example", "*.shop.example", "a", "xn--80aswg.xn--p1ai", "1.shop.example"])
@pytest.mark.parametrize("image", ["skald:1", "registry.example:5000/a/b-c_d/skald:v1.2", "[::1]:5000/skald:1",
                                   "skald@sha256:" + "0" * 64, "cr.example/skald:1@sha256:" + "f" * 64])
def test_names_that_are_good_are_taken(host, image):
    text = rendered("helm4", "shop", "--set", f"route.hosts[0]={host},image.name={image}")
    assert host in [name for one in made(text) if one["kind"] == "HTTPRoute" for name in one["spec"]["hostnames"]]
    assert image in text.stdout

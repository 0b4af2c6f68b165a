"""Every manifest against a real API server: schemas, admission, and the restricted Pod Security Standard."""

import json

import pytest

import kubernetes
from conftest import CHART, FLAVOURS, INSTALLED, PROFILES, SERVICES, helm, objects, pods, template

NAMESPACE = "shop"


@pytest.fixture(scope="module", autouse=True)
def namespaces(kubectl):
    for name in (NAMESPACE, "skald-logging"):
        done = kubectl("create", "namespace", name)
        assert done.returncode == 0, done.stderr
        done = kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted",
                       "pod-security.kubernetes.io/warn=restricted")
        assert done.returncode == 0, done.stderr
        done = kubectl("wait", "--for=create", "serviceaccount/default", "-n", name, "--timeout=60s")
        assert done.returncode == 0, done.stderr
    # Not by an option, which would be held against the one object that has a namespace of its own.
    done = kubectl("config", "set-context", "--current", f"--namespace={NAMESPACE}")
    assert done.returncode == 0, done.stderr
    for account in ("skald", "mine"):  # which the pods name and the release makes, but a dry run does not
        done = kubectl("create", "serviceaccount", account)
        assert done.returncode == 0, done.stderr


def check(kubectl, text):
    """Strict: a field that the server does not know is an error, and so is a warning."""
    done = kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "--warnings-as-errors", "-f", "-",
                   text=text)
    assert done.returncode == 0, done.stderr
    return done.stdout.count("(server dry run)")


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("profile", PROFILES)
def test_every_flavour(kubectl, profile, flavour):
    assert check(kubectl, template("helm4", profile, flavour)) == len(objects(profile, flavour))


@pytest.mark.parametrize("file", ["gateway-class.yaml", "gateway-cloud.yaml", "gateway-minikube.yaml"])
def test_gateway_beside_the_chart(kubectl, file):
    text = (kubernetes.ROOT / "deploy/cluster" / file).read_text()
    assert check(kubectl, text.replace("namespace: envoy-gateway-system", f"namespace: {NAMESPACE}")) == 1


@pytest.mark.parametrize("profile,events,parts", INSTALLED)
def test_as_installed(kubectl, profile, events, parts):
    values = {"monitoring.enabled": parts, "logging.enabled": parts}
    assert check(kubectl, template("helm3", profile, events, **values)) == len(objects(profile, events, **values))


@pytest.mark.parametrize("flavour", ["debezium", "relay", "external-wal", "logging", "scheduling"])
def test_pods_are_restricted(kubectl, flavour):
    """A Deployment's pods are checked only on creation, so they are created directly here."""
    for name, spec, labels in pods(objects("cloud", flavour)):
        spec = {key: value for key, value in spec.items() if key != "priorityClassName"}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}
        check(kubectl, json.dumps(pod))
        spec["containers"][0]["securityContext"].pop("capabilities")
        refused = kubectl("create", "--dry-run=server", "-f", "-", text=json.dumps(pod))
        assert "violates PodSecurity" in refused.stderr


def test_a_wrong_field_would_be_seen(kubectl):
    text = template("helm4").replace("enablePodAntiAffinity", "enablePodAntiGravity", 1)
    with pytest.raises(AssertionError, match="enablePodAntiGravity"):
        check(kubectl, text)


def test_upgrades_keep_the_passwords_and_an_end_leaves_nothing(kubectl):
    def passwords():
        found = json.loads(kubectl("get", "secrets", "-n", "kept", "-l", "app.kubernetes.io/instance=skald", "-o", "json").stdout)
        return {one["metadata"]["name"]: one["data"]["password"] for one in found["items"]}

    def run(version, *arguments):
        done = helm(version, *arguments, "--namespace", "kept", KUBECONFIG=kubectl.config)
        assert done.returncode == 0, done.stderr

    run("helm3", "upgrade", "--install", "skald", CHART, "--create-namespace")
    first = passwords()
    assert len(first) == len(set(first.values())) == len(SERVICES) + 1
    for version in ("helm3", "helm4"):
        run(version, "upgrade", "skald", CHART, "--set", "monitoring.enabled=true,services.order.replicas=3")
        assert passwords() == first
    run("helm4", "uninstall", "skald", "--wait")
    kinds = "all,secrets,configmaps,networkpolicies,clusters.postgresql.cnpg.io,kafkas,kafkatopics,gateways,httproutes"
    left = kubectl("get", kinds, "-n", "kept", "-l", "app.kubernetes.io/part-of=skald", "-o", "name")
    assert left.returncode == 0 and left.stdout == ""

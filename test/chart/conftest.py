"""Helm, the chart's variants, and an API server with the operators' custom resource definitions."""

import functools
import itertools
import os
import subprocess
import sys

import pytest
import yaml

import kubernetes

sys.path.insert(0, str(kubernetes.ROOT / "tools"))

from services import SERVICES  # noqa: E402

CHART = kubernetes.ROOT / "deploy/chart/skald"
PROFILES = {"default": [], "minikube": ["-f", CHART / "values-minikube.yaml"], "cloud": ["-f", CHART / "values-cloud.yaml"]}
# What one value or two can change about which objects there are, and which fields they have.
FLAVOURS = {
    "debezium": {}, "relay": {"events": "relay"}, "wal": {"events": "wal"},
    "separate": {"databases.mode": "separate", "databases.perService.billing.storage.size": "5Gi"},
    "shared": {"databases.mode": "shared"},
    "external": {"databases.mode": "external", "databases.external.secret": "dsn",
                 "databases.external.cidrs[0]": "10.1.0.0/16"},
    "external-wal": {"databases.mode": "external", "databases.external.secret": "dsn", "events": "wal"},
    "external-relay": {"databases.mode": "external", "databases.external.secret": "dsn", "events": "relay"},
    "kafka-external": {"kafka.mode": "external", "kafka.external.brokers": "a:9092\\,b:9092"},
    "given-secrets": {"databases.existingSecrets.billing": "mine", "databases.existingSecrets.cdc": "cdc"},
    "backup": {"databases.backup.schedule": "0 0 3 * * *", "databases.backup.volumeSnapshotClass": "snap"},
    "ingress": {"route.kind": "ingress", "route.ingress.className": "nginx", "route.ingress.tlsSecret": "tls"},
    "given-gateway": {"route.httproute.gateway.create": "false", "route.httproute.gateway.name": "main",
                      "route.httproute.gateway.namespace": "gateways", "route.httproute.gateway.sectionName": "web"},
    "tls": {"route.httproute.gateway.tlsSecret": "tls"},
    "no-route": {"route.kind": "none"},
    "monitoring": {"monitoring.enabled": "true", "monitoring.labels.release": "monitoring"},
    "logging": {"logging.enabled": "true", "logging.caSecret": "authority"},
    "open": {"networkPolicy.enabled": "false", "tests.enabled": "false"},
    "scheduling": {"defaults.autoscaling.enabled": "true", "defaults.nodeSelector.disk": "ssd",
                   "defaults.tolerations[0].operator": "Exists", "defaults.priorityClassName": "high",
                   "services.order.env.SAGA_LEASE": "20s", "image.pullSecrets[0]": "pull", "commonLabels.team": "shop",
                   "serviceAccount.name": "mine"},
}
# The shop as install.sh makes it, in every combination that its options allow.
INSTALLED = list(itertools.product(("minikube", "cloud"), ("debezium", "relay", "wal"), ("true", "false")))


def settings(values):
    return [part for name, value in values.items() for part in ("--set", f"{name}={value}")]


def helm(version, *arguments, KUBECONFIG=os.devnull):
    return subprocess.run([kubernetes.program(version), *map(str, arguments)], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, env=os.environ | {"KUBECONFIG": KUBECONFIG})


@functools.cache
def template(version, profile="default", flavour="debezium", **values):
    """The manifests as text. Built without release flags, Helm assumes a very old Kubernetes version."""
    done = helm(version, "template", "skald", CHART, "--namespace", "shop", "--kube-version", kubernetes.KUBERNETES,
                *PROFILES[profile], *settings(FLAVOURS[flavour] | values))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@functools.cache
def objects(profile="default", flavour="debezium", version="helm4", **values):
    return [one for one in yaml.load_all(template(version, profile, flavour, **values), yaml.CSafeLoader) if one]


def of_kind(found, *kinds):
    return [one for one in found if one["kind"] in kinds]


def pods(found):
    """(name, pod spec, labels) of every workload of the chart."""
    for one in of_kind(found, "Deployment", "Job"):
        template = one["spec"]["template"]
        yield one["metadata"]["name"], template["spec"], template["metadata"]["labels"]
    for one in of_kind(found, "Pod"):
        yield one["metadata"]["name"], one["spec"], one["metadata"]["labels"]


def containers(spec):
    return spec.get("initContainers", []) + spec["containers"]


def pytest_collection_modifyitems(items):
    reason = kubernetes.why_not()
    if reason and not all(kubernetes.place(name).exists() for name in kubernetes.HELM):
        for item in items:
            item.add_marker(pytest.mark.skip(reason=f"Helm cannot be built: {reason}"))


@pytest.fixture(scope="session")
def kubectl(tmp_path_factory):
    """Calls kubectl against an API server with the operators' definitions: the finished process."""
    import definitions  # only the tests of the API server need what this needs

    folder = tmp_path_factory.mktemp("apiserver")
    apiserver = [sys.executable, kubernetes.HERE / "apiserver"]
    started = subprocess.run([*apiserver, "start", folder], stdout=subprocess.PIPE, text=True)
    assert started.returncode == 0
    environment = os.environ | {"KUBECONFIG": started.stdout.strip(), "HOME": str(folder)}

    def call(*arguments, text=None):
        return subprocess.run([kubernetes.program("kubectl"), *map(str, arguments)], input=text, capture_output=True,
                              text=True, env=environment)

    call.config = environment["KUBECONFIG"]
    try:
        for path in definitions.files():
            done = call("apply", "--server-side", "-f", path)
            assert done.returncode == 0, done.stderr
        done = call("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        assert done.returncode == 0, done.stderr
        yield call
    finally:
        subprocess.run([*apiserver, "stop", folder], check=True)

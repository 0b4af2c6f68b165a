"""Every manifest against a real API server: its schemas, its admission, the restricted security of its pods."""

import json

import pytest
from conftest import FLAVOURS, INSTALLED, PROFILES, objects, pods, template

NAMESPACE = "shop"


@pytest.fixture(scope="module", autouse=True)
def namespaces(kubectl):
    for name in (NAMESPACE, "skald-logging"):
        done = kubectl("create", "namespace", name)
        assert done.returncode == 0, done.stderr
        done = kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted",
                       "pod-security.kubernetes.io/warn=restricted")
        assert done.returncode == 0, done.stderr


def check(kubectl, text):
    """Strict: a field that the server does not know is an error, and so is a warning."""
    done = kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "--warnings-as-errors", "-n", NAMESPACE,
                   "-f", "-", text=text)
    assert done.returncode == 0, done.stderr
    return done.stdout.count("(server dry run)")


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("profile", PROFILES)
def test_every_flavour(kubectl, profile, flavour):
    assert check(kubectl, template("helm4", profile, flavour)) == len(objects(profile, flavour))


@pytest.mark.parametrize("profile,events,parts", INSTALLED)
def test_as_installed(kubectl, profile, events, parts):
    values = {"monitoring.enabled": parts, "logging.enabled": parts}
    assert check(kubectl, template("helm3", profile, events, **values)) == len(objects(profile, events, **values))


@pytest.mark.parametrize("flavour", ["debezium", "relay", "external-wal", "logging", "scheduling"])
def test_pods_are_restricted(kubectl, flavour):
    """A Deployment's pods are looked at only when they are made, so they are made here by themselves."""
    for name, spec, labels in pods(objects("cloud", flavour)):
        spec = {key: value for key, value in spec.items() if key not in ("serviceAccountName", "priorityClassName")}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}
        check(kubectl, json.dumps(pod))
        spec["containers"][0]["securityContext"].pop("capabilities")
        assert "violates PodSecurity" in kubectl("create", "--dry-run=server", "-n", NAMESPACE, "-f", "-",
                                                 text=json.dumps(pod)).stderr


def test_a_wrong_field_would_be_seen(kubectl):
    text = template("helm4").replace("enablePodAntiAffinity", "enablePodAntiGravity", 1)
    with pytest.raises(AssertionError, match="enablePodAntiGravity"):
        check(kubectl, text)

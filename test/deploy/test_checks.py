"""Prerequisite checks: each failure has its message and exit status, and nothing is changed."""

import re

import pytest
import stubs
import yaml

TOOL, VERSION, CLUSTER, PERMISSION, UNFIT, USAGE = 3, 4, 5, 6, 7, 2


def refused(run, status, *sentences):
    assert run.status == status, run.said
    for sentence in sentences:
        assert sentence in run.said
    assert run.changes() == []


@pytest.mark.parametrize("tool, purpose", [("kubectl", "it accesses the cluster"), ("helm", "it installs the charts"),
                                           ("minikube", "it builds the image in the cluster")])
def test_missing_tool(machine, tool, purpose):
    machine.absent.add(tool)
    refused(machine.run("install.sh"), TOOL, f"{tool} is missing: {purpose}")


def test_openssl_is_needed_for_the_logs_only(machine):
    machine.absent.add("openssl")
    refused(machine.run("install.sh"), TOOL, "openssl is missing: it creates OpenSearch's certificate.")
    run = machine.run("install.sh", "--without-logging", "--dry-run")
    assert run.status == 0, run.said


def test_all_missing_tools_are_told_at_once(machine):
    machine.absent.update(("kubectl", "helm", "cksum"))
    refused(machine.run("install.sh"), TOOL, "kubectl is missing", "helm is missing", "cksum is missing")


@pytest.mark.parametrize("script", ["install.sh", "delete.sh"])
@pytest.mark.parametrize("tool, question, version, need", [
    ("kubectl", "kubectl version --client", "Client Version: v1.29.9", "1.30"),
    ("helm", "helm version *", "v3.13.2", "3.14")])
def test_old_tool(machine, script, tool, question, version, need):
    machine.answer(question, version)
    refused(machine.run(script), VERSION, f"{tool} {version.split('v')[-1]} is too old: {need} or newer is required.")


@pytest.mark.parametrize("version", ["v3.14.0", "v3.22+unreleased", "v4.0.0-rc.1"])
def test_helm_that_will_do(machine, version):
    machine.answer("helm version *", version)
    run = machine.run("install.sh", "--dry-run")
    assert run.status == 0, run.said


def test_helm_of_the_future(machine):
    machine.answer("helm version *", "v5.0.0")
    refused(machine.run("install.sh"), VERSION, "helm 5.0.0 is not supported")


def test_tool_without_a_version(machine):
    machine.answer("helm version *", "", 1)
    refused(machine.run("install.sh"), VERSION, "helm does not report its version; is ")


def test_old_minikube(machine):
    machine.answer("minikube version --short", "v1.35.0")
    refused(machine.run("install.sh"), VERSION, "minikube 1.35.0 is too old: 1.36 or newer is required.")


@pytest.mark.parametrize("script", ["install.sh", "delete.sh"])
def test_no_context(machine, script):
    machine.answer("kubectl config current-context", "error: current-context is not set", 1)
    refused(machine.run(script), CLUSTER, "kubectl has no current context.")


@pytest.mark.parametrize("script", ["install.sh", "delete.sh"])
@pytest.mark.parametrize("answer, sentence", [
    ("dial tcp 192.168.49.2:8443: connect: connection refused", "is unreachable. Is it running (minikube start)"),
    ("error: You must be logged in to the server (Unauthorized)", "rejects the credentials; renew them")])
def test_cluster_that_does_not_answer(machine, script, answer, sentence):
    machine.answer("kubectl * get --raw /version", answer, 1)
    refused(machine.run(script), CLUSTER, "The cluster of the context minikube", sentence, answer)


def test_old_kubernetes(machine):
    machine.answer("kubectl * get --raw /version", '{"gitVersion": "v1.29.4"}')
    refused(machine.run("install.sh"), VERSION, "Kubernetes 1.29.4 is too old: the cluster must have 1.30 or newer.")


def test_kubernetes_too_old_for_the_gateway_only(machine):
    machine.answer("kubectl * get --raw /version", '{"gitVersion": "v1.31.4"}')
    refused(machine.run("install.sh"), VERSION, "Envoy Gateway needs Kubernetes 1.33, this is 1.31.4.")


@pytest.mark.parametrize("script, verb", [("install.sh", "create"), ("delete.sh", "delete")])
def test_missing_permissions(machine, script, verb):
    machine.answer(f"kubectl * auth can-i {verb} namespaces *", "no", 1)
    machine.answer(f"kubectl * auth can-i {verb} secrets *", "no - no RBAC policy matched", 1)
    refused(machine.run(script), PERMISSION,
            f"The user of the context minikube may not {verb} namespaces in the whole cluster.",
            f"The user of the context minikube may not {verb} secrets in the namespace skald.",
            "A cluster administrator must grant this")


def test_no_default_storage_class(machine):
    machine.answer("kubectl * get storageclasses *", "storageclass.kubernetes.io/is-default-class=false")
    refused(machine.run("install.sh"), UNFIT, "The cluster has no default storage class")


def test_too_little_memory(machine):
    machine.answer("kubectl * get nodes *allocatable*", "2000000Ki\n1000Mi")
    refused(machine.run("install.sh"), UNFIT, "have 2953 MiB of memory for pods, but about")
    run = machine.run("install.sh", "--without-logging", "--without-monitoring", "--events", "relay", "--dry-run")
    assert run.status == 0, run.said


def test_cloud_needs_an_image(machine):
    machine.answer("kubectl * get nodes *labels*", "kubernetes.io/hostname ")
    refused(machine.run("install.sh"), USAGE, "pass its name with --image")


def test_image_must_be_built_in_the_cluster_of_the_context(machine):
    machine.answer("minikube profile", "other")
    refused(machine.run("install.sh"), CLUSTER, "kubectl's context is minikube, but Minikube's profile is other")


def test_ready_image_needs_no_minikube(machine):
    machine.absent.add("minikube")
    run = machine.run("install.sh", "--dry-run", "--image", "cr.example/skald:1.0")
    assert run.status == 0, run.said


@pytest.mark.parametrize("options, sentence", [
    (["--profile", "laptop"], "--profile must be minikube or cloud, not 'laptop'."),
    (["--events=kafka"], "--events must be debezium, relay or wal, not 'kafka'."),
    (["--namespace", "Shop"], "'Shop' is not a valid namespace"),
    (["--namespace", "kube-system"], "The shop needs its own namespace, not kube-system."),
    (["--timeout", "soon"], "--timeout must be a number of seconds, not 'soon'."),
    (["--host", "a;b"], "'a;b' is not a valid host name: "),
    (["--charts", "nowhere"], "--charts: there is no folder nowhere."),
    (["--image"], "--image needs a value."),
    (["--frce"], "Unknown option --frce.")])
def test_wrong_option(machine, options, sentence):
    refused(machine.run("install.sh", *options), USAGE, sentence)


SOON = "a" * 64
LONG_HOST = ".".join(["a" * 60] * 4)


@pytest.mark.parametrize("options, sentence", [
    *([["--namespace", name], f"'{name}' is not a valid namespace"] for name in ("shop.v2", "a_b", "-a", "a-", SOON)),
    *([["--namespace", name], "not that of"] for name in ("skald-monitoring", "skald-logging", "cnpg-system")),
    *([["--host", name], f"'{name}' is not a valid host name"] for name in (
        "a..b", ".a", "a.", "-a.b", "a-.b", "a.-b", "a_b", "*.a", "Shop.example", f"{SOON}.b", LONG_HOST, "a b")),
    (["--host", "10.0.0.1"], "'10.0.0.1' is an address"),
    *([["--image", name], f"'{name}' is not a valid image"] for name in (
        "skald", "Skald:1", "cr.example/Team/skald:1", "localhost:5000/skald", "skald:", "skald:1 ", 'a"b:1', "a//b:1",
        "skald@sha256:12", "skald:1\nx: y", "/skald:1")),
    (["--image", "skald:latest"], "not latest"),
    (["--gateway-class", "Envoy"], "'Envoy' is not a valid GatewayClass."),
    (["--gateway-class", 'a"b'], "is not a valid GatewayClass."),
    (["--timeout", "9" * 20], "--timeout must be a number of seconds")])
def test_a_name_that_the_cluster_would_refuse(machine, options, sentence):
    run = machine.run("install.sh", "--dry-run", *options)
    refused(run, USAGE, sentence)
    assert run.calls == []


@pytest.mark.parametrize("options, sentence", [
    (["--namespace", SOON], "is not a valid namespace"), (["--namespace", "skald-logging"], "not that of"),
    (["--timeout", "9" * 20], "--timeout must be a number of seconds")])
def test_delete_refuses_the_same(machine, options, sentence):
    run = machine.run("delete.sh", "--dry-run", *options)
    refused(run, USAGE, sentence)
    assert run.calls == []


@pytest.mark.parametrize("options", [
    *(["--image", name] for name in ("skald:1", "cr.example:5000/a/b-c_d/skald:V1.2", "[::1]:5000/skald:1",
                                     "skald@sha256:" + "0" * 64, "skald:1@sha256:" + "f" * 64)),
    *(["--host", name] for name in ("a", "1.shop.example", "xn--80aswg.xn--p1ai", ".".join(["a" * 60] * 3))),
    ["--namespace", "123"], ["--namespace", "a" * 63]], ids=str)
def test_a_name_that_the_cluster_takes(machine, options):
    run = machine.run("install.sh", "--dry-run", *options)
    assert run.status == 0, run.said


@pytest.mark.parametrize("namespace", ["123", "true", "null", "1e3"])
def test_a_namespace_that_looks_like_something_else_stays_a_text(machine, namespace):
    run = machine.run("install.sh", "--dry-run", "--namespace", namespace)
    assert run.status == 0, run.said
    documents = [yaml.safe_load(text) for text in re.findall(r"^\+ kubectl .* apply -f -\n((?:    .*\n)+)", run.said, re.M)]
    objects = [one for one in documents if namespace in (
        str(one["metadata"]["name"]).lower(), str(one["metadata"].get("namespace")).lower())
        or one["kind"] == "HTTPRoute"]
    assert {one["kind"] for one in objects} == {"Namespace", "ConfigMap", "HTTPRoute"}
    for one in objects:
        for value in (one["metadata"]["name"], one["metadata"].get("namespace", ""), *one["metadata"]["labels"].values()):
            assert isinstance(value, str), one
        assert all(isinstance(parent["namespace"], str) for parent in one.get("spec", {}).get("parentRefs", []))


@pytest.mark.parametrize("script", ["install.sh", "delete.sh"])
def test_help_asks_nobody(machine, script):
    run = machine.run(script, "--help")
    assert run.status == 0 and run.calls == []
    assert "--namespace" in run.said and "--dry-run" in run.said


def test_foreign_operator_too_old(machine):
    machine.answer("kubectl * get customresourcedefinition kafkas.kafka.strimzi.io *",
                   "customresourcedefinition/kafkas")
    machine.answer("kubectl * api-versions", "v1\nkafka.strimzi.io/v1beta2")
    refused(machine.run("install.sh"), UNFIT, "own Strimzi does not serve kafka.strimzi.io/v1.")


def test_several_gateway_classes(machine):
    machine.answer("kubectl * get customresourcedefinition gatewayclasses.*", "customresourcedefinition/gatewayclasses")
    machine.answer("kubectl * api-versions", "gateway.networking.k8s.io/v1")
    machine.answer("kubectl * get gatewayclasses *", "yc istio ")
    refused(machine.run("install.sh"), USAGE, "several GatewayClasses. Choose one with --gateway-class: yc istio")
    refused(machine.run("install.sh", "--gateway-class", "nginx"), UNFIT, "has no GatewayClass nginx. It has: yc istio")
    run = machine.run("install.sh", "--gateway-class", "istio", "--dry-run")
    assert run.status == 0 and "eg" not in [call.split()[5] for call in stubs.matching(run.calls, "helm * upgrade *")]

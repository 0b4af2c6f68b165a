"""Whole runs with stubbed tools: what is done, in which order, what is left alone, and what a failure reports."""

import shlex

import pytest
import stubs


def releases(text):
    return [line.split(" --install ")[1].split()[0] for line in text.splitlines() if " upgrade --install " in line]


def ready(machine):
    """All controllers have their pods, and every object queried by name exists."""
    machine.answer("kubectl * get deployments,statefulsets,daemonsets -o name", "deployment.apps/one")
    machine.answer("minikube image ls", "")


ALL = ["eg", "cnpg", "strimzi", "monitoring", "opensearch", "dashboards", "fluent-bit", "skald"]


def test_dry_run_tells_everything_and_touches_nothing(machine):
    run = machine.run("install.sh", "--dry-run")
    assert run.status == 0, run.said
    assert run.changes() == []
    assert releases(run.said) == ALL
    assert "+ minikube image build -t skald:" in run.said
    assert "nothing was changed" in run.said


def test_fluent_bit_gets_the_tested_configuration(machine):
    run = machine.run("install.sh", "--dry-run", "--namespace=store")
    words = shlex.split(next(line for line in run.said.splitlines() if "--install fluent-bit" in line))
    for name in ("fluent-bit", "opensearch"):
        assert f"config.extraFiles.{name}\\.yaml=deploy/chart/skald/files/logging/{name}.yaml" in words
    assert "logPaths=/var/log/containers/*_store_*.log" in words


@pytest.mark.parametrize("options, absent", [
    (["--events", "wal"], {"strimzi"}), (["--events=relay"], set()), (["--without-monitoring"], {"monitoring"}),
    (["--without-logging"], {"opensearch", "dashboards", "fluent-bit"})])
def test_options_leave_parts_out(machine, options, absent):
    run = machine.run("install.sh", "--dry-run", *options)
    assert releases(run.said) == [name for name in ALL if name not in absent]


def test_options_reach_the_shop(machine):
    run = machine.run("install.sh", "--dry-run", "--namespace=store", "--events=relay", "--image", "cr.example/skald:7",
                      "--profile=cloud", "--host", "shop.example")
    shop = next(line for line in run.said.splitlines() if "--install skald" in line)
    assert "--namespace store" in shop and "values-cloud.yaml" in shop
    for value in ['name: "cr.example/skald:7"', "events: relay", 'hosts: ["shop.example"]', 'className: "skald"']:
        assert value in [line.strip() for line in run.said.splitlines()], run.said


def test_every_chart_is_pinned(machine):
    run = machine.run("install.sh", "--dry-run")
    for line in run.said.splitlines():
        if " upgrade --install " in line and "deploy/chart/skald" not in line:
            assert " --version " in line or ".tgz " in line, line


def test_run_installs_in_order(machine):
    ready(machine)
    machine.answer("minikube image build *")
    run = machine.run("install.sh", "--image", "skald:1")
    assert run.status == 0, run.said
    assert releases("\n".join(run.calls)) == ALL
    assert "http://arch.homework/" in run.said and "/etc/hosts" in run.said
    assert "get secret grafana-admin" in run.said and "get secret opensearch-admin" in run.said


def test_records_come_before_what_they_tell_of(machine):
    ready(machine)
    run = machine.run("install.sh", "--image", "skald:1")
    first = next(i for i, call in enumerate(run.calls) if " apply " in call)
    assert first < next(i for i, call in enumerate(run.calls) if " upgrade --install " in call)


def test_stopped_run_is_resumed(machine):
    ready(machine)
    machine.answer("kubectl * get -n strimzi-system secrets *owner=helm,name=strimzi,*",
                   "secret/sh.helm.release.v1.strimzi.v1")
    run = machine.run("install.sh", "--image", "skald:1")
    assert run.status == 0, run.said
    assert "An earlier run was interrupted during strimzi; resuming." in run.said
    [drop] = stubs.matching(run.calls, "kubectl * delete secret/sh.helm.release.v1.strimzi.v1")
    [upgrade] = stubs.matching(run.calls, "helm * upgrade --install strimzi *")
    assert run.calls.index(drop) < run.calls.index(upgrade)


def test_operator_of_others_stays(machine):
    ready(machine)
    machine.answer("kubectl * get customresourcedefinition clusters.postgresql.cnpg.io *",
                   "customresourcedefinition/clusters")
    machine.answer("kubectl * api-versions", "postgresql.cnpg.io/v1")
    run = machine.run("install.sh", "--image", "skald:1")
    assert run.status == 0, run.said
    assert "CloudNativePG is already installed and will not be changed." in run.said
    assert "cnpg" not in releases("\n".join(run.calls))


def test_chart_that_cannot_be_had(machine):
    machine.answer("helm show crds *", "Error: failed to do request: dial tcp: lookup docker.io: no such host", 1)
    run = machine.run("install.sh", "--image", "skald:1")
    assert run.status == 1
    assert "could not be downloaded" in run.said and "--charts" in run.said and "no such host" in run.said


@pytest.mark.parametrize("why, cause", [
    ("Pending|ImagePullBackOff |", "its image cannot be pulled"),
    ("Running|CrashLoopBackOff Error |", "its program exits"),
    ("Running|CrashLoopBackOff OOMKilled |", "exceeded its memory limit"),
    ("Pending|CreateContainerConfigError |", "a Secret or ConfigMap that it needs does not exist"),
    ("Pending||0/1 nodes are available: 1 Insufficient memory.", "no node has enough free memory"),
    ("Pending||pod has unbound immediate PersistentVolumeClaims", "its volume does not exist"),
    ("Pending||", "has not been scheduled"),
    ("Running||", "its readiness probe fails")])
def test_failed_wait_tells_the_cause_and_the_last_lines(machine, why, cause):
    machine.answer("kubectl * get deployments,statefulsets,daemonsets -o name", "deployment.apps/one")
    machine.answer("kubectl * -n cnpg-system get deployments,statefulsets,daemonsets -o go-template*", "cnpg 1 1 1 0 1")
    machine.answer("kubectl * -n cnpg-system get pods *", f"cnpg-7f|{why}")
    machine.answer("kubectl * -n cnpg-system logs cnpg-7f --all-containers --prefix *",
                   "[pod/cnpg] FATAL: no certificate")
    run = machine.run("install.sh", "--image", "skald:1", "--timeout", "0")
    assert run.status == 1
    assert "Timed out after 0 s waiting until every pod of CloudNativePG is ready." in run.said
    assert "Pod cnpg-7f in cnpg-system: likely cause: " in run.said and cause in run.said
    assert "FATAL: no certificate" in run.said


def test_failed_build_tells_the_reason(machine):
    machine.answer("minikube image build *", "ERROR: failed to solve: debian: not found", 1)
    run = machine.run("install.sh")
    assert run.status == 1 and "failed to solve" in run.said and "The image could not be built" in run.said
    assert releases("\n".join(run.calls)) == []


def test_image_in_the_cluster_is_not_built_again(machine):
    tag = next(word for word in machine.run("install.sh", "--dry-run").said.split() if word.startswith("skald:"))
    ready(machine)
    machine.answer("minikube image ls", f"docker.io/library/{tag}\ndocker.io/library/debian:12")
    run = machine.run("install.sh")
    assert run.status == 0, run.said
    assert stubs.matching(run.calls, "minikube image build *") == []


def installed(machine, *components):
    machine.answer("kubectl * get configmap -A -l *component=shop *", "skald ")
    for namespace, name in components:
        machine.answer(f"kubectl * get -n {namespace} configmap skald-install *component*", name)
        machine.answer(f"kubectl * get -n {namespace} configmap skald-install *namespace*", "made")


def test_delete_asks_somebody(machine):
    installed(machine)
    run = machine.run("delete.sh")
    assert run.status == 8 and "Standard input is not a terminal, so confirmation is impossible." in run.said
    assert "WITH ALL ITS DATA" in run.said
    assert run.changes() == []


def test_delete_dry_run_touches_nothing(machine):
    installed(machine, ("strimzi-system", "strimzi"))
    run = machine.run("delete.sh", "--dry-run")
    assert run.status == 0 and run.changes() == []
    assert "Strimzi in the namespace strimzi-system" in run.said


def test_delete_finds_nothing(machine):
    run = machine.run("delete.sh", "--yes")
    assert run.status == 0 and "There is nothing to remove: install.sh created nothing here." in run.said and run.changes() == []


def test_delete_leaves_what_another_shop_uses(machine):
    installed(machine, ("cnpg-system", "cnpg"))
    machine.answer("kubectl * get configmap -A -l *component=shop *", "skald store ")
    machine.answer("kubectl * get -n skald configmap skald-install *namespace*", "made")
    run = machine.run("delete.sh", "--yes")
    assert run.status == 0, run.said
    assert "CloudNativePG stays: the shop in store uses it." in run.said
    assert stubs.matching(run.calls, "kubectl * delete namespace skald *")
    assert stubs.matching(run.calls, "kubectl * delete namespace cnpg-system *") == []


def test_delete_leaves_what_others_use(machine):
    installed(machine, ("cnpg-system", "cnpg"), ("skald", "shop"))
    machine.answer("kubectl * get customresourcedefinitions *postgresql.cnpg.io*", "clusters.postgresql.cnpg.io ")
    machine.answer("kubectl * get clusters.postgresql.cnpg.io --all-namespaces *",
                   "Cluster/books accounting\nCluster/skald skald")
    run = machine.run("delete.sh", "--yes")
    assert run.status == 0, run.said
    assert "CloudNativePG stays, with its definitions: it is in use by others (Cluster/books in accounting)." in run.said
    assert stubs.matching(run.calls, "kubectl * delete customresourcedefinitions *") == []


@pytest.mark.parametrize("question", [
    "kubectl * get configmap -A *component=shop*", "kubectl * get -n cnpg-system configmap *component*",
    "kubectl * get customresourcedefinitions *postgresql.cnpg.io*", "kubectl * get clusters.postgresql.cnpg.io *"])
def test_delete_removes_nothing_while_it_cannot_know_whose_it_is(machine, question):
    installed(machine, ("cnpg-system", "cnpg"), ("skald", "shop"))
    machine.answer("kubectl * get customresourcedefinitions *postgresql.cnpg.io*", "clusters.postgresql.cnpg.io ")
    machine.answer(question, "Error from server: etcdserver: request timed out", 1)
    run = machine.run("delete.sh", "--yes")
    assert run.status == 1 and "etcdserver: request timed out" in run.said, run.said
    assert "The cluster did not respond" in run.said and run.changes() == []


@pytest.mark.parametrize("question", [
    "kubectl * get customresourcedefinition clusters.postgresql.cnpg.io *",
    "kubectl * get -n cnpg-system configmap *component*", "kubectl * get nodes *labels*"])
def test_install_begins_nothing_while_it_cannot_know_what_is_there(machine, question):
    ready(machine)
    machine.answer(question, "Error from server: etcdserver: request timed out", 1)
    run = machine.run("install.sh", "--image", "skald:1")
    assert run.status == 1 and "The cluster did not respond" in run.said, run.said
    assert run.changes() == []


def test_what_cannot_be_asked_about_is_not_ready(machine):
    ready(machine)
    machine.answer("kubectl * -n cnpg-system get deployments,statefulsets,daemonsets -o go-template*", "timed out", 1)
    run = machine.run("install.sh", "--image", "skald:1", "--timeout", "0")
    assert run.status == 1 and "waiting until every pod of CloudNativePG is ready." in run.said, run.said


def test_only_a_new_helm_is_told_to_overrule_others(machine):
    ready(machine)
    for version, told in (("v3.22.0", False), ("v4.3.1", True)):
        machine.answer("helm version *", version)
        upgrades = stubs.matching(machine.run("install.sh", "--image", "skald:1").calls, "helm * upgrade *")
        assert upgrades and all(("--force-conflicts" in call) == told for call in upgrades), upgrades

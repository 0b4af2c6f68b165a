"""install.sh and delete.sh against a real API server: repeated, interrupted and resumed runs, and what is left
behind."""

import os
import subprocess

import pytest

import api as cluster
import charts

LOGGING = cluster.ROOT / "deploy/chart/skald/files/logging"
FOREIGN = "/apis/postgresql.cnpg.io/v1/namespaces/accounting/clusters"


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    one = cluster.Api(tmp_path_factory.mktemp("api"))
    try:
        one.start()
        one.create("/api/v1/nodes", {"metadata": {"name": "minikube", "labels": {"minikube.k8s.io/name": "minikube"}}})
        one.merge("/api/v1/nodes/minikube/status", {"status": {"allocatable": {"memory": "8Gi", "cpu": "4"}}})
        one.create("/apis/storage.k8s.io/v1/storageclasses", {
            "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
            "provisioner": "k8s.io/minikube-hostpath"})
        with cluster.Double(one):
            yield one
    finally:
        one.stop()


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    return charts.write_all(tmp_path_factory.mktemp("charts") / "archives")


@pytest.fixture(params=["helm3", "helm4"])
def tools(request, tmp_path):
    return cluster.lay_out_tools(tmp_path / "tools", request.param)


@pytest.fixture
def script(api, tools):
    def run(name, *options, user=""):
        env = {"PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(tools), "KUBECONFIG": str(api.kubeconfig(user))}
        done = subprocess.run(["sh", cluster.ROOT / name, *options], env=env, stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=900)
        return done.returncode, done.stdout
    return run


@pytest.fixture
def install(script, archives):
    def run(*options):
        return script("install.sh", "--charts", str(archives), "--image", "skald:test", "--timeout", "120", *options)
    return run


@pytest.fixture
def helm(api, tools):
    def run(*arguments):
        env = os.environ | {"KUBECONFIG": str(api.kubeconfig()), "HOME": str(tools)}
        subprocess.run([tools / "helm", *arguments], env=env, check=True, capture_output=True)
    return run


@pytest.fixture
def untouched(api, script):
    """Checks that the test leaves exactly the objects that existed before."""
    before = settled(api)
    yield before
    status, said = script("delete.sh", "--yes")
    assert status == 0, said
    assert difference(before, settled(api)) == ([], [])


def settled(api):
    """All objects, once two lists are equal: the server registers API groups with some delay."""
    last = None
    while last != (last := api.objects()):
        pass
    return last


def difference(before, after):
    return sorted(before - after), sorted(after - before)


def names(api, path):
    return sorted(item["metadata"]["name"] for item in api.items(path))


def releases(api, namespace):
    return sorted({item["metadata"]["labels"]["name"] for item in api.items(f"/api/v1/namespaces/{namespace}/secrets")
                   if item["type"] == "helm.sh/release.v1"})


def test_dry_run_touches_nothing(api, install):
    before = settled(api)
    status, said = install("--dry-run")
    assert status == 0, said
    assert difference(before, settled(api)) == ([], [])


def test_guest_lacks_permissions(api, script):
    before = settled(api)
    status, said = script("install.sh", "--image", "skald:test", user="guest")
    assert status == 6 and "may not create namespaces in the whole cluster" in said, said
    assert difference(before, settled(api)) == ([], [])


def test_twice_in_a_row(api, install, untouched):
    status, said = install()
    assert status == 0, said
    assert "192.168.49.2 arch.homework grafana.arch.homework opensearch.arch.homework" in said
    first = settled(api)
    assert releases(api, "skald-logging") == ["dashboards", "fluent-bit", "opensearch"]
    files = api.get("/api/v1/namespaces/skald-logging/configmaps/fluent-bit")["data"]
    assert {name: text.strip() for name, text in files.items()} == {
        name: (LOGGING / name).read_text(encoding="utf-8").strip() for name in ("fluent-bit.yaml", "opensearch.yaml")}
    password = api.get("/api/v1/namespaces/skald-logging/secrets/opensearch-admin")["data"]["password"]
    status, said = install()
    assert status == 0, said
    lost, new = difference(first, settled(api))
    assert lost == []
    assert {kind for kind, *_ in new} == {"secrets"}, new  # Helm's record of the second revision
    assert all(name.startswith("sh.helm.release.") for _, _, name, _ in new), new
    assert api.get("/api/v1/namespaces/skald-logging/secrets/opensearch-admin")["data"]["password"] == password


def test_stopped_run_goes_on(api, install, untouched):
    """The state left by a run that was killed during a release."""
    status, said = install("--without-logging", "--without-monitoring", "--events=wal")
    assert status == 0, said
    secret = "/api/v1/namespaces/skald/secrets/sh.helm.release.v1.skald.v1"
    api.merge(secret, {"metadata": {"labels": {"status": "pending-install"}}})
    status, said = install("--without-monitoring", "--events=relay")
    assert status == 0, said
    assert "An earlier run was interrupted during skald; resuming." in said
    assert names(api, "/apis/kafka.strimzi.io/v1/namespaces/skald/kafkas") != []


def test_run_that_ended_before_its_first_record_goes_on(api, install, untouched):
    """The namespace has the mark, so it is deleted with the shop although this run did not create it."""
    api.create("/api/v1/namespaces", {"metadata": {"name": "skald", "labels": {
        "app.kubernetes.io/managed-by": "skald-install"}}})
    status, said = install("--without-logging", "--without-monitoring", "--events=wal")
    assert status == 0, said
    untouched.difference_update({one for one in untouched if "skald" in (one[1], one[2])})


def test_stopped_removal_is_no_obstacle(api, install, untouched):
    """The state left by a delete.sh that was killed during a release."""
    status, said = install("--without-logging", "--without-monitoring", "--events=wal")
    assert status == 0, said
    secret = "/api/v1/namespaces/skald/secrets/sh.helm.release.v1.skald.v1"
    api.merge(secret, {"metadata": {"labels": {"status": "uninstalling"}}})
    status, said = install("--without-logging", "--without-monitoring", "--events=wal")
    assert status == 0, said


def test_what_somebody_scaled_is_scaled_back(api, install, tools, untouched):
    status, said = install("--without-logging", "--without-monitoring", "--events=wal")
    assert status == 0, said
    subprocess.run([tools / "kubectl", "-n", "skald", "scale", "deployment", "skald-billing", "--replicas=0"], check=True,
                   capture_output=True, env=os.environ | {"KUBECONFIG": str(api.kubeconfig())})
    place = "/apis/apps/v1/namespaces/skald/deployments/skald-billing"
    assert api.get(place)["spec"]["replicas"] == 0
    status, said = install("--without-logging", "--without-monitoring", "--events=wal", "--image", "skald:next")
    assert status == 0, said
    assert api.get(place)["spec"]["replicas"] == 1


def test_second_shop_keeps_what_the_first_one_has(api, install, script, untouched):
    options = ("--without-monitoring", "--events=wal")
    status, said = install(*options)
    assert status == 0, said
    status, said = install(*options, "--namespace", "drill", "--host", "drill.homework")
    assert status == 0, said
    routes = api.items("/apis/gateway.networking.k8s.io/v1/namespaces/skald-logging/httproutes")
    assert sorted(one["spec"]["hostnames"][0] for one in routes) == ["opensearch.arch.homework", "opensearch.drill.homework"]
    status, said = script("delete.sh", "--yes", "--namespace", "drill")
    assert status == 0 and "stays: the shop in skald uses it." in said, said
    routes = api.items("/apis/gateway.networking.k8s.io/v1/namespaces/skald-logging/httproutes")
    assert [one["spec"]["hostnames"][0] for one in routes] == ["opensearch.arch.homework"]
    assert releases(api, "skald-logging") == ["dashboards", "fluent-bit", "opensearch"]


def test_operator_of_others_stays(api, install, script, helm, archives, untouched):
    [archive] = archives.glob("cloudnative-pg-*.tgz")
    helm("install", "postgres", archive, "-n", "databases", "--create-namespace")
    before = settled(api)
    status, said = install("--without-logging", "--without-monitoring", "--events=wal")
    assert status == 0 and "CloudNativePG is already installed and will not be changed." in said, said
    status, said = script("delete.sh", "--yes")
    assert status == 0, said
    assert difference(before, settled(api)) == ([], [])
    helm("uninstall", "postgres", "-n", "databases")
    for name in ("clusters", "databases", "scheduledbackups"):
        api.remove(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}.postgresql.cnpg.io")
    api.remove("/api/v1/namespaces/databases")


def test_database_of_others_keeps_the_operator(api, install, script, untouched):
    status, said = install("--without-logging", "--without-monitoring", "--events=wal")
    assert status == 0, said
    api.create("/api/v1/namespaces", {"metadata": {"name": "accounting"}})
    books = {"apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster", "metadata": {"name": "books"}, "spec": {}}
    api.create(FOREIGN, books)
    status, said = script("delete.sh", "--yes")
    assert status == 0, said
    assert "CloudNativePG stays, with its definitions: it is in use by others (Cluster/books in accounting)." in said
    assert names(api, FOREIGN) == ["books"]
    assert releases(api, "cnpg-system") == ["cnpg"]
    assert api.get("/api/v1/namespaces/skald") is None
    api.remove("/api/v1/namespaces/accounting")


def test_what_others_have_in_the_namespace_stays(api, install, script, untouched):
    """So do the operators and definitions that it needs."""
    api.create("/api/v1/namespaces", {"metadata": {"name": "skald"}})
    status, said = install("--without-logging", "--without-monitoring")
    assert status == 0, said
    topic = {"apiVersion": "kafka.strimzi.io/v1", "kind": "KafkaTopic", "metadata": {
        "name": "theirs", "labels": {"strimzi.io/cluster": "other"}}}
    api.create("/apis/kafka.strimzi.io/v1/namespaces/skald/kafkatopics", topic)
    books = {"apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster", "metadata": {"name": "books"}, "spec": {}}
    api.create("/apis/postgresql.cnpg.io/v1/namespaces/skald/clusters", books)
    for label in ("cnpg.io/cluster", "strimzi.io/cluster"):
        api.create("/api/v1/namespaces/skald/configmaps", {
            "metadata": {"name": "of-" + label.partition(".")[0], "labels": {label: "other"}}})
    status, said = script("delete.sh", "--yes")
    assert status == 0, said
    assert "Strimzi stays, with its definitions: it is in use by others (KafkaTopic/theirs in skald)." in said
    assert "CloudNativePG stays, with its definitions: it is in use by others (Cluster/books in skald)." in said
    assert {"of-cnpg", "of-strimzi"} <= set(names(api, "/api/v1/namespaces/skald/configmaps"))
    assert names(api, "/apis/kafka.strimzi.io/v1/namespaces/skald/kafkatopics") == ["theirs"]
    api.remove("/apis/postgresql.cnpg.io/v1/namespaces/skald/clusters/books")
    api.remove("/api/v1/namespaces/skald")


def test_namespace_that_was_there_stays(api, install, script, untouched):
    api.create("/api/v1/namespaces", {"metadata": {"name": "skald"}})
    api.create("/api/v1/namespaces/skald/configmaps", {"metadata": {"name": "notes"}, "data": {"of": "somebody"}})
    before = settled(api)
    status, said = install("--without-logging", "--without-monitoring")
    assert status == 0, said
    status, said = script("delete.sh", "--yes")
    assert status == 0 and "The namespace skald existed before and stays." in said, said
    assert difference(before, settled(api)) == ([], [])
    api.remove("/api/v1/namespaces/skald")

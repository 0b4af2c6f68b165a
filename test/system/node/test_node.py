"""The chart in a real single-node cluster: it runs, serves, is updated under load, and survives kills. PostgreSQL runs
outside the cluster; the pod network is a plain bridge, which enforces no NetworkPolicy."""

import json
import os
import pathlib
import random
import signal
import subprocess

import images
import kubernetes
import pytest
from harness import process
from harness.check import ok
from harness.cluster import ROOT
from harness.customers import Customers
from harness.docker import UID
from harness.door import Door
from harness.shop import SERVICES, Shop, opened
from harness.wait import wait_for
from test_newman import COLLECTIONS, place, run

NAMESPACE = "shop"
CLIENTS = 4
KILLS = 20
PASSWORD = "a-password-of-the-test"
ROLLOUT_SECONDS = 240


class NodeShop(Shop):
    """A release of the chart with a PostgreSQL outside the cluster, and an entry point with the Services' addresses."""

    def __init__(self, node):
        super().__init__()
        self.node, self.door, self.version = node, None, "helm4"

    def prepare(self):
        subnet = f"{self.node.ip.rpartition('.')[0]}.0/24"
        self.cluster.allow_connections()
        self.cluster.listen(self.node.ip, subnet, PASSWORD)
        for name in SERVICES:
            self.cluster.create_database(name)
        self.kubectl("create", "namespace", NAMESPACE)
        self.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "databases"}, "stringData": {
            f"{name.upper()}_DATABASE_URL": f"postgresql://skald:{PASSWORD}@{self.node.ip}:5432/{name}" for name in SERVICES}}
        self.kubectl("apply", "-f", "-", text=json.dumps(secret))

    def migrate(self):
        """The pods migrate themselves."""

    def start(self):
        self.helm("install", "skald", ROOT / "deploy/chart/skald", *self.values())
        addresses = {name: self.objects("service", f"skald-{name}")["spec"]["clusterIP"] for name in SERVICES}
        self.door = Door({name: [address] for name, address in addresses.items()}, checked=False)

    def values(self, **more):
        values = {"databases.mode": "external", "databases.external.secret": "databases", "events": "wal",
                  "image.name": images.SHOP, "route.kind": "none"} | more
        return [part for name, value in values.items() for part in ("--set", f"{name}={value}")]

    def upgrade(self, **values):
        self.helm("upgrade", "skald", ROOT / "deploy/chart/skald", *self.values(**values))

    def helm(self, verb, *arguments):
        waiting = [] if verb == "test" else ["--wait"]
        done = subprocess.run([kubernetes.program(self.version), verb, *map(str, arguments), "--namespace", NAMESPACE, *waiting,
                               "--timeout", f"{ROLLOUT_SECONDS}s", "--kubeconfig", self.node.config],
                              capture_output=True, text=True, env=os.environ | {"HOME": str(self.node.folder)})
        assert done.returncode == 0, done.stderr + done.stdout + self.kubectl("get", "pods,events")
        return done.stdout

    def kubectl(self, *arguments, **options):
        return self.node.kubectl("--namespace", NAMESPACE, *arguments, **options)

    def objects(self, *arguments):
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def pods(self):
        """Those of the services."""
        return [pod for pod in self.objects("pods")["items"]
                if pod["metadata"]["labels"]["app.kubernetes.io/component"] in SERVICES]

    def restarts(self):
        return sum(one["restartCount"] for pod in self.pods() for one in pod["status"]["containerStatuses"])

    def processes(self):
        """All processes of the shop in a pod."""
        return [pid for pid in process.pids() if process.stat_of(pid) and status(pid, "Uid") == [str(UID)] * 4]

    def settings(self):
        return {f"{name.upper()}_DATABASE_URL": self.cluster.url(name) for name in SERVICES}

    def close(self):
        if self.door:
            self.door.close()
        self.forget_connections()
        self.cluster.remove()

    def address(self, path):
        return "127.0.0.1", self.door.port

    @property
    def port(self):
        return self.door.port

    def database(self, service):
        return service


def status(pid, name):
    """The values of a line of its status; None if it is gone."""
    try:
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((line.split()[1:] for line in lines if line.startswith(f"{name}:")), None)


@pytest.fixture(scope="module")
def shop(node):
    with opened(NodeShop(node)) as one:
        yield one
        one.assert_sound()


def test_the_node_is_ready(node):
    info = node.get("node", "node")["status"]["nodeInfo"]
    print(f"\n{info['kubeletVersion']}, {info['containerRuntimeVersion']}, {info['kernelVersion']}")
    assert info["kubeletVersion"] == f"v{kubernetes.KUBERNETES}"


def test_every_pod_runs_and_was_never_restarted(shop):
    pods = shop.pods()
    assert sorted(pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in pods) == sorted(SERVICES)
    for pod in pods:
        for one in pod["status"]["initContainerStatuses"] + pod["status"]["containerStatuses"]:
            assert one["restartCount"] == 0 and one["ready"], pod["status"]


def test_processes_can_do_nothing_but_serve(shop):
    processes = shop.processes()
    assert len(processes) >= len(SERVICES)
    for pid in processes:
        assert status(pid, "CapEff") == status(pid, "CapBnd") == ["0" * 16]
        assert status(pid, "NoNewPrivs") == ["1"] and status(pid, "Seccomp") == ["2"]
        mounts = [line.split() for line in pathlib.Path(f"/proc/{pid}/mounts").read_text().splitlines()]
        assert "ro" in next(fields[3] for fields in mounts if fields[1] == "/").split(",")


def test_the_release_tests_itself(shop):
    assert "Succeeded" in shop.helm("test", "skald")


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_collection(shop, tmp_path, collection):
    done, result = run(collection, tmp_path / "r.json", *place("env", shop))
    assert done.returncode == 0, done.stdout + done.stderr
    assert result["failures"] == [] and result["stats"]["assertions"]["total"] > 10


def test_restart_of_everything_fails_nobody(shop):
    before = {pod["metadata"]["name"] for pod in shop.pods()}
    with Customers(shop).going(CLIENTS) as customers:
        with customers.served("every pod replaced"):
            shop.kubectl("rollout", "restart", "deployment")
            for name in SERVICES:
                shop.kubectl("rollout", "status", f"deployment/skald-{name}", f"--timeout={ROLLOUT_SECONDS}s",
                             timeout=ROLLOUT_SECONDS + 10)
            wait_for("the end of every old pod", lambda: not before & {pod["metadata"]["name"] for pod in shop.pods()}, 60, 1)
    customers.check()


@pytest.mark.parametrize("version, values", [("helm4", {"defaults.replicas": "2"}), ("helm3", {"config.LOG_LEVEL": "warn"})])
def test_upgrade_fails_nobody(shop, version, values):
    shop.version = version
    with Customers(shop).going(CLIENTS) as customers:
        with customers.served(f"upgrade to {values}"):
            shop.upgrade(**values)
    customers.check()


def test_killed_processes_lose_nothing(shop):
    """Alternately kills a container's first process, which ends the container, and a worker, which is replaced."""
    with Customers(shop).going(CLIENTS) as customers:
        for number in range(KILLS):
            victims = [pid for pid in shop.processes() if (status(pid, "NSpid") or "0")[-1] == "1"]
            if number % 2:
                victims = list(set(shop.processes()) - set(victims))
            before = customers.count
            os.kill(random.choice(victims), signal.SIGKILL)
            wait_for("life after a death", lambda: customers.count > before + 10, 60)
        for name in SERVICES:
            shop.kubectl("rollout", "status", f"deployment/skald-{name}", f"--timeout={ROLLOUT_SECONDS}s",
                         timeout=ROLLOUT_SECONDS + 10)
    assert shop.restarts() >= KILLS / 2
    shop.settle()
    assert all(ok(answer)[0]["status"] == "SUCCESS" for answer in customers.orders)
    for answer in customers.accepted:
        assert ok(shop.get(answer.headers["location"]))["state"] in ("SUCCEEDED", "COMPENSATED")
    shop.assert_sound()

"""A real kube-apiserver over a real etcd, and doubles of everything that would work behind them. There is no node, no
kubelet and no controller manager here: the double reports as done whatever a controller or an operator would bring up,
and empties namespaces that are being deleted. So these tests show what install.sh and delete.sh ask of the API and leave
behind, not that a pod runs."""

import contextlib
import json
import os
import pathlib
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[3]
BIN = pathlib.Path(os.environ.get("KUBE_BIN", ROOT / ".cache/kube"))
PROGRAMS = ("etcd", "kube-apiserver", "kubectl", "helm")
TOKEN = "test-administrator"
READY = {"postgresql.cnpg.io": "Ready", "kafka.strimzi.io": "Ready", "gateway.networking.k8s.io": "Programmed"}
PAUSE = 0.2


def missing_programs():
    return [name for name in PROGRAMS if not (BIN / name).exists()]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Api:
    def __init__(self, folder):
        self.folder, self.port, self.processes = folder, free_port(), []
        self.context = ssl._create_unverified_context()
        self.url = f"https://127.0.0.1:{self.port}"

    # ---- the processes ----

    def spawn(self, name, *options):
        with open(self.folder / f"{name}.log", "wb") as log:
            self.processes.append(subprocess.Popen([BIN / name, *options], stdout=log, stderr=log, cwd=self.folder))

    def start(self):
        etcd, peer = free_port(), free_port()
        self.spawn("etcd", "--data-dir", "etcd", "--listen-client-urls", f"http://127.0.0.1:{etcd}", "--advertise-client-urls",
                   f"http://127.0.0.1:{etcd}", "--listen-peer-urls", f"http://127.0.0.1:{peer}",
                   "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}", "--initial-cluster",
                   f"default=http://127.0.0.1:{peer}", "--unsafe-no-fsync")
        subprocess.run(["openssl", "genrsa", "-out", "accounts.key", "2048"], cwd=self.folder, check=True, capture_output=True)
        (self.folder / "tokens").write_text(f'{TOKEN},administrator,1,"system:masters"\nguest,guest,2\n', encoding="utf-8")
        self.spawn("kube-apiserver", f"--etcd-servers=http://127.0.0.1:{etcd}", f"--secure-port={self.port}",
                   "--bind-address=127.0.0.1", "--cert-dir=certificates", "--token-auth-file=tokens",
                   "--service-account-issuer=https://skald.test", "--service-account-key-file=accounts.key",
                   "--service-account-signing-key-file=accounts.key", "--service-cluster-ip-range=10.0.0.0/16",
                   "--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount")
        self.until("the API server", lambda: self.call("GET", "/readyz", raw=True) == "ok", 240)
        self.until("kube-system", lambda: self.get("/api/v1/namespaces/kube-system"), 60)
        self.until("default", lambda: self.get("/api/v1/namespaces/default"), 60)

    def stop(self):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def until(self, what, condition, seconds):
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError):
                if condition():
                    return
            for process in self.processes:
                assert process.poll() is None, f"{process.args[0]} ended: see {self.folder}"
            assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
            time.sleep(PAUSE)

    # ---- the API ----

    def call(self, verb, path, body=None, raw=False, form="application/json"):
        request = urllib.request.Request(self.url + path, method=verb, data=None if body is None else json.dumps(body).encode(),
                                         headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": form})
        with urllib.request.urlopen(request, context=self.context, timeout=30) as answer:
            text = answer.read().decode()
        return text if raw else json.loads(text)

    def get(self, path):
        """None: there is no such thing."""
        try:
            return self.call("GET", path)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def create(self, path, body):
        return self.call("POST", path, body)

    def merge(self, path, body):
        return self.call("PATCH", path, body, form="application/merge-patch+json")

    def resources(self):
        """(path, resource) of every kind that can be listed, one version of each group."""
        groups = [("/api/v1", self.get("/api/v1"))]
        for group in self.call("GET", "/apis")["groups"]:
            path = "/apis/" + group["preferredVersion"]["groupVersion"]
            groups.append((path, self.get(path)))
        for path, listed in groups:
            for resource in (listed or {"resources": []})["resources"]:
                if "list" in resource["verbs"] and "/" not in resource["name"]:
                    yield path, resource

    def objects(self):
        """Every object there is, as (kind, namespace, name, uid); events come and go by themselves."""
        found = set()
        for path, resource in self.resources():
            if resource["name"] in ("events", "componentstatuses"):
                continue
            for item in (self.get(f"{path}/{resource['name']}") or {"items": []})["items"]:
                meta = item["metadata"]
                found.add((resource["name"], meta.get("namespace", ""), meta["name"], meta.get("uid", "")))
        return found

    def kubeconfig(self, name="minikube", token=TOKEN):
        path = self.folder / f"kubeconfig-{token}"
        path.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": name,
            "clusters": [{"name": name, "cluster": {"server": self.url, "insecure-skip-tls-verify": True}}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}]}), encoding="utf-8")
        return path


class Double:
    """In the place of controllers, operators and nodes: says that all is well, and lets namespaces go."""

    def __init__(self, api):
        self.api, self.ended, self.failure = api, threading.Event(), None
        self.thread = threading.Thread(target=self.work)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()
        assert self.failure is None, self.failure

    def work(self):
        while not self.ended.wait(PAUSE):
            try:
                self.once()
            except urllib.error.HTTPError as error:
                if error.code not in (404, 409):  # changed or gone meanwhile
                    self.failure = f"{error.url}: {error.read().decode()}"
                    return

    def once(self):
        for path, resource in list(self.api.resources()):
            if path == "/apis/apps/v1" or resource["kind"] in ("Cluster", "Kafka", "Gateway"):
                for item in (self.api.get(f"{path}/{resource['name']}") or {"items": []})["items"]:
                    self.bring_up(path, resource, item)
        for namespace in self.api.call("GET", "/api/v1/namespaces")["items"]:
            if "deletionTimestamp" in namespace["metadata"]:
                self.empty(namespace)

    def bring_up(self, path, resource, item):
        meta, spec = item["metadata"], item.get("spec", {})
        copies = spec.get("replicas", 1)
        status = {
            "Deployment": {"replicas": copies, "updatedReplicas": copies, "readyReplicas": copies, "availableReplicas": copies},
            "StatefulSet": {"replicas": copies, "updatedReplicas": copies, "readyReplicas": copies},
            "DaemonSet": {"desiredNumberScheduled": 1, "currentNumberScheduled": 1, "numberReady": 1, "numberMisscheduled": 0,
                          "updatedNumberScheduled": 1}}.get(resource["kind"])
        group = path.split("/")[2]
        if group in READY:
            status = {"conditions": [{"type": READY[group], "status": "True", "reason": "Double", "message": "",
                                      "lastTransitionTime": "2026-01-01T00:00:00Z"}]}
            if resource["kind"] == "Gateway":
                status["addresses"] = [{"type": "IPAddress", "value": "192.168.49.2"}]
        if status is None or item.get("status", {}).get("observedGeneration") == meta["generation"]:
            return
        status["observedGeneration"] = meta["generation"]
        self.api.merge(f"{path}/namespaces/{meta['namespace']}/{resource['name']}/{meta['name']}/status", {"status": status})

    def empty(self, namespace):
        name = namespace["metadata"]["name"]
        for path, resource in list(self.api.resources()):
            if resource["namespaced"] and "deletecollection" in resource["verbs"]:
                self.api.call("DELETE", f"{path}/namespaces/{name}/{resource['name']}")
        namespace["spec"]["finalizers"] = []
        self.api.call("PUT", f"/api/v1/namespaces/{name}/finalize", namespace)

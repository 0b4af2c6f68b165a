"""A real API server (test/chart/apiserver: etcd, kube-apiserver, the controllers of namespaces and of garbage) and a
double of everything else that would work behind it. There is no node and no operator: the double reports as done
whatever they would bring up. So these tests show what install.sh and delete.sh ask of the API and what they leave
behind, not that a pod runs."""

import json
import pathlib
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[3]
SERVER = ROOT / "test/chart/apiserver"
READY = {"postgresql.cnpg.io": "Ready", "kafka.strimzi.io": "Ready", "gateway.networking.k8s.io": "Programmed"}
KINDS = {"apps": ("Deployment", "StatefulSet", "DaemonSet"), "postgresql.cnpg.io": ("Cluster",),
         "kafka.strimzi.io": ("Kafka",), "gateway.networking.k8s.io": ("Gateway",)}
# What comes and goes by itself.
RESTLESS = {"events", "componentstatuses", "leases"}
PAUSE = 0.2
# What the server says of a kind that has just been defined.
TOO_EARLY, PATIENCE = 429, 60


def run(*command):
    done = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def lay_out_tools(folder, helm):
    """Installs kubectl and one of the two Helm versions under the names that the scripts use."""
    folder.mkdir()
    for name, program in {"kubectl": "kubectl", "helm": helm}.items():
        (folder / name).symlink_to(run(SERVER, "tool", program))
    return folder


class Api:
    def __init__(self, folder):
        self.folder = folder

    def start(self):
        self.config = json.loads(pathlib.Path(run(SERVER, "start", self.folder)).read_text(encoding="utf-8"))
        cluster = self.config["clusters"][0]["cluster"]
        self.url = cluster["server"]
        self.context = ssl.create_default_context(cafile=cluster["certificate-authority"])

    def stop(self):
        run(SERVER, "stop", self.folder)

    @staticmethod
    def until(what, condition, seconds=60):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
            time.sleep(PAUSE)

    def call(self, verb, path, body=None, form="application/json"):
        headers = {"Authorization": f"Bearer {self.config['users'][0]['user']['token']}", "Content-Type": form}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, method=verb, data=data, headers=headers)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with urllib.request.urlopen(request, context=self.context, timeout=30) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code != TOO_EARLY or time.monotonic() >= deadline:
                    raise
            time.sleep(PAUSE)

    def get(self, path):
        """None: there is no such thing."""
        try:
            return self.call("GET", path)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def items(self, path):
        return (self.get(path) or {"items": []})["items"]

    def create(self, path, body):
        return self.call("POST", path, body)

    def merge(self, path, body):
        return self.call("PATCH", path, body, form="application/merge-patch+json")

    def remove(self, path):
        """Deletes it and waits until it is gone."""
        self.call("DELETE", path)
        self.until(f"the end of {path}", lambda: self.get(path) is None)

    def resources(self):
        """(path, resource) of every kind that can be listed, one version of each group."""
        paths = ["/api/v1"] + ["/apis/" + group["preferredVersion"]["groupVersion"]
                               for group in self.call("GET", "/apis")["groups"]]
        for path in paths:
            for resource in (self.get(path) or {"resources": []})["resources"]:
                if "list" in resource["verbs"] and "/" not in resource["name"]:
                    yield path, resource

    def objects(self):
        """All objects, as (kind, namespace, name, uid)."""
        return {(resource["name"], item["metadata"].get("namespace", ""), item["metadata"]["name"],
                 item["metadata"].get("uid", ""))
                for path, resource in self.resources() if resource["name"] not in RESTLESS
                for item in self.items(f"{path}/{resource['name']}")}

    def kubeconfig(self, user=""):
        """The administrator's kubeconfig, or one that impersonates a user."""
        config = json.loads(json.dumps(self.config))
        if user:
            config["users"][0]["user"]["as"] = user
        path = self.folder / f"kubeconfig{user and '-' + user}"
        path.write_text(json.dumps(config), encoding="utf-8")
        return path


class Double:
    """Stands in for operators and nodes: reports everything as ready."""

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
                self.look_around()
            except OSError as error:
                if getattr(error, "code", None) not in (404, 409):  # changed or gone meanwhile
                    self.failure = f"{error}: {error.read().decode() if hasattr(error, 'read') else ''}"
                    return

    def look_around(self):
        for path, resource in list(self.api.resources()):
            group = path.split("/")[2]  # "v1" for the core
            if resource["kind"] in KINDS.get(group, ()):
                for item in self.api.items(f"{path}/{resource['name']}"):
                    self.bring_up(path, group, resource, item)

    def bring_up(self, path, group, resource, item):
        meta, kind = item["metadata"], resource["kind"]
        if item.get("status", {}).get("observedGeneration") == meta["generation"]:
            return
        status = condition(group, kind) if group in READY else controller(kind, item["spec"])
        status["observedGeneration"] = meta["generation"]
        place = f"{path}/namespaces/{meta['namespace']}/{resource['name']}/{meta['name']}/status"
        self.api.merge(place, {"status": status})


def condition(group, kind):
    status = {"conditions": [{"type": READY[group], "status": "True", "reason": "Double", "message": "",
                              "lastTransitionTime": "2026-01-01T00:00:00Z"}]}
    if kind == "Gateway":
        status["addresses"] = [{"type": "IPAddress", "value": "192.168.49.2"}]
    return status


def controller(kind, spec):
    """The status of a controller with all its pods."""
    if kind == "DaemonSet":
        names = ("desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled")
        return dict.fromkeys(names, 1) | {"numberMisscheduled": 0}
    return dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), spec.get("replicas", 1))

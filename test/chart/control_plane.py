"""A Kubernetes API server in a folder: etcd, kube-apiserver and its controllers, each a process with its own log."""

import json
import os
import pathlib
import secrets
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request

import kubernetes

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
from ports import free_port  # noqa: E402

START_SECONDS = 120
STOP_SECONDS = 30
PAUSE = 0.1
# Enough where no pod ever runs: what gives service accounts, empties namespaces, removes what has lost its owner.
CONTROLLERS = "namespace-controller,garbage-collector-controller,serviceaccount-controller,serviceaccount-token-controller"
SERVICES = "10.96.0.0/16"


class Part:
    """One process of the cluster, identified by its working directory."""

    def __init__(self, folder, name, program=None):
        self.name, self.folder = name, folder / name
        self.log = folder / f"{name}.log"
        self.program = program or kubernetes.program(name)

    def pid(self):
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(entry / "cwd") == str(self.folder) and os.readlink(entry / "exe") == str(self.program):
                    return int(entry.name)
            except OSError:
                pass  # it has ended, or belongs to somebody else
        return None

    def start(self, *options):
        self.folder.mkdir(exist_ok=True)
        with open(self.log, "a") as log:
            self.process = subprocess.Popen([self.program, *map(str, options)], cwd=self.folder, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, start_new_session=True)

    def wait_until(self, what, condition):
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            if self.process.poll() is not None:
                raise self.failure(f"ended with status {self.process.returncode}")
            if time.monotonic() >= deadline:
                raise self.failure(f"gives no {what} within {START_SECONDS} s")
            time.sleep(PAUSE)

    def failure(self, what):
        end = self.log.read_text(errors="replace").splitlines()[-15:]
        return kubernetes.Failure("\n".join([*end, f"{self.name} {what}; see the end of {self.log} above."]))

    def stop(self):
        pid = self.pid()
        if not pid:
            return
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while self.pid():
            if time.monotonic() >= deadline:
                os.kill(pid, signal.SIGKILL)
                deadline += STOP_SECONDS
            time.sleep(PAUSE)


def answers(url, ca=None, token=None):
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    context = ssl.create_default_context(cafile=ca) if ca else None
    try:
        with urllib.request.urlopen(request, timeout=5, context=context) as answer:
            return answer.status == 200
    except (OSError, urllib.error.URLError):
        return False


class Cluster:
    """controllers: a list for kube-controller-manager. published: where pods find the server, if there are any."""

    def __init__(self, folder, controllers=CONTROLLERS, published=None):
        self.folder = pathlib.Path(folder).resolve()
        self.address, self.controllers = published or "127.0.0.1", controllers
        self.reconciler = "lease" if published else "none"
        self.config = self.folder / "kubeconfig"
        self.parts = {name: Part(self.folder, name) for name in ("kube-controller-manager", "kube-apiserver", "etcd")}

    def start(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        if not all(part.pid() for part in self.parts.values()):
            self.stop()
            store = self.start_etcd()
            self.start_server(store)
            self.start_controllers()
        return self.config

    def start_etcd(self):
        etcd = self.parts["etcd"]
        clients, peers = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        # It is thrown away with its folder, so nothing has to be on the disk.
        etcd.start("--data-dir", self.folder / "etcd/data", "--unsafe-no-fsync", "--listen-client-urls", clients,
                   "--advertise-client-urls", clients, "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers,
                   "--initial-cluster", f"default={peers}", "--force-new-cluster")
        etcd.wait_until("health", lambda: answers(f"{clients}/health"))
        return clients

    def start_server(self, store):
        key, tokens, certificates = self.folder / "account.key", self.folder / "tokens.csv", self.folder / "certificates"
        if not key.exists():
            subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        token, port = secrets.token_hex(16), free_port()
        tokens.write_text(f"{token},admin,admin,system:masters\n")
        server = self.parts["kube-apiserver"]
        server.start("--etcd-servers", store, "--bind-address", self.address, "--secure-port", port,
                     "--cert-dir", certificates, "--advertise-address", self.address,
                     "--endpoint-reconciler-type", self.reconciler, "--service-cluster-ip-range", SERVICES,
                     "--authorization-mode", "RBAC", "--token-auth-file", tokens,
                     "--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", key,
                     "--service-account-signing-key-file", key)
        url, ca = f"https://{self.address}:{port}", certificates / "apiserver.crt"
        server.wait_until("readiness", lambda: ca.exists() and answers(f"{url}/readyz", ca, token))
        self.write_config(url, ca, token)

    def write_config(self, url, ca, token):
        name = "skald-test"
        # JSON is YAML, too.
        self.config.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": name,
            "clusters": [{"name": name, "cluster": {"server": url, "certificate-authority": str(ca)}}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}]}))
        self.config.chmod(0o600)

    def start_controllers(self):
        controllers, port = self.parts["kube-controller-manager"], free_port()
        controllers.start("--kubeconfig", self.config, "--controllers", self.controllers, "--leader-elect=false",
                          "--bind-address", "127.0.0.1", "--secure-port", port,
                          "--cert-dir", self.folder / "kube-controller-manager/certificates",
                          "--service-account-private-key-file", self.folder / "account.key",
                          "--root-ca-file", self.folder / "certificates/apiserver.crt")
        kubectl = [kubernetes.program("kubectl"), "--kubeconfig", self.config, "-n", "default", "get", "serviceaccount", "default"]
        controllers.wait_until("service account", lambda: subprocess.run(kubectl, capture_output=True).returncode == 0)

    def stop(self):
        for part in self.parts.values():
            part.stop()

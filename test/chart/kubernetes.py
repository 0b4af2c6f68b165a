"""The programs for testing the chart: Helm 3 and 4, kubectl, a Kubernetes API server with etcd and controllers, and the
programs of a node. All are built from Go modules, at the versions pinned here and in go.mod, once per version, into
.cache/kubernetes/. The first build takes long."""

import fcntl
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
HERE = pathlib.Path(__file__).resolve().parent
CACHE = ROOT / ".cache/kubernetes"
KUBERNETES = re.search(r"k8s\.io/kubernetes v([\d.]+)", (HERE / "go.mod").read_text())[1]
OLDEST_GO = tuple(map(int, re.search(r"^go (\d+)\.(\d+)", (HERE / "go.mod").read_text(), re.MULTILINE).groups()))
HELM = {"helm3": "helm.sh/helm/v3/cmd/helm@v3.22.0", "helm4": "helm.sh/helm/v4/cmd/helm@v4.3.1"}
PACKAGES = {
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kubelet": "k8s.io/kubernetes/cmd/kubelet",
    "etcd": "go.etcd.io/etcd/server/v3",
}


class Failure(Exception):
    """An error reported to the user without a traceback."""


def go(*arguments, folder=HERE, **environment):
    """The output of the go command."""
    done = subprocess.run(["go", *map(str, arguments)], cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          text=True, env=os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": "", "CGO_ENABLED": "0"} | environment)
    if done.returncode:
        raise Failure(f"{done.stdout}go {arguments[0]} failed; see the error above.")
    return done.stdout


def why_not():
    """Why nothing can be built here, or None."""
    if not shutil.which("go"):
        return "Go is not installed"
    version = re.match(r"go(\d+)\.(\d+)", go("env", "GOVERSION"))
    if not version or tuple(map(int, version.groups())) < OLDEST_GO:
        return f"Go {OLDEST_GO[0]}.{OLDEST_GO[1]} or newer is needed"
    return None


def place(name):
    pins = (HERE / "go.mod").read_bytes() + (HERE / "go.sum").read_bytes()
    key = HELM[name].rpartition("@")[2] if name in HELM else hashlib.sha256(pins).hexdigest()[:12]
    return CACHE / f"{name}-{key}"


def program(name):
    """The path of a program, which is built if necessary."""
    path = place(name)
    if path.exists():
        return path
    if reason := why_not():
        raise Failure(f"{name} cannot be built: {reason}.")
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            build(name, path)
    return path


def build(name, path):
    print(f"Building {name}", file=sys.stderr, flush=True)
    stripped = ["-trimpath", "-ldflags=-s -w"]
    if name in HELM:
        bin_folder = CACHE / f"{name}.bin"
        go("install", *stripped, HELM[name], GOBIN=str(bin_folder))
        (bin_folder / "helm").rename(path)
        bin_folder.rmdir()
        return
    # A server tells its version only when the build tells it.
    major, minor = KUBERNETES.split(".")[:2]
    version = "k8s.io/component-base/version"
    stripped[1] += f" -X {version}.gitVersion=v{KUBERNETES} -X {version}.gitMajor={major} -X {version}.gitMinor={minor}"
    go("build", *stripped, "-o", path, PACKAGES[name])


def module_folder(module):
    """The source folder of module@version."""
    return pathlib.Path(json.loads(go("mod", "download", "-json", module))["Dir"])

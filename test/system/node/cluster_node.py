"""A single-node Kubernetes cluster: the control plane of test/chart with scheduler, containerd, kubelet, kube-proxy and
DNS. It runs only inside test/system/node/alone, which cleans up everything it leaves."""

import json
import os
import pathlib
import shutil
import subprocess

import images
import kubernetes
from control_plane import Cluster, Part
from ports import free_port

CNI_PROGRAMS = "/usr/lib/cni"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl",
            "helm3", "helm4")
SOCKET = "/run/containerd/containerd.sock"
DNS_ADDRESS = "10.96.0.10"
FOLDER = pathlib.Path(__file__).resolve().parent
CONTAINERD = f"""\
version = 2
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{images.PAUSE}"
  # Without CAP_SYS_RESOURCE, as on many virtual machines, a process cannot be exempted from the OOM killer.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PROGRAMS}"
    conf_dir = "{{folder}}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"""


def network(address):
    """Every pod gets an address on the bridge; the node is its gateway."""
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [
        {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True,
         "ipam": {"type": "host-local", "routes": [{"dst": "0.0.0.0/0"}],
                  "ranges": [[{"subnet": f"{address.rpartition('.')[0]}.0/24"}]]}}]}


def kubelet_configuration(resolver):
    """The kubelet's defaults, but for any cgroup version, with swap, and without disk limits."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "failCgroupV1": False, "failSwapOn": False, "cgroupDriver": "cgroupfs", "cgroupRoot": os.environ["NODE_CGROUP"],
        "containerRuntimeEndpoint": f"unix://{SOCKET}", "resolvConf": str(resolver),
        "clusterDNS": [DNS_ADDRESS], "clusterDomain": "cluster.local",
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "evictionHard": {name: "0%" for name in ("memory.available", "nodefs.available", "nodefs.inodesFree",
                                                 "imagefs.available", "imagefs.inodesFree")},
        "imageGCHighThresholdPercent": 100, "localStorageCapacityIsolation": False}


class Node(Cluster):
    def __init__(self, folder):
        self.ip = os.environ["NODE_ADDRESS"]
        super().__init__(folder, controllers="*", published=self.ip)
        folder = self.folder
        runtime = Part(folder, "containerd", pathlib.Path(shutil.which("containerd")))
        self.parts = {"kube-proxy": Part(folder, "kube-proxy"), "kubelet": Part(folder, "kubelet"), "containerd": runtime,
                      "kube-scheduler": Part(folder, "kube-scheduler")} | self.parts

    def kubectl(self, *arguments, text=None, timeout=120):
        """Its output; it must succeed."""
        done = subprocess.run([kubernetes.program("kubectl"), "--kubeconfig", self.config, *map(str, arguments)],
                              input=text, capture_output=True, text=True, timeout=timeout)
        assert done.returncode == 0, f"kubectl {' '.join(map(str, arguments))}: {done.stderr}{done.stdout}"
        return done.stdout

    def get(self, *arguments):
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def write(self, name, content):
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def start(self):
        super().start()
        self.start_runtime()
        for name in (images.PAUSE, images.DNS, images.SHOP):
            self.load(images.place(name))
        self.start_scheduler()
        self.start_kubelet()
        self.start_proxy()
        self.kubectl("apply", "-f", FOLDER / "dns.yaml")
        self.kubectl("-n", "kube-system", "rollout", "status", "deployment/dns", "--timeout=60s")
        return self.config

    def start_runtime(self):
        self.write("cni/pods.conflist", network(self.ip))
        config = self.write("containerd.toml", CONTAINERD.format(folder=self.folder / "cni"))
        runtime = self.parts["containerd"]
        runtime.start("--config", config)
        runtime.wait_until("answer", lambda: subprocess.run(
            ["ctr", "--address", SOCKET, "version"], capture_output=True).returncode == 0)

    def load(self, archive):
        """Loads an image onto the node, as if pulled from a registry."""
        done = subprocess.run(["ctr", "--address", SOCKET, "--namespace", "k8s.io", "images", "import", archive],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def start_scheduler(self):
        self.parts["kube-scheduler"].start("--kubeconfig", self.config, "--leader-elect=false", "--bind-address", "127.0.0.1",
                                           "--secure-port", free_port(), "--cert-dir", self.folder / "kube-scheduler")

    def start_kubelet(self):
        kubelet = self.parts["kubelet"]
        config = self.write("kubelet.json", kubelet_configuration(self.write("resolv.conf", "")))
        kubelet.start("--config", config, "--kubeconfig", self.config, "--hostname-override", "node", "--node-ip", self.ip)
        kubelet.wait_until("ready node", self.is_ready)

    def is_ready(self):
        return any(condition["type"] == "Ready" and condition["status"] == "True"
                   for node in self.get("nodes")["items"] for condition in node["status"]["conditions"])

    def start_proxy(self):
        self.parts["kube-proxy"].start(
            "--kubeconfig", self.config, "--hostname-override", "node", "--proxy-mode", "iptables",
            "--conntrack-max-per-core", "0", "--conntrack-tcp-timeout-established", "0",
            "--conntrack-tcp-timeout-close-wait", "0", "--metrics-bind-address", f"127.0.0.1:{free_port()}")

    def stop(self):
        """Stops the pods first: nothing would stop them afterwards."""
        if self.config.exists() and self.parts["kubelet"].pid():
            self.kubectl("delete", "deployments,pods", "--all", "--all-namespaces", "--now", "--timeout=60s")
        super().stop()

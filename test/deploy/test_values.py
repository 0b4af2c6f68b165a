"""The values of the components beside the shop: pinned, and small enough for a laptop."""

import re

import stubs
import yaml

CLUSTER = stubs.ROOT / "deploy/cluster"
LOGGING = stubs.ROOT / "deploy/chart/skald/files/logging"
# Where values name a container once and the chart starts it twice: Grafana's sidecars for dashboards and data sources.
TWICE = {"sidecar"}
PROXY = "gateway-minikube.yaml"
UNITS = {"Mi": 1, "Gi": 1024}
LIMIT = 2496  # of the 4 GiB of everything; the rest, 1600 MiB, is the shop's with its databases and Kafka


def mebibytes(text):
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", text).groups()
    return int(number) * UNITS[unit]


def requested(value, key=""):
    """The memory requested in a tree of values."""
    if not isinstance(value, dict):
        return 0
    own = mebibytes(value["requests"]["memory"]) if "memory" in value.get("requests", {}) else 0
    return (own + sum(requested(inner, name) for name, inner in value.items())) * (2 if key in TWICE else 1)


def merged(base, change):
    if not isinstance(base, dict) or not isinstance(change, dict):
        return change
    return base | {key: merged(base.get(key), value) for key, value in change.items()}


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def profile(name):
    """Component → values, as install.sh gives them to Helm."""
    found = {}
    for path in sorted((CLUSTER / "values").glob("*.yaml")):
        part, _, suffix = path.stem.partition("-")
        if not suffix:
            found[part] = merged(load(path), found.get(part) or {})
        elif suffix == name:
            found[part] = merged(found[part], load(path)) if part in found else load(path)
    return found


def test_memory_of_the_minikube_profile():
    parts = {name: requested(values) for name, values in profile("minikube").items()}
    parts["proxy"] = requested(load(CLUSTER / PROXY))
    print(*(f"{name:12} {size:5} MiB" for name, size in parts.items()), f"{'together':12} {sum(parts.values()):5} MiB", sep="\n")
    assert all(parts.values()), parts
    assert sum(parts.values()) <= LIMIT


def test_every_container_that_asks_has_a_limit():
    def check(value, path):
        if isinstance(value, dict):
            assert "requests" not in value or path[-1] != "resources" or "memory" in value.get("limits", {}) or (
                "storage" in value["requests"] or path[-2] == "sidecar"), path
            for key, inner in value.items():
                check(inner, [*path, key])

    for name in ("minikube", "cloud"):
        for part, values in profile(name).items():
            check(values, [part])


def test_versions_are_exact():
    text = (CLUSTER / "versions.sh").read_text(encoding="utf-8")
    charts = re.findall(r"^(\w+)_chart=(\S+)$", text, re.MULTILINE)
    assert len(charts) == 7
    for name, chart in charts:
        version = re.search(rf"^{name}_version=(\S+)$", text, re.MULTILINE).group(1)
        assert re.fullmatch(r"v?\d+\.\d+\.\d+", version)
        assert chart.startswith("oci://") or chart.endswith(f"-{version}.tgz")


def test_fluent_bit_has_what_its_configuration_asks_for():
    values = load(CLUSTER / "values/fluentbit.yaml")
    given = {one["name"]: one.get("value") for one in values["env"] + values["envWithTpl"]}
    asked = set(re.findall(r"\$\{(\w+)\}", "".join(path.read_text(encoding="utf-8") for path in LOGGING.glob("*.yaml"))))
    assert set(given) == asked
    mounts = [one["mountPath"] for one in values["daemonSetVolumeMounts"] + values["extraVolumeMounts"]]
    for name in ("STATE_FOLDER", "OPENSEARCH_CA_FILE"):
        assert any(given[name] == mount or given[name].startswith(f"{mount}/") for mount in mounts), given[name]
    forward = next(one for one in load(LOGGING / "fluent-bit.yaml")["pipeline"]["inputs"] if one["name"] == "forward")
    assert [one["containerPort"] for one in values["extraPorts"]] == [forward["port"]]

"""A private Prometheus with the product's configuration and rules, sped up, and the dashboards' queries."""

import json
import math
import pathlib
import re
import shutil
import subprocess
import tempfile
import urllib.parse
import urllib.request

import yaml
from ports import free_port

from .cluster import ROOT
from .server import SLOWER
from .wait import wait_for

CONFIG = ROOT / "deploy/prometheus/prometheus.yml"
RULES = ROOT / "deploy/chart/skald/files/rules"
DASHBOARDS = ROOT / "deploy/chart/skald/files/dashboards"
INTERVAL = "1s"
RANGE = "20s"  # several scrapes, as $__rate_interval would be
START_SECONDS = 60
SEEN_SECONDS = 60  # for a scrape, an evaluation, and the range that a rate wants
KAFKA_ONLY = re.compile(r"skald_relay_|notification_lag_records|notification_rebalances")


class Prometheus:
    """Loads the rules with every `for` shortened: the tests check whether an alert fires, not how soon."""

    def __init__(self, targets):
        """targets: service names and ports."""
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="skald-prometheus-"))
        self.port = free_port()
        self.process = None
        config = yaml.safe_load(CONFIG.read_text())
        config["global"] |= {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL}
        self.write("prometheus.yml", yaml.safe_dump(config))
        for path in RULES.glob("*.yaml"):
            self.write(f"rules/{path.name}", re.sub(r"^( +for:) .*", rf"\1 {INTERVAL}", path.read_text(), flags=re.MULTILINE))
        self.write("targets/shop.json", json.dumps(
            [{"targets": [f"127.0.0.1:{port}"], "labels": {"service": name}} for name, port in targets.items()]))

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def __enter__(self):
        program = shutil.which("prometheus")
        assert program, "prometheus is not installed. Install it: tools/install_packages test"
        with open(self.folder / "log", "w") as log:
            self.process = subprocess.Popen(
                [program, f"--config.file={self.folder}/prometheus.yml", f"--storage.tsdb.path={self.folder}/data",
                 f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for("Prometheus", lambda: self.is_ready() or self.process.poll() is not None, START_SECONDS)
        assert self.process.poll() is None, (self.folder / "log").read_text()
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.folder)

    def get(self, path, **parameters):
        url = f"http://127.0.0.1:{self.port}{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def is_ready(self):
        try:
            return self.get("/-/ready") is not None
        except (OSError, AssertionError):
            return False

    def query(self, expression):
        """The instant vector, as (labels, number)."""
        data = json.loads(self.get("/api/v1/query", query=expression))["data"]
        assert data["resultType"] == "vector", (expression, data)
        return [(one["metric"], float(one["value"][1])) for one in data["result"]]

    def has_data(self, expression):
        return any(math.isfinite(value) for _, value in self.query(expression))

    def wait_data(self, expressions):
        """Waits until each of them has returned a number."""
        waiting = set(expressions)

        def all_seen():
            waiting.difference_update([one for one in waiting if self.has_data(one)])
            return not waiting

        try:
            wait_for("data", all_seen, SEEN_SECONDS * SLOWER)
        except AssertionError:
            raise AssertionError("No data:\n" + "\n".join(sorted(waiting))) from None

    def wait_firing(self, *names):
        try:
            wait_for("alerts", lambda: set(names) <= set(self.firing()), SEEN_SECONDS * SLOWER)
        except AssertionError:
            raise AssertionError(f"of {names} only {self.firing()} fire") from None

    def wait_firing_for(self, name, services):
        """Waits until the alert fires for exactly these services; they start firing one by one."""
        def whom():
            return {one["service"] for one in self.firing().get(name, [])}

        try:
            wait_for("alerts", lambda: whom() == set(services), SEEN_SECONDS * SLOWER)
        except AssertionError:
            raise AssertionError(f"{name} fires for {sorted(whom())}, not for {sorted(services)}") from None

    def wait_over(self, *names):
        wait_for(f"the end of {names}", lambda: not set(names) & set(self.firing()), SEEN_SECONDS * SLOWER)

    def rules(self):
        groups = json.loads(self.get("/api/v1/rules"))["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def firing(self):
        """The firing alerts: name → labels of each."""
        return {rule["name"]: [one["labels"] for one in rule["alerts"] if one["state"] == "firing"]
                for rule in self.rules() if rule["type"] == "alerting" and rule["state"] == "firing"}


def dashboards():
    return {path.stem: json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))}


def visual_panels(dashboard):
    """All panels except the row headings."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def filled_in(expression, dashboard):
    """The query as Grafana sends it with every variable set to All."""
    values = {"__rate_interval": RANGE, "__range": RANGE}
    values |= {one["name"]: one["allValue"] for one in dashboard["templating"]["list"] if one.get("includeAll")}
    for name, value in values.items():
        expression = re.sub(rf"\$\{{?{name}\b\}}?", value, expression)
    assert "$" not in expression, f"{expression}: a variable that is not known"
    return expression


def expressions():
    """The queries of all panels of all dashboards."""
    return sorted({filled_in(target["expr"], dashboard) for dashboard in dashboards().values()
                   for panel in visual_panels(dashboard) for target in panel.get("targets", [])})


def needs_kafka(expression):
    return KAFKA_ONLY.search(expression)


def variable_queries():
    """The queries of the dashboards' variables."""
    found = set()
    for dashboard in dashboards().values():
        for one in dashboard["templating"]["list"]:
            if one["type"] == "query":
                selector, _ = re.fullmatch(r"label_values\((.*), (\w+)\)", one["query"]).groups()
                found.add(filled_in(selector, dashboard))
    return found

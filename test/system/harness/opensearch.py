"""A private OpenSearch with the chart's template, and mixed lines to send to it."""

import itertools
import json
import os
import pathlib
import random
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
import uuid

from ports import free_port
from services import SERVICES

from .cluster import ROOT
from .wait import wait_for

TOOL = ROOT / "tools/opensearch"
SHIP = ROOT / "tools/ship_logs"
LOGGING = ROOT / "deploy/chart/skald/files/logging"
LOGS = "app-logs-*"
START_SECONDS = 300  # the first time it is fetched


class Unavailable(AssertionError):
    """The response was a 503."""


class OpenSearch:
    def __enter__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="skald-opensearch-"))
        self.url = self.command(TOOL, "start", self.folder, free_port(), timeout=START_SECONDS).strip()
        return self

    def __exit__(self, *_):
        try:
            self.command(TOOL, "remove", self.folder)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def command(self, *words, timeout=120, **env):
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=timeout,
                              env=os.environ | env)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def set_up(self):
        return self.command(LOGGING / "setup.sh", OPENSEARCH_URL=self.url)

    def ship(self, *files, timeout=120):
        return self.command(SHIP, "--once", self.url, *files, timeout=timeout)

    def call(self, path, body=None, method=None):
        """The JSON of the response, which must be successful."""
        request = urllib.request.Request(f"{self.url}/{path}", data=None if body is None else json.dumps(body).encode(),
                                         method=method, headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            kind = Unavailable if error.code == 503 else AssertionError
            raise kind(f"{path}: {error.code} {error.read().decode()}") from None

    def search(self, how, body):
        """Searches everything stored so far."""
        def answer():
            try:
                self.call(f"{LOGS}/_refresh", method="POST")
                return self.call(f"{LOGS}/{how}", body)
            except Unavailable:  # an index was made this moment; it can be searched when its shards have started
                return None
        return wait_for("shards that can be searched", answer)

    def count(self, query="*:*"):
        return self.search("_count", {"query": {"query_string": {"query": query}}})["count"]

    def find(self, query):
        """All matching lines, oldest first."""
        found = self.search("_search", {"query": {"query_string": {"query": query}}, "size": 1000, "sort": ["@timestamp"]})
        return [hit["_source"] for hit in found["hits"]["hits"]]


LOGGERS = ("saga", "http", "db", "kafka", "wal", "relay", "log", "notification", "supervisor", "fiber")
COMPONENTS = (*SERVICES, "relay", "skald")
LEVELS = (("TRACE", 5000), ("DEBUG", 10000), ("INFO", 20000), ("WARN", 30000), ("ERROR", 40000))
TEXTS = ("connected", "", "x" * 3500, "tab\there", "line\nbreak", "nul\0 and \x1b[31mred", "Максим 💳 ﷽ e\u0301",
         "\ud800 alone", '{"json": "within"}', "C:\\path\\", "</script>", "word " * 700, "2026-13-45", "%s%n", "\u2028\u2029\ufeff")
# From other programs: the same names with values of another kind, as the first or the later one.
FOREIGN = (
    "plain text", "  indented", "[1,2]", "17", "null", '"text"', "{}", "{broken", '{"a":NaN}', "\\x00\x00", "é\udcff",
    '{"message":{"nested":{"deep":1}}}', '{"message":[{"a":1},"b",3]}', '{"message":5,"level":3,"level_value":"high"}',
    '{"level":{"name":"INFO"},"component":["a","b"],"saga_id":17}', '{"@timestamp":17}', '{"@timestamp":"yesterday"}',
    '{"@timestamp":"2026-02-30T00:00:00Z"}', '{"http_status":"200 OK","duration_ms":"fast"}',
    '{"http_status":{"code":200},"duration_ms":[1,2]}', '{"http":{"status":1}}', '{"http":"text"}', '{"host":"a"}',
    '{"host":{"name":"a"}}', '{"log":"a"}', '{"log":{"level":"a"}}', '{"log.level":"warn","log.logger":"x"}',
    '{"trace":{"id":"x"}}', '{"trace":"x"}', '{"duration_ms":1e400}', '{"level_value":99999999999999999999}',
    '{"kubernetes":{"labels":{"app":"x"}}}', '{"kubernetes":{"labels":{"app":{"kubernetes":{"io/name":"x"}}}}}',
    '{"kubernetes":{"labels":{"app.kubernetes.io/name":"x"},"pod_name":["x"]}}', '{"kubernetes":"x"}',
    '{"kubernetes":{"":1}}', '{" ":1}', '{"a":1,"a":"twice"}', '{"":1}',
    '{"reason":"' + "r" * 40000 + '"}', '{"message":"' + "m" * 40000 + '"}', '{"a":' * 60 + "1" + "}" * 60,
    json.dumps({f"field{i}": i for i in range(300)}))


def record(rnd, number):
    """A line of the shop, in either format."""
    level, value = rnd.choice(LEVELS)
    when = f"2030-05-{1 + number % 3:02}T{rnd.randrange(24):02}:00:00.{number % 1000:03}Z"
    saga, text = str(uuid.UUID(int=rnd.getrandbits(128))), rnd.choice(TEXTS)
    if number % 2:
        line = {"@timestamp": when, "@version": "1", "message": text, "logger_name": rnd.choice(LOGGERS), "level": level,
                "thread_name": f"worker-{number % 4}", "level_value": value, "component": rnd.choice(COMPONENTS)}
        more = {"trace_id": saga.replace("-", ""), "saga_id": saga, "order_id": saga, "saga_state": "COMPENSATED",
                "step": "delivery", "reason": f"422: {text}", "http_status": 422, "duration_ms": rnd.random() * 100}
    else:
        line = {"@timestamp": when, "ecs.version": "8.11.0", "message": text, "log.logger": rnd.choice(LOGGERS),
                "log.level": level.lower(), "process.thread.name": "main", "service.name": rnd.choice(COMPONENTS)}
        more = {"trace.id": saga.replace("-", ""), "labels.saga_id": saga, "labels.reason": text,
                "http.response.status_code": 422, "event.duration": rnd.getrandbits(40)}
    return line | {name: value for name, value in more.items() if rnd.random() < 0.5}


def write_lines(path, count):
    """The given number of mixed lines, a tenth of them foreign, the same in every run."""
    rnd, foreign = random.Random(count), itertools.cycle(FOREIGN)
    with open(path, "w", errors="surrogateescape") as file:
        for number in range(count):
            file.write((next(foreign) if number % 10 == 0 else json.dumps(record(rnd, number))) + "\n")

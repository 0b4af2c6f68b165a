"""Reads a server's /metrics and the tables of docs/metrics.md."""

import re

from .cluster import ROOT

SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$")
LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"(?:,|$)')
ROW = re.compile(r"^\| `(\w+)` \| (\w+) \|", re.MULTILINE)


class Scrape:
    def __init__(self, text):
        self.text = text
        self.types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
        self.samples = {}
        for line in text.splitlines():
            if not line.startswith("#"):
                self.add(line)

    def add(self, line):
        found = SAMPLE.match(line)
        assert found, f"no sample: {line}"
        name, labels, value = found.groups()
        assert LABEL.sub("", labels or "") == "", f"labels: {line}"
        key = name, frozenset(LABEL.findall(labels or ""))
        assert key not in self.samples, f"twice: {line}"
        self.samples[key] = float(value)

    def series(self):
        return set(self.samples)

    def values(self, name, **labels):
        return [value for (found, has), value in self.samples.items() if found == name and has >= labels.items()]

    def total(self, name, **labels):
        """The sum of all series with these labels; 0 without any."""
        return sum(self.values(name, **labels))

    def labels(self, name, label):
        """The values a label has."""
        return {dict(has).get(label) for found, has in self.samples if found == name}


def scrape(server, path="/metrics"):
    answer = server.client.get(path)
    assert answer.status == 200, answer
    return Scrape(answer.body.decode())


def metric(server, name, **labels):
    """The sum of the series with these labels; there must be at least one."""
    found = scrape(server).values(name, **labels)
    assert found, f"{name} {labels} is not in the metrics"
    return sum(found)


def documented():
    """The name of each metric of docs/metrics.md, with its type."""
    rows = ROW.findall((ROOT / "docs/metrics.md").read_text())
    assert len(rows) == len(dict(rows)), "a metric stands there twice"
    return dict(rows)

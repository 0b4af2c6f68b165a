"""The certificate, users and roles of install.sh in a real OpenSearch with its security plugin."""

import json
import subprocess

import pytest

from harness.opensearch import LOGGING
from harness.secured_opensearch import HOST, SecuredOpenSearch

ADMIN, WRITER, DASHBOARDS = "opensearch-admin", "opensearch-fluent-bit", "opensearch-dashboards"
# Those of the demonstration, whose passwords everybody knows.
KNOWN = ["admin", "kibanaserver", "kibanaro", "logstash", "readall", "snapshotrestore", "anomalyadmin"]


@pytest.fixture(scope="module")
def opensearch():
    with SecuredOpenSearch() as one:
        yield one


def set_up(opensearch, ca_file, password=None):
    secret = opensearch.secrets[ADMIN]
    environment = opensearch.environment(OPENSEARCH_CA_FILE=str(ca_file), OPENSEARCH_USER=secret["username"],
                                         OPENSEARCH_PASSWORD=password or secret["password"])
    return subprocess.run(["sh", LOGGING / "setup.sh"], env=environment, capture_output=True, text=True, timeout=180)


def bulk(opensearch, secret, index, tmp_path):
    lines = tmp_path / "lines"
    lines.write_text(json.dumps({"create": {"_index": index}}) + '\n{"@timestamp":"2026-01-01T00:00:00Z","message":"one"}\n')
    assert opensearch.ask(secret, "_bulk", "-H", "Content-Type: application/x-ndjson", "--data-binary", f"@{lines}") == 200
    [item] = opensearch.answer()["items"]
    return item["create"]["status"]


def test_no_line_is_taken_before_the_template_is_there(opensearch, tmp_path):
    index = "app-logs-2025.12.31"
    assert bulk(opensearch, WRITER, index, tmp_path) == 404
    assert opensearch.ask(ADMIN, index) == 404
    assert set_up(opensearch, opensearch.ca_file).returncode == 0
    assert bulk(opensearch, WRITER, index, tmp_path) == 201
    assert opensearch.ask(ADMIN, f"{index}/_mapping") == 200
    assert opensearch.answer()[index]["mappings"]["dynamic"] == "false"


def test_set_up_again_changes_nothing(opensearch):
    assert opensearch.ask(ADMIN, "_cluster/settings") == 200
    before = opensearch.answer()
    done = set_up(opensearch, opensearch.ca_file)
    assert done.returncode == 0 and "permission" not in done.stdout, done
    assert opensearch.ask(ADMIN, "_cluster/settings") == 200
    assert opensearch.answer() == before


def test_set_up_trusts_the_authority_of_the_secret(opensearch):
    done = set_up(opensearch, opensearch.ca_file)
    assert done.returncode == 0 and "The index template is in place." in done.stdout, done
    assert opensearch.ask(ADMIN, "_index_template/app-logs") == 200


def test_set_up_trusts_nobody_else(opensearch, tmp_path):
    other = tmp_path / "other.crt"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", tmp_path / "key", "-out", other,
                    "-days", "2", "-subj", f"/CN=authority of {HOST}"], check=True, capture_output=True)
    done = set_up(opensearch, other)
    assert done.returncode == 1 and f"by no authority of {other}" in done.stderr, done
    done = set_up(opensearch, tmp_path / "nothing.crt")
    assert done.returncode == 1 and "nothing.crt cannot be read" in done.stderr, done


def test_set_up_with_a_wrong_password_ends_at_once(opensearch):
    done = set_up(opensearch, opensearch.ca_file, "wrong")
    assert done.returncode == 1 and "OpenSearch refuses the user admin: 401" in done.stderr, done


@pytest.mark.parametrize("name", KNOWN)
def test_nobody_gets_in_by_a_known_password(opensearch, name):
    assert opensearch.ask((name, name), "") == 401


def test_writer_adds_lines_and_does_nothing_else(opensearch, tmp_path):
    assert bulk(opensearch, WRITER, "app-logs-2026.01.01", tmp_path) == 201
    assert bulk(opensearch, WRITER, "app-logs-2026.01.01", tmp_path) == 201
    assert bulk(opensearch, WRITER, "other", tmp_path) == 403
    for path in ("app-logs-*/_search", "_cluster/health", "_cat/indices", "_plugins/_security/api/internalusers"):
        assert opensearch.ask(WRITER, path) == 403, path
    assert opensearch.ask(WRITER, "app-logs-2026.01.01", "-X", "DELETE") == 403
    assert opensearch.ask(ADMIN, "app-logs-*/_count?expand_wildcards=all") == 200


def test_dashboards_serves_but_reads_no_lines(opensearch):
    assert opensearch.ask(DASHBOARDS, "_nodes/_local") == 200
    assert opensearch.ask(DASHBOARDS, "app-logs-*/_search") == 403


def test_no_password_is_stored_in_the_open(opensearch):
    """OpenSearch stores only variable names for its users, and logs no password."""
    log = opensearch.program.log.read_text()
    for secret in (ADMIN, WRITER, DASHBOARDS):
        assert opensearch.secrets[secret]["password"] not in log
    data = b"".join(path.read_bytes() for path in (opensearch.node / "data").rglob("*") if path.is_file())
    assert data and not any(opensearch.secrets[secret]["password"].encode() in data for secret in (ADMIN, WRITER, DASHBOARDS))

"""The two Postman collections, run by newman against a shop at a non-default address."""

import json
import os
import pathlib
import shutil
import subprocess

import pytest

from harness.cluster import ROOT

COLLECTIONS = ["hw_transactions_postman_collection.json", "hw_streaming_postman_collection.json"]
PLACES = [ROOT / "test/newman/node_modules/.bin/newman", ROOT / "node_modules/.bin/newman"]


def newman():
    found = [place for place in PLACES if place.is_file()]
    program = found[0] if found else shutil.which("newman")
    assert program, "newman is not installed. Install it: tools/install_packages test"
    return program


def run(collection, report, *options):
    done = subprocess.run([newman(), "run", collection, "--reporters", "cli,json", "--reporter-json-export", report,
                           "--color", "off", *options], cwd=ROOT, capture_output=True, text=True, timeout=120,
                          env=os.environ | {"NO_COLOR": "1"})
    return done, json.loads(pathlib.Path(report).read_text())["run"]


def place(kind, shop):
    return [f"--{kind}-var", "baseUrl=127.0.0.1", f"--{kind}-var", f"basePort={shop.port}"]


@pytest.mark.parametrize("kind", ["global", "env"])
@pytest.mark.parametrize("collection", COLLECTIONS)
def test_collection(shop, tmp_path, collection, kind):
    """They pass on a used shop; the second one finds what the first one left."""
    done, result = run(collection, tmp_path / "r.json", *place(kind, shop))
    assert done.returncode == 0, done.stdout + done.stderr
    assert result["failures"] == []
    assert result["stats"]["assertions"]["total"] > 10 and result["stats"]["assertions"]["failed"] == 0


@pytest.mark.parametrize("collection", COLLECTIONS[1:])  # the script that sees to it is the same in both
def test_environment_goes_before_globals(shop, tmp_path, collection):
    done, _ = run(collection, tmp_path / "r.json", *place("env", shop), "--global-var", "baseUrl=127.0.0.1",
                  "--global-var", "basePort=1")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_collection_fails_where_there_is_no_shop(tmp_path, collection):
    """Otherwise a pass would mean nothing."""
    done, result = run(collection, tmp_path / "r.json", "--env-var", "baseUrl=127.0.0.1", "--env-var", "basePort=1")
    assert done.returncode != 0
    assert result["failures"]


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_collection_defaults(collection):
    variables = {one["key"]: one["value"] for one in json.loads((ROOT / collection).read_text())["variable"]}
    assert (variables["baseUrl"], variables["basePort"]) == ("arch.homework", "80")

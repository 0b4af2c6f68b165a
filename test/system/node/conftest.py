"""The cluster fixture, and the locations of its programs."""

import os
import sys

import pytest

from harness.cluster import ROOT

sys.path.insert(0, str(ROOT / "test/chart"))


def pytest_configure():
    if "NODE_CGROUP" not in os.environ:
        pytest.exit("These tests run inside test/system/node/alone: tools/test cluster-node", returncode=1)


@pytest.fixture(scope="session")
def node(tmp_path_factory):
    from cluster_node import Node  # what it needs is found only now

    one = Node(tmp_path_factory.mktemp("node"))
    try:
        one.start()
        yield one
    finally:
        one.stop()

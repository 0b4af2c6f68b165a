"""One broker and one Connect worker for all tests of this folder; each test has its own topics, groups and slots."""

import contextlib

import pytest

from harness.kafka import Broker, Connect
from harness.shop import OneShop, opened
from harness.way import Way


@pytest.fixture(scope="session")
def broker():
    one = Broker()
    try:
        one.start()
        yield one
    finally:
        one.remove()


@pytest.fixture(scope="session")
def connect(broker):
    one = Connect(broker)
    try:
        one.start()
        yield one
    finally:
        one.remove()


@pytest.fixture(scope="module")
def shop():
    """The whole shop; its own Notification reads nothing."""
    with opened(OneShop(EVENTS="off")) as one:
        yield one
        one.stop()


@pytest.fixture
def way(shop, broker):
    with contextlib.closing(Way(shop, broker)) as one:
        yield one

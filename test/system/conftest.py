"""Shops for the tests, and the servers' logs where a test fails."""

import signal

import pytest

from harness import server
from harness.shop import OneShop, opened


def end_in_order(*_):
    """Whoever ends the tests early finds nothing of theirs still running."""
    raise KeyboardInterrupt


def pytest_configure():
    signal.signal(signal.SIGTERM, end_in_order)
    if not server.SKALD.is_file():
        pytest.exit(f"{server.SKALD} is not built. Build it: make", returncode=1)


log_lengths = pytest.StashKey[dict]()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_setup(item):
    yield
    item.stash[log_lengths] = {one: len(one.text()) for one in server.live}


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        lengths = item.stash.get(log_lengths, {})
        for one in server.live:
            said = one.tail(since=lengths.get(one, 0))
            if said:
                report.sections.append((str(one), said))


@pytest.fixture(scope="session")
def shop():
    """The whole shop in one process, shared by the tests that leave it as it is."""
    with opened(OneShop()) as one:
        yield one
        one.stop()


@pytest.fixture
def unchanged(shop):
    """The test must leave every row as it was."""
    shop.settle()
    before = shop.digest()
    yield
    assert shop.digest() == before

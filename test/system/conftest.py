"""Shop fixtures, and the servers' logs when a test fails."""

import pathlib
import re
import signal

import pytest

from harness import server
from harness.shop import OneShop, opened


def end_in_order(*_):
    """Interrupting the tests leaves no process running."""
    raise KeyboardInterrupt


# Files that take long, so that no worker begins such a one when the others have nothing left to do.
FIRST = ("test_stack", "test_kafka_source", "test_relay_debezium", "test_metrics", "test_migrate", "test_parking",
         "test_database_down", "test_retention", "test_recipes", "test_make_run", "test_seven", "test_monitoring",
         "test_processes", "test_memory", "test_newman", "test_trace")
# Files whose tests share nothing that takes long to make: each of them goes to whichever worker is free, at the end.
LAST = ("test_restore", "test_crash", "test_logs", "test_relay")
# Files whose tests share something only with those of the same first parameter.
PARTED = ("test_stack",)
MARKERS = ("plain: only the executable without sanitizers can show it",
           "timed: also for that one, as there a bound is narrower or more happens in the same time")


def pytest_configure(config):
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    signal.signal(signal.SIGTERM, end_in_order)
    if not server.SKALD.is_file():
        pytest.exit(f"{server.SKALD} is not built. Build it: make", returncode=1)


def pytest_collection_modifyitems(config, items):
    if server.SANITIZED:
        hidden = [item for item in items if item.get_closest_marker("plain")]
        config.hook.pytest_deselected(items=hidden)
        items[:] = [item for item in items if item not in hidden]
    items.sort(key=lambda item: place(file_of(item.nodeid)))


def file_of(nodeid):
    return pathlib.Path(nodeid.split("::")[0]).stem


def place(file):
    if file in FIRST:
        return FIRST.index(file) - len(FIRST)
    return LAST.index(file) + 1 if file in LAST else 0


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A worker gets a whole file at a time, unless its tests can be parted."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file, parameter = file_of(nodeid), re.search(r"\[(\w+)", nodeid)
            if file in PARTED and parameter:
                return f"{file}[{parameter[1]}]"
            return nodeid if file in LAST + PARTED else super()._split_scope(nodeid)

    return Scheduling(config, log)


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
    """The whole shop in one process, shared by tests that do not change it."""
    with opened(OneShop()) as one:
        yield one
        one.stop()


@pytest.fixture
def unchanged(shop):
    """Checks that the test changed no row."""
    shop.settle()
    before = shop.digest()
    yield
    assert shop.digest() == before

"""Load: by wrk, with the scripts of the benchmark, and by clients that run a test's function."""

import concurrent.futures
import contextlib
import re
import shutil
import subprocess
import threading

from .cluster import ROOT

SCRIPTS = ROOT / "test/bench"
OPERATIONS_SECONDS = 300


def find_wrk():
    program = shutil.which("wrk")
    assert program, "wrk is not installed. Install it: tools/install_packages test"
    return program


@contextlib.contextmanager
def operations(url, accounts, count):
    """Refills in the background until the given number have succeeded."""
    process = subprocess.Popen(
        [find_wrk(), "-t", "1", "-c", "16", "-d", f"{OPERATIONS_SECONDS}s", "--timeout", "30s", "-s",
         SCRIPTS / "operations.lua", url, "--", str(count), *accounts], stdout=subprocess.DEVNULL)
    try:
        yield process
        assert process.wait(OPERATIONS_SECONDS) == 0
    finally:
        process.kill()
        process.wait()


def wrk(script, url, connections, seconds):
    """Count, rate and latencies in ms; every request must have succeeded."""
    done = subprocess.run([find_wrk(), "-t", "1" if connections < 2 else "2", "-c", str(connections), "-d", f"{seconds}s",
                           "--timeout", "30s", "--latency", "-s", SCRIPTS / script, url], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    result = {name: int(value) for name, value in
              re.findall(r"(\w+)=(-?\d+)", re.search(r"^RESULT (.*)$", done.stdout, re.MULTILINE).group(1))}
    assert result["requests"] and not result["errors"], f"{script} on {url}: {done.stdout}"
    return {"count": result["requests"], "rate": result["requests"] / result["micros"] * 1e6, "p50": result["p50"] / 1000,
            "p99": result["p99"] / 1000}


@contextlib.contextmanager
def traffic(act):
    """Clients that run until the block ends. Their errors are raised then."""
    ended = threading.Event()

    def client():
        while not ended.is_set():
            act()

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        clients = [pool.submit(client) for _ in range(2)]
        try:
            yield
        finally:
            ended.set()
    for one in clients:
        one.result()

"""The load scripts. A stub of k6 checks the address that k6/script.js uses; then both run in k6 itself."""

import json
import os
import shutil
import subprocess
import uuid

import pytest

from harness.cluster import ROOT
from harness.goods import new_user
from harness.server import SLOWER

SCRIPTS = ROOT / "k6"
BUILT = ROOT / ".cache/k6/k6"
THRESHOLD_CROSSED = 99  # the exit status of k6
# The part of k6 that the script uses. What it asked for and what it checked is printed.
MODULES = {
    "package.json": '{"type": "module"}',
    "node_modules/k6/package.json": '{"type": "module", "exports": {".": "./k6.js", "./http": "./http.js"}}',
    "node_modules/k6/k6.js": """
        export function check(value, tests) { for (const t of Object.values(tests)) console.log(`checked ${t(value)}`); }
        export function fail(text) { throw new Error(text); }""",
    "node_modules/k6/http.js": """
        export default { get(url) { console.log(`got ${url}`); return { status: Number(globalThis.__ENV.STATUS) }; } };""",
    "main.mjs": """
        globalThis.__ENV = JSON.parse(process.argv[2]);
        const script = await import("./script.js");
        const data = script.setup ? script.setup() : undefined;
        script.default(JSON.parse(JSON.stringify(data)));""",
}


def run(folder, **env):
    for name, text in MODULES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for script in ("script.js", "origin.js"):
        shutil.copy(SCRIPTS / script, folder)
    return subprocess.run(["node", "main.mjs", json.dumps({"STATUS": "200"} | env)], cwd=folder, capture_output=True,
                          text=True)


@pytest.mark.parametrize("env,url", [
    ({}, "http://arch.homework/user/user/5"), ({"SCHEME": "https"}, "https://arch.homework/user/user/5"),
    ({"DOMAIN": "127.0.0.1", "PORT": "8080"}, "http://127.0.0.1:8080/user/user/5")])
def test_address(tmp_path, env, url):
    done = run(tmp_path, **{"DOMAIN": "arch.homework", "PATH": "/user/user/5"} | env)
    assert done.stdout.splitlines() == [f"got {url}", "checked true"], done


def test_other_status_is_no_success(tmp_path):
    done = run(tmp_path, DOMAIN="arch.homework", PATH="/x", STATUS="404")
    assert "checked false" in done.stdout


@pytest.mark.parametrize("env,missing", [({"PATH": "/x"}, "DOMAIN"), ({"DOMAIN": "x"}, "PATH"),
                                         ({"DOMAIN": "x", "PATH": "/usr/local/bin:/usr/bin"}, "PATH")])
def test_what_is_missing_is_said(tmp_path, env, missing):
    done = run(tmp_path, **env)
    assert done.returncode != 0 and f"{missing} is missing" in done.stderr


def k6(shop, script, vus, seconds, **env):
    program = str(BUILT) if BUILT.is_file() else shutil.which("k6")
    if not program:
        pytest.skip("k6 is not installed. With Go 1.21 or newer, build it: tools/build_k6")
    values = {"DOMAIN": "127.0.0.1", "PORT": shop.port} | env
    return subprocess.run([program, "run", "--quiet", "--vus", str(vus), "--duration", f"{seconds}s", SCRIPTS / script,
                           *(part for name, value in values.items() for part in ("-e", f"{name}={value}"))],
                          capture_output=True, text=True, timeout=60 * SLOWER,
                          env=os.environ | {"K6_NO_USAGE_REPORT": "true"})


def test_script_in_k6(shop):
    user = new_user(shop)
    done = k6(shop, "script.js", 4, 1, PATH=f"/user/user/{user['id']}")
    assert done.returncode == 0, done.stdout + done.stderr


def test_script_fails_where_an_answer_is_no_200(shop):
    done = k6(shop, "script.js", 1, 1, PATH=f"/user/user/{uuid.uuid4()}")
    assert done.returncode == THRESHOLD_CROSSED, done.stdout + done.stderr


@pytest.mark.timed
def test_customers(shop):
    """All thresholds except the order duration hold on any machine, so only that one is relaxed."""
    done = k6(shop, "shop.js", 4, 3, THINK="0.05", MAX_ORDER_MS=500 * SLOWER)
    assert done.returncode == 0, done.stdout + done.stderr
    shop.assert_sound()


def test_customers_find_what_is_too_slow(shop):
    done = k6(shop, "shop.js", 1, 1, THINK="0", MAX_ORDER_MS="0.001")
    assert done.returncode == THRESHOLD_CROSSED and "http_req_duration" in done.stderr, done.stdout + done.stderr

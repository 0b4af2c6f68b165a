"""k6/script.js: which address it loads, told by a stand-in for k6; and a short real run where k6 is installed."""

import json
import os
import shutil
import subprocess

import pytest

from harness.check import ok
from harness.cluster import ROOT
from harness.goods import new_user

SCRIPT = ROOT / "k6/script.js"
# The part of k6 that the script uses. What it asked for and what it checked is printed.
MODULES = {
    "node_modules/k6/package.json": '{"type": "module", "exports": {".": "./k6.js", "./http": "./http.js"}}',
    "node_modules/k6/k6.js": """
        export function check(value, tests) { for (const t of Object.values(tests)) console.log(`checked ${t(value)}`); }
        export function fail(text) { throw new Error(text); }""",
    "node_modules/k6/http.js": """
        export default { get(url) { console.log(`got ${url}`); return { status: Number(globalThis.__ENV.STATUS) }; } };""",
    "main.mjs": """
        globalThis.__ENV = JSON.parse(process.argv[2]);
        const script = await import("./script.mjs");
        const data = script.setup ? script.setup() : undefined;
        script.default(JSON.parse(JSON.stringify(data)));""",
}


def run(folder, **env):
    for name, text in MODULES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    shutil.copy(SCRIPT, folder / "script.mjs")
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


@pytest.mark.skipif(not shutil.which("k6"), reason="k6 is not installed")
def test_with_k6(shop):
    user = new_user(shop)
    ok(shop.get(f"/user/user/{user['id']}"))
    done = subprocess.run(["k6", "run", "--vus", "4", "--duration", "1s", SCRIPT, "-e", "DOMAIN=127.0.0.1", "-e",
                           f"PORT={shop.port}", "-e", f"PATH=/user/user/{user['id']}"], env=dict(os.environ),
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr

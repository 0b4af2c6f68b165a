"""What the tools keep of the user's shell."""

import os
import pathlib
import subprocess
import sys
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import environment  # noqa: E402

SHELL = {"PATH": "/usr/bin:/bin", "HOME": "a b", "WORKERS": "2", "PGPORT": "9999", "PGSSLMODE": "verify-full",
         "LC_ALL": "xx_XX", "http_proxy": "http://127.0.0.1:9", "JAVA_TOOL_OPTIONS": "-Xmx1m", "MAVEN_OPTS": "-q"}


def in_a_shell(*keep):
    """The environment behind what the scripts do."""
    line = f". tools/environment.sh; clean_environment {' '.join(keep)}; env -0"
    done = subprocess.run(["bash", "-euc", line], env=SHELL, cwd=ROOT, capture_output=True, text=True, check=True)
    own = ("_", "PWD", "SHLVL", "OLDPWD")
    return {name: value for name, value in (one.split("=", 1) for one in done.stdout.split("\0") if one) if name not in own}


@pytest.mark.parametrize("keep", [(), ("libpq",), ("proxy", "java", "locale"), ("libpq", "java")])
def test_shell_and_python_agree(keep):
    expected = environment.cleaned(SHELL, keep)
    if "proxy" in keep:  # only Python's callers keep it, and go to servers of their own beside it
        expected = {name: value for name, value in expected.items() if name.lower() != "no_proxy"}
    assert in_a_shell(*keep) == expected


def test_only_what_is_foreign_goes():
    assert environment.cleaned(SHELL) == {
        "PATH": "/usr/bin:/bin", "HOME": "a b", "WORKERS": "2", "MAVEN_OPTS": "-q", "LC_ALL": "C.UTF-8"}
    assert environment.cleaned(SHELL, ["libpq"])["PGPORT"] == "9999"


def test_a_proxy_that_is_kept_is_not_for_this_machine(monkeypatch):
    for name, value in environment.cleaned({**SHELL, "no_proxy": "example.com"}, ["proxy"]).items():
        monkeypatch.setenv(name, value)
    assert urllib.request.getproxies()["http"] == "http://127.0.0.1:9"
    for host in ("127.0.0.1:8080", "localhost", "example.com"):
        assert urllib.request.proxy_bypass(host), host
    assert not urllib.request.proxy_bypass("example.org")


def test_the_system_tests_are_not_led_astray():
    """Their harness speaks to servers of its own only, by libpq and by HTTP."""
    code = "import harness, os; print(sorted(n for n in os.environ if n.startswith('PG')), os.environ['NO_PROXY'])"
    done = subprocess.run(["/usr/bin/python3", "-c", code], capture_output=True, text=True, check=True,
                          env={**os.environ, **SHELL, "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "test/system"),
                               "PYTHONDONTWRITEBYTECODE": "1"})
    assert done.stdout.startswith("[] ") and "127.0.0.1" in done.stdout

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
    """The environment behind the line that the scripts have."""
    line = f'eval "$(python3 -IS {ROOT}/tools/environment.py {" ".join(keep)})"; env'
    done = subprocess.run(["bash", "-euc", line], env=SHELL, capture_output=True, text=True, check=True)
    own = ("_", "PWD", "SHLVL", "OLDPWD")
    return {name: value for name, value in (one.split("=", 1) for one in done.stdout.splitlines()) if name not in own}


@pytest.mark.parametrize("keep", [(), ("libpq",), ("proxy", "java")])
def test_shell_and_python_agree(keep):
    assert in_a_shell(*keep) == environment.cleaned(SHELL, keep)


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


def test_a_name_that_no_shell_can_have_does_no_harm():
    done = subprocess.run([sys.executable, "-IS", ROOT / "tools/environment.py"], capture_output=True, text=True, check=True,
                          env={"PG;touch x": "1", "PGPORT": "1"})
    assert "unset PGPORT\n" in done.stdout and "touch" not in done.stdout


def test_a_group_that_is_none_is_refused():
    done = subprocess.run([sys.executable, "-IS", ROOT / "tools/environment.py", "libqp"], capture_output=True, text=True)
    assert done.returncode == 1 and "knows no group libqp" in done.stderr


def test_the_system_tests_are_not_led_astray():
    """Their harness speaks to servers of its own only, by libpq and by HTTP."""
    code = "import harness, os; print(sorted(n for n in os.environ if n.startswith('PG')), os.environ['NO_PROXY'])"
    done = subprocess.run(["/usr/bin/python3", "-c", code], capture_output=True, text=True, check=True,
                          env={**os.environ, **SHELL, "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "test/system"),
                               "PYTHONDONTWRITEBYTECODE": "1"})
    assert done.stdout.startswith("[] ") and "127.0.0.1" in done.stdout

"""The recipes of CONTRIBUTING.md, followed word for word in a copy of the tree: each builds, passes the gates and its own
tests. A block's place is the line above it: `FILE`, a new file: / above `LINE`: / below `LINE`: / instead of `LINE`:"""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from harness.cluster import ROOT

PLACE = re.compile(r"^`([^`]+)`, (a new file|(above|below|instead of) `(.+)`):$")
COPIED = ["src", "test/system", "tools", "deploy", "meson.build", "meson_options.txt", ".clang-format"]
GATES = ["layers", "size", "text", "format"]
RECIPES = ["an endpoint", "a service", "a saga step"]

pytestmark = pytest.mark.plain  # it builds an executable of its own


def blocks(recipe):
    """(file, where, anchor, text) of each block that has a place, in their order."""
    lines = recipe.split("\n")
    for at, line in enumerate(lines):
        place = PLACE.match(line)
        if not place:
            continue
        text = []
        for one in lines[at + 2:]:
            if one and not one.startswith("    "):
                break
            text.append(one[4:])
        yield place[1], place[3], place[4], "\n".join(text).strip("\n") + "\n"


def recipes():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    parts = re.split(r"^## ", text, flags=re.MULTILINE)
    found = {part.split("\n", 1)[0].removeprefix("Recipe: "): part for part in parts if part.startswith("Recipe: ")}
    assert list(found) == RECIPES
    return found


def apply(tree, file, where, anchor, text):
    """Returns the file. The anchor is a whole line, or the beginning of the only one that begins so."""
    path = tree / file
    if where is None:
        assert not path.exists(), f"{file} is no new file"
        path.write_text(text, encoding="utf-8")
        return path
    lines = path.read_text(encoding="utf-8").split("\n")
    found = [i for i, line in enumerate(lines) if line == anchor] or \
        [i for i, line in enumerate(lines) if line.startswith(anchor)]
    assert len(found) >= 1, f"{file} has no line {anchor!r}"
    at, new = found[0], text.rstrip("\n").split("\n")
    if where == "above":
        lines[at:at] = [*new, ""] if not new[-1].endswith("\\") else new
    elif where == "below":
        lines[at + 1:at + 1] = new
    else:
        lines[at:at + 1] = new
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def run(tree, *command, **env):
    done = subprocess.run([str(word) for word in command], cwd=tree, capture_output=True, text=True, env=os.environ | env)
    assert done.returncode == 0, f"{command}: {done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    tree = tmp_path_factory.mktemp("recipes")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("node_modules", "__pycache__", "target"))
        else:
            shutil.copy2(ROOT / name, tree / name)
    (tree / "test/unit").mkdir()  # they would be built, and no recipe changes them
    tree.chmod(0o755)
    run(tree, "meson", "setup", "build", "-Dbuildtype=debug", "-Dwerror=true")
    return tree


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_works_as_it_is_written(tree, name):
    """In order: the saga step of the third recipe calls the service of the second. What a recipe changes runs as well."""
    done = [apply(tree, *block) for block in blocks(recipes()[name])]
    assert done, "a recipe without blocks that have a place"
    tests = sorted({path for path in done if path.name.startswith("test_")})
    if (tree / "tools/check_format").exists() and shutil.which("clang-format"):
        run(tree, "tools/check_format", "--fix")
    for gate in GATES:
        run(tree, f"tools/check_{gate}", tree)
    run(tree, "tools/build", "build")
    said = run(tree, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, SKALD_BIN=str(tree / "build/skald"),
               PYTEST_ADDOPTS="", PYTHONDONTWRITEBYTECODE="1")
    assert re.search(r"\d+ passed", said) and "failed" not in said and "skipped" not in said, said

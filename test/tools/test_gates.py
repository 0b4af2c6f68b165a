"""The gates fail when they should, and only then: each gets small trees that break one rule, and one that breaks
none."""

import pathlib
import subprocess
import sys
import textwrap

import pytest

TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"
sys.path.insert(0, str(TOOLS))

import csource  # noqa: E402

CLEAN = {
    ".clang-format": (TOOLS.parent / ".clang-format").read_text(encoding="utf-8"),
    "src/base/pair.h": "#ifndef PAIR_H\n#define PAIR_H\n\n#include <stdint.h>\n\nint pair(void);\n\n#endif\n",
    "src/base/pair.c": '#include "base/pair.h"\n\nint pair(void) {\n  return 2;\n}\n',
    "src/rt/loop.c": '#include "base/pair.h"\n\n#include <uv.h>\n',
    "src/http/parser.c": "#include <llhttp.h>\n#include <uv.h>\n",
    "src/services/order.c": '#include "rt/loop.h"\n#include "services/services.h"\n#include "sql.h"\n',
    "src/main.c": '#include "commands/serve.h"\n',
}


def gate(name, root, files):
    for path, text in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    done = subprocess.run([TOOLS / name, root], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["check_layers", "check_size", "check_text", "check_format"])
def test_clean_tree_passes(name, tmp_path):
    status, output = gate(name, tmp_path, CLEAN)
    if status == 77:
        pytest.skip(output.strip())
    assert status == 0, output


@pytest.mark.parametrize("name", ["check_layers", "check_size", "check_text", "check_format", "check_shell"])
def test_empty_tree_fails(name, tmp_path):
    (tmp_path / "src").mkdir()
    status, output = gate(name, tmp_path, {})
    if status == 77:
        pytest.skip(output.strip())
    assert status == 1 and "nothing to check" in output


@pytest.mark.parametrize("path, text, complaint", [
    ("src/base/a.c", '#include "rt/loop.h"\n', "base may not include rt"),
    ("src/base/a.c", "#include <unistd.h>\n", "base does no I/O"),
    ("src/base/a.c", '#include "sql.h"\n', "base knows no SQL of the services"),
    ("src/base/a.c", "#include <uv.h>\n", "base may not include a third-party library"),
    ("src/rt/a.c", '#include "saga/saga.h"\n', "rt may not include saga"),
    ("src/rt/a.c", '#include "loop.h"\n', "not written as a path from src/"),
    ("src/http/a.c", "#include <llhttp/llhttp.h>\n", "llhttp is included in 2 files"),
    ("src/http/a.c", "#  include <llhttp.h>\n", "llhttp is included in 2 files"),
    ("src/saga/a.c", '#include "cdc/source.h"\n', "saga may not include cdc"),
    ("src/cdc/a.c", '#include "services/order.h"\n', "cdc may not include services"),
    ("src/cdc/a.c", "#include <uv.h>\n", "cdc may not include a third-party library"),
    ("src/services/a.c", '#include "services/order.h"\n', "a service may not include another"),
    ("src/services/a.c", "#include <libpq-fe.h>\n", "services may not include a third-party library"),
    ("src/services/a.c", "#include <some/thing.h>\n", "services may not include a third-party library"),
    ("src/services/a.c", '#include "audit.h"\n', "not written as a path from src/"),
    ("src/other/a.c", "", "not a room"),
    ("src/a.c", "", "only main.c may be in src/ itself"),
    ("src/main.c", "#include <uv.h>\n", "main may not include a third-party library"),
])
def test_law_is_enforced(path, text, complaint, tmp_path):
    status, output = gate("check_layers", tmp_path, {**CLEAN, path: text})
    assert status == 1 and complaint in output


def test_private_header_of_a_library_stays_in_its_room(tmp_path):
    files = {"src/db/pq.h": "#include <libpq-fe.h>\n", "src/db/pool.c": '#include "db/pq.h"\n'}
    assert gate("check_layers", tmp_path, files)[0] == 0
    files |= {"src/db/db.h": '#include "db/pq.h"\n', "src/saga/a.c": '#include "db/db.h"\n'}
    status, output = gate("check_layers", tmp_path, files)
    assert status == 1 and "src/saga/a.c:1: src/db/pq.h is private to its room" in output


# One planted include against each wall: what the room must not reach though it stands next to it.
WALLS = [("base", "rt"), ("base", "json"), ("rt", "json"), ("rt", "metrics"), ("rt", "log"), ("json", "rt"), ("metrics", "json"),
         ("metrics", "log"), ("log", "json"), ("log", "db"), ("log", "http"), ("db", "json"), ("db", "http"), ("db", "service"),
         ("http", "db"), ("http", "service"), ("service", "saga"), ("service", "cdc"), ("service", "services"), ("saga", "cdc"),
         ("saga", "services"), ("cdc", "http"), ("cdc", "service"), ("cdc", "saga"), ("services", "commands"),
         ("main", "services"), ("main", "rt")]


@pytest.mark.parametrize("room, target", WALLS)
def test_wall_stands(room, target, tmp_path):
    path = "src/main.c" if room == "main" else f"src/{room}/planted.c"
    files = {**CLEAN, f"src/{target}/there.h": "\n"}
    assert gate("check_layers", tmp_path, files)[0] == 0
    status, output = gate("check_layers", tmp_path, {**files, path: f'#include "{target}/there.h"\n'})
    assert status == 1 and f"{path}:1: {room} may not include {target}" in output


def test_circle_of_modules_is_found(tmp_path):
    files = {"src/rt/a.c": '#include "rt/b.h"\n', "src/rt/b.h": '#include "rt/c.h"\n', "src/rt/c.c": "", "src/rt/c.h": "", "src/rt/a.h": ""}
    assert gate("check_layers", tmp_path, files)[0] == 0
    status, output = gate("check_layers", tmp_path, {**files, "src/rt/c.c": '#include "rt/a.h"\n'})
    assert status == 1 and "src/rt/a: a circle of includes: rt/a -> rt/b -> rt/c -> rt/a" in output


def test_include_in_a_comment_is_none(tmp_path):
    assert gate("check_layers", tmp_path, {"src/base/a.c": '/*\n#include "rt/loop.h"\n*/\n'})[0] == 0


def function(statements):
    return "int f(int a) {\n" + "".join(f"  {s}\n" for s in statements) + "}\n"


@pytest.mark.parametrize("path, text, complaint", [
    ("src/rt/a.h", "\n" * 81, "81 lines, at most 80"),
    ("src/rt/a.c", "\n" * 801, "801 lines, at most 800"),
    ("test/unit/a.c", "// " + "x" * 118 + "\n", "121 columns"),
    ("src/rt/a.c", function(["a++;"] * 59), "f() has 61 lines, at most 60"),
    ("src/rt/a.c", function(["if (a) a++;"] * 12), "f() has a cyclomatic complexity of 13"),
    ("src/rt/a.c", function(["a = a && a || a ? a : 1;"] * 4), "f() has a cyclomatic complexity of 13"),
])
def test_size_is_limited(path, text, complaint, tmp_path):
    status, output = gate("check_size", tmp_path, {**CLEAN, path: text})
    assert status == 1 and complaint in output


@pytest.mark.parametrize("text", ["\n" * 800, function(["a++;"] * 58), function(["if (a) a++;"] * 11)])
def test_size_at_the_limit_passes(text, tmp_path):
    assert gate("check_size", tmp_path, {**CLEAN, "src/rt/a.c": text})[0] == 0


def test_functions_are_found_whatever_stands_around_them():
    found = csource.functions(textwrap.dedent("""\
        #define LOOP(x) \\
          do { if (x) {   \\
          } while (0)
        struct pair { int a; } const table[] = {{1}, {2}};
        static const char *brace = "}}} if (", quote = '{'; /* { if */
        enum { ONE = 1 };
        __attribute__((noreturn))
        static void *first(int (*call)(void), int b) { // }
          for (;;) {
            while (b) { if (call()) return 0; }
          }
        }
        #ifdef FAST
        int second(void) {
          if (1) {
        #else
        int second(int x) {
          switch (x) { case 1: case 2: break; }
          {
        #endif
            return 1;
          }
        }
        int declared(void);
        int third(void) __attribute__((cold));
        UNIT_TEST(fourth) {
        }
        """))
    assert [(f.name, f.line, f.lines, f.complexity) for f in found] == [
        ("first", 7, 6, 4), ("second", 17, 7, 3), ("UNIT_TEST", 26, 2, 1)]


@pytest.mark.parametrize("path, text, complaint", [
    ("src/rt/a.c", "void f(char *a, char *b) {\n  strcpy(a, b);\n}\n", "a.c:2: strcpy() is not used here"),
    ("src/rt/a.c", "int f(char *a) {\n  return sprintf (a, a);\n}\n", "sprintf() is not used here"),
    ("src/rt/a.c", "int a; \n", "a.c:1: space at the end"),
    ("src/rt/a.c", "\tint a;\n", "a tab"),
    ("src/rt/a.c", "int a;", "no newline at the end"),
    ("docs/a.md", "see /ho" + "me/ann/skald\n", "exists on one machine only"),
    ("test/a.json", '"https://regis' + 'try.npmjs.org/x"\n', "package registry"),
])
def test_unwanted_text_is_found(path, text, complaint, tmp_path):
    status, output = gate("check_text", tmp_path, {**CLEAN, path: text})
    assert status == 1 and complaint in output


def test_banned_name_in_text_or_as_part_of_a_name_is_fine(tmp_path):
    text = 'int my_strcpy(int a); // strcpy(a, b)\nconst char *s = "gets(";\nint g(struct s *p) {\n  return p->system(1);\n}\n'
    assert gate("check_text", tmp_path, {**CLEAN, "src/rt/a.c": text})[0] == 0


def test_unformatted_source_fails(tmp_path):
    status, output = gate("check_format", tmp_path, {**CLEAN, "test/unit/a.c": "int  a ;\n"})
    if status == 77:
        pytest.skip(output.strip())
    assert status == 1 and "test/unit/a.c" in output


def test_bad_shell_script_fails(tmp_path):
    assert gate("check_shell", tmp_path, {"run": '#!/bin/sh\necho "hello"\n'})[0] == 0
    status, output = gate("check_shell", tmp_path, {"deploy/x": "#!/bin/bash\nrm -rf $1/*\n"})
    assert status == 1 and "deploy/x" in output


def test_sql_becomes_the_very_same_c_string(tmp_path):
    sql = 'SELECT \'a\\b"??/\' -- Müller\n\n  FROM "t";\n'
    source = tmp_path / "pay_ment.sql"
    source.write_text(sql, encoding="utf-8")
    subprocess.run([TOOLS / "embed_sql", tmp_path / "sql.c", tmp_path / "sql.h", source], check=True)
    (tmp_path / "main.c").write_text(
        '#include "sql.h"\n#include <stdio.h>\nint main(void) { return fputs(sql_pay_ment, stdout) < 0; }\n')
    program = tmp_path / "program"
    subprocess.run(["cc", "-Wall", "-Wextra", "-Werror", "-o", program, tmp_path / "main.c", tmp_path / "sql.c"], check=True)
    assert subprocess.run([program], check=True, capture_output=True).stdout.decode() == sql

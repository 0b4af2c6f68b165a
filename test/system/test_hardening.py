"""The executable's hardening against memory corruption, as shown by readelf."""

import re
import subprocess

import pytest

from harness.server import SANITIZED, SKALD

MACHINES = {"X86-64": "IBT", "AArch64": "BTI"}
LANDINGS = {"X86-64": "endbr64", "AArch64": "bti"}


def readelf(*arguments):
    return subprocess.run(["readelf", "-W", *arguments], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def headers():
    return readelf("-h", "-l", "-d", SKALD)


@pytest.fixture(scope="module")
def imported():
    """The C library functions that it imports."""
    return set(re.findall(r" UND (\w+)", readelf("--dyn-syms", SKALD)))


def flags_of(segment, headers):
    return re.search(rf"^ +{segment} +(?:0x\w+ +){{5}}([RWE ]{{3}}) ", headers, re.MULTILINE)[1]


def test_it_can_be_loaded_anywhere(headers):
    assert re.search(r"Type: +DYN ", headers)
    assert re.search(r"\(FLAGS_1\) .*\bPIE\b", headers)


def test_what_the_loader_has_filled_in_is_read_only(headers):
    assert flags_of("GNU_RELRO", headers) == "R  "
    assert re.search(r"\(FLAGS_1\) .*\bNOW\b", headers) or "(BIND_NOW)" in headers


def test_nothing_is_writable_and_executable(headers):
    assert flags_of("GNU_STACK", headers) == "RW "
    assert not re.search(r"^ +LOAD +(0x\w+ +){5}RWE ", headers, re.MULTILINE)


def test_stacks_are_guarded(imported):
    assert "__stack_chk_fail" in imported


def test_the_library_checks_lengths(imported):
    """Not with sanitizers, which detect more."""
    checked = {name for name in imported if re.fullmatch(r"__(mem|str|v?sn?printf|vs?n?printf|read|recv)\w*_chk", name)}
    assert bool(checked) != SANITIZED, checked


def own_objects():
    if not (SKALD.parent / "build.ninja").exists():
        pytest.fail(f"SKALD_BIN must lie in the folder it was built in, which {SKALD.parent} is not")
    return [one for one in SKALD.parent.glob("*.p/**/*.o") if not one.parent.name.startswith(("test_", "fuzz_"))]


@pytest.fixture(scope="module")
def machine():
    return re.search(r"Machine: .*?([\w-]+)$", readelf("-h", SKALD), re.MULTILINE)[1]


def test_every_object_says_where_jumps_may_land(machine):
    """Of our own objects: the executable says it only where the system's start files do."""
    objects = own_objects()
    assert len(objects) > 50
    if machine in MACHINES:
        notes = {one.name: readelf("-n", one) for one in objects}
        assert not [name for name, said in notes.items() if not re.search(rf"feature: .*\b{MACHINES[machine]}\b", said)]
        assert not [name for name, said in notes.items() if "SHSTK" in said]


def test_the_switch_of_fibers_may_be_jumped_to(machine):
    """It is written by hand, and the note about its object is the compiler's, who does not look into it."""
    [switch] = [one for one in own_objects() if one.name.endswith("fiber_switch.c.o")]
    code = subprocess.run(["objdump", "-d", "--disassemble=skald_stack_swap", switch], capture_output=True, text=True,
                          check=True).stdout
    if machine in LANDINGS:
        assert LANDINGS[machine] in re.search(r"<skald_stack_swap>:\n(.*)", code)[1]

"""House rules that a machine can check: lengths, openings, licences, and where the world is read."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("edgekd", "bootstrap_steps", "tests", "benchmarks")
PROGRAMS = [ROOT / "bootstrap.py", ROOT / "tasks.py"]
CODE = [*PROGRAMS, *(path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")))]
PACKAGE = [path for path in CODE if path.is_relative_to(ROOT / "edgekd")]
C_CODE = sorted(
    path for path in (ROOT / "firmware_stubs").rglob("*") if path.suffix in {".c", ".h", ".S", ".cc"}
)

LONGEST_FILE, LONGEST_FUNCTION = 500, 80

# Who may read the environment, the working directory, the clock or a global random generator, and why.
READS_THE_WORLD = {
    "api.py": "the program's edge",
    "api_fleet.py": "the program's edge",
    "api_rollouts.py": "the program's edge",
    "cli/": "the program's edge",
    "doctor.py": "looks at the machine",
    "pipeline/": "the one place that knows when and where",
    "device/": "SSH reads ~/.ssh; the agent and deadlines read the clock",
    "fleet/agent/clock.py": "the device's clock, behind an interface",
    "store.py": "the age of what a killed run left behind",
    "mcu/toolchain.py": "compilers are found on PATH",
    "mcu/qemu.py": "QEMU is found on PATH",
}
WORLD = re.compile(
    r"\bos\.(environ|getenv|getcwd)\b|\bPath\.cwd\(|\btime\.time\(|\bdatetime\.(now|today|utcnow)\("
    r"|(?<!\.)\brandom\.(random|randint|choice|shuffle|seed|uniform)\("
    r"|\b(np|numpy)\.random\.(seed|rand|randn|randint|choice|shuffle|permutation|normal|uniform)\("
)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Each function's name and its length in lines, docstring left out."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
            yield node.name, (node.end_lineno or 0) - body[0].lineno + 1


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_files_and_functions_are_short_and_say_what_they_are_for(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.count("\n") < LONGEST_FILE
    long = [(name, lines) for name, lines in functions(path) if lines > LONGEST_FUNCTION]
    assert not long
    assert not text or ast.get_docstring(ast.parse(text)), "the first lines say what the file is for"


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_nothing_is_left_for_later(path: Path) -> None:
    assert not re.findall(r"# ?(TODO|FIXME|XXX|HACK)\b", path.read_text("utf-8"))


@pytest.mark.parametrize("path", [*PROGRAMS, *PACKAGE], ids=name_of)
def test_no_exception_is_swallowed(path: Path) -> None:
    silent = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ExceptHandler) and all(isinstance(each, ast.Pass) for each in node.body)
    ]
    assert not silent


@pytest.mark.parametrize("path", PACKAGE, ids=name_of)
def test_below_the_edge_nothing_reads_the_world(path: Path) -> None:
    name = path.relative_to(ROOT / "edgekd").as_posix()
    if not name.startswith(tuple(READS_THE_WORLD)):
        found = [match[0] for match in WORLD.finditer(path.read_text("utf-8"))]
        assert not found


@pytest.mark.parametrize("path", C_CODE, ids=name_of)
def test_c_that_ends_in_firmware_is_free_of_conditions(path: Path) -> None:
    assert "SPDX-License-Identifier: 0BSD" in path.read_text("utf-8")[:300]


def test_the_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert "Apache License" in text and "END OF TERMS AND CONDITIONS" in text

"""Run the suite part by part: style (ruff, mypy), then pytest for each part, with minutes a part.

    python tests/run.py [--no-skips] [PART ...] [-- PYTEST-OPTIONS]

`invoke test` and `./bootstrap test` call this. Every test file belongs to exactly one part, by its
folder; what no part names falls to the last rule, so nothing is left out. A part over its budget is
marked, never failed: a time is no assertion. The last line counts all parts together.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent

# Part -> minutes it may take on two cores.
BUDGET_MIN = {
    "style": 2,
    "set-up": 5,
    "spine": 6,
    "compiler": 7,
    "learn": 3,
    "compress": 4,
    "linux": 8,
    "fleet": 7,
}

# Where a test lies -> its part; the longest prefix wins.
PLACES = {
    "test_bootstrap": "set-up",
    "test_doctor": "set-up",
    "test_house": "set-up",
    "test_imports": "set-up",
    "test_run": "set-up",
    "test_wheel": "set-up",
    "compress/": "compress",
    "data/": "learn",
    "device/": "linux",
    "docs/": "learn",
    "evaluate/": "learn",
    "export/": "learn",
    "export/test_linux": "linux",
    "export/test_native": "linux",
    "export/test_tflm": "compiler",
    "fleet/": "fleet",
    "learn/": "learn",
    "mcu/": "compiler",
    "qgraph/": "compiler",
    "quantize/": "learn",
    "search/": "compress",
    "signal/": "compiler",
    "": "spine",
}
STYLE = (
    ("ruff check", ("-m", "ruff", "check", ".")),
    ("ruff format", ("-m", "ruff", "format", "--check", ".")),
    ("mypy", ("-m", "mypy")),
)


@dataclass(frozen=True)
class Outcome:
    """What one part did. `clean` is the runner's own verdict (a crash has no failed test to count)."""

    part: str
    minutes: float
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    clean: bool = True


def part_of(file: Path) -> str:
    """The part that a test file belongs to."""
    name = file.relative_to(TESTS).as_posix()
    return PLACES[max((place for place in PLACES if name.startswith(place)), key=len)]


def files_of(part: str) -> list[str]:
    """The part's test files, in order."""
    return [str(file) for file in sorted(TESTS.rglob("test_*.py")) if part_of(file) == part]


def run_style() -> Outcome:
    """ruff and mypy over the tree, each to its end: a complaint of one does not hide another's."""
    began, passed, failed = time.monotonic(), 0, 0
    for name, arguments in STYLE:
        code = subprocess.run([sys.executable, *arguments], cwd=ROOT, check=False).returncode
        print(f"{name}: {'clean' if code == 0 else 'complains'}", flush=True)
        passed, failed = passed + (code == 0), failed + (code != 0)
    return Outcome("style", (time.monotonic() - began) / 60, passed, failed, 0, failed == 0)


def run_part(part: str, options: Sequence[str]) -> Outcome:
    """pytest over one part's files on two workers."""
    began = time.monotonic()
    files = files_of(part)
    if not files:
        print("no tests in this part", flush=True)
        return Outcome(part, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        workers = str(min(2, os.cpu_count() or 1))
        command = ["-m", "pytest", "-q", "-n", workers, "--dist", "loadfile", f"--junitxml={report}"]
        code = subprocess.run([sys.executable, *command, *options, *files], cwd=ROOT, check=False).returncode
        passed, failed, skipped = read_counts(report)
    return Outcome(part, (time.monotonic() - began) / 60, passed, failed, skipped, code == 0)


def read_counts(report: Path) -> tuple[int, int, int]:
    """Passed, failed (errors too) and skipped, from pytest's XML; zeros where it died before writing it."""
    if not report.is_file():
        return 0, 0, 0
    total = failed = skipped = 0
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        total += int(suite.get("tests", 0))
        failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped += int(suite.get("skipped", 0))
    return total - failed - skipped, failed, skipped


def summary(outcomes: Sequence[Outcome]) -> list[str]:
    """The table of minutes a part, then the one line that counts everything."""
    lines = [f"{'part':<10}{'minutes':>8}{'budget':>8}{'passed':>8}{'failed':>8}{'skipped':>9}"]
    for each in outcomes:
        over = "  over its budget" if each.minutes > BUDGET_MIN[each.part] else ""
        over += "" if each.clean else "  FAILED"
        counts = f"{each.passed:>8}{each.failed:>8}{each.skipped:>9}"
        lines.append(f"{each.part:<10}{each.minutes:>8.1f}{BUDGET_MIN[each.part]:>8}{counts}{over}")
    lines.append(f"{'all':<10}{sum(each.minutes for each in outcomes):>8.1f}{sum(BUDGET_MIN.values()):>8}")
    passed = sum(each.passed for each in outcomes if each.part != "style")
    failed = sum(max(each.failed, not each.clean) for each in outcomes)  # a crash counts as one
    skipped = sum(each.skipped for each in outcomes)
    return [*lines, f"{passed} passed, {failed} failed, {skipped} skipped"]


def main(argv: Sequence[str]) -> int:
    """Run the named parts (all by default); 0 when everything is clean, 2 for an unknown word."""
    words, options = list(argv), []
    if "--" in words:
        cut = words.index("--")
        words, options = words[:cut], words[cut + 1 :]
    if "--no-skips" in words:
        words.remove("--no-skips")
        options.append("--no-skips")
    unknown = [word for word in words if word not in BUDGET_MIN]
    if unknown:
        print(
            f"no part of the tests is named {unknown[0]!r}: one of {', '.join(BUDGET_MIN)}", file=sys.stderr
        )
        return 2
    outcomes = []
    for part in words or list(BUDGET_MIN):
        print(f"\n=== {part}", flush=True)
        outcomes.append(run_style() if part == "style" else run_part(part, options))
    print("\n" + "\n".join(summary(outcomes)), flush=True)
    return 0 if all(each.clean for each in outcomes) else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("tests: stopped", file=sys.stderr)
        sys.exit(130)

"""The suite's own runner and marks: every test file has a part, counts add up, a skip can be a failure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import run

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = """
import pytest

@pytest.mark.needs("git")
def test_passes():
    pass

@pytest.mark.parametrize("number", range(2))
def test_skips(number):
    pytest.skip("no such thing: apt-get install thing")

@pytest.mark.xfail(reason="known")
def test_is_expected_to_fail():
    assert False
"""


def test_every_test_file_has_exactly_one_part_and_none_is_left_out() -> None:
    files = sorted(str(path) for path in run.TESTS.rglob("test_*.py"))
    assert sorted(file for part in run.BUDGET_MIN for file in run.files_of(part)) == files


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("test_bootstrap.py", "set-up"),
        ("test_cli.py", "spine"),
        ("pipeline/test_graph.py", "spine"),
        ("qgraph/test_reader.py", "compiler"),
        ("export/test_torch.py", "learn"),
        ("export/test_linux_bundle.py", "linux"),
        ("compress/test_lowrank.py", "compress"),
        ("newfolder/test_new.py", "spine"),
    ],
)
def test_a_place_decides_the_part(name: str, part: str) -> None:
    assert run.part_of(run.TESTS / name) == part


def test_an_unknown_part_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["compilre"]) == 2
    assert "'compilre'" in capsys.readouterr().err


def test_the_last_line_counts_everything_and_a_crash_counts_as_a_failure() -> None:
    outcomes = [
        run.Outcome("style", 0.5, 3, 0, 0),
        run.Outcome("spine", 9.0, 10, 0, 2),
        run.Outcome("learn", 1.0, 0, 0, 0, clean=False),
    ]
    lines = run.summary(outcomes)
    assert lines[-1] == "10 passed, 1 failed, 2 skipped"
    assert "over its budget" in lines[2] and "FAILED" in lines[3]


@pytest.mark.parametrize(("options", "failed"), [([], 0), (["--no-skips"], 2)], ids=["plain", "no-skips"])
def test_a_skip_is_seen_and_fails_where_it_may_not_be(
    tmp_path: Path, options: list[str], failed: int
) -> None:
    (tmp_path / "conftest.py").write_text((run.TESTS / "conftest.py").read_text("utf-8"))
    (tmp_path / "test_sample.py").write_text(SAMPLE)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    shared: x\n    needs: x\n")
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", f"--junitxml={report}", *options]
    answer = subprocess.run(
        [*command, "-o", f"pythonpath={ROOT}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert answer.returncode == (1 if failed else 0), answer.stdout
    assert run.read_counts(report) == (1, failed, 3 - failed)
    assert "apt-get install thing" in answer.stdout or not failed


def test_a_run_that_died_has_no_counts(tmp_path: Path) -> None:
    assert run.read_counts(tmp_path / "absent.xml") == (0, 0, 0)

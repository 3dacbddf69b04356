"""Killed in each stage, or two runs at once: the next run continues, and the result is the same."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.spine.support import artifacts, digests, edgekd, make_project, record, start

pytestmark = pytest.mark.needs("torch", "ziglang", "unicorn")
QUICK = ("bench", "--recipe", "quick", "--target", "mcu-sim")
STAGES = (
    "dataset",
    "teacher",
    "knowledge",
    "distill",
    "compress",
    "simplify",
    "quantize",
    "export",
    "build",
    "bench",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = make_project(tmp_path_factory.mktemp("whole"))
    record(project, *QUICK[1:])
    return project


def test_a_run_killed_in_each_stage_is_continued_by_the_next(whole: Path, tmp_path: Path) -> None:
    """Each run goes on where the last was killed, is killed one stage later, leaves nothing half-made."""
    project = make_project(tmp_path)
    for stage in STAGES:
        process = start(project, *QUICK)
        assert process.stderr is not None
        lines = iter(process.stderr)
        assert any(line.startswith(f"edgekd: {stage} ") for line in lines), f"{stage} never began"
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = artifacts(project)
        assert set(found) <= set(STAGES[: STAGES.index(stage) + 1])
        assert all((path / "manifest.json").is_file() for paths in found.values() for path in paths)
    assert record(project, *QUICK[1:])["bit_exact"] is True
    assert digests(project) == digests(whole)
    assert not list((project / ".edgekd" / "tmp").iterdir())


def test_two_runs_at_once_do_no_harm(whole: Path, tmp_path: Path) -> None:
    project = make_project(tmp_path)
    runs = [start(project, *QUICK) for _ in range(2)]
    for process in runs:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    assert digests(project) == digests(whole)


def test_a_model_that_does_not_fit_is_refused_before_it_is_compiled(whole: Path, tmp_path: Path) -> None:
    project = make_project(tmp_path)
    shutil.copytree(whole / ".edgekd" / "artifacts", project / ".edgekd" / "artifacts")
    (project / "targets").mkdir()
    profile = (Path(__file__).parents[2] / "targets" / "mcu-sim.toml").read_text()
    small = profile.replace('"mcu-sim"', '"tiny"').replace("1_048_576", "4_096").replace("262_144", "5_120")
    (project / "targets" / "tiny.toml").write_text(small)
    done = edgekd(project, "bench", "--recipe", "quick", "--target", "tiny")
    assert done.returncode == 5 and "Traceback" not in done.stderr
    assert "need" in done.stderr and "4096" in done.stderr.replace(",", "")
    assert len(artifacts(project)["build"]) == 1

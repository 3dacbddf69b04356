"""Killed, or a full disk, in each stage; two runs at once: the next run continues, the result is the same."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.spine.support import artifacts, digests, edgekd, make_project, record, start

pytestmark = pytest.mark.needs("torch", "ziglang", "unicorn")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root: run as root")
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
        models = {name for name in found if not name.startswith("evaluate-")}  # those are quick, and between
        assert models <= set(STAGES[: STAGES.index(stage) + 1])
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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 96 MB, gone afterwards."""
    mount = tmp_path / "disk"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(mount)], check=True)
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def fill_up(disk: Path) -> Path:
    """Write a file until the disk takes no byte more; returns the file."""
    path = disk / "fill"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        with pytest.raises(OSError, match="No space"):
            while True:
                os.write(descriptor, bytes(4096))
    finally:
        os.close(descriptor)
    return path


@needs_root
@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk_in_a_stage(whole: Path, small_disk: Path, stage: str) -> None:
    project = make_project(small_disk)
    for done in STAGES[: STAGES.index(stage)]:
        shutil.copytree(whole / ".edgekd/artifacts" / done, project / ".edgekd/artifacts" / done)
    for kept in ("locks", "times", "work"):
        shutil.copytree(whole / ".edgekd" / kept, project / ".edgekd" / kept, dirs_exist_ok=True)
    before = artifacts(project)
    (project / ".edgekd" / "tmp").mkdir(exist_ok=True)
    fill = fill_up(small_disk)
    done = edgekd(project, *QUICK)
    assert done.returncode == 5 and "is full" in done.stderr and "make room" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert artifacts(project) == before and not list((project / ".edgekd/tmp").iterdir())
    fill.unlink()
    assert record(project, *QUICK[1:])["bit_exact"] is True
    assert digests(project) == digests(whole)

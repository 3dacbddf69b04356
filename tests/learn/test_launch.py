"""Stages under torchrun: two processes make one student, and a job that is wrong is one sentence."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgekd.errors import ArtifactError, ConfigError
from edgekd.learn.distill import distill_student
from edgekd.learn.launch import read_job
from edgekd.learn.student import load_student
from tests.learn.chain import Chain

ROOT = Path(__file__).resolve().parents[2]


def job_file(chain: Chain, tmp_path: Path, **changes: Any) -> Path:
    distill = dataclasses.replace(chain.recipe.distill, epochs=4)
    recipe = dataclasses.asdict(dataclasses.replace(chain.recipe, distill=distill))
    places = {"dataset": str(chain.data), "knowledge": str(chain.knowledge), "out": str(tmp_path / "out")}
    path = tmp_path / "job.json"
    path.write_text(json.dumps({"stage": "distill", "recipe": recipe} | places | changes))
    return path


def launched(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*command, "-m", "edgekd.learn.launch", *arguments],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_two_processes_make_one_student_about_as_good(chain: Chain, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(), (tmp_path / "alone").mkdir()
    path = job_file(chain, tmp_path, log=str(tmp_path / "log.csv"))
    done = launched(str(path))
    assert done.returncode == 0, done.stderr
    shared = json.loads(done.stdout.splitlines()[-1])
    alone = distill_student(chain.data, chain.knowledge, read_job([str(path)])["recipe"], tmp_path / "alone")
    assert load_student(tmp_path / "out").net.structure == load_student(tmp_path / "alone").net.structure
    assert abs(shared["accuracy_test"] - alone["accuracy_test"]) < 0.08
    assert shared["accuracy_test"] > 0.5
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 5  # one process writes it


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"stage": "ablation"}, ConfigError, "stages are teacher and distill"),
        ({"recipe": {"name": "x", "description": "y", "sede": 3}}, ConfigError, "unknown key recipe.sede"),
        ({"recipe": 3}, ArtifactError, "is not a readable job"),
        ({"out": 3}, ArtifactError, "is not a readable job"),
    ],
)
def test_a_wrong_job_is_named(
    chain: Chain, tmp_path: Path, changes: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        read_job([str(job_file(chain, tmp_path, **changes))])


def test_no_job_and_a_broken_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="takes one argument"):
        read_job([])
    (tmp_path / "job.json").write_text("{")
    with pytest.raises(ArtifactError, match="is not a readable job"):
        read_job([str(tmp_path / "job.json")])

"""`processes` in a recipe: stages start their own torchrun, say how far they are, fail in one sentence."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from edgekd import api
from edgekd.errors import ArtifactError, ConfigError, EdgekdError, VerifyError
from edgekd.learn.launch import read_job
from edgekd.pipeline.processes import _followed, _run, job_table
from edgekd.pipeline.request import Request
from edgekd.recipe import LossTerm, MemberParams, load_recipe, members

TEXT = """
name = "together"
description = "mechanics"
seed = 5
processes = 2
{top}
[teacher]
width = 8
epochs = 2
{teacher}
[knowledge]
views = 1
[student]
channels = [8, 16]
strides = [2, 1]
[distill]
epochs = 2
"""


def asked(project: Path, top: str = "", teacher: str = "", **options: object) -> Request:
    (project / "recipes").mkdir(exist_ok=True)
    (project / ".edgekd").mkdir(exist_ok=True)
    (project / "recipes" / "together.toml").write_text(TEXT.format(top=top, teacher=teacher))
    return api.request(recipe="together", start=project, **options)  # type: ignore[arg-type]


def test_a_recipe_starts_its_own_processes(tmp_path: Path) -> None:
    said: list[tuple[str, int, int]] = []
    log = tmp_path / "log.csv"
    request = asked(tmp_path, progress=lambda *row: said.append(row), log=str(log))
    teacher = api.make(request, "teacher")
    assert teacher.manifest["params"]["processes"] == 2
    assert teacher.metrics["accuracy_test"] > 0.3
    steps = [row for row in said if row[0].startswith("teacher: loss")]
    assert steps and steps[-1][1] == steps[-1][2]
    assert len(log.read_text().splitlines()) == 3  # one process writes it
    one = dataclasses.replace(request, recipe=dataclasses.replace(request.need_recipe(), processes=1))
    assert not next(s.artifact for s in api.states(one) if s.stage == "teacher")


def test_what_ends_a_process_ends_the_stage_with_its_sentence(tmp_path: Path) -> None:
    (tmp_path / "start.safetensors").write_bytes(b"no weights")
    request = asked(tmp_path, teacher='checkpoint = "start.safetensors"')
    with pytest.raises(ArtifactError, match=r"start\.safetensors is not a readable weights file"):
        api.make(request, "teacher")
    assert not list((tmp_path / ".edgekd" / "artifacts").glob("teacher/*"))


def test_processes_that_die_are_told_of(tmp_path: Path) -> None:
    recipe = asked(tmp_path).need_recipe()
    (tmp_path / "job.json").write_text("{")
    with pytest.raises(EdgekdError, match=r"2 training processes ended without a result \(exit code 1"):
        _run(tmp_path / "job.json", recipe, lambda *row: None)


def test_a_batch_that_cannot_be_shared_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"teacher\.batch_samples is 63, which 2 processes cannot share"):
        asked(tmp_path, teacher="batch_samples = 63")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_gpus_that_are_not_there_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="wants a GPU and torch finds none here"):
        api.make(asked(tmp_path, top='device = "gpu"'), "teacher")


def test_the_job_gives_back_the_recipe(tmp_path: Path) -> None:
    """Absent values, lists of terms, one of several teachers: all through JSON."""
    recipe = load_recipe("digits", [Path(__file__).resolve().parents[2] / "recipes"])
    terms = (LossTerm("hard", 0.1), LossTerm("dkd", 0.9, alpha=1.0))
    several = dataclasses.replace(recipe, distill=dataclasses.replace(recipe.distill, loss=terms))
    member = MemberParams(width=64, seed=9, weight=1.0)
    one = members(dataclasses.replace(several, teachers=(member,)))[0]
    table = job_table(one, "teacher", {"dataset": Path("a"), "out": Path("b"), "work": None})
    (tmp_path / "job.json").write_text(json.dumps(table))
    job = read_job([str(tmp_path / "job.json")])
    assert job["recipe"].distill.loss == terms and "work" not in job
    assert (job["recipe"].seed, job["recipe"].teacher.width) == (9, 64)
    assert job["dataset"] == Path("a").absolute()


def test_a_job_for_several_machines_is_written(tmp_path: Path) -> None:
    request = asked(tmp_path)
    job = api.training_job(request, "teacher", tmp_path / "out")
    (tmp_path / "job.json").write_text(json.dumps(job))
    found = read_job([str(tmp_path / "job.json")])
    assert found["dataset"] == api.make(request, "dataset").path.absolute() and not found["told"]
    assert found["work"].is_dir() and found["recipe"].name == "together"
    with pytest.raises(
        ConfigError, match="'report' is no training in several processes; known: distill, teacher"
    ):
        api.training_job(request, "report", tmp_path)


def test_lines_of_others_are_passed_over() -> None:
    seen: list[object] = []
    lines = ["[W123] a library's word\n", '{"progress": ["x", 1, 2]}\n', '{"metrics": {"loss": 1.5}}\n']
    assert _followed(iter(lines), lambda *row: seen.append(row)) == {"loss": 1.5}  # type: ignore[arg-type]
    assert seen == [("x", 1, 2)]
    with pytest.raises(VerifyError, match="a sentence"):
        _followed(iter(['{"error": ["VerifyError", "a sentence"]}\n']), print)  # type: ignore[arg-type]


def test_nobody_trains_on_when_nobody_listens(tmp_path: Path) -> None:
    """A reader that goes away is a broken pipe at the next line, which ends the process."""
    program = "from edgekd.learn.launch import _progress\nfor i in range(100000): _progress('x', i, 1)"
    root = str(Path(__file__).resolve().parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": root},
    ) as process:
        assert process.stdout is not None and process.stdout.readline().startswith(b'{"progress"')
        process.stdout.close()
        assert process.wait(120) != 0

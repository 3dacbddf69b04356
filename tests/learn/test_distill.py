"""The student learns from the file alone, and the same recipe gives the same bytes."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from edgekd.errors import BudgetError, VerifyError
from edgekd.learn.distill import distill_student
from edgekd.learn.record import write_knowledge
from edgekd.learn.teacher import train_teacher
from edgekd.learn.torch_tools import deterministic
from edgekd.learn.training import Schedule, Watch, train
from tests.learn.chain import Chain, make_chain, small_recipe

ALONE = """
import sys
from pathlib import Path
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name in ("edgekd.learn.teacher", "edgekd.learn.record"):
            raise ImportError("the teacher's code is not here")
sys.meta_path.insert(0, Refuse())
from edgekd.learn.distill import distill_student
from tests.learn.chain import small_recipe
distill_student(Path(sys.argv[1]), Path(sys.argv[2]), small_recipe(), Path(sys.argv[3]))
"""


def test_the_student_needs_neither_the_teachers_weights_nor_its_code(chain: Chain, tmp_path: Path) -> None:
    """Only data and knowledge are there; importing the teacher fails; the bytes are the chain's."""
    shutil.copytree(chain.data, tmp_path / "data")
    shutil.copytree(chain.knowledge, tmp_path / "knowledge")
    (tmp_path / "out").mkdir()
    places = [str(tmp_path / name) for name in ("data", "knowledge", "out")]
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", ALONE, *places]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    for name in ("student.json", "student.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (chain.student / name).read_bytes()


def test_the_same_recipe_gives_the_same_bytes(chain: Chain, tmp_path: Path) -> None:
    again = make_chain(chain.recipe, tmp_path / "again")
    files = [p.relative_to(chain.root) for p in chain.root.rglob("*") if p.is_file() and p.name != "whole"]
    assert len(files) == 16
    for file in files:
        assert (again.root / file).read_bytes() == (chain.root / file).read_bytes(), file


def test_another_seed_gives_another_student(chain: Chain, tmp_path: Path) -> None:
    recipe = dataclasses.replace(chain.recipe, seed=chain.recipe.seed + 1)
    distill_student(chain.data, chain.knowledge, recipe, tmp_path)
    assert (tmp_path / "student.safetensors").read_bytes() != (
        chain.student / "student.safetensors"
    ).read_bytes()


def test_torchs_global_generator_is_neither_read_nor_moved(chain: Chain, tmp_path: Path) -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    distill_student(chain.data, chain.knowledge, chain.recipe, tmp_path)
    assert torch.equal(before, torch.get_rng_state())


def test_threads_and_determinism_are_put_back() -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with deterministic(1):
        assert torch.get_num_threads() == 1 and torch.are_deterministic_algorithms_enabled()
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_a_student_beyond_its_budget_is_refused_before_training(chain: Chain, tmp_path: Path) -> None:
    student = dataclasses.replace(chain.recipe.student, channels=(32, 64, 64))
    with pytest.raises(BudgetError, match=r"needs \d+ bytes"):
        distill_student(
            chain.data, chain.knowledge, dataclasses.replace(chain.recipe, student=student), tmp_path
        )
    assert not list(tmp_path.iterdir())


def test_a_loss_that_explodes_is_named() -> None:
    def batches(epoch: int, rows: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        return torch.ones(len(rows), 2), ()

    schedule = Schedule(8, 2, 4, 1.0, 0.0, 1, "exploding")
    with pytest.raises(
        VerifyError, match=r"exploding: the loss is -?(nan|inf) in epoch 1, step 1 \(training rows"
    ):
        train(torch.nn.Linear(2, 1), batches, lambda y, t: (y * float("inf")).mean(), schedule)


def test_progress_is_told(chain: Chain, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    recipe = dataclasses.replace(chain.recipe, teacher=dataclasses.replace(chain.recipe.teacher, epochs=2))
    watch = Watch(lambda *row: told.append(row), log=tmp_path / "log.csv")
    train_teacher(chain.data, recipe, tmp_path, watch=watch)
    write_knowledge(chain.data, tmp_path, recipe, tmp_path, watch=watch)
    steps = 1189 // 64
    rows = [(label.split(": loss ")[0], done, total) for label, done, total in told]
    assert ("teacher", steps, 2 * steps) in rows and ("teacher", 2 * steps, 2 * steps) in rows
    assert rows[-3:] == [("knowledge", i, 3) for i in (1, 2, 3)]
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert lines[0] == "purpose,epoch,epochs,loss,accuracy_train,seconds"
    assert [line.split(",")[:3] for line in lines[1:]] == [["teacher", "1", "2"], ["teacher", "2", "2"]]
    assert all(0 < float(line.split(",")[4]) <= 1 for line in lines[1:])


def test_the_small_recipe_is_the_shipped_one_with_less_training() -> None:
    assert small_recipe().student.channels == (16, 32, 28)

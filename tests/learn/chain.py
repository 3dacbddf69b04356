"""A small trained chain that tests of several parts share: data to int8.onnx, made once a test run.

Few epochs: it is for mechanics; the accuracy bounds of the real recipe have a test of their own.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from edgekd.compress import compress_student
from edgekd.data import load_dataset, prepare
from edgekd.recipe import Recipe, load_recipe

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def small_recipe() -> Recipe:
    """The digits recipe with little training."""
    recipe = load_recipe("digits", [RECIPES])
    return dataclasses.replace(
        recipe,
        teacher=dataclasses.replace(recipe.teacher, width=8, epochs=6),
        knowledge=dataclasses.replace(recipe.knowledge, views=3),
        distill=dataclasses.replace(recipe.distill, epochs=9, learning_rate=0.01),
        compress=dataclasses.replace(recipe.compress, methods=()),
    )


@dataclass(frozen=True)
class Chain:
    """A recipe and the directory of each artifact that it made."""

    recipe: Recipe
    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def teacher(self) -> Path:
        return self.root / "teacher"

    @property
    def knowledge(self) -> Path:
        return self.root / "knowledge"

    @property
    def student(self) -> Path:
        return self.root / "student"

    @property
    def compressed(self) -> Path:
        return self.root / "compressed"

    @property
    def model(self) -> Path:
        return self.root / "onnx" / "model.onnx"

    @property
    def int8(self) -> Path:
        return self.root / "int8" / "int8.onnx"


def make_chain(recipe: Recipe, root: Path) -> Chain:
    """Run every stage of `recipe` into directories under `root`."""
    from edgekd.export.torch_to_onnx import export_student
    from edgekd.learn.distill import distill_student
    from edgekd.learn.record import write_knowledge
    from edgekd.learn.teacher import train_teacher
    from edgekd.quantize.ptq import quantize_onnx

    chain = Chain(recipe, root)
    for name in ("data", "teacher", "knowledge", "student", "compressed", "onnx", "int8"):
        (root / name).mkdir(parents=True)
    prepare(recipe, chain.data)
    train_teacher(chain.data, recipe, chain.teacher)
    write_knowledge(chain.data, chain.teacher, recipe, chain.knowledge)
    distill_student(chain.data, chain.knowledge, recipe, chain.student)
    compress_student(chain.student, chain.data, chain.knowledge, recipe, chain.compressed)
    export_student(chain.compressed, chain.data, chain.model.parent)
    calibration = load_dataset(chain.data).part("calibration")[0]
    quantize_onnx(chain.model.read_bytes(), calibration, recipe.quantize, chain.int8.parent)
    return chain


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Chain:
    """The small chain, made by whichever worker comes first."""
    base = tmp_path_factory.getbasetemp()
    base = base if worker_id == "master" else base.parent
    root = base / "small-chain"
    with FileLock(base / "small-chain.lock"):
        if not (root / "whole").exists():
            make_chain(small_recipe(), root)
            (root / "whole").touch()
    return Chain(small_recipe(), root)

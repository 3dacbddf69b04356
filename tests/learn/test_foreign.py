"""Teachers that others made, a function of the project or an ONNX file: asked as ours are."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekd.data import load_dataset
from edgekd.errors import ArtifactError, ConfigError
from edgekd.export.torch_to_onnx import export_net
from edgekd.learn.foreign import OnnxNet
from edgekd.learn.knowledge import FILE, read_knowledge
from edgekd.learn.record import write_knowledge
from edgekd.learn.teacher import load_teacher, train_teacher
from edgekd.learn.torch_tools import predict
from edgekd.recipe import Recipe, load_recipe, located
from tests.learn.chain import Chain

FACTORY = """
import torch
def make(channels, classes):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64 * channels, classes))
def wrong(channels, classes):
    return 3
def failing(channels, classes):
    raise ValueError("no weights here")
"""


def with_teacher(chain: Chain, **changes: Any) -> Recipe:
    return dataclasses.replace(chain.recipe, teacher=dataclasses.replace(chain.recipe.teacher, **changes))


def places(tmp_path: Path, *names: str) -> list[Path]:
    for name in names:
        (tmp_path / name).mkdir()
    return [tmp_path / name for name in names]


def test_a_function_of_the_project_is_trained_and_asked(chain: Chain, tmp_path: Path) -> None:
    (tmp_path / "my_teachers.py").write_text(FACTORY)
    recipe = located(with_teacher(chain, model="my_teachers:make", epochs=3), tmp_path)
    teacher, knowledge = places(tmp_path, "teacher", "knowledge")
    assert train_teacher(chain.data, recipe, teacher)["accuracy_test"] > 0.5
    write_knowledge(chain.data, teacher, recipe, knowledge)
    data = load_dataset(chain.data)
    stored = read_knowledge(knowledge / FILE, data).read(0, np.arange(20))
    found = predict(load_teacher(teacher, recipe.teacher.code).net, data.part("train")[0][:20])
    assert np.allclose(stored, found, rtol=1e-2, atol=1e-2)
    assert str(tmp_path) not in (teacher / "teacher.json").read_text()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wrong", "returned int; return a torch.nn.Module"),
        ("failing", "raised ValueError: no weights here"),
        ("absent", "has no function 'absent'"),
    ],
)
def test_what_is_wrong_with_a_function_is_named(chain: Chain, tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / f"teachers_{name}.py").write_text(FACTORY)
    recipe = located(with_teacher(chain, model=f"teachers_{name}:{name}"), tmp_path)
    with pytest.raises(ConfigError, match=said):
        train_teacher(chain.data, recipe, places(tmp_path, "out")[0])
    with pytest.raises(ConfigError, match=r"module nowhere_else of teacher\.model is neither in"):
        located(with_teacher(chain, model="nowhere_else:make"), tmp_path)


def test_an_onnx_file_teaches_as_the_network_it_came_from(chain: Chain, tmp_path: Path) -> None:
    """Batch 1 in the file: asked sample by sample."""
    original = load_teacher(chain.teacher)
    (tmp_path / "t.onnx").write_bytes(export_net(original.net, (1, 8, 8)))
    recipe = with_teacher(chain, model="onnx", checkpoint=str(tmp_path / "t.onnx"), epochs=0)
    teacher, knowledge = places(tmp_path, "teacher", "knowledge")
    train_teacher(chain.data, recipe, teacher)
    write_knowledge(chain.data, teacher, recipe, knowledge)
    data, rows = load_dataset(chain.data), np.arange(100)
    ours = read_knowledge(chain.knowledge / FILE, data)
    theirs = read_knowledge(knowledge / FILE, data)
    assert list(ours.teachers) != list(theirs.teachers)
    assert np.allclose(ours.read(1, rows), theirs.read(1, rows), rtol=1e-2, atol=1e-2)
    (teacher / "teacher.onnx").write_bytes(b"another")
    with pytest.raises(ArtifactError, match="is not a model that ONNX Runtime loads"):
        load_teacher(teacher)


def test_an_onnx_file_that_does_not_fit_is_named(chain: Chain) -> None:
    model = export_net(load_teacher(chain.teacher).net, (1, 8, 8))
    with pytest.raises(ArtifactError, match=r"takes .* and the samples are"):
        OnnxNet(model, False, 10, "t.onnx")(torch.zeros(2, 1, 9, 8))
    with pytest.raises(ArtifactError, match="the data set has 7 classes"):
        OnnxNet(model, False, 7, "t.onnx")(torch.zeros(2, 1, 8, 8))


def test_pixels_in_0_to_1_are_given_where_they_are_wanted() -> None:
    model = export_net(torch.nn.Flatten(), (1, 2, 2))
    byte = torch.tensor([0.0, 51, 128, 255]).reshape(1, 1, 2, 2)
    found = OnnxNet(model, True, 4, "t.onnx")((byte - 128) / 64)
    assert torch.allclose(found, byte.reshape(1, 4) / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('model = "resnet65"', "teacher.model is 'resnet65'; did you mean resnet56"),
        ('model = "onnx"\nepochs = 0', "set teacher.checkpoint and epochs = 0"),
        ('model = "onnx"\ncheckpoint = "t.onnx"', "set teacher.checkpoint and epochs = 0"),
        ('code = "x.py"', "leave it out"),
    ],
)
def test_a_recipes_teacher_is_checked(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "r.toml").write_text(f'name = "r"\ndescription = "a test"\n[teacher]\n{text}\n')
    with pytest.raises(ConfigError, match=said):
        load_recipe("r", [tmp_path])

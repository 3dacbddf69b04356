"""Hints: losses on maps by hand, the live teacher beside the student, refused where there is none."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from edgekd.errors import ConfigError, VerifyError
from edgekd.learn.distill import distill_student, fit, lesson, new_student
from edgekd.learn.hints import hints_of
from edgekd.learn.knowledge import FILE, read_knowledge
from edgekd.learn.losses import attention, fitnet, student_loss
from edgekd.learn.structure import separable
from edgekd.learn.teacher import train_teacher
from edgekd.learn.torch_tools import PLAIN, deterministic
from edgekd.learn.training import Watch
from edgekd.recipe import LossTerm, Recipe, load_recipe
from tests.learn.chain import Chain
from tests.learn.test_training import digest

KD = LossTerm("kd", 0.9)
# The small chain's teacher: 3 is the second convolution (8 x 8), 7 the third, behind the pool (4 x 4).
FITNET = LossTerm("fitnet", 0.5, student_layer="layers.2", teacher_layer="7")
ATTENTION = LossTerm("attention", 2.0, student_layer="layers.4", teacher_layer="3")


def with_terms(chain: Chain, *terms: LossTerm, **changes: Any) -> Recipe:
    distill = dataclasses.replace(chain.recipe.distill, loss=terms, **changes)
    return dataclasses.replace(chain.recipe, distill=distill)


def test_fitnet_by_hand() -> None:
    mine, theirs = torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[0.0, 5.0]]]])
    assert fitnet(mine, theirs).item() == pytest.approx((1 + 9) / 2)


def test_attention_by_hand() -> None:
    """Two channels, two positions: squares summed over channels, the vectors' lengths brought to 1."""
    mine = torch.tensor([[[[1.0, 0.0]], [[1.0, 1.0]]]])  # 1 + 1, 0 + 1: (2, 1) / sqrt 5
    theirs = torch.tensor([[[[0.0, 2.0]], [[0.0, 0.0]]]])  # (0, 4): (0, 1)
    expected = (2 / math.sqrt(5)) ** 2 + (1 / math.sqrt(5) - 1) ** 2
    assert attention(mine, theirs).item() == pytest.approx(expected)
    assert attention(3 * mine, mine).item() == pytest.approx(0, abs=1e-6)
    apart = torch.tensor([[[[0.0, 7.0]]]]), torch.tensor([[[[2.0, 0.0]]]])
    assert attention(*apart).item() == pytest.approx(2)


def test_the_hints_value_is_the_terms_by_hand(chain: Chain) -> None:
    """Maps taken out of both networks without hooks, pooled, regressed, weighed."""
    student = new_student(separable(chain.recipe.student, (1, 8, 8), 10), 1)
    hints = hints_of(student, (FITNET, ATTENTION), chain.teacher, "", 1, PLAIN)
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    student.eval()(x)
    found = hints.value(x)
    layers, teacher = student.layers, hints.teacher
    with torch.no_grad():
        second = layers[2](layers[1](layers[0](x)))
        fourth = layers[4](layers[3](second))
        shallow, deep = teacher[:4](x), teacher[:8](x)  # type: ignore[index]
        one = (hints.net.regressors[0](second) - deep).square().mean()
        two = attention(fourth, torch.nn.functional.avg_pool2d(shallow, 2))
    assert second.shape[2:] == deep.shape[2:] == (4, 4) and shallow.shape[2:] == (8, 8)
    assert found.item() == pytest.approx((0.5 * one + 2.0 * two).item(), rel=1e-5)
    found.backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert hints.net.regressors[0].weight.grad is not None and layers[0].conv.weight.grad is not None


def test_a_student_learns_with_a_live_teacher(chain: Chain, tmp_path: Path) -> None:
    recipe = with_terms(chain, KD, FITNET, ATTENTION)
    metrics = distill_student(chain.data, chain.knowledge, recipe, tmp_path, teacher_dir=chain.teacher)
    assert metrics["accuracy_test"] > 0.4
    student = (tmp_path / "student.safetensors").read_bytes()
    assert student != (chain.student / "student.safetensors").read_bytes() and b"regressors" not in student


def test_a_stopped_run_with_hints_ends_in_the_unbroken_runs_bytes(chain: Chain, tmp_path: Path) -> None:
    from edgekd.data import load_dataset

    data = load_dataset(chain.data)
    taught = lesson(read_knowledge(chain.knowledge / FILE, data), data)
    params = dataclasses.replace(with_terms(chain, KD, FITNET, epochs=3, mixup=0.3, ema=0.9).distill)

    def run(work: Path | None = None, dies_in: int = -1) -> str:
        def batches(epoch: int, rows: torch.Tensor) -> Any:
            if epoch == dies_in:
                raise KeyboardInterrupt
            return taught.batches(epoch, rows)

        net = new_student(separable(chain.recipe.student, (1, 8, 8), 10), 1)
        hints = hints_of(net, params.hints, chain.teacher, "", 1, PLAIN)
        with deterministic(1):
            fit(net, batches, student_loss(params), params, 256, 1, Watch(work=work), hints=hints)
        return digest(net)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, 2)
    assert run(tmp_path) == run()


def test_a_file_alone_is_not_enough(chain: Chain, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fitnet compares inner maps .* learns from a file alone; leave"):
        distill_student(chain.data, chain.knowledge, with_terms(chain, KD, FITNET), tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_teacher_is_refused(chain: Chain, tmp_path: Path) -> None:
    other, out = tmp_path / "teacher", tmp_path / "out"
    other.mkdir(), out.mkdir()
    recipe = dataclasses.replace(
        chain.recipe, seed=9, teacher=dataclasses.replace(chain.recipe.teacher, epochs=1)
    )
    train_teacher(chain.data, recipe, other)
    with pytest.raises(VerifyError, match="is not the teacher whose predictions are stored"):
        distill_student(chain.data, chain.knowledge, with_terms(chain, KD, FITNET), out, teacher_dir=other)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"student_layer": "layer.2"}, r"student_layer is 'layer.2'; did you mean layers.2\?"),
        ({"teacher_layer": "70"}, "teacher_layer is '70'"),
        ({"student_layer": "layers.6"}, r"layer 'layers.6' gives no maps"),
    ],
)
def test_layers_that_do_not_fit_are_one_sentence(
    chain: Chain, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    recipe = with_terms(chain, KD, dataclasses.replace(FITNET, **changes))
    with pytest.raises(ConfigError, match=said):
        distill_student(chain.data, chain.knowledge, recipe, tmp_path, teacher_dir=chain.teacher)


HEAD = 'name = "mine"\ndescription = "a test"\n'
TERM = '[[distill.loss]]\nname = "fitnet"\nstudent_layer = "layers.2"\nteacher_layer = "7"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TERM, "distill.loss has hints alone, which teach no answer"),
        (TERM.replace('teacher_layer = "7"\n', ""), "fitnet compares maps; set both of its _layer keys"),
        (
            TERM
            + '[[distill.loss]]\nname = "hard"\n[teacher]\nmodel = "onnx"\nepochs = 0\ncheckpoint = "x"\n',
            "an ONNX teacher shows its outputs alone",
        ),
        (TERM + '[teacher]\nmodel = "none"\n', "fitnet compares with a teacher, and teacher.model is none"),
        ('[distill]\nloss = "fitnet"\n', "distill.loss is 'fitnet'"),
    ],
)
def test_recipes_with_hints_that_cannot_be(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "mine.toml").write_text(HEAD + text)
    with pytest.raises(ConfigError) as caught:
        load_recipe("mine", [tmp_path])
    assert said in str(caught.value) and "\n" not in str(caught.value)

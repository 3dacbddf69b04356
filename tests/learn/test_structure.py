"""A student's cost is counted without torch, and the recipe's limits are hard."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable

import pytest

from edgekd.errors import ArtifactError, BudgetError, ConfigError
from edgekd.learn.structure import LayerSpec, Structure, mobilenet, residual, separable
from edgekd.recipe import StudentParams, load_recipe
from tests.learn.chain import RECIPES

TINY = Structure(
    (2, 5, 7),
    (
        LayerSpec("conv", 2, 4, 3, 2, relu=True),
        LayerSpec("conv", 4, 4, 3, 1, groups=4),
        LayerSpec("pool", 4, 4),
        LayerSpec("dense", 4, 3),
    ),
)


def test_bytes_and_macs_counted_by_hand() -> None:
    assert TINY.weight_bytes == (4 * 2 * 9 + 16) + (4 * 9 + 16) + (4 * 3 + 12)
    assert TINY.macs == 12 * (4 * 2 * 9) + 12 * (4 * 9) + 4 * 3  # 3 x 4 pixels behind stride 2


def test_json_and_back() -> None:
    assert Structure.from_json(TINY.to_json()) == TINY


@pytest.mark.parametrize("table", [{}, {"input_shape": [1, 8, 8]}, {"input_shape": 3, "layers": []}])
def test_a_broken_structure_is_refused(table: dict[str, object]) -> None:
    with pytest.raises(ArtifactError, match="distill it again"):
        Structure.from_json(table)
    unknown = {**TINY.to_json(), "layers": [{"kind": "attention", "inputs": 1, "outputs": 1}]}
    with pytest.raises(ArtifactError, match="unknown kind"):
        Structure.from_json(unknown)


def test_the_digits_student_keeps_the_limits_of_its_recipe() -> None:
    params = load_recipe("digits", [RECIPES]).student
    assert params.max_weight_bytes <= 4096 and params.max_macs <= 40_000
    structure = separable(params, (1, 8, 8), 10)
    assert structure.weight_bytes <= 4096 and structure.macs <= 40_000
    assert all(layer.outputs % 4 == 0 for layer in structure.layers if layer.kind == "conv")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_weight_bytes": 2799}, "needs 2800 bytes .* allows 2799"),
        ({"max_macs": 38_935}, "needs 38936 multiply-accumulates .* allows 38935"),
    ],
)
def test_a_student_beyond_its_limits_is_refused(changes: dict[str, int], said: str) -> None:
    params = dataclasses.replace(load_recipe("digits", [RECIPES]).student, **changes)
    with pytest.raises(BudgetError, match=said):
        separable(params, (1, 8, 8), 10)


@pytest.mark.parametrize("build", [separable, residual])
def test_samples_that_are_no_images_are_refused(build: Callable[..., Structure]) -> None:
    with pytest.raises(ConfigError, match=r"takes samples \[channels, height, width\] .* shape \(640,\)"):
        build(RESNET8, (640,), 10)


def test_counting_needs_no_torch() -> None:
    code = "import sys, edgekd.learn.structure, edgekd.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert StudentParams().channels  # the default recipe's own structure


RESNET8 = StudentParams(
    "resnet", (16, 16, 32, 64), (1, 1, 2, 2), max_weight_bytes=79_000, max_macs=12_510_000
)


def test_resnet8_is_mlperf_tinys() -> None:
    """77,360 weights and 12,501,632 multiply-accumulates, as the reference model's own file."""
    structure = residual(RESNET8, (3, 32, 32), 10)
    assert sum(layer.weights for layer in structure.layers) == 77_360
    assert structure.macs == 12_501_632
    assert structure.weight_bytes == 77_360 + 4 * 346
    assert [layer.kind for layer in structure.layers].count("add") == 3
    assert Structure.from_json(structure.to_json()) == structure


def test_mobilenet_is_mlperf_tinys() -> None:
    """Visual wake words: 0.22 M parameters and 7.5 M multiply-accumulates, two classes."""
    params = StudentParams("mobilenet", width=0.25, max_weight_bytes=400_000, max_macs=8_000_000)
    structure = mobilenet(params, (3, 96, 96), 2)
    assert len(structure.layers) == 1 + 2 * 13 + 2
    assert structure.macs == 7_489_664
    assert sum(layer.weights for layer in structure.layers) == 208_112


@pytest.mark.parametrize("changes", [{"other": 9}, {"other": None}, {"source": 3}, {"source": -2}])
def test_a_sum_of_what_is_not_there_is_refused(changes: dict[str, int | None]) -> None:
    table = residual(RESNET8, (3, 32, 32), 10).to_json()
    table["layers"][3] |= changes
    with pytest.raises(ArtifactError, match="layer 3 takes what is not there"):
        Structure.from_json(table)

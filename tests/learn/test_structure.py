"""A student's cost is counted without torch, and the recipe's limits are hard."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from edgekd.errors import ArtifactError, BudgetError
from edgekd.learn.structure import LayerSpec, Structure, separable
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


def test_counting_needs_no_torch() -> None:
    code = "import sys, edgekd.learn.structure, edgekd.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert StudentParams().channels  # the default recipe's own structure

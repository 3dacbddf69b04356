"""Low rank: the algebra, when it splits, and the stage around it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekd.compress import compress_student
from edgekd.compress.lowrank import factors, lowrank, rank_for, splits
from edgekd.errors import VerifyError
from edgekd.learn.structure import LayerSpec, Structure
from edgekd.learn.student import StudentNet, load_student
from edgekd.learn.torch_tools import predict
from edgekd.recipe import CompressParams
from tests.learn.chain import Chain

WIDE = Structure(
    (1, 6, 6),
    (
        LayerSpec("conv", 1, 32, 3, 2, relu=True),
        LayerSpec("conv", 32, 32, 3, groups=32, relu=True),
        LayerSpec("conv", 32, 40, relu=True),
        LayerSpec("pool", 40, 40),
        LayerSpec("dense", 40, 24),
    ),
)


def test_the_factors_are_the_nearest_matrix_of_their_rank() -> None:
    """Eckart and Young: the error is the energy of the singular values left out."""
    matrix = np.random.Generator(np.random.Philox(1)).normal(size=(12, 20))
    values = np.linalg.svd(matrix, compute_uv=False)
    for rank in (1, 5, 12):
        first, second = factors(matrix, rank)
        assert first.shape == (rank, 20) and second.shape == (12, rank)
        error = ((matrix - second @ first) ** 2).sum()
        assert error == pytest.approx((values[rank:] ** 2).sum(), abs=1e-9)


@pytest.mark.parametrize(("energy", "rank"), [(0.5, 1), (0.8, 1), (0.81, 2), (0.96, 2), (0.97, 3), (1.0, 3)])
def test_the_rank_by_energy(energy: float, rank: int) -> None:
    assert rank_for(np.diag(np.sqrt([80.0, 16.0, 4.0])), energy) == rank


@pytest.mark.parametrize(
    ("spec", "rank", "expected"),
    [
        (LayerSpec("conv", 32, 40), 16, True),  # 16 * 72 + 64 = 1216 < 1280
        (LayerSpec("conv", 32, 40), 17, False),  # 17 * 72 + 68 = 1292
        (LayerSpec("dense", 40, 24), 14, True),
        (LayerSpec("conv", 32, 32, 3, groups=32), 1, False),
        (LayerSpec("conv", 8, 8, 3), 1, False),
    ],
)
def test_a_layer_is_split_only_where_bytes_are_saved(spec: LayerSpec, rank: int, expected: bool) -> None:
    assert splits(spec, rank) is expected


def test_a_network_whose_layers_have_low_rank_stays_the_same() -> None:
    torch.manual_seed(0)
    net = StudentNet(WIDE, normalised=False).eval()
    with torch.no_grad():
        net.layers[2].conv.weight.copy_((torch.randn(40, 3) @ torch.randn(3, 32))[:, :, None, None])
        net.layers[4].weight.copy_(torch.randn(24, 2) @ torch.randn(2, 40))
    small = lowrank(net, CompressParams(energy=0.9999))
    kinds = [(spec.kind, spec.inputs, spec.outputs, spec.relu) for spec in small.structure.layers]
    assert kinds == [
        ("conv", 1, 32, True),
        ("conv", 32, 32, True),
        ("conv", 32, 3, False),
        ("conv", 3, 40, True),
        ("pool", 40, 40, False),
        ("dense", 40, 2, False),
        ("dense", 2, 24, False),
    ]
    assert small.structure.weight_bytes < net.structure.weight_bytes
    x = np.random.Generator(np.random.Philox(0)).normal(size=(5, 1, 6, 6)).astype(np.float32)
    assert np.allclose(predict(net, x), predict(small, x), rtol=1e-3, atol=1e-2)


def test_without_methods_the_student_passes_through(chain: Chain) -> None:
    assert chain.recipe.compress.methods == ()
    for name in ("student.json", "student.safetensors"):
        assert (chain.compressed / name).read_bytes() == (chain.student / name).read_bytes()


def test_the_stage_saves_bytes_and_tuning_wins_accuracy_back(chain: Chain, tmp_path: Path) -> None:
    results = {}
    for epochs in (0, 3):
        out = tmp_path / str(epochs)
        out.mkdir()
        params = CompressParams(methods=("lowrank",), energy=0.8, epochs=epochs, learning_rate=0.005)
        recipe = dataclasses.replace(chain.recipe, compress=params)
        results[epochs] = compress_student(chain.student, chain.data, chain.knowledge, recipe, out)
        assert results[epochs]["weight_bytes_saved"] > 100
        assert load_student(out).net.structure.weight_bytes == results[epochs]["weight_bytes"]
    assert results[3]["accuracy_test"] > results[0]["accuracy_test"]


def test_a_student_of_other_knowledge_is_refused(chain: Chain, tmp_path: Path) -> None:
    student = tmp_path / "student"
    student.mkdir()
    header = (chain.student / "student.json").read_text()
    knowledge = load_student(chain.student).knowledge_sha256
    (student / "student.json").write_text(header.replace(knowledge, "0" * 64))
    (student / "student.safetensors").write_bytes((chain.student / "student.safetensors").read_bytes())
    with pytest.raises(VerifyError, match="other knowledge"):
        compress_student(student, chain.data, chain.knowledge, chain.recipe, tmp_path)

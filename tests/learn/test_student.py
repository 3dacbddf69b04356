"""The student's network: padding as on the device, folding that changes nothing, files without pickles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgekd.errors import ArtifactError
from edgekd.learn.structure import LayerSpec, Structure
from edgekd.learn.student import PaddedConv, StudentNet, fold, load_student, save_student
from edgekd.learn.torch_tools import initialise, predict
from edgekd.qgraph.ops import same_padding
from tests.learn.chain import Chain

STRUCTURE = Structure(
    (2, 7, 10),
    (
        LayerSpec("conv", 2, 4, 3, 2, relu=True),
        LayerSpec("conv", 4, 4, 3, 1, groups=4, relu=True),
        LayerSpec("conv", 4, 6),
        LayerSpec("pool", 6, 6),
        LayerSpec("dense", 6, 3),
    ),
)


@pytest.mark.parametrize("extent", [5, 7, 8, 10])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_padding_is_tensorflows_same(extent: int, stride: int, kernel: int) -> None:
    layer = PaddedConv(LayerSpec("conv", 1, 1, kernel, stride), extent, extent, normalised=False)
    x = torch.arange(extent * extent, dtype=torch.float32).reshape(1, 1, extent, extent)
    before, after = same_padding(extent, kernel, stride, 1)
    padded = np.pad(x[0, 0].numpy(), ((before, after), (before, after)))
    weight = layer.conv.weight[0, 0].detach().numpy()
    out = -(-extent // stride)
    expected = [
        [
            (padded[r * stride : r * stride + kernel, c * stride : c * stride + kernel] * weight).sum()
            for c in range(out)
        ]
        for r in range(out)
    ]
    assert layer.conv.bias is not None
    got = layer(x)[0, 0].detach().numpy() - layer.conv.bias.item()
    assert np.allclose(got, expected, rtol=1e-4, atol=1e-3)


def test_folding_batch_norm_changes_nothing() -> None:
    torch.manual_seed(0)
    net = StudentNet(STRUCTURE, normalised=True)
    initialise(net, 3)
    for _ in range(5):
        net(torch.randn(16, 2, 7, 10) * 2 + 1)  # gives the running statistics something to fold
    x = np.random.Generator(np.random.Philox(0)).normal(size=(20, 2, 7, 10)).astype(np.float32)
    folded = fold(net)
    assert not any("norm" in name for name in folded.state_dict())
    assert np.allclose(predict(net, x), predict(folded, x), rtol=1e-4, atol=1e-4)


def test_a_saved_student_is_the_same(tmp_path: Path) -> None:
    net = fold(StudentNet(STRUCTURE, normalised=True).eval())
    save_student(net, ("a", "b", "c"), "d" * 64, "k" * 64, tmp_path)
    student = load_student(tmp_path)
    x = np.ones((2, 2, 7, 10), np.float32)
    assert np.array_equal(predict(student.net, x), predict(net, x))
    assert student.classes == ("a", "b", "c") and student.knowledge_sha256 == "k" * 64


@pytest.mark.parametrize("name", ["student.json", "student.safetensors"])
@pytest.mark.parametrize("damage", ["absent", "empty", "cut"])
def test_a_damaged_student_is_refused(chain: Chain, tmp_path: Path, name: str, damage: str) -> None:
    for file in ("student.json", "student.safetensors"):
        content = (chain.student / file).read_bytes()
        if file == name:
            content = {"absent": b"", "empty": b"", "cut": content[: len(content) // 2]}[damage]
            if damage == "absent":
                continue
        (tmp_path / file).write_bytes(content)
    with pytest.raises(ArtifactError, match="again"):
        load_student(tmp_path)


def test_weights_of_another_structure_are_refused(chain: Chain, tmp_path: Path) -> None:
    save_student(fold(StudentNet(STRUCTURE, normalised=True)), ("a",), "", "", tmp_path)
    (tmp_path / "student.safetensors").write_bytes((chain.student / "student.safetensors").read_bytes())
    with pytest.raises(ArtifactError, match="does not fit its structure"):
        load_student(tmp_path)


def test_no_artifact_is_a_pickle(chain: Chain) -> None:
    for path in (
        *chain.teacher.iterdir(),
        *chain.student.iterdir(),
        *chain.knowledge.iterdir(),
        *chain.data.iterdir(),
    ):
        assert path.suffix in (".json", ".safetensors", ".npz", ".npy"), path
        assert not path.read_bytes().startswith(b"\x80")

"""Branches while training: they fold into one convolution exactly, and int8 works behind it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekd.data import load_dataset
from edgekd.evaluate.metrics import agreement
from edgekd.export.torch_to_onnx import export_net
from edgekd.learn.branches import Branches
from edgekd.learn.distill import distill_student, new_student
from edgekd.learn.structure import LayerSpec, Structure, residual
from edgekd.learn.student import PaddedConv, StudentNet, fold, load_student
from edgekd.learn.torch_tools import initialise, predict
from edgekd.qgraph.edges import quantize_input, strip_float_edges
from edgekd.qgraph.loader import load_graph
from edgekd.qgraph.reference import run
from edgekd.quantize.ptq import quantize_onnx
from edgekd.recipe import QuantizeParams, StudentParams
from tests.learn.chain import Chain


def trained(net: StudentNet, x: torch.Tensor) -> StudentNet:
    """Every batch norm with statistics and weights that are not those it began with."""
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.uniform_(-0.5, 0.5, generator=generator)
    for _ in range(5):
        net(x)
    return net.eval()


@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
@pytest.mark.parametrize(
    "spec",
    [
        LayerSpec("conv", 4, 4, 3),
        LayerSpec("conv", 4, 6, 3, relu=True),
        LayerSpec("conv", 4, 4, 3, groups=4),
        LayerSpec("conv", 4, 4, 3, 2, groups=4),
        LayerSpec("conv", 4, 8, 5, 2),
        LayerSpec("conv", 4, 4, 1),
    ],
    ids=lambda spec: f"{spec.kernel}x{spec.kernel}/{spec.stride}g{spec.groups}to{spec.outputs}",
)
def test_folded_equals_unfolded(spec: LayerSpec, size: tuple[int, int]) -> None:
    net = StudentNet(Structure((4, *size), (spec,)), normalised=True, branched=True)
    initialise(net, 5)
    x = torch.randn(16, 4, *size, generator=torch.Generator().manual_seed(2))
    before, after = predict(trained(net, x), x.numpy()), predict(fold(net), x.numpy())
    assert np.abs(before - after).max() < 1e-5
    layer = net.layers[0]
    assert isinstance(layer, PaddedConv) and (layer.branches is None) == (spec.kernel == 1)
    assert list(fold(net).state_dict()) == ["layers.0.conv.weight", "layers.0.conv.bias"]


def test_the_sum_by_hand() -> None:
    """One pixel, one channel: norm' is the identity, 3 x 3 gives 2, 1 x 1 gives 0.5 x, the shortcut x."""
    branches = Branches(LayerSpec("conv", 1, 1, 3), 1, 1).eval()
    branches.norm.eps = 0.0
    torch.nn.init.constant_(branches.point.weight, 0.5)
    padded = torch.zeros(1, 1, 3, 3)
    padded[0, 0, 1, 1] = 6.0
    with torch.no_grad():
        assert branches(torch.full((1, 1, 1, 1), 2.0), padded).item() == pytest.approx(2 + 3 + 6)
        weight, bias = branches.folded(torch.ones(1, 1, 3, 3))
    assert weight[0, 0].tolist() == [[1, 1, 1], [1, 2.5, 1], [1, 1, 1]] and bias.item() == 0


def test_no_branches_is_the_student_of_before() -> None:
    params = StudentParams("resnet", (4, 4, 8), (1, 1, 2), max_weight_bytes=99_999, max_macs=9_999_999)
    structure = residual(params, (1, 8, 8), 10)
    plain, named = new_student(structure, 1), new_student(structure, 1, "none")
    branched = new_student(structure, 1, "qarepvgg")
    assert plain.state_dict().keys() == named.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), named.parameters(), strict=True))
    assert len(list(branched.parameters())) > len(list(plain.parameters()))
    assert fold(branched).structure == fold(plain).structure


def test_a_branched_student_is_trained_folded_and_quantized(chain: Chain, tmp_path: Path) -> None:
    student = dataclasses.replace(chain.recipe.student, branches="qarepvgg")
    recipe = dataclasses.replace(chain.recipe, student=student)
    metrics = distill_student(chain.data, chain.knowledge, recipe, tmp_path)
    net, data = load_student(tmp_path).net, load_dataset(chain.data)
    assert metrics["accuracy_test"] > 0.4 and metrics["weight_bytes"] == net.structure.weight_bytes <= 4096
    x, _ = data.part("test")
    quantize_onnx(export_net(net, (1, 8, 8)), data.part("calibration")[0], QuantizeParams(), tmp_path)
    graph = strip_float_edges(load_graph((tmp_path / "int8.onnx").read_bytes(), "int8.onnx"))
    inputs = quantize_input(np.moveaxis(x, 1, -1), graph.tensors[graph.inputs[0]])
    int8 = run(graph, [inputs])[0].reshape(len(x), -1)
    assert agreement(int8, predict(net, x)) > 0.9

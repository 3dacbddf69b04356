"""Structured pruning: what goes together, targets kept in multiples of four, the same function without it."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch

from edgekd.compress.prune import narrowed, prune
from edgekd.errors import BudgetError, UnsupportedOpError
from edgekd.learn.structure import LayerSpec, Structure
from edgekd.learn.student import PaddedConv, StudentNet
from edgekd.recipe import CompressParams
from tests.compress.nets import STUDENTS, filled, samples, student


def outputs(net: StudentNet) -> list[int]:
    return [spec.outputs for spec in net.structure.layers]


@pytest.mark.parametrize("keep", [0.75, 0.5, 0.3])
@pytest.mark.parametrize("model", STUDENTS)
def test_the_target_is_kept_in_fours_and_what_is_joined_stays_joined(model: str, keep: float) -> None:
    net = student(model)
    before = copy.deepcopy(net.state_dict())
    small = prune(net, CompressParams(keep=keep))
    share = small.structure.macs / net.structure.macs
    assert keep - 0.15 < share <= keep
    widths, given = outputs(small), outputs(net)
    for spec, width, whole in zip(net.structure.layers[:-1], widths, given, strict=False):
        assert width == whole or (width % 4 == 0 and 4 * width >= whole), spec
    assert widths[-1] == given[-1] and small.structure.input_shape == net.structure.input_shape
    for spec in small.structure.layers:
        if spec.kind == "add":
            assert spec.source is not None and spec.other is not None
            assert widths[spec.source] == widths[spec.other] == spec.outputs
        assert spec.groups in (1, spec.inputs)
    assert small(samples(net)).shape == net(samples(net)).shape
    assert Structure.from_json(small.structure.to_json()) == small.structure
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


@pytest.mark.parametrize("model", STUDENTS)
def test_channels_that_are_zero_go_first_and_change_nothing(model: str) -> None:
    """Half of each group is zeroed by hand: pruned by as much, the function is the same."""
    net = student(model)
    wanted = _zero_half(net)
    target = narrowed(net.structure, wanted).macs / net.structure.macs
    small = prune(net, CompressParams(keep=target))
    assert outputs(small) == [spec.outputs for spec in narrowed(net.structure, wanted).layers]
    assert torch.allclose(small(samples(net)), net(samples(net)), rtol=1e-4, atol=1e-4)


def _zero_half(net: StudentNet) -> list[int]:
    """Zero the odd channels of every group, all that makes or reads them; the widths without them."""
    last = len(net.layers) - 1
    fixed = {last} | ({0} if net.structure.layers[0].groups > 1 else set())  # outputs, and the samples' own
    layers: list[Any] = [layer.conv if isinstance(layer, PaddedConv) else layer for layer in net.layers]
    with torch.no_grad():
        for index, (spec, layer) in enumerate(zip(net.structure.layers, layers, strict=True)):
            if not spec.weights:
                continue
            if index not in fixed:
                layer.weight[1::2] = 0
                layer.bias[1::2] = 0
            if spec.groups == 1 and net.structure.source(index) not in (-1, *fixed):
                layer.weight[:, 1::2] = 0
    return [spec.outputs // (1 if i in fixed else 2) for i, spec in enumerate(net.structure.layers)]


def test_a_weight_that_matters_keeps_its_channel() -> None:
    net = student("ds-cnn")
    with torch.no_grad():
        net.layers[0].conv.weight[5] *= 50
    small = prune(net, CompressParams(keep=0.4))
    assert small.structure.layers[0].outputs < 16
    kept = [row for row in small.layers[0].conv.weight if torch.equal(row, net.layers[0].conv.weight[5])]
    assert len(kept) == 1


def test_the_cost_is_whatever_is_given() -> None:
    net = student("resnet")
    params = CompressParams(keep=0.6)
    by_bytes = prune(net, dataclasses.replace(params, prune_cost="weight_bytes"))
    assert 0.45 < by_bytes.structure.weight_bytes / net.structure.weight_bytes <= 0.6
    assert outputs(by_bytes) != outputs(prune(net, params))
    by_layers = prune(net, params, lambda structure: sum(layer.outputs for layer in structure.layers))
    assert 0.5 < sum(outputs(by_layers)) / sum(outputs(net)) <= 0.6


def test_pruning_twice_gives_the_same_bytes() -> None:
    one, two = (prune(student("resnet"), CompressParams(keep=0.5)).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_all_kept_is_the_same_student() -> None:
    net = student("resnet")
    assert prune(net, CompressParams(keep=1.0)).structure == net.structure


def test_a_target_below_a_quarter_of_each_layer_is_refused_with_what_is_in_reach() -> None:
    with pytest.raises(BudgetError, match=r"keep asks for 0.02 of the cost, .* still costs 0\.\d+; ask for"):
        prune(student("resnet"), CompressParams(keep=0.02))


def test_a_layer_that_the_graph_cannot_follow_is_named() -> None:
    layers = (
        LayerSpec("conv", 1, 8, 3, relu=True),
        LayerSpec("conv", 8, 8, 3, groups=2, relu=True),
        LayerSpec("pool", 8, 8),
        LayerSpec("dense", 8, 4),
    )
    net = filled(Structure((1, 6, 6), layers))
    with pytest.raises(UnsupportedOpError, match=r"layers.1: pruning cannot follow a convolution of 8 to 8"):
        prune(net, CompressParams(keep=0.5))
    wide = dataclasses.replace(layers[1], groups=8, outputs=16), dataclasses.replace(layers[2], inputs=16)
    more = (layers[0], wide[0], dataclasses.replace(wide[1], outputs=16), LayerSpec("dense", 16, 4))
    with pytest.raises(UnsupportedOpError, match=r"layers.1: .* 8 to 16 channels in 8 groups"):
        prune(filled(Structure((1, 6, 6), more)), CompressParams(keep=0.5))

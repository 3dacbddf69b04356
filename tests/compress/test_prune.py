"""Structured pruning: what goes together, targets kept in multiples of four, the same function without it."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch

from edgekd.compress.prune import prune, widths_within
from edgekd.compress.widths import narrowed
from edgekd.errors import BudgetError, ConfigError, UnsupportedOpError
from edgekd.learn.structure import LayerSpec, Structure
from edgekd.learn.student import PaddedConv, StudentNet
from edgekd.recipe import CompressParams
from edgekd.recipe.limits import DeviceLimits, LayerChannels
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


def test_no_layer_keeps_less_than_the_floor() -> None:
    """The same target, met elsewhere; one that the floor forbids is refused with the figure in reach."""
    net = student("resnet")
    low, high = (prune(net, CompressParams(keep=0.5, prune_floor=floor)) for floor in (0.25, 0.5))
    assert any(a * 2 < b for a, b in zip(outputs(low), outputs(net), strict=True))
    assert all(a * 2 >= b for a, b in zip(outputs(high), outputs(net), strict=True))
    with pytest.raises(
        BudgetError, match=r"0.75 of each layer's channels, in multiples of four, still costs"
    ):
        prune(net, CompressParams(keep=0.3, prune_floor=0.75))


def test_widths_can_be_said_and_tied_layers_follow() -> None:
    asked = (LayerChannels("layers.0", 8), LayerChannels("layers.5", 12))
    net = student("resnet")
    small = prune(net, CompressParams(prune_channels=asked))
    wanted = outputs(net)
    wanted[0], wanted[2], wanted[3] = 8, 8, 8  # the stem, the block's end, their sum
    wanted[5], wanted[6], wanted[7] = 12, 12, 12  # and the same of the next block, with its shortcut
    assert outputs(small) == wanted
    assert small(samples(net)).shape == net(samples(net)).shape


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ([("layers.3", 8)], r"layers.3 has no channels that can go; did you mean layers"),
        ([("layers.13", 4)], r"layers.13 has no channels that can go"),
        ([("layers.1", 6)], r"6 channels for layers.1, which has 16; take a multiple of 4 below that"),
        ([("layers.1", 20)], r"20 channels for layers.1, which has 16"),
        (
            [("layers.0", 8), ("layers.2", 12)],
            r"layers.0 and layers.2 are tied, .* give one of them, or both 8",
        ),
    ],
)
def test_widths_that_cannot_be_are_refused(asked: list[tuple[str, int]], said: str) -> None:
    rows = tuple(LayerChannels(*row) for row in asked)
    with pytest.raises(ConfigError, match=f"compress.prune_channels: {said}"):
        prune(student("resnet"), CompressParams(prune_channels=rows))


def pretended(structure: Structure) -> dict[str, float]:
    """A device whose RAM is what its first layer's channels take."""
    return {"cycles": float(structure.macs), "ram_bytes": 100.0 * structure.layers[0].outputs}


def test_widths_within_a_devices_limits() -> None:
    """A share, an amount, and both: all are kept, and what is said is what prune takes."""
    net = student("resnet")
    for limits, share, ram in (
        (DeviceLimits("any", cycles=0.5), 0.5, 1600),
        (DeviceLimits("any", ram_bytes=900), 1.0, 900),
        (DeviceLimits("any", cycles=0.4, ram_bytes=900), 0.4, 900),
    ):
        widths, narrow = widths_within(net, CompressParams(prune_to=limits), pretended)
        assert narrow.macs <= share * net.structure.macs and pretended(narrow)["ram_bytes"] <= ram
        rows = tuple(LayerChannels(**row) for row in widths)  # type: ignore[arg-type]
        assert prune(net, CompressParams(prune_channels=rows)).structure == narrow


def test_a_limit_out_of_reach_says_the_nearest_and_the_gap() -> None:
    limits = DeviceLimits("any", cycles=0.9, ram_bytes=300)
    with pytest.raises(BudgetError) as caught:
        widths_within(student("resnet"), CompressParams(prune_to=limits), pretended)
    said = (
        "asks for 300 ram_bytes on any, and a quarter of each layer's channels, in multiples of four, still"
    )
    assert f"compress.prune_to {said} takes 400: 100 too many; ask for more" in str(caught.value)
    with pytest.raises(UnsupportedOpError, match=r"prune_to.instructions: it cannot be predicted .* on any"):
        unknown = DeviceLimits("any", instructions=0.5)
        widths_within(student("resnet"), CompressParams(prune_to=unknown), pretended)

"""Tucker-2 and the choice of ranks: the algebra, a budget kept, residual networks put together again."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from edgekd.compress.lowrank import lowrank, split
from edgekd.compress.ranks import Option, allocate, cost, options, pays, split_specs
from edgekd.compress.rebuild import rebuilt, weights_of
from edgekd.compress.tucker import kept_energy, projected, tucker2
from edgekd.errors import BudgetError
from edgekd.learn.structure import LayerSpec, Structure
from edgekd.recipe import CompressParams
from tests.compress.nets import filled, samples, student


def normal(*shape: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(3)).normal(size=shape)


def error(weight: np.ndarray, inner: int, outer: int, sweeps: int) -> float:
    first, core, last = tucker2(weight, inner, outer, sweeps)
    back = projected(core, None if last is None else last.T, None if first is None else first)
    return float(((weight - back) ** 2).sum())


def test_a_kernel_of_low_rank_is_found_exactly() -> None:
    weight = projected(normal(4, 8, 3, 3), normal(4, 20), normal(8, 12))
    assert weight.shape == (20, 12, 3, 3)
    assert error(weight, 8, 4, 3) < 1e-18 * (weight**2).sum()
    assert error(weight, 4, 4, 3) > 0.01 * (weight**2).sum()


def test_no_sweep_makes_it_worse_and_some_make_it_better() -> None:
    weight = normal(16, 12, 3, 3)
    errors = [error(weight, 4, 8, sweeps) for sweeps in (0, 1, 2, 5)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.995 * errors[0]
    for mode, rank in ((0, 8), (1, 4)):  # no pair of ranks loses less than one mode alone
        matrix = np.moveaxis(weight, mode, 0).reshape(weight.shape[mode], -1)
        assert errors[-1] >= (np.linalg.svd(matrix, compute_uv=False)[rank:] ** 2).sum() - 1e-9


def test_the_table_of_energies_is_what_the_start_keeps() -> None:
    weight = normal(12, 8, 3, 3)
    table, whole = kept_energy(weight), (weight**2).sum()
    assert table[-1, -1] == pytest.approx(whole)
    for outer, inner in ((4, 4), (8, 4), (12, 4), (4, 8)):
        assert table[outer, inner] == pytest.approx(whole - error(weight, inner, outer, 0))


def test_a_kernel_with_fewer_columns_than_channels_has_a_table_too() -> None:
    table = kept_energy(normal(40, 2, 3, 3))  # unfolded: 40 x 18, so 18 directions at most
    assert table.shape == (41, 3) and table[18, 2] == pytest.approx(table[40, 2])


@pytest.mark.parametrize(
    ("ranks", "kinds"),
    [
        ((4, 8), [(16, 4, 1, 1, False), (4, 8, 3, 2, False), (8, 24, 1, 1, True)]),
        ((16, 8), [(16, 8, 3, 2, False), (8, 24, 1, 1, True)]),
        ((4, 24), [(16, 4, 1, 1, False), (4, 24, 3, 2, True)]),
    ],
)
def test_the_pieces_of_a_convolution(
    ranks: tuple[int, int], kinds: list[tuple[int, int, int, int, bool]]
) -> None:
    specs = split_specs(LayerSpec("conv", 16, 24, 3, 2, relu=True), ranks)
    assert [(s.inputs, s.outputs, s.kernel, s.stride, s.relu) for s in specs] == kinds


def test_full_ranks_compute_the_same() -> None:
    """Odd sizes and a stride of two: the padding is where it was. The bias is added once."""
    net = filled(Structure((6, 7, 5), (LayerSpec("conv", 6, 8, 3, 2, relu=True),)))
    spec, (weight, bias) = net.structure.layers[0], weights_of(net.layers[0])
    low = projected(normal(4, 4, 3, 3), normal(4, 8), normal(4, 6))
    x = samples(net)
    for kernel, ranks in ((low, (4, 4)), (low, (6, 4)), (low, (4, 8)), (weight, (6, 8))):
        whole = rebuilt(net.structure, [[(spec, (kernel, bias))]])
        parts = rebuilt(net.structure, [split(spec, kernel, bias, ranks)])
        assert torch.allclose(whole(x), parts(x), rtol=1e-4, atol=1e-4), ranks


def test_a_split_must_save_bytes_and_multiply_accumulates() -> None:
    spec = LayerSpec("conv", 16, 24, 3, 2)  # 3456 weights on 4 x 4 outputs; 8 x 8 in front of the stride
    assert cost([spec], (8, 8)) == (3456 + 96, 3456 * 16)
    assert cost(split_specs(spec, (8, 8)), (8, 8)) == (
        128 + 576 + 192 + 4 * (8 + 8 + 24),
        128 * 64 + (576 + 192) * 16,
    )
    assert pays(spec, (8, 8), (8, 8))
    narrow = LayerSpec("conv", 16, 8, 3, 2)
    assert cost([narrow], (8, 8)) == (1184, 18_432)
    assert cost(split_specs(narrow, (12, 8)), (8, 8)) == (
        1136,
        26_112,
    )  # the first piece is before the stride
    assert not pays(narrow, (12, 8), (8, 8))


@pytest.mark.parametrize("unit", ["weight_bytes", "macs"])
@pytest.mark.parametrize("model", ["resnet", "autoencoder"])
def test_a_budget_is_kept_and_not_by_far(model: str, unit: str) -> None:
    net = student(model)
    params = CompressParams(lowrank_layers="all", rank_by=unit, rank_share=0.7)
    small = lowrank(net, params)
    share = getattr(small.structure, unit) / getattr(net.structure, unit)
    assert 0.6 < share <= 0.7
    assert small(samples(net)).shape == net(samples(net)).shape
    added = {spec.outputs for spec in small.structure.layers} - {s.outputs for s in net.structure.layers}
    assert all(width % 4 == 0 for width in added)


def test_residual_layers_keep_what_they_take() -> None:
    """Whole ranks change nothing, so sources and shortcuts must lead where they led."""
    net = student("resnet")
    pieces = []
    for spec, layer in zip(net.structure.layers, net.layers, strict=True):
        if not spec.weights:
            pieces.append([(spec, None)])
        elif spec.kernel == 3:
            pieces.append(split(spec, *weights_of(layer), (spec.inputs, spec.outputs)))
        else:  # rank min(in, out): exact
            pieces.append(split(spec, *weights_of(layer), (min(spec.inputs, spec.outputs),)))
    parts = rebuilt(net.structure, pieces)
    assert len(parts.layers) > len(net.layers)
    assert torch.allclose(parts(samples(net)), net(samples(net)), rtol=1e-3, atol=1e-3)
    assert Structure.from_json(parts.structure.to_json()) == parts.structure


def test_by_energy_in_fours_where_convolutions_are_split_too() -> None:
    net = student("resnet")
    small = lowrank(net, CompressParams(energy=0.7, lowrank_layers="all"))
    assert small.structure.macs < net.structure.macs
    assert small.structure.weight_bytes < net.structure.weight_bytes
    assert any(spec.kernel == 3 and spec.inputs not in (3, 16, 24, 32) for spec in small.structure.layers)
    whole = lowrank(net, CompressParams(energy=1.0, lowrank_layers="all"))
    assert whole.structure == net.structure


def test_the_mildest_layers_pay_first() -> None:
    """Layer 1 loses half as much for what it saves; layer 0 takes no more than is still missing."""
    choices = {
        0: [Option((8,), 50, 0.2), Option((4,), 100, 0.6)],
        1: [Option((8,), 60, 0.12), Option((4,), 90, 0.9)],
    }
    assert allocate(choices, 0, "") == {}
    assert allocate(choices, 40, "") == {1: (8,)}
    assert allocate(choices, 100, "") == {1: (8,), 0: (8,)}
    assert allocate(choices, 160, "") == {1: (8,), 0: (4,)}
    assert allocate(choices, 190, "") == {1: (4,), 0: (4,)}


def test_an_option_above_the_hull_is_passed_over() -> None:
    bent = {0: [Option((8,), 10, 0.5), Option((4,), 100, 0.51)], 1: [Option((4,), 60, 0.4)]}
    assert allocate(bent, 70, "") == {0: (4,)}


def test_a_budget_out_of_reach_says_what_is_in_reach() -> None:
    net = student("ds-cnn")
    with pytest.raises(
        BudgetError, match=r"rank_share 0.2 leaves .* weight_bytes, and the smallest ranks sa"
    ):
        lowrank(net, CompressParams(lowrank_layers="all", rank_by="weight_bytes", rank_share=0.2))


def test_options_are_counted_in_the_budgets_unit() -> None:
    spec = LayerSpec("conv", 16, 24, 3)
    weight = normal(24, 16, 3, 3)
    by_bytes, by_macs = (options(spec, weight, (6, 6), unit) for unit in ("weight_bytes", "macs"))
    assert {each.ranks for each in by_bytes} == {each.ranks for each in by_macs}
    assert all(rank % 4 == 0 for each in by_bytes for rank in each.ranks)
    bytes_of = {each.ranks: each.saved for each in by_bytes}
    pieces = cost(split_specs(spec, (4, 8)), (6, 6))
    assert bytes_of[4, 8] == 3456 + 96 - pieces[0]
    lost = {each.ranks: each.lost for each in by_bytes}
    assert lost[4, 8] == pytest.approx(error(weight, 4, 8, 0) / (weight**2).sum())
    assert dataclasses.astuple(by_macs[0])[0] == by_bytes[0].ranks

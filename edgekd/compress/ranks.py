"""Which rank for which layer: every split that pays, and the choice among them that a budget leaves.

The kernels of the devices take channels by four, so ranks that are chosen here are multiples of four. A split
pays where its pieces take fewer bytes AND fewer multiply-accumulates than the layer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from edgekd.compress.tucker import kept_energy, singular_values
from edgekd.errors import BudgetError
from edgekd.learn.structure import LayerSpec, Structure

Values = npt.NDArray[np.float64]

STEP = 4  # channels that a kernel takes at a time
# (rank,) of a matrix; (inner, outer) of a k x k convolution, a mode's whole extent where it is not reduced.
Ranks = tuple[int, ...]


@dataclass(frozen=True)
class Option:
    """One way to split a layer: what it saves of the budget's unit, and the share of the energy it loses."""

    ranks: Ranks
    saved: int
    lost: float


def split_specs(spec: LayerSpec, ranks: Ranks) -> list[LayerSpec]:
    """The pieces of `spec`; the stride is the first's of two 1 x 1 ones, the k x k one's of three."""
    if len(ranks) == 1:
        first = LayerSpec(spec.kind, spec.inputs, ranks[0], stride=spec.stride)
        return [first, dataclasses.replace(spec, inputs=ranks[0], stride=1)]
    inner, outer = ranks
    specs = [LayerSpec("conv", inner, outer, spec.kernel, spec.stride)]
    if inner < spec.inputs:
        specs.insert(0, LayerSpec("conv", spec.inputs, inner))
    if outer < spec.outputs:
        specs.append(LayerSpec("conv", outer, spec.outputs))
    specs[-1] = dataclasses.replace(specs[-1], relu=spec.relu)
    return specs


def cost(specs: Sequence[LayerSpec], size: tuple[int, int]) -> tuple[int, int]:
    """(bytes of int8 weights and int32 biases, multiply-accumulates) of layers behind an input of `size`."""
    first = specs[0]
    shape = (first.inputs,) if first.kind == "dense" else (first.inputs, *size)
    plain = (dataclasses.replace(spec, source=None, other=None) for spec in specs)
    chain = Structure(shape, tuple(plain))
    return chain.weight_bytes, chain.macs


def pays(spec: LayerSpec, ranks: Ranks, size: tuple[int, int]) -> bool:
    """Whether the pieces take fewer bytes and fewer multiply-accumulates than `spec`."""
    before, after = cost([spec], size), cost(split_specs(spec, ranks), size)
    return after[0] < before[0] and after[1] < before[1]


def can_split(spec: LayerSpec) -> bool:
    """Convolutions over all channels and dense layers; depthwise ones have one input channel a filter."""
    return spec.kind in ("conv", "dense") and spec.groups == 1


def options(spec: LayerSpec, weight: Values, size: tuple[int, int], unit: str) -> list[Option]:
    """Every split of a layer that pays. unit: "weight_bytes" or "macs", what `saved` counts."""
    which = ("weight_bytes", "macs").index(unit)
    before = cost([spec], size)[which]
    found = []
    for ranks, kept in _every(spec, weight):
        if pays(spec, ranks, size):
            saved = before - cost(split_specs(spec, ranks), size)[which]
            found.append(Option(ranks, saved, max(0.0, 1 - kept)))
    return found


def _every(spec: LayerSpec, weight: Values) -> list[tuple[Ranks, float]]:
    """(ranks, share of the energy kept) for all multiples of STEP, whether they pay or not."""
    if spec.kernel == 1:
        squares = singular_values(weight.reshape(len(weight), -1)) ** 2
        share = squares.cumsum() / max(squares.sum(), np.finfo(np.float64).tiny)
        return [((rank,), float(share[rank - 1])) for rank in range(STEP, len(squares), STEP)]
    table = kept_energy(weight)
    total = max(float(table[-1, -1]), np.finfo(np.float64).tiny)
    outer, inner = ((*range(STEP, whole, STEP), whole) for whole in (spec.outputs, spec.inputs))
    pairs = [(q, p) for q in inner for p in outer if (q, p) != (spec.inputs, spec.outputs)]
    return [((q, p), float(table[p, q]) / total) for q, p in pairs]


def allocate(choices: Mapping[int, Sequence[Option]], needed: int, what: str) -> dict[int, Ranks]:
    """Layer -> ranks, so that at least `needed` is saved and little energy is lost.

    Each layer's options are reduced to their lower convex hull of loss against saving; its edges are taken in
    the order of loss for a unit saved: no other choice that saves as much loses less. The layer of the last
    edge then takes its mildest option that is enough. Raises BudgetError where all together are too few;
    what: the start of that sentence.
    """
    edges = []
    for layer, found in choices.items():
        corners = _hull(found)
        for before, after in pairwise(corners):
            slope = (after.lost - before.lost) / (after.saved - before.saved)
            edges.append((slope, layer, before, after))
    edges.sort(key=lambda edge: (edge[0], edge[1], edge[3].saved))
    chosen: dict[int, Ranks] = {}
    saved = 0
    for _, layer, before, after in edges:
        if saved >= needed:
            break
        missing = needed - saved
        enough = [each for each in choices[layer] if each.saved - before.saved >= missing]
        taken = min(enough, key=lambda each: (each.lost, -each.saved), default=after)
        chosen[layer] = taken.ranks
        saved += taken.saved - before.saved
    if saved < needed:
        raise BudgetError(
            f"{what}, and the smallest ranks save {saved:,} of the {needed:,} that would have to go; "
            "ask for less, or prune as well"
        )
    return chosen


def _hull(found: Sequence[Option]) -> list[Option]:
    """From the layer as it is, the corners of the lower convex hull of `lost` against `saved`."""
    corners = [Option((), 0, 0.0)]
    best = {each.saved: each for each in sorted(found, key=lambda each: -each.lost)}  # the mildest of equals
    for each in sorted(best.values(), key=lambda each: each.saved):
        while len(corners) > 1 and _is_above(corners[-2], corners[-1], each):
            corners.pop()
        corners.append(each)
    return corners


def _is_above(left: Option, middle: Option, right: Option) -> bool:
    """Whether `middle` lies on or above the line from `left` to `right`."""
    run, whole = middle.saved - left.saved, right.saved - left.saved
    return (middle.lost - left.lost) * whole >= (right.lost - left.lost) * run

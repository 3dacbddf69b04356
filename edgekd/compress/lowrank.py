"""Low rank: a layer becomes two or three thin ones where that takes fewer bytes.

Dense layers and 1 x 1 convolutions: W [out, in] = U S V^T is cut to its r largest singular values:
B = U_r S_r^(1/2), A = S_r^(1/2) V_r^T, and W x is about B (A x) (Eckart and Young 1936: no other matrix of
rank r is nearer). k x k convolutions: Tucker-2 (tucker.py). Of the pieces only the last has an activation.

Ranks are the smallest that keep the recipe's share of the energy, the sum of squared singular values, or what
a budget of bytes or multiply-accumulates leaves (ranks.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.compress.ranks import STEP, Ranks, allocate, can_split, options, pays, split_specs
from edgekd.compress.rebuild import Piece, rebuilt, weights_of
from edgekd.compress.tucker import singular_values, tucker2, unfolded
from edgekd.learn.structure import LayerSpec, Structure
from edgekd.learn.student import StudentNet
from edgekd.recipe import CompressParams

Matrix = npt.NDArray[np.float64]


def lowrank(net: StudentNet, params: CompressParams) -> StudentNet:
    """A student with layers split as `params` asks; untuned, folded; BudgetError as `allocate` says."""
    ranks = _by_energy(net, params) if params.rank_by == "energy" else _by_budget(net, params)
    pieces: list[list[Piece]] = []
    for index, (spec, layer) in enumerate(zip(net.structure.layers, net.layers, strict=True)):
        if not spec.weights:
            pieces.append([(spec, None)])
        elif index not in ranks:
            pieces.append([(spec, weights_of(layer))])
        else:
            pieces.append(split(spec, *weights_of(layer), ranks[index]))
    return rebuilt(net.structure, pieces)


def split(spec: LayerSpec, weight: Matrix, bias: Matrix, ranks: Ranks) -> list[Piece]:
    """The pieces of a layer with their weights; the bias is the last one's."""
    values: list[Matrix | None]
    if len(ranks) == 1:
        values = [*factors(weight.reshape(len(weight), -1), *ranks)]
    else:
        values = [*tucker2(weight, *ranks)]
    parts = [value for value in values if value is not None]
    biases = [*(np.zeros(len(part)) for part in parts[:-1]), bias]
    return list(zip(split_specs(spec, ranks), zip(parts, biases, strict=True), strict=True))


def _by_energy(net: StudentNet, params: CompressParams) -> dict[int, Ranks]:
    """The splits that keep the share of the energy in each mode, where that pays."""
    chosen: dict[int, Ranks] = {}
    for index, spec in _candidates(net.structure, params):
        matrix = weights_of(net.layers[index])[0]
        if params.lowrank_layers == "pointwise":
            rank = rank_for(matrix.reshape(len(matrix), -1), params.energy)
            if splits(spec, rank):
                chosen[index] = (rank,)
            continue
        found = _rounded_ranks(spec, matrix, params.energy)
        whole = all(rank >= full for rank, full in zip(found, _extents(spec), strict=True))
        if not whole and pays(spec, found, net.structure.size_before(index)):
            chosen[index] = found
    return chosen


def _extents(spec: LayerSpec) -> Ranks:
    return (min(spec.inputs, spec.outputs),) if spec.kernel == 1 else (spec.inputs, spec.outputs)


def _rounded_ranks(spec: LayerSpec, weight: Matrix, energy: float) -> Ranks:
    """The ranks that keep `energy`, up to the next multiple of STEP, or to the whole extent."""
    modes = (0,) if spec.kernel == 1 else (1, 0)
    exact = (_rank_of(singular_values(unfolded(weight, mode)), energy) for mode in modes)
    return tuple(min(-(-r // STEP) * STEP, full) for r, full in zip(exact, _extents(spec), strict=True))


def _by_budget(net: StudentNet, params: CompressParams) -> dict[int, Ranks]:
    structure, unit, choices = net.structure, params.rank_by, {}
    for index, spec in _candidates(structure, params):
        size = structure.size_before(index)
        choices[index] = options(spec, weights_of(net.layers[index])[0], size, unit)
    before: Any = getattr(structure, unit)
    needed = before - int(params.rank_share * before)
    what = f"compress.rank_share {params.rank_share:g} leaves {before - needed:,} of {before:,} {unit}"
    return allocate(choices, needed, what)


def _candidates(structure: Structure, params: CompressParams) -> list[tuple[int, LayerSpec]]:
    """The layers that the recipe lets be split."""
    every = params.lowrank_layers == "all"
    specs = enumerate(structure.layers)
    return [(i, spec) for i, spec in specs if can_split(spec) and (every or spec.kernel == 1)]


def rank_for(matrix: Matrix, energy: float) -> int:
    """The smallest rank whose squared singular values are at least the share `energy` of all."""
    return _rank_of(np.asarray(np.linalg.svd(matrix, compute_uv=False), np.float64), energy)


def _rank_of(values: Matrix, energy: float) -> int:
    squares = values**2
    share = np.cumsum(squares) / max(squares.sum(), np.finfo(np.float64).tiny)
    return min(int((share < energy - 1e-12).sum()) + 1, len(squares))


def splits(spec: LayerSpec, rank: int) -> bool:
    """Whether `spec` may be split (pointwise or dense, not depthwise) and is smaller for it.

    Int8 weights and the int32 biases of the extra layer are counted: rank * (in + out) + 4 rank < in * out.
    """
    if spec.kernel != 1 or spec.groups != 1:
        return False
    return rank * (spec.inputs + spec.outputs) + 4 * rank < spec.inputs * spec.outputs


def factors(matrix: Matrix, rank: int) -> tuple[Matrix, Matrix]:
    """(A [rank, in], B [out, rank]) with B A the nearest matrix of that rank to `matrix` [out, in]."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    # The sign of a singular pair is the library's choice; here each left vector's largest entry is positive.
    signs = np.sign(left[np.abs(left).argmax(axis=0), np.arange(left.shape[1])])
    root = np.sqrt(values[:rank])
    return root[:, None] * (right * signs[:, None])[:rank], (left * signs)[:, :rank] * root

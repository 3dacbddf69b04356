"""Low rank: a pointwise convolution or dense layer becomes two thin ones where that takes fewer bytes.

W [out, in] = U S V^T is cut to its r largest singular values: B = U_r S_r^(1/2), A = S_r^(1/2) V_r^T,
and W x is about B (A x) (Eckart and Young 1936: no other rank-r matrix is nearer). The first of the
two layers has no activation. r is the smallest rank that keeps the recipe's share of the energy,
the sum of squared singular values.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgekd.learn.structure import LayerSpec, Structure
from edgekd.learn.student import PaddedConv, StudentNet
from edgekd.recipe import CompressParams

Matrix = npt.NDArray[np.float64]


def lowrank(net: StudentNet, params: CompressParams) -> StudentNet:
    """A student with every layer split whose two factors take fewer bytes than it; untuned, folded."""
    specs: list[LayerSpec] = []
    weights: list[tuple[Matrix, Matrix] | None] = []
    for spec, layer in zip(net.structure.layers, net.layers, strict=True):
        if spec.kind == "pool":
            specs.append(spec)
            weights.append(None)
            continue
        matrix, bias = _matrix(layer)
        rank = rank_for(matrix, params.energy)
        if not splits(spec, rank):
            specs.append(spec)
            weights.append((matrix, bias))
            continue
        first, second = factors(matrix, rank)
        specs += [
            LayerSpec(spec.kind, spec.inputs, rank),
            dataclasses.replace(spec, inputs=rank),
        ]
        weights += [(first, np.zeros(rank)), (second, bias)]
    smaller = StudentNet(Structure(net.structure.input_shape, tuple(specs)), normalised=False)
    for layer, pair in zip(smaller.layers, weights, strict=True):
        if pair is not None:
            _put(layer, *pair)
    return smaller


def rank_for(matrix: Matrix, energy: float) -> int:
    """The smallest rank whose squared singular values are at least the share `energy` of all."""
    squares = np.linalg.svd(matrix, compute_uv=False) ** 2
    share = np.cumsum(squares) / max(squares.sum(), np.finfo(np.float64).tiny)
    return min(int((share < energy - 1e-12).sum()) + 1, len(squares))


def splits(spec: LayerSpec, rank: int) -> bool:
    """Whether `spec` may be split (pointwise or dense, not depthwise) and is smaller for it.

    Int8 weights and the int32 biases of the extra layer are counted: rank * (in + out) + 4 rank < in * out.
    """
    if spec.kernel != 1 or spec.groups != 1 or spec.stride != 1:
        return False
    return rank * (spec.inputs + spec.outputs) + 4 * rank < spec.inputs * spec.outputs


def factors(matrix: Matrix, rank: int) -> tuple[Matrix, Matrix]:
    """(A [rank, in], B [out, rank]) with B A the nearest matrix of that rank to `matrix` [out, in]."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    # The sign of a singular pair is the library's choice; here each left vector's largest entry is positive.
    signs = np.sign(left[np.abs(left).argmax(axis=0), np.arange(left.shape[1])])
    root = np.sqrt(values[:rank])
    return root[:, None] * (right * signs[:, None])[:rank], (left * signs)[:, :rank] * root


def _matrix(layer: Any) -> tuple[Matrix, Matrix]:
    """(weight [out, in * kernel^2 / groups], bias [out]) of a folded layer, float64."""
    module: Any = layer.conv if isinstance(layer, PaddedConv) else layer
    weight = module.weight.detach().numpy().astype(np.float64)
    return weight.reshape(len(weight), -1), module.bias.detach().numpy().astype(np.float64)


def _put(layer: Any, weight: Matrix, bias: Matrix) -> None:
    module: Any = layer.conv if isinstance(layer, PaddedConv) else layer
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(weight.reshape(module.weight.shape)).float())
        module.bias.copy_(torch.from_numpy(bias).float())

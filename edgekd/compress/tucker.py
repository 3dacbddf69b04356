"""Tucker-2: a k x k convolution as 1 x 1 -> k x k on fewer channels -> 1 x 1.

W [out, in, k, k] is about the core C [p, q, k, k] spread by two matrices with orthonormal columns,

    W[o, i, y, x] ~ sum over p, q of U[o, p] V[i, q] C[p, q, y, x]

(Tucker 1966; for convolutions Kim et al. 2015, arXiv 1511.06530). U and V start as the leading singular
vectors of W unfolded along each mode (the truncated higher-order SVD) and are then taken in turn, each the
best for the other (HOOI: De Lathauwer, De Moor and Vandewalle 2000); a sweep never makes the error larger.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

Values = npt.NDArray[np.float64]

SWEEPS = 5  # the error moves in the fourth digit after two or three


def unfolded(weight: Values, mode: int) -> Values:
    """[out, in, k, k] as a matrix with the extent of `mode` (0: out, 1: in) as its rows."""
    return np.moveaxis(weight, mode, 0).reshape(weight.shape[mode], -1)


def leading(matrix: Values, rank: int) -> Values:
    """The `rank` leading left singular vectors [rows, rank]; each one's largest entry is positive."""
    left = _svd(matrix)[0][:, :rank]
    signs = np.sign(left[np.abs(left).argmax(axis=0), np.arange(left.shape[1])])
    return np.asarray(left * signs, np.float64)


def singular_values(matrix: Values) -> Values:
    """Largest first."""
    return _svd(matrix)[1]


def _svd(matrix: Values) -> tuple[Values, Values]:
    """(left vectors, singular values) by torch: it keeps to the recipe's threads, numpy takes every core."""
    left, values, _ = torch.linalg.svd(torch.from_numpy(np.ascontiguousarray(matrix)), full_matrices=False)
    return left.numpy(), values.numpy()


def projected(weight: Values, outer: Values | None, inner: Values | None) -> Values:
    """The core: `weight` seen in the columns of outer [out, p], inner [in, q]; None leaves a mode whole."""
    if outer is not None:
        weight = np.einsum("oiyx,op->piyx", weight, outer)
    if inner is not None:
        weight = np.einsum("oiyx,iq->oqyx", weight, inner)
    return weight


def tucker2(
    weight: Values, inner_rank: int, outer_rank: int, sweeps: int = SWEEPS
) -> tuple[Values | None, Values, Values | None]:
    """(V^T [q, in], C [p, q, k, k], U [out, p]) of weight [out, in, k, k], q = inner_rank, p = outer_rank.

    None in place of V^T or U where the rank is the mode's whole extent: that mode is left as it is. sweeps:
    of HOOI behind the start.
    """
    whole_out, whole_in = outer_rank >= weight.shape[0], inner_rank >= weight.shape[1]
    outer = None if whole_out else leading(unfolded(weight, 0), outer_rank)
    inner = None if whole_in else leading(unfolded(weight, 1), inner_rank)
    for _ in range(0 if whole_out or whole_in else sweeps):
        outer = leading(unfolded(projected(weight, None, inner), 0), outer_rank)
        inner = leading(unfolded(projected(weight, outer, None), 1), inner_rank)
    core = projected(weight, outer, inner)
    return None if inner is None else inner.T, core, outer


def kept_energy(weight: Values) -> Values:
    """[out + 1, in + 1]: the energy that the truncated higher-order SVD keeps with p outer and q inner ranks.

    One decomposition gives all pairs: the whole core's squares, summed from its first corner. HOOI keeps as
    much or more.
    """
    full = projected(
        weight,
        leading(unfolded(weight, 0), weight.shape[0]),
        leading(unfolded(weight, 1), weight.shape[1]),
    )
    energy = (full**2).sum(axis=(2, 3))
    table = np.zeros((weight.shape[0] + 1, weight.shape[1] + 1))
    table[1 : energy.shape[0] + 1, 1 : energy.shape[1] + 1] = energy.cumsum(axis=0).cumsum(axis=1)
    table[energy.shape[0] + 1 :] = table[energy.shape[0]]
    table[:, energy.shape[1] + 1 :] = table[:, [energy.shape[1]]]
    return table

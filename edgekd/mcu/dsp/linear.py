"""What the DSP kernels need to know of one linear layer: weights as a matrix, folded bias, range of sums."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekd.mcu.codegen_case import Case
from edgekd.mcu.dsp.rounding import SUM_LIMIT, Ints
from edgekd.qgraph import requantize

LEAST_WEIGHT = -127  # a pair with -128 does not fit a halfword


@dataclass(frozen=True)
class Linear:
    """weights: int8 [outputs, depth], as the op orders its inputs; shifts: right shifts, at least 1.

    bias: with the input's zero point folded in; lowest, highest: the range of each output's sum.
    """

    weights: npt.NDArray[np.int8]
    bias: Ints
    lowest: Ints
    highest: Ints
    multipliers: Ints
    shifts: Ints


def linear_range(case: Case, weights: npt.NDArray[np.int8]) -> Linear | None:
    """`weights` are [outputs, ...]; None where the DSP kernels' conditions do not hold."""
    matrix = weights.reshape(len(weights), -1)
    clamp = case.clamp()
    whole = (clamp["lowest"], clamp["highest"]) == (-128, 127)
    if case.x.dtype != "int8" or case.y.dtype != "int8" or not whole or matrix.min() < LEAST_WEIGHT:
        return None
    wide = matrix.astype(np.int64)
    given = case.inputs[2].data if len(case.inputs) > 2 else None
    bias = np.zeros(len(matrix), np.int64) if given is None else given.astype(np.int64)
    bias = bias - case.x.zero_point * wide.sum(axis=1)
    lowest = bias + np.minimum(-128 * wide, 127 * wide).sum(axis=1)
    highest = bias + np.maximum(-128 * wide, 127 * wide).sum(axis=1)
    multipliers, shifts = (a.astype(np.int64) for a in requantize.channel_multipliers(case.graph, case.op))
    right = np.where(multipliers == 0, 1, -shifts)
    if max(highest.max(), -lowest.min()) >= SUM_LIMIT or right.min() < 1:
        return None
    return Linear(matrix, bias, lowest, highest, multipliers, right)

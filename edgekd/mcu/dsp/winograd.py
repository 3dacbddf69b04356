"""CONV_2D 3 x 3 of stride 1 by Winograd's F(2 x 2, 3 x 3), exact in integers: weights, roundings, plan.

See k_dsp_winograd_s8.h. Y = A^T [(G g G^T) * (B^T d B)] A; G has halves, so it is doubled: everything is a
whole number, and Y carries a factor 4 (or more: the weights' spare bits, for the rounding). What must fit:
a weight an int16, an input an int16 (|B^T d B| <= 512), the end of a sum an int32. Weights take 32 bytes for
9, so it trades flash for speed, and only runs where that is allowed. docs/kernels.md has the argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekd.mcu.candidate import NHWC, Candidate, Layout
from edgekd.mcu.codegen_case import SCRATCH, Call, Case, Emission
from edgekd.mcu.codegen_text import Value
from edgekd.mcu.dsp import winograd_leaves as leaves
from edgekd.mcu.dsp.linear import Linear, linear_range
from edgekd.mcu.dsp.rounding import CARRIED_BITS, LARGEST_SHIFT, LARGEST_TWICE_SHIFT, Ints, Proved, prove
from edgekd.qgraph.reference.values import before

DRIVER = "k_dsp_winograd_s8"
LEAST_BITS = 2  # the factor 4 that doubling G twice brings
_DOUBLED_G = np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]])
_COLUMN_ORDER = [1, 2, 3, 0]
_INT16 = (1 << 15) - 1


@dataclass(frozen=True)
class Rounding:
    """A proved rounding with the factor 2**carried of each channel's sum."""

    proved: Proved
    carried: Ints


@dataclass(frozen=True)
class Plan:
    """A convolution that Winograd's kernel can run.

    transformed: int64 [outputs, 4, 4, channels], (2G) g (2G)^T.
    """

    case: Case
    linear: Linear
    transformed: Ints
    proofs: Mapping[int, Rounding]

    def takes(self, layout: Layout) -> bool:
        return layout == NHWC

    def candidates(self, shift: int, layout: Layout) -> Iterable[Candidate]:
        weights = packed(self, shift)
        for turns in leaves.possible_turns(self.transformed.shape[3]):
            yield Candidate(f"winograd t{turns}", self._emission(shift, turns, weights))

    def _emission(self, shift: int, turns: int, words: npt.NDArray[np.int32]) -> Emission:
        case, (outputs, _, _, channels) = self.case, self.transformed.shape
        _, in_h, in_w, _ = case.x.shape
        _, out_h, out_w, _ = case.y.shape
        columns = out_w + 2
        weights = case.array("filter", words)
        kernels = (
            leaves.strip(channels, columns),
            leaves.tiles(channels, columns),
            leaves.multiply(channels, outputs, shift, turns),
        )
        block_bytes = max(leaves.block_bytes(channels), -(-in_w * channels // 4) * 4)
        left = before(case.op, in_w, 3, "w")
        fields: dict[str, Value] = {
            "weights": f"(const uint32_t *){weights.name}",
            "out_row_bytes": out_w * outputs,
            "zero": 2 * case.y.zero_point + 1,
            "shift": shift,
            "channels": channels,
            "outputs": outputs,
            "columns": columns,
            "read": min(in_w, columns - left),
            "in_w": in_w,
            "in_h": in_h,
            "out_w": out_w,
            "out_h": out_h,
            "pad_left": left,
            "pad_top": before(case.op, in_h, 3, "h"),
            "in_zero_point": case.x.zero_point,
            "block_words": block_bytes // 4,
            **dict(zip(("strip", "tiles", "multiply"), (kernel.name for kernel in kernels), strict=True)),
        }
        return Emission(
            calls=(Call(DRIVER, ("&layer", case.source(), SCRATCH, case.target())),),
            struct=(f"{DRIVER}_t", fields),
            weights=(weights,),
            macs=out_h * out_w * self.linear.weights.size,
            scratch_bytes=block_bytes + 8 * channels * columns,
            assembly=kernels,
        )


def plan(case: Case) -> Plan | None:
    """None where another kernel must run."""
    if case.inputs[1].encoding is not None:
        return None  # whoever stored the weights as indices wants the flash
    data = case.inputs[1].data
    if data is None or not _shapes_fit(case, data.shape):
        return None
    weights = data.astype(np.int8)
    linear = linear_range(case, weights)
    if linear is None:
        return None
    transformed = transform(weights)
    proofs: dict[int, Rounding] = {}
    if case.y.zero_point == -128:
        proofs = possible_roundings(linear, np.abs(transformed).max(axis=(1, 2, 3)))
    if not proofs and linear.shifts.max() > LARGEST_TWICE_SHIFT:
        return None
    return Plan(case, linear, transformed, proofs)


def _shapes_fit(case: Case, filter_shape: tuple[int, ...]) -> bool:
    """The limits are those of the leaves' addressing, and of the overlap of the last tiles."""
    outputs, rows, columns, channels = filter_shape
    ones = {case.number(f"{what}_{axis}") for what in ("stride", "dilation") for axis in "hw"} == {1}
    _, out_h, out_w, _ = case.y.shape
    return (
        ones
        and (rows, columns) == (3, 3)
        and outputs % 2 == 0
        and outputs <= leaves.MOST_OUTPUTS
        and bool(leaves.possible_turns(channels))
        and out_h >= 2
        and 4 <= out_w <= leaves.MOST_COLUMNS - 2
    )


def transform(weights: npt.NDArray[np.int8]) -> Ints:
    """[outputs, 3, 3, channels] -> (2G) g (2G)^T, int64 [outputs, 4, 4, channels]; at most 9 * 127."""
    g = weights.astype(np.int64)
    found: Ints = np.einsum("ra,oabk,cb->orck", _DOUBLED_G, g, _DOUBLED_G, optimize=True)
    return found


def possible_roundings(linear: Linear, largest: Ints) -> dict[int, Rounding]:
    """Every shift under which all channels are proved.

    largest: of each channel's transformed weights. A channel's factor is as large as the shift wants, as its
    weights still fit int16, and its sums an int32 (CARRIED_BITS holds for every sum below SUM_LIMIT).
    """
    spare = np.floor(np.log2(_INT16 / np.maximum(largest, 1))).astype(np.int64)
    most = np.minimum(LEAST_BITS + spare, CARRIED_BITS)
    top = min(int((linear.shifts + most).min()) - 1, LARGEST_SHIFT)
    found = {}
    for shift in range(top, 5, -1):
        carried = np.clip(shift + 1 - linear.shifts, LEAST_BITS, most)
        proved = prove(linear.multipliers, linear.shifts, linear.lowest, linear.highest, shift, carried)
        if proved is not None:
            found[shift] = Rounding(proved, carried)
    return found


def packed(plan: Plan, shift: int) -> npt.NDArray[np.int32]:
    """The words of k_dsp_winograd_s8_t.weights."""
    linear, (outputs, _, _, channels) = plan.linear, plan.transformed.shape
    rounding = plan.proofs[shift] if shift else None
    carried = rounding.carried if rounding else np.full(outputs, LEAST_BITS)
    weights = plan.transformed << (carried - LEAST_BITS)[:, None, None, None]
    weights[:, 3] *= -1
    weights[:, :, 3] *= -1
    fours = weights[:, :, _COLUMN_ORDER].reshape(outputs // 2, 2, 4, 4, channels // 4, 4) & 0xFFFF
    halves = np.stack([fours[..., 0] | fours[..., 2] << 16, fours[..., 1] | fours[..., 3] << 16], axis=-1)
    rows = np.moveaxis(halves, 1, 4).reshape(outputs // 2, 4, 4 * channels)
    bias = np.zeros((outputs // 2, 4, 2), np.int64)
    bias[:, 1] = (linear.bias << carried).reshape(-1, 2)
    parts = [np.concatenate([bias, rows], axis=2).reshape(outputs // 2, -1)]
    if rounding:
        parts += [rounding.proved.multipliers.reshape(-1, 2), rounding.proved.constants.reshape(-1, 2)]
    else:
        less = (linear.shifts - 1).reshape(-1, 2)
        parts += [linear.multipliers.reshape(-1, 2), less[:, :1] + 256 * less[:, 1:]]
    words = np.concatenate(parts, axis=1)
    return (words & 0xFFFFFFFF).astype(np.uint32).view(np.int32).ravel()

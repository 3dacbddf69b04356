"""Requantization in few instructions, exact by construction or proved at build time.

TFLite rounds acc * multiplier * 2**-(31 + s) twice. For acc >= 0 both roundings are one floor:
(acc * multiplier + 2**30 + 2**(30 + s)) >> (31 + s). Where the output's zero point is -128, a negative acc
clamps in any case, so with the sum carrying a factor 2**8 two instructions give the output:
SMMLA t, acc, m, c and SSAT #8, t, ASR #shift. One `shift` serves all channels of a layer: a channel
whose own s is larger takes a smaller m. `prove` finds for each channel the range of m that gives every one of
the 255 steps of the output at exactly the right sum, over the whole range that the sum can take.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

CARRIED_BITS = 8  # the sum's factor: 2**8
SUM_LIMIT = 1 << 23  # every sum stays below: it must fit a register with its factor
LARGEST_TWICE_SHIFT = 22  # of a channel that is rounded twice: its constant must fit an int32
LARGEST_SHIFT = 22  # the constant c, 2**(shift + 7) at most, must fit an int32
_UNREACHABLE = np.int64(1) << 40
_LONG_SHIFT = 24  # from here on the first step lies beyond SUM_LIMIT


@dataclass(frozen=True)
class Proved:
    """m and c of each channel under one `shift`."""

    shift: int
    multipliers: Ints
    constants: Ints

    def ordered(self, order: Ints) -> Proved:
        return Proved(self.shift, self.multipliers[order], self.constants[order])


def steps(multipliers: Ints, shifts: Ints) -> Ints:
    """[channels, 255]: the smallest sum whose output is at least k above the zero point, k = 1 to 255.

    shifts: right shifts s >= 1. A multiplier of 0 (a dead channel) has no steps.
    """
    s = np.minimum(shifts, _LONG_SHIFT - 1)[:, None]
    k = np.arange(1, 256, dtype=np.int64)[None, :]
    wanted = (k << (31 + s)) - (1 << 30) - (np.int64(1) << (30 + s))
    first = -(-wanted // np.maximum(multipliers, 1)[:, None])
    dead = (multipliers == 0) | (shifts >= _LONG_SHIFT)
    return np.where(dead[:, None], _UNREACHABLE, first)


def prove(
    multipliers: Ints,
    shifts: Ints,
    lowest: Ints,
    highest: Ints,
    shift: int,
    carried: Ints | int = CARRIED_BITS,
) -> Proved | None:
    """m and c for each channel, or None where some channel has no exact m under this `shift`.

    lowest, highest: the range of each channel's sum, within SUM_LIMIT. The zero point is -128 and the output
    uses all of int8. carried: the sum's factor is 2**carried, of all channels or of each; at least 2.
    """
    if not 1 <= shift <= LARGEST_SHIFT:
        return None
    bits = np.broadcast_to(np.asarray(carried, np.int64), shifts.shape)
    fewer = np.clip(shifts + bits - 1 - shift, 0, 31)  # bits that m gives up
    offset = (1 << (shift - 1)) + ((np.int64(1) << (bits - 2)) >> np.minimum(fewer, bits - 1))
    low, high = _window(steps(multipliers, shifts), lowest, highest, shift, offset, bits)
    high = np.minimum(high, (1 << 31) - 1)
    if (low > high).any():
        return None
    nominal = np.where(fewer < 31, multipliers >> fewer, 0)
    return Proved(shift, np.clip(nominal, low, high), offset - (128 << shift))


def _window(
    first: Ints, lowest: Ints, highest: Ints, shift: int, offset: Ints, carried: Ints
) -> tuple[Ints, Ints]:
    """The smallest and the largest m of each channel that put every reachable step where it belongs."""
    k = np.arange(1, 256, dtype=np.int64)[None, :]
    # t >= k << shift exactly when sum * m >= bound.
    bound = ((k << shift) - offset[:, None]) << (32 - carried[:, None])
    above = np.maximum(first, lowest[:, None])
    below = np.minimum(first - 1, highest[:, None])
    reached = above <= highest[:, None]
    missed = (below >= lowest[:, None]) & (below > 0)
    at_least = np.where(reached, -(-bound // np.maximum(above, 1)), 0)
    at_most = np.where(missed, (bound - 1) // np.maximum(below, 1), np.int64(1) << 31)
    return at_least.max(axis=1), at_most.min(axis=1)


Found = TypeVar("Found")
_REMEMBERED = 256  # layers: those of a few graphs


def remembered(work: Callable[..., dict[int, Found]]) -> Callable[..., dict[int, Found]]:
    """The same function of arrays and whole numbers, computed once for the same ones: a search prices many
    graphs that share layers, and a graph is looked at twice where sums are fused. Arrays in what it gives are
    not to be written."""
    known: OrderedDict[tuple[object, ...], dict[int, Found]] = OrderedDict()

    @wraps(work)
    def recalled(*arguments: Ints | int) -> dict[int, Found]:
        key = tuple(a.tobytes() if isinstance(a, np.ndarray) else a for a in arguments)
        if key not in known:
            known[key] = work(*arguments)
            if len(known) > _REMEMBERED:
                known.popitem(last=False)
        known.move_to_end(key)
        return dict(known[key])

    return recalled


@remembered
def possible_shifts(multipliers: Ints, shifts: Ints, lowest: Ints, highest: Ints) -> dict[int, Proved]:
    """Every `shift` under which all channels are proved."""
    live = shifts[(multipliers > 0) & (shifts < _LONG_SHIFT)]
    top = int(live.min()) + CARRIED_BITS - 1 if len(live) else 13
    found = {}
    for shift in range(min(top, LARGEST_SHIFT), 5, -1):
        proved = prove(multipliers, shifts, lowest, highest, shift)
        if proved is not None:
            found[shift] = proved
    return found


@dataclass(frozen=True)
class Folded:
    """A rounding whose constant is part of the bias: SMMUL t, sum, m and SSAT #8, t, ASR #shift.

    left: bits by which each channel's weights (and bias) are shifted; constant: what the bias gains after the
    sum has its whole factor 2**(8 + left); is_constant: channels whose output never changes: their weights
    must be zero, and their bias is `constant` alone; exact: channels that this rounding serves.
    """

    shift: int
    left: Ints
    multipliers: Ints
    constants: Ints
    is_constant: npt.NDArray[np.bool_]
    exact: npt.NDArray[np.bool_]


def fold(multipliers: Ints, shifts: Ints, lowest: Ints, highest: Ints, shift: int) -> Folded:
    """A folded rounding; its `exact` channels are so for every reachable sum. Zero point -128."""
    first = steps(multipliers, shifts)
    changes = (first > lowest[:, None]) & (first <= highest[:, None])
    dead = np.asarray(~changes.any(axis=1), np.bool_)
    least = np.maximum(CARRIED_BITS, shift + 1 - shifts)
    most = _most_bits(multipliers, shifts, lowest, highest)
    total = np.maximum(least, np.minimum(most, least + _MOST_FEWER))
    nominal = np.maximum(multipliers >> np.clip(shifts + total - 1 - shift, 0, 31), 1)
    found, constants = nominal.copy(), np.zeros_like(nominal)
    waiting = np.flatnonzero(~dead)
    for change in _CHANGES:
        at = [a[waiting] for a in (first, lowest, highest, total)]
        m = np.minimum(nominal[waiting] + change, (1 << 31) - 1)
        low, high = _constant_window(at[0], at[1], at[2], m, at[3], shift)
        holds = low <= high
        found[waiting[holds]], constants[waiting[holds]] = m[holds], ((low + high) // 2)[holds]
        waiting = waiting[~holds]
    ends = np.stack([lowest, highest]) * (np.int64(1) << np.clip(total, 0, 20)) + constants
    exact = (np.abs(ends) < 1 << 31).all(axis=0) & (total <= CARRIED_BITS + _MOST_LEFT)
    exact[waiting] = False
    level = (first <= lowest[:, None]).sum(axis=1) - 128  # what a constant channel gives
    middle = ((2 * level + 1) << (shift - 1)) * 4
    return Folded(
        shift,
        np.where(dead, 0, total - CARRIED_BITS),
        np.where(dead, 1 << 30, found),
        np.where(dead, middle, constants),
        dead,
        exact | dead,
    )


_CHANGES = (0, *(sign * (1 << bits) for bits in (12, 14, 16, 18, 20) for sign in (1, -1)))
_MOST_LEFT = 8  # an int8 weight shifted further leaves int16
_MOST_FEWER = 5  # bits that a multiplier may give up for a larger factor


def _most_bits(multipliers: Ints, shifts: Ints, lowest: Ints, highest: Ints) -> Ints:
    """The largest factor under which the sum with its constant, 0 where the output is 0, fits an int32."""
    middle = (np.int64(128) << np.minimum(31 + shifts, 54)) // np.maximum(multipliers, 1)
    largest = np.maximum(np.abs(lowest - middle), np.abs(highest - middle)) + 1
    room: Ints = 30 - np.floor(np.log2(largest)).astype(np.int64)
    return np.minimum(np.maximum(room, CARRIED_BITS), CARRIED_BITS + _MOST_LEFT)


def _constant_window(
    first: Ints, lowest: Ints, highest: Ints, m: Ints, total: Ints, shift: int
) -> tuple[Ints, Ints]:
    """The smallest and the largest constant of each channel under which every reachable step is exact."""
    k = np.arange(-127, 128, dtype=np.int64)[None, :]
    least = -(-(k << (shift + 32)) // m[:, None])  # of the sum with its factor and constant
    above = np.maximum(first, lowest[:, None])
    below = np.minimum(first - 1, highest[:, None])
    factor = np.int64(1) << np.clip(total, 0, 20)[:, None]
    reached, missed = above <= highest[:, None], below >= lowest[:, None]
    far = np.int64(1) << 60
    at_least = np.where(reached, least - np.where(reached, above, 0) * factor, -far)
    at_most = np.where(missed, least - 1 - np.where(missed, below, 0) * factor, far)
    return at_least.max(axis=1), at_most.min(axis=1)


@remembered
def possible_folds(
    multipliers: Ints, shifts: Ints, lowest: Ints, highest: Ints, together: int = 1
) -> dict[int, Folded]:
    """The shifts under which the fewest groups of `together` channels have an inexact one.

    None where more than a quarter of the groups have.
    """
    found = {shift: fold(multipliers, shifts, lowest, highest, shift) for shift in range(8, 20)}
    failing = {
        shift: int((~folded.exact.reshape(-1, together)).any(axis=1).sum()) for shift, folded in found.items()
    }
    fewest = min(failing.values())
    if 4 * fewest > len(shifts) // together:
        return {}
    return {shift: folded for shift, folded in found.items() if failing[shift] == fewest}

"""Real weights to int8 values: scales, what an integer of a few bits may be, the nearest of it.

Scales are symmetric, w = s q. At 8 bits the largest weight decides; with fewer bits clipping it may cost
less than coarse steps do, and the scale with the least squared error is searched. Formulas and figures:
docs/methods/quantization.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekd.qgraph.encoding import Bytes, Int8, uniform_table

Floats = npt.NDArray[np.float32]
Reals = npt.NDArray[np.float64]

BITS = (2, 4, 8)
LARGEST_BIAS = 2**30  # of an int32, so that the sum of products has room
_ROOM = 1 - 2.0**-20  # for the rounding of two float32 scales
_SMALLEST_SCALE = 2.0**-60  # of a channel whose weights are all zero: any scale holds it
_CLIPS = 81  # scales tried, from 0.2 to 1 of the one that clips nothing


@dataclass(frozen=True, eq=False)
class Grid:
    """The values that weights may take: `scales` float32 (one, or one a channel) times `table` int8.

    table: ascending whole numbers, [entries] for all channels. channel_axis: of the weights, where there is a
    scale a channel or several tables. channel_tables: absent, or uint8 [channels]: `table` is then
    [tables, entries] and each output channel has the one of its number.
    """

    scales: Floats
    table: Int8
    channel_axis: int = 0
    channel_tables: Bytes | None = None

    @property
    def bits(self) -> int:
        """Of the index that names an entry of the table."""
        return next(bits for bits in BITS if self.table.shape[-1] <= 1 << bits)

    @property
    def is_uniform(self) -> bool:
        """Whether the table is one without gaps: plain integers."""
        several = self.channel_tables is not None
        return not several and len(self.table) == int(self.table[-1]) - int(self.table[0]) + 1

    def spread(self, ndim: int) -> Floats:
        """The scales in a shape that multiplies weights of `ndim` axes."""
        wide = [1] * ndim
        if self.scales.size > 1:
            wide[self.channel_axis] = -1
        return self.scales.reshape(wide)

    def integers(self, weights: npt.NDArray[np.floating]) -> Int8:
        """The nearest entry for each weight; halfway the even place of the table, as np.rint and torch do."""
        scaled = np.asarray(weights, np.float64) / self.spread(weights.ndim)
        if self.channel_tables is None:
            return nearest(scaled, self.table)
        rows = np.moveaxis(scaled, self.channel_axis, 0)
        found = np.empty(rows.shape, np.int8)
        for number, table in enumerate(self.table):
            mine = self.channel_tables == number
            found[mine] = nearest(rows[mine], table)
        return np.ascontiguousarray(np.moveaxis(found, 0, self.channel_axis))

    def values(self, weights: npt.NDArray[np.floating]) -> Floats:
        """The weights as the integers stand for them."""
        held = self.integers(weights) * self.spread(weights.ndim)
        return np.asarray(held, np.float32)


def levels(bits: int) -> Int8:
    """The integers of a weight: -127 .. 127, -7 .. 7 (TFLite's int4), -2 .. 1."""
    table = uniform_table(bits)
    return table if bits == 2 else table[1:]


def nearest(values: npt.NDArray[np.floating], table: Int8) -> Int8:
    """For each value the entry of an ascending `table` that is nearest to it."""
    if len(table) == int(table[-1]) - int(table[0]) + 1:
        return np.asarray(np.clip(np.rint(values), table[0], table[-1]), np.int8)
    middles = (table[1:].astype(np.float64) + table[:-1]) / 2
    return np.asarray(table[np.searchsorted(middles, values)], np.int8)


def grid_of(weights: Floats, bits: int, axis: int | None, scale_floor: float = 0.0) -> Grid:
    """The grid that holds `weights` best with integers of `bits` bits.

    axis: of the output channels, each with a scale of its own; None: one scale for all. scale_floor: no
    channel's scale is below this share of the largest one, so that a dead channel has a usable multiplier.
    """
    table = levels(bits)
    moved = weights[None] if axis is None else np.moveaxis(weights, axis, 0)
    rows: Reals = np.asarray(moved, np.float64).reshape(len(moved), -1)
    whole = np.maximum(rows.max(axis=1) / table[-1], rows.min(axis=1) / table[0])
    if bits == 8:
        whole = np.abs(rows).max(axis=1) / table[-1]
    scales = whole if bits == 8 else _least_error(rows, whole, table)
    least = max(scale_floor * float(scales.max(initial=0.0)), _SMALLEST_SCALE)
    return Grid(np.maximum(scales, least).astype(np.float32), table, axis or 0)


def _least_error(rows: Reals, whole: Reals, table: Int8) -> Reals:
    """For each row [channels, weights] the share of `whole` that has the least squared error."""
    best, least = whole, np.full(len(rows), np.inf)
    for share in np.linspace(1.0, 0.2, _CLIPS):
        scales = np.maximum(whole * share, _SMALLEST_SCALE)[:, None]
        error = ((nearest(rows / scales, table) * scales - rows) ** 2).sum(axis=1)
        best = np.where(error < least, scales[:, 0], best)
        least = np.minimum(error, least)
    return best


def guarded(scales: Floats, bias: Floats, input_scale: float) -> Floats:
    """Scales raised until every |bias / (input_scale * scale)| is below 2**30: an int32 with room.

    scales: one, or one a channel of `bias`.
    """
    needed = np.abs(bias.astype(np.float64)) / (input_scale * LARGEST_BIAS * _ROOM)
    needed = needed if scales.size > 1 else needed.max(keepdims=True)
    return np.maximum(scales, needed).astype(np.float32)

"""Features of the DSP family's drivers, and what the assembly that they call runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from edgekd.mcu.dsp import copy, dense, depthwise, packed, pairs, widen
from edgekd.mcu.usage import Seen, Usage
from edgekd.mcu.work import NOTHING, Work

BLOCK_PIXELS = 3


def _multiply(seen: Seen) -> Work:
    """One call of the matrix leaf."""
    leaf, matrix = seen.leaf("multiply"), seen.inner("pairs")
    return leaf.once(pairs.runs(leaf, matrix.number("depth"), matrix.number("outputs")))


def _gather(seen: Seen, field: str) -> Work:
    """One call of a leaf that widens windows."""
    leaf, window = seen.leaf(field), seen.inner("widen")
    return leaf.once(widen.runs(leaf, window.number("words"), window.number("rows")))


def pointwise(seen: Seen) -> Usage:
    blocks = -(-seen.number("pixels") // BLOCK_PIXELS)
    return Usage({"calls": 1, "blocks": blocks}, (_gather(seen, "gather") + _multiply(seen)) * blocks)


def conv(seen: Seen) -> Usage:
    walk = _Walk(seen)
    walk.run()
    blocks = walk.features["row blocks"], walk.features["seams"]
    assembly = _gather(seen, "gather_row") * blocks[0] + _gather(seen, "gather") * blocks[1]
    return Usage(walk.features, assembly + _multiply(seen) * sum(blocks) + walk.copies)


class _Walk:
    """The loop of k_dsp_conv_s8, counted."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen
        self.features: Counter[str] = Counter(calls=1)
        self._copied: Counter[bool] = Counter()  # rows, by whether both their ends are aligned
        self._band_rows = seen.number("band_rows")

    def run(self) -> None:
        out_w, out_h, left = (self.seen.number(name) for name in ("out_w", "out_h", "pixels"))
        held, row, column = (-1 if self._band_rows else 0), 0, 0
        reach = 3 if out_w == 1 else 2
        while left > 0:
            self.features["turns"] += 1
            if left < BLOCK_PIXELS:
                column -= BLOCK_PIXELS - left
                row, column = row + column // out_w, column % out_w
                left = BLOCK_PIXELS
            if self._band_rows and (
                held < 0 or row < held or min(row + reach, out_h) > held + self._band_rows
            ):
                self._fill_band(row)
                held = row
            blocks = (out_w - column) // BLOCK_PIXELS
            self.features["row blocks"] += blocks
            self.features["seams"] += not blocks
            self.features["runs"] += blocks > 0
            column += BLOCK_PIXELS * max(blocks, 1)
            row, column = row + column // out_w, column % out_w
            left -= BLOCK_PIXELS * max(blocks, 1)

    def _fill_band(self, row: int) -> None:
        at = self.seen.number
        rows = min(self._band_rows, at("out_h") - row)
        first = row * at("stride_h") - at("pad_top")
        count = (rows - 1) * at("stride_h") + at("filter_h")
        inside = [r for r in range(first, first + count) if 0 <= r < at("in_h")]
        size_bytes, pitch, before = at("in_row_bytes"), at("pitch_bytes"), at("pad_left_bytes")
        self.features["bands"] += 1
        self.features["band rows"] += len(inside)
        self.features["band rows outside"] += count - len(inside)
        self.features["filled bytes"] += len(inside) * (pitch - size_bytes)
        self.features["filled bytes outside"] += (count - len(inside)) * pitch
        for r in inside:
            starts = r * size_bytes, 4 * at("block_words") + (r - first) * pitch + before
            self._copied[all(start % 4 == 0 for start in starts)] += 1

    @property
    def copies(self) -> Work:
        """What the copies of rows into bands run."""
        total, size_bytes = NOTHING, self.seen.number("in_row_bytes") if self._copied else 0
        for aligned, rows in self._copied.items():
            total += self.seen.leaf("copy").once(copy.runs(size_bytes, aligned)) * rows
        return total


def packed_weights(seen: Seen) -> Usage:
    """The plain driver, once a part of the outputs, and the indices' look-up; the tables are not measured."""
    name, chunk, total = str(seen.fields["run"]), seen.number("chunk"), seen.number("outputs")
    driver = {"k_dsp_conv_s8": conv, "k_dsp_pointwise_s8": pointwise}[name]
    counts = [min(chunk, total - at) for at in range(0, total, chunk)]
    plain = seen.inner("conv")
    parts = [seen.inner("conv", pairs=plain.inner("pairs", outputs=count).fields) for count in counts]
    fours = plain.inner("pairs").number("depth") // 4
    look_up = seen.leaf("unpack").once(packed.runs(fours)) * (total // 2)
    return Usage({"calls": 1}, look_up, tuple((name, driver(part)) for part in parts))


def residual(seen: Seen) -> Usage:
    """The convolution's driver, and behind each block the sum's leaf; the last one may be of fewer pixels."""
    name, plain = str(seen.fields["run"]), seen.inner("conv", multiply=seen.fields["multiply"])
    pixels = plain.number("pixels")
    whole, fresh = divmod(pixels, BLOCK_PIXELS)
    leaf = seen.leaf("add")
    sums = leaf.once({"four": seen.inner("sum").number("elements") // 4}) * whole
    if fresh:
        sums += leaf.once({"four": seen.inner("last").number("elements") // 4})
    driver = {"k_dsp_conv_s8": conv, "k_dsp_pointwise_s8": pointwise}[name]
    return Usage({"calls": 1, "blocks": whole + (fresh > 0)}, sums, ((name, driver(plain)),))


def average(seen: Seen) -> Usage:
    groups = seen.number("channels") // 4
    once = seen.leaf("leaf").once({"pixel": seen.number("pixels")})
    return Usage({"calls": 1, "groups": groups}, once * groups)


def depthwise_planes(seen: Seen) -> Usage:
    at = seen.number
    groups, columns = at("channels") // 4, at("columns")
    marks = seen.emission.weights[0].values.astype(np.int8).reshape(-1, depthwise.CHANNEL_BYTES)[::4, 9]
    plain = int((marks < 0).sum())
    outside = columns - min(at("read"), columns)
    rows = [_inside(o * at("stride") - at("pad_top"), at("in_h")) for o in range(at("out_h"))]
    taps = [_inside(o * at("stride") - at("pad_left"), at("in_w")) for o in range(at("out_w"))]
    features: dict[str, float] = {
        "calls": 1,
        "groups": groups,
        "zeros": at("in_w"),
        "columns": 4 * columns,
        "columns outside": 4 * outside,
        "plain groups": plain,
        "plain outputs": 4 * plain * len(rows) * len(taps),
        "plain lines": 4 * plain * sum(rows) * len(taps),
        "plain taps": 4 * plain * sum(rows) * sum(taps),
    }
    if plain == groups:
        return Usage(features)
    leaf = seen.leaf("leaf")
    once = leaf.once(depthwise.runs(leaf, at("read"), at("out_w"), at("out_h"), at("stride")))
    return Usage(features, once * (groups - plain))


def _inside(start: int, extent: int) -> int:
    return sum(0 <= start + tap < extent for tap in range(3))


def dense_rows(seen: Seen) -> Usage:
    leaf = seen.leaves[seen.call.kernel]
    return Usage({"calls": 1}, leaf.once(dense.runs(leaf, seen.number("depth"), seen.number("outputs"))))


def copy_bytes(seen: Seen) -> Usage:
    leaf = seen.leaves[seen.call.kernel]
    return Usage({"calls": 1}, leaf.once(copy.runs(seen.argument(2), aligned=True)))


def add(seen: Seen) -> Usage:
    leaf = seen.leaves[seen.call.kernel]
    return Usage({"calls": 1}, leaf.once({"four": seen.number("elements") // 4}))


def winograd(seen: Seen) -> Usage:
    at = seen.number
    rows, blocks = -(-at("out_h") // 2), -(-at("out_w") // 4)
    firsts = [min(2 * row, at("out_h") - 2) - at("pad_top") for row in range(rows)]
    outside = sum(4 - sum(0 <= first + i < at("in_h") for i in range(4)) for first in firsts)
    fours, pairs = at("channels") // 4, at("outputs") // 2
    strip = seen.leaf("strip").once({"fours": fours, "columns": fours * at("read")})
    tile = seen.leaf("tiles").once({"fours": fours, "rows": 4 * fours})
    tile += seen.leaf("multiply").once({
        "pairs": pairs, "sides": 2 * pairs, "rows": 4 * pairs, "turns": 8 * pairs, "again": 4 * pairs,
    })  # fmt: skip
    features = {
        "calls": 1,
        "planes": at("channels"),
        "columns": at("channels") * at("columns"),
        "columns outside": at("channels") * (at("columns") - at("read")),
        "rows": rows,
        "rows outside": outside,
        "filled bytes": outside * at("in_w") * at("channels"),
        "blocks": rows * blocks,
    }
    return Usage(features, strip * rows + tile * (rows * blocks))


USAGE: dict[str, Callable[[Seen], Usage]] = {
    "k_dsp_add_s8": add,
    "k_dsp_average_s8": average,
    "k_dsp_conv_s8": conv,
    "k_dsp_copy_8": copy_bytes,
    "k_dsp_dense_s8": dense_rows,
    "k_dsp_depthwise_s8": depthwise_planes,
    "k_dsp_packed_s8": packed_weights,
    "k_dsp_pointwise_s8": pointwise,
    "k_dsp_residual_s8": residual,
    "k_dsp_winograd_s8": winograd,
}

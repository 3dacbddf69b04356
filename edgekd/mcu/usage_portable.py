"""Features of the portable kernels: what their loops run over, from a layer's fields and arguments."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from edgekd.mcu.usage import Seen, Usage

Features = dict[str, float]


def taps_inside(start: int, dilation: int, taps: int, extent: int) -> int:
    """How many of the taps start, start + dilation, ... lie in [0, extent)."""
    return sum(0 <= start + tap * dilation < extent for tap in range(taps))


def spans(seen: Seen, axis: str) -> list[int]:
    """Taps inside the image for each output row ("h") or column ("w")."""
    extent, taps = seen.number(f"in_{axis}"), seen.number(f"filter_{axis}")
    stride = seen.number(f"stride_{axis}")
    before = seen.number("pad_top" if axis == "h" else "pad_left")
    dilation = seen.number(f"dilation_{axis}") if f"dilation_{axis}" in seen.fields else 1
    return [
        taps_inside(output * stride - before, dilation, taps, extent)
        for output in range(seen.number(f"out_{axis}"))
    ]


def _tiles(gemm: Seen, kind: str, rows: float, together: int) -> Features:
    """`rows` passes over all outputs, each for `together` rows. kind: "words" or "row"."""
    outputs, depth = gemm.number("outputs"), gemm.number("depth")
    tiles, single = divmod(outputs, 4)
    return {
        f"{kind}: passes": rows,
        f"{kind}: tiles": rows * tiles,
        f"{kind}: tile fours": rows * tiles * (depth // 4),
        f"{kind}: tile rest": rows * tiles * (depth % 4),
        f"{kind}: single outputs": rows * single,
        f"{kind}: single inputs": rows * single * depth,
        f"{kind}: outputs": rows * outputs * together,
    }


def gemm(seen: Seen) -> Usage:
    rows, depth = seen.argument(2), seen.number("depth")
    pairs = rows // 2 if seen.number("paired") else 0
    left = rows - 2 * pairs
    features = {"calls": 1.0, "pairs": pairs, "paired inputs": pairs * depth}
    return Usage(features | _tiles(seen, "words", pairs, 2) | _tiles(seen, "row", left, 1))


def conv_2d(seen: Seen) -> Usage:
    gemm = seen.inner("gemm")
    rows, columns = spans(seen, "h"), spans(seen, "w")
    channels, taps_w = seen.number("channels"), seen.number("filter_w")
    pixels = len(rows) * len(columns)
    lines = sum(rows) * len(columns)  # rows of windows inside the image
    inside = sum(rows) * sum(columns) * channels
    every = pixels * seen.number("filter_h") * taps_w * channels
    dense = seen.number("dilation_w") == 1
    runs = lines if dense else sum(rows) * sum(columns)
    paired = bool(gemm.number("paired"))
    groups, single = divmod(pixels, 2) if paired else (0, pixels)
    features = {
        "calls": 1.0,
        "rows": len(rows),
        "pixels": pixels,
        "lines": lines,
        "lines outside": pixels * seen.number("filter_h") - lines,
        "runs": runs,
        "dilated lines": 0 if dense else lines,
        "dilated taps": 0 if dense else sum(rows) * len(columns) * taps_w,
        "inputs": inside,
        "inputs outside": every - inside,
        "second inputs": inside / 2 if paired else 0,
        "second inputs outside": (every - inside) / 2 if paired else 0,
    }
    pairs = _tiles(gemm, "words", groups, 2)
    for name, times in _tiles(gemm, "words", single, 1).items():
        pairs[name] += times
    return Usage(features | pairs)


def gemm_packed(seen: Seen) -> Usage:
    """The matrix, once a part of the outputs; unpacking is not measured."""
    return Usage({"calls": 1}, others=tuple(("k_gemm_s8", gemm(part)) for part in _parts(seen, "gemm")))


def conv_2d_packed(seen: Seen) -> Usage:
    """The convolution, once a part of the outputs; unpacking is not measured."""
    parts = _parts(seen, "conv")
    return Usage({"calls": 1}, others=tuple(("k_conv_2d_s8", conv_2d(part)) for part in parts))


def _parts(seen: Seen, name: str) -> list[Seen]:
    """The plain layer's struct for each part of the outputs that is unpacked together."""
    plain, chunk = seen.inner(name), seen.inner("packed").number("chunk")
    nested = "gemm" in plain.fields
    total = (plain.inner("gemm") if nested else plain).number("outputs")
    counts = [min(chunk, total - at) for at in range(0, total, chunk)]
    if not nested:
        return [seen.inner(name, outputs=count) for count in counts]
    return [seen.inner(name, gemm=plain.inner("gemm", outputs=count).fields) for count in counts]


def depthwise(seen: Seen) -> Usage:
    rows, columns = spans(seen, "h"), spans(seen, "w")
    outputs = seen.number("outputs")
    groups = outputs // 4 if seen.number("depth_multiplier") == 1 else 0
    single = outputs - 4 * groups
    pixels, lines, taps = len(rows) * len(columns), sum(rows) * len(columns), sum(rows) * sum(columns)
    return Usage({
        "calls": 1,
        "rows": len(rows),
        "pixels": pixels,
        "dilated pixels": pixels * (seen.number("dilation_h") + seen.number("dilation_w") > 2),
        "groups": pixels * groups,
        "group lines": lines * groups,
        "group taps": taps * groups,
        "outputs": pixels * outputs,
        "single outputs": pixels * single,
        "single lines": lines * single,
        "single taps": taps * single,
    })  # fmt: skip


def pool(seen: Seen) -> Usage:
    rows, columns = spans(seen, "h"), spans(seen, "w")
    channels = seen.number("channels")
    pixels = len(rows) * len(columns)
    return Usage({
        "calls": 1,
        "rows": len(rows),
        "pixels": pixels,
        "outputs": pixels * channels,
        "lines": sum(rows) * len(columns) * channels,
        "taps": sum(rows) * sum(columns) * channels,
    })  # fmt: skip


def mean(seen: Seen) -> Usage:
    channels = seen.number("channels")
    return Usage({"calls": 1, "outputs": channels, "inputs": channels * seen.number("pixels")})


def elementwise(seen: Seen) -> Usage:
    extent = seen.inner("shape").numbers("extent")
    outputs = prod(extent)
    subtracts = "subtract" in seen.fields and seen.number("subtract")
    return Usage({
        "calls": 1,
        "planes": extent[0] * extent[1],
        "runs": prod(extent[:3]),
        "outputs": outputs,
        "subtracted outputs": outputs * subtracts,
    })  # fmt: skip


def pad(seen: Seen) -> Usage:
    extent, inside = seen.numbers("extent"), seen.numbers("inside")
    rows, copied = prod(extent[:3]), prod(inside[:3])
    return Usage({
        "calls": 1,
        "rows inside": copied,
        "rows outside": rows - copied,
        "copied bytes": prod(inside),
        "filled bytes inside": copied * (extent[3] - inside[3]),
        "filled bytes outside": (rows - copied) * extent[3],
    })  # fmt: skip


def softmax(seen: Seen) -> Usage:
    rows = seen.number("rows")
    return Usage({"calls": 1, "rows": rows, "inputs": rows * seen.number("depth")})


def table(seen: Seen) -> Usage:
    return Usage({"calls": 1, "bytes": seen.argument(2)})


def copy_rows(seen: Seen) -> Usage:
    rows, row_bytes = seen.argument(1), seen.argument(2)
    return Usage({"calls": 1, "rows": rows, "bytes": rows * row_bytes})


USAGE: dict[str, Callable[[Seen], Usage]] = {
    "k_add_s8": elementwise,
    "k_average_pool_2d_s8": pool,
    "k_conv_2d_packed_s8": conv_2d_packed,
    "k_conv_2d_s8": conv_2d,
    "k_copy_rows_8": copy_rows,
    "k_depthwise_conv_2d_s8": depthwise,
    "k_gemm_packed_s8": gemm_packed,
    "k_gemm_s8": gemm,
    "k_max_pool_2d_s8": pool,
    "k_mean_s8": mean,
    "k_mul_s8": elementwise,
    "k_pad_8": pad,
    "k_softmax_s8": softmax,
    "k_table_8": table,
}

"""What the reference's kernels share: the array type, clamping, windows over padded images."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import UnsupportedOpError
from edgekd.qgraph import requantize
from edgekd.qgraph.arithmetic import Ints
from edgekd.qgraph.ir import Op, QGraph, Tensor
from edgekd.qgraph.ops import paddings

Array = npt.NDArray[Any]


def tensors(graph: QGraph, op: Op) -> tuple[list[Tensor], Tensor]:
    """The op's input tensors (absent ones left out) and its output tensor."""
    return [graph.tensors[i] for i in op.inputs if i != -1], graph.tensors[op.outputs[0]]


def finish(values: Ints, output: Tensor, activation: str = "NONE") -> Array:
    """Add the output's zero point, clamp to the activation's range, narrow to the output's dtype."""
    low, high = requantize.activation_range(output, activation)
    return np.clip(values + output.zero_point, low, high).astype(output.dtype)


def attribute(op: Op, name: str, default: int | None = None) -> int:
    """An attribute that is a whole number."""
    value = op.attrs.get(name, default)
    if not isinstance(value, int):
        raise UnsupportedOpError(f"{op.kind}: attribute {name} is {value!r}, not a whole number")
    return value


def before(op: Op, extent: int, filter_extent: int, axis: str) -> int:
    """How many pixels the padding puts before the image along axis "h" or "w"."""
    return paddings(op.attrs, axis, extent, filter_extent)[0]


def padded(x: Array, op: Op, filter_shape: tuple[int, int], output: Tensor, fill: int) -> Array:
    """x [N, H, W, C] with `fill` around it, cut to just what the windows of the output touch."""
    widths = []
    extents = []
    for axis, name in ((1, "h"), (2, "w")):
        taps, stride = filter_shape[axis - 1], attribute(op, f"stride_{name}")
        dilation = attribute(op, f"dilation_{name}", 1)
        needed = (output.shape[axis] - 1) * stride + (taps - 1) * dilation + 1
        lead = before(op, x.shape[axis], taps, name)
        widths.append((lead, max(0, needed - lead - x.shape[axis])))
        extents.append(needed)
    image = np.pad(x, ((0, 0), *widths, (0, 0)), constant_values=fill)
    return image[:, : extents[0], : extents[1]]


def tap(image: Array, op: Op, row: int, column: int, output: Tensor) -> Array:
    """The pixels [N, OH, OW, C] of a padded image that meet filter tap (row, column)."""
    y = slice(*_span(op, row, "h", output.shape[1]))
    x = slice(*_span(op, column, "w", output.shape[2]))
    return image[:, y, x]


def _span(op: Op, index: int, axis: str, count: int) -> tuple[int, int, int]:
    stride = attribute(op, f"stride_{axis}")
    start = index * attribute(op, f"dilation_{axis}", 1)
    return start, start + (count - 1) * stride + 1, stride

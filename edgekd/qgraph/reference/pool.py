"""AVERAGE_POOL_2D, MAX_POOL_2D, and MEAN over height and width."""

from __future__ import annotations

import numpy as np

from edgekd.qgraph import arithmetic, requantize
from edgekd.qgraph.ir import Op, QGraph, Tensor
from edgekd.qgraph.reference.values import Array, attribute, finish, padded, tap, tensors


def average_pool(graph: QGraph, op: Op, values: list[Array]) -> Array:
    """The mean of the pixels that lie inside the image, rounded half away from zero; no rescale."""
    _, output = tensors(graph, op)
    x = values[0].astype(np.int64)
    sums = _fold(np.add, op, padded(x, op, _filter(op), output, 0), output)
    inside = padded(np.ones((1, *x.shape[1:3], 1), np.int64), op, _filter(op), output, 0)
    count = _fold(np.add, op, inside, output)
    magnitude = (np.abs(sums) + count // 2) // count
    return _clamp(np.sign(sums) * magnitude, op, graph)


def max_pool(graph: QGraph, op: Op, values: list[Array]) -> Array:
    """The largest pixel inside the image; no rescale."""
    _, output = tensors(graph, op)
    image = padded(values[0].astype(np.int64), op, _filter(op), output, -128)
    return _clamp(_fold(np.maximum, op, image, output), op, graph)


def mean(graph: QGraph, op: Op, values: list[Array]) -> Array:
    """[N, H, W, C] -> [N, C] or [N, 1, 1, C]: the sum less its zero points, times one multiplier."""
    (x_tensor, *_), output = tensors(graph, op)
    multiplier, shift, pixels = requantize.mean_multiplier(graph, op)
    sums = values[0].sum(axis=(1, 2), dtype=np.int64) - x_tensor.zero_point * pixels
    scaled = arithmetic.multiply_by_quantized_multiplier(sums, multiplier, shift)
    return finish(scaled.reshape(len(sums), *output.shape[1:]), output)


def _filter(op: Op) -> tuple[int, int]:
    return attribute(op, "filter_h"), attribute(op, "filter_w")


def _fold(function: np.ufunc, op: Op, image: Array, output: Tensor) -> Array:
    """Combine all taps of a padded image with a binary ufunc."""
    rows, columns = _filter(op)
    taps = (tap(image, op, row, column, output) for row in range(rows) for column in range(columns))
    result = next(taps).copy()
    for pixels in taps:
        function(result, pixels, out=result)
    return result


def _clamp(values: Array, op: Op, graph: QGraph) -> Array:
    output = graph.tensors[op.outputs[0]]
    low, high = requantize.activation_range(output, str(op.attrs["activation"]))
    return np.clip(values, low, high).astype(output.dtype)

"""CONV_2D, DEPTHWISE_CONV_2D and FULLY_CONNECTED: int32 sums, then a multiplier and shift per channel.

Sums run in float64: every product and every partial sum is an integer far below 2**53, so BLAS is exact.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgekd.qgraph import arithmetic, requantize, residual
from edgekd.qgraph.ir import Op, QGraph
from edgekd.qgraph.reference.elementwise import add_or_sub
from edgekd.qgraph.reference.values import Array, attribute, finish, padded, tap, tensors


def conv_2d(graph: QGraph, op: Op, values: list[Array]) -> Array:
    """x [N, H, W, C], weights [O, KH, KW, C], bias [O] or absent -> [N, OH, OW, O]."""
    (x_tensor, weights, *_), output = tensors(graph, op)
    channels, rows, columns, _ = weights.shape
    image = padded(values[0], op, (rows, columns), output, x_tensor.zero_point)
    image = image.astype(np.float64) - x_tensor.zero_point
    taps = [tap(image, op, row, column, output) for row in range(rows) for column in range(columns)]
    patches = taps[0] if len(taps) == 1 else np.concatenate(taps, axis=3)
    sums = patches.reshape(-1, patches.shape[3]) @ _flat(values[1], channels).T
    return _requantize(graph, op, sums.reshape(len(image), *output.shape[1:]), values)


def conv_2d_add(graph: QGraph, op: Op, values: list[Array]) -> Array:
    """x, weights, bias or absent as for conv_2d, then [N, OH, OW, O] to add -> [N, OH, OW, O]."""
    apart = residual.unfused(replace(graph, ops=(op,)), 0)
    conv, add = apart.ops
    return add_or_sub(apart, add, [conv_2d(apart, conv, values[:-1]), values[-1]])


def depthwise_conv_2d(graph: QGraph, op: Op, values: list[Array]) -> Array:
    """x [N, H, W, C], weights [1, KH, KW, C * multiplier], bias -> [N, OH, OW, C * multiplier]."""
    (x_tensor, weights, *_), output = tensors(graph, op)
    _, rows, columns, _ = weights.shape
    image = padded(values[0], op, (rows, columns), output, x_tensor.zero_point)
    image = image.astype(np.int32) - x_tensor.zero_point
    image = np.repeat(image, attribute(op, "depth_multiplier"), axis=3)
    sums = np.zeros((len(image), *output.shape[1:]), np.int32)
    for row in range(rows):
        for column in range(columns):
            sums += tap(image, op, row, column, output) * values[1][0, row, column].astype(np.int32)
    return _requantize(graph, op, sums, values)


def fully_connected(graph: QGraph, op: Op, values: list[Array]) -> Array:
    """x [N, ...] flattened to rows of K, weights [O, K], bias -> [N, ..., O]."""
    (x_tensor, weights, *_), output = tensors(graph, op)
    rows = values[0].reshape(-1, weights.shape[1]).astype(np.float64) - x_tensor.zero_point
    sums = rows @ _flat(values[1], weights.shape[0]).T
    return _requantize(graph, op, sums.reshape(len(values[0]), *output.shape[1:]), values)


def _flat(weights: Array, channels: int) -> Array:
    return weights.reshape(channels, -1).astype(np.float64)


def _requantize(graph: QGraph, op: Op, sums: Array, values: list[Array]) -> Array:
    """Sums [..., O] plus bias, scaled per channel, in the output's int8."""
    wide = sums.astype(np.int64)
    if len(values) > 2:
        wide = arithmetic.wrap_int32(wide + values[2])
    multipliers, shifts = requantize.channel_multipliers(graph, op)
    scaled = arithmetic.multiply_by_quantized_multiplier(wide, multipliers, shifts)
    return finish(scaled, graph.tensors[op.outputs[0]], str(op.attrs["activation"]))

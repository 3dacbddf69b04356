"""Which values each channel of each activation can take, whatever the input: intervals, forward.

Exact ends for CONV_2D, DEPTHWISE_CONV_2D and FULLY_CONNECTED under the integers of the weights; pools and
reshapes pass them on; everything else may take all values of its dtype.
"""

from __future__ import annotations

import numpy as np

from edgekd.qgraph import arithmetic, requantize
from edgekd.qgraph.arithmetic import INT32_MAX, INT32_MIN, Ints
from edgekd.qgraph.ir import Op, QGraph, Tensor
from edgekd.qgraph.ops import EXPLICIT

LINEAR = ("CONV_2D", "FULLY_CONNECTED")


def intervals(graph: QGraph) -> dict[int, tuple[Ints, Ints]]:
    """Activation -> (lowest, highest), int64 [channels] each; channels are the last axis."""
    found = {index: _everything(graph.tensors[index]) for index in graph.inputs}
    for op in graph.ops:
        for index in op.outputs:
            found[index] = _everything(graph.tensors[index])
        if op.kind == "DEPTHWISE_CONV_2D" or is_linear(graph, op):
            found[op.outputs[0]] = _linear(graph, op, *found[op.inputs[0]])
        elif is_tied(graph, op):
            found[op.outputs[0]] = _passed_on(graph, op, *found[op.inputs[0]])
    return found


def is_linear(graph: QGraph, op: Op) -> bool:
    """A CONV_2D or FULLY_CONNECTED of constant weights over the channels of its input."""
    if op.kind not in LINEAR or not _has_constants(graph, op):
        return False
    return graph.tensors[op.inputs[0]].shape[-1] == graph.tensors[op.inputs[1]].shape[-1]


def is_tied(graph: QGraph, op: Op) -> bool:
    """Each output channel comes from the input channel of the same number alone."""
    x, y = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
    if op.kind == "DEPTHWISE_CONV_2D":
        return op.attrs["depth_multiplier"] == 1 and _has_constants(graph, op) and x.shape[3] == y.shape[3]
    if op.kind == "RESHAPE":
        return bool(x.shape) and bool(y.shape) and x.elements == x.shape[-1] == y.shape[-1]
    return op.kind in ("AVERAGE_POOL_2D", "MAX_POOL_2D")


def pads(graph: QGraph, op: Op) -> bool:
    """Whether windows may reach beyond the image, where the input counts as its zero point."""
    if op.kind == "FULLY_CONNECTED" or op.attrs["padding"] == "VALID":
        return False
    if op.attrs["padding"] == EXPLICIT:
        return any(np.atleast_1d(op.attrs["pads"]))
    return graph.tensors[op.inputs[1]].shape[1:3] != (1, 1)


def _has_constants(graph: QGraph, op: Op) -> bool:
    int8 = all(graph.tensors[i].dtype == "int8" for i in (op.inputs[0], op.outputs[0]))
    return int8 and all(graph.tensors[i].is_constant for i in op.inputs[1:] if i != -1)


def _everything(tensor: Tensor) -> tuple[Ints, Ints]:
    channels = tensor.shape[-1] if tensor.shape else 1
    low, high = requantize.limits(tensor.dtype) if tensor.dtype in ("int8", "uint8") else (0, 1)
    return np.full(channels, low, np.int64), np.full(channels, high, np.int64)


def _passed_on(graph: QGraph, op: Op, low: Ints, high: Ints) -> tuple[Ints, Ints]:
    """A mean or a maximum lies between the ends of what it is of; then the activation clamps."""
    y = graph.tensors[op.outputs[0]]
    if y.dtype != "int8":
        return _everything(y)
    ends = requantize.activation_range(y, str(op.attrs.get("activation", "NONE")))
    return np.clip(low, *ends), np.clip(high, *ends)


def _linear(graph: QGraph, op: Op, low: Ints, high: Ints) -> tuple[Ints, Ints]:
    x, y = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
    if not _has_constants(graph, op):
        return _everything(y)
    low, high = low - x.zero_point, high - x.zero_point
    if pads(graph, op):
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    least, most = _sums(graph, op, low, high)
    multipliers, shifts = requantize.channel_multipliers(graph, op)
    left = np.maximum(shifts.astype(np.int64), 0)
    wraps = (least << left < INT32_MIN) | (most << left > INT32_MAX)
    ends = requantize.activation_range(y, str(op.attrs["activation"]))
    found = [
        np.clip(arithmetic.multiply_by_quantized_multiplier(s, multipliers, shifts) + y.zero_point, *ends)
        for s in (least, most)
    ]
    return np.where(wraps, -128, found[0]), np.where(wraps, 127, found[1])


def _sums(graph: QGraph, op: Op, low: Ints, high: Ints) -> tuple[Ints, Ints]:
    """The least and the most that each output's sum can be, bias included."""
    weights = np.asarray(graph.tensors[op.inputs[1]].data).astype(np.int64)
    if op.kind == "DEPTHWISE_CONV_2D":
        repeat = weights.shape[3] // len(low)
        low, high = np.repeat(low, repeat), np.repeat(high, repeat)
        ends = np.minimum(weights * low, weights * high), np.maximum(weights * low, weights * high)
        least, most = (end.sum(axis=(0, 1, 2)) for end in ends)
    else:
        ends = np.minimum(weights * low, weights * high), np.maximum(weights * low, weights * high)
        least, most = (end.reshape(len(weights), -1).sum(axis=1) for end in ends)
    bias = bias_of(graph, op, len(least))
    return least + bias, most + bias


def bias_of(graph: QGraph, op: Op, outputs: int) -> Ints:
    """The bias, zeros where there is none."""
    if len(op.inputs) < 3 or op.inputs[2] == -1:
        return np.zeros(outputs, np.int64)
    return np.asarray(graph.tensors[op.inputs[2]].data).astype(np.int64)

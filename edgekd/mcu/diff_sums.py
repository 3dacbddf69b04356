"""The exact sum behind one output of a linear layer: by the definition, or by asking another's kernel.

`exact_sum` adds up what the integer reference adds up. `probed_sum` finds out what a runtime that takes
any graph sums up inside: it runs that layer alone, with scales of 1, an output scale of 2**24, 2**18, ...,
1, and what was found so far taken off the bias; so each run gives some bits of the sum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.qgraph import arithmetic
from edgekd.qgraph.ir import Op, QGraph, Tensor
from edgekd.qgraph.passes.intervals import bias_of
from edgekd.qgraph.reference import run_all
from edgekd.qgraph.reference.values import before

Array = npt.NDArray[Any]
Place = tuple[int, ...]  # sample, then the position in NHWC
LINEAR = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_PROBED_BITS = (24, 18, 12, 6, 0)  # six a run: two of int8's eight are left for rounding and saturation


def exact_sum(graph: QGraph, inputs: list[Array], index: int, where: Place) -> int | None:
    """The sum, bias included, as the integer reference has it (int32, wrapped); None for other layers.

    inputs: [N, ...] each. where: sample and position of the output of op `index`.
    """
    op = graph.ops[index]
    if op.kind not in LINEAR:
        return None
    source, weights = graph.tensors[op.inputs[0]], graph.tensors[op.inputs[1]]
    x = _input(graph, inputs, index, where)[0].astype(np.int64) - source.zero_point
    w = np.asarray(weights.data, np.int64)
    channel = where[-1]
    total = int(bias_of(graph, op, channel + 1)[channel])
    if op.kind == "FULLY_CONNECTED":
        row = int(np.ravel_multi_index(where[1:], graph.tensors[op.outputs[0]].shape[1:])) // w.shape[0]
        total += int(x.reshape(-1, w.shape[1])[row] @ w[channel])
    else:
        total += _window_sum(op, x, w, where)
    return int(arithmetic.wrap_int32(total))


def probed_sum(
    run: Callable[[QGraph, list[Array]], Array],
    graph: QGraph,
    inputs: list[Array],
    index: int,
    where: Place,
) -> int | None:
    """The sum that `run` (a graph of one op, its inputs -> its output [N, ...]) has there.

    None for a layer that is not linear, and where the runs do not end in a sum within int32.
    """
    op = graph.ops[index]
    if op.kind not in LINEAR:
        return None
    x, total = _input(graph, inputs, index, where), 0
    for bits in _PROBED_BITS:
        found = int(run(_alone(graph, op, bits, total), [x])[0][where[1:]])
        total += found << bits
    return total if -128 < found < 127 and -(1 << 31) <= total < 1 << 31 else None


def _input(graph: QGraph, inputs: list[Array], index: int, where: Place) -> Array:
    """What the layer reads for that sample: [1, ...]."""
    values = run_all(graph, [x[where[0] : where[0] + 1] for x in inputs])
    return values[graph.ops[index].inputs[0]]


def _alone(graph: QGraph, op: Op, bits: int, taken: int) -> QGraph:
    """The op by itself: its integers as they are, `taken` off each bias, one output step = 2**bits."""
    one = np.ones(1, np.float32)
    x, weights, y = (graph.tensors[i] for i in (op.inputs[0], op.inputs[1], op.outputs[0]))
    bias = arithmetic.wrap_int32(bias_of(graph, op, y.shape[-1]) - taken).astype(np.int32)
    tensors = (
        replace(x, scale=one),
        replace(weights, scale=one, axis=0),
        Tensor("bias", bias.shape, "int32", one, data=bias),
        replace(y, scale=np.array([2.0**bits], np.float32), zero_point=0),
    )
    alone = Op(op.kind, (0, 1, 2), (3,), {**op.attrs, "activation": "NONE"})
    return QGraph(f"{graph.name}/{y.name}", tensors, (alone,), (0,), (3,))


def _window_sum(op: Op, x: Array, w: Array, where: Place) -> int:
    _, oy, ox, channel = where
    total, attrs = 0, {k: int(v) for k, v in op.attrs.items() if isinstance(v, int)}
    top = before(op, x.shape[0], w.shape[1], "h")
    left = before(op, x.shape[1], w.shape[2], "w")
    for ky in range(w.shape[1]):
        for kx in range(w.shape[2]):
            iy = oy * attrs["stride_h"] - top + ky * attrs["dilation_h"]
            ix = ox * attrs["stride_w"] - left + kx * attrs["dilation_w"]
            if not (0 <= iy < x.shape[0] and 0 <= ix < x.shape[1]):
                continue
            if op.kind == "CONV_2D":
                total += int(x[iy, ix] @ w[channel, ky, kx])
            else:
                total += int(x[iy, ix, channel // attrs["depth_multiplier"]] * w[0, ky, kx, channel])
    return total

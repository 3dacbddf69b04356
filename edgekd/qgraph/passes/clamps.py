"""When a function of one byte can be the clamp of the op that makes its input: tried on every value.

The producer computes clip(f + a, range) with an integer f and its output's zero point a. Writing the
function's output instead, of the same scale and so with the same multipliers, it computes clip(f + b, some
range). Both are compared for every f that can occur.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgekd.qgraph import requantize
from edgekd.qgraph.arithmetic import Ints
from edgekd.qgraph.ir import Op, QGraph
from edgekd.qgraph.passes.byte_functions import ByteFunction, byte_function
from edgekd.qgraph.passes.intervals import intervals
from edgekd.qgraph.passes.rewrite import producers, read_once

_POOLS = ("AVERAGE_POOL_2D", "MAX_POOL_2D")
_PRODUCERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "SUB", "MUL", "MEAN", *_POOLS)
# Of these some kernel families are fast only without a clamp of their own.
_CLAMP_MAY_COST = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "SUB", "AVERAGE_POOL_2D")

_FAR = 600  # beyond it every f saturates


def fuse_behind(graph: QGraph, kinds: Sequence[str], clamps_are_free: bool) -> tuple[list[Op], int]:
    """The ops with those of `kinds` merged into what makes their input, and how many were.

    clamps_are_free: whether a convolution, sum or average may get a clamp narrower than its output's
    dtype; else only where it has one already.
    """
    inner, at = read_once(graph), producers(graph)
    ends = intervals(graph) if any(op.kind in kinds for op in graph.ops) else {}
    ops: list[Op | None] = list(graph.ops)
    for index, op in enumerate(graph.ops):
        function = byte_function(graph, op) if op.kind in kinds else None
        if function is None or function.source not in inner:
            continue
        place = at[function.source]
        producer = ops[place]
        assert producer is not None
        new = _fused(graph, producer, function, op.outputs[0], ends[function.source])
        if new is None or not (clamps_are_free or _is_cheap(graph, producer, new)):
            continue
        ops[place], ops[index], at[op.outputs[0]] = new, None, place
    kept = [op for op in ops if op is not None]
    return kept, len(ops) - len(kept)


def _fused(
    graph: QGraph, producer: Op, function: ByteFunction, output: int, ends: tuple[Ints, Ints]
) -> Op | None:
    """`producer` writing the function's `output` with the clamp that does the function's work.

    ends: the lowest and highest value of each channel of the producer's output, which narrow what can
    occur. None where no clamp gives the same bytes.
    """
    written, y = graph.tensors[producer.outputs[0]], graph.tensors[output]
    equal = written.scale.tobytes() == y.scale.tobytes() and written.dtype == y.dtype == "int8"
    tied = producer.kind not in _POOLS or written.zero_point == y.zero_point
    if producer.kind not in _PRODUCERS or not equal or not tied:
        return None
    low, high = requantize.activation_range(written, str(producer.attrs.get("activation", "NONE")))
    f = np.arange(-_FAR, _FAR + 1)
    clipped = np.clip(f + written.zero_point, low, high)
    possible = (int(ends[0].min()) <= clipped) & (clipped <= int(ends[1].max()))
    f, wanted = f[possible], function.of(clipped[possible])
    found = _range(f + y.zero_point, wanted, y.zero_point)
    if found is None or (producer.kind == "MEAN" and found != requantize.limits("int8")):
        return None
    attrs = dict(producer.attrs)
    if producer.kind != "MEAN":
        attrs["activation"] = requantize.activation_name(y, *found)
    return replace(producer, outputs=(output,), attrs=attrs)


def _range(values: Ints, wanted: Ints, zero_point: int) -> tuple[int, int] | None:
    """The widest clamp that makes `wanted` of `values`: none, at the zero point, at the ends of `wanted`."""
    lowest, highest = requantize.limits("int8")
    if not len(wanted):
        return None
    for ends in ((lowest, highest), (zero_point, highest), (int(wanted.min()), int(wanted.max()))):
        if np.array_equal(np.clip(values, *ends), wanted):
            return ends
    return None


def _is_cheap(graph: QGraph, old: Op, new: Op) -> bool:
    return new.kind not in _CLAMP_MAY_COST or _is_whole(graph, new) or not _is_whole(graph, old)


def _is_whole(graph: QGraph, op: Op) -> bool:
    """Whether the op's clamp is no more than its output's dtype."""
    output = graph.tensors[op.outputs[0]]
    return requantize.activation_range(output, str(op.attrs["activation"])) == requantize.limits(output.dtype)

"""Removes QUANTIZE ops (and other functions of one byte) that some neighbour can do without.

* Behind an op that rescales: where the scale stays, the zero point of its output moves (clamps.py).
* Anywhere: where every value that can occur maps to itself, and means the same on both sides.
* In front of ops that subtract the zero point first: where the scale stays and no value that can occur
  saturates, q - zero point is the same number on both sides, and they can read the unshifted tensor.

Tried on all values that can occur (intervals.py bounds them). A QUANTIZE that changes the scale stays: it
rounds a second time, and one multiplier in place of two rounds otherwise on some sums. Two QUANTIZE in a
row are one table (fuse_tables.py).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgekd.qgraph.arithmetic import Ints
from edgekd.qgraph.ir import Op, QGraph
from edgekd.qgraph.passes.byte_functions import ByteFunction, byte_function
from edgekd.qgraph.passes.clamps import fuse_behind
from edgekd.qgraph.passes.intervals import intervals
from edgekd.qgraph.passes.rewrite import Changed, plural, readers, rebuilt, renamed, same_meaning

# Ops that read every input less its zero point.
_SUBTRACTING = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "SUB", "MUL", "MEAN")


def merge_requantizations(graph: QGraph, clamps_are_free: bool = True) -> Changed:
    """The graph without them. clamps_are_free: see clamps.fuse_behind."""
    ops, fused = fuse_behind(graph, ("QUANTIZE",), clamps_are_free)
    found = replace(graph, ops=tuple(ops))
    found, idle = _without_identities(found)
    found, absorbed = _without_shifts(found)
    if not fused + idle + absorbed:
        return Changed(graph, False, "no requantization can be merged exactly")
    report = (
        f"{plural(fused + idle + absorbed, 'requantization')} removed: {fused} into the op in front, "
        f"{absorbed} into those behind, {idle} without effect"
    )
    return Changed(rebuilt(found, found.ops), True, report)


def _possible(graph: QGraph, function: ByteFunction, ends: dict[int, tuple[Ints, Ints]]) -> Ints:
    low, high = ends[function.source]
    return np.arange(int(low.min()), int(high.max()) + 1)


def _without_identities(graph: QGraph) -> tuple[QGraph, int]:
    ends = intervals(graph)
    produced = {op.outputs[0] for op in graph.ops}
    names: dict[int, int] = {}
    kept: list[Op] = []
    for op in graph.ops:
        function, output = byte_function(graph, op), op.outputs[0]
        if function is None or not same_meaning(graph.tensors[function.source], graph.tensors[output]):
            kept.append(op)
            continue
        values = _possible(graph, function, ends)
        source = renamed(op, names).inputs[op.inputs.index(function.source)]
        seen = output in graph.outputs  # then the source takes the output's place
        replaceable = source in produced and source not in graph.outputs
        if not np.array_equal(function.of(values), values) or (seen and not replaceable):
            kept.append(op)
        elif seen:
            names[source] = output
        else:
            names[output] = source
    return replace(graph, ops=tuple(renamed(op, names) for op in kept)), len(graph.ops) - len(kept)


def _without_shifts(graph: QGraph) -> tuple[QGraph, int]:
    ends, users = intervals(graph), readers(graph)
    names: dict[int, int] = {}
    for op in graph.ops:
        if op.kind == "QUANTIZE" and op.outputs[0] not in graph.outputs and op.outputs[0] in users:
            following = [graph.ops[index] for index in users[op.outputs[0]]]
            if all(o.kind in _SUBTRACTING for o in following) and _only_shifts(graph, op, ends):
                names[op.outputs[0]] = op.inputs[0]
    kept = [renamed(op, names) for op in graph.ops if op.outputs[0] not in names]
    return replace(graph, ops=tuple(kept)), len(names)


def _only_shifts(graph: QGraph, op: Op, ends: dict[int, tuple[Ints, Ints]]) -> bool:
    x, y = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
    function = byte_function(graph, op)
    if function is None or x.dtype != "int8" or y.dtype != "int8" or x.scale.tobytes() != y.scale.tobytes():
        return False
    values = _possible(graph, function, ends)
    return np.array_equal(function.of(values), values + (y.zero_point - x.zero_point))

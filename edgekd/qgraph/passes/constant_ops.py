"""Computes, once and for all, the ops that read constants alone: their output becomes a constant.

Exact because the integer reference, which defines every op, computes it. Only int8 and uint8 values, so
that nothing depends on a machine's floating point; outputs of the graph stay ops, for they are no constants.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgekd.qgraph.ir import Op, QGraph, Tensor
from edgekd.qgraph.passes.rewrite import Changed, plural, rebuilt
from edgekd.qgraph.reference import KERNELS

_BYTES = ("int8", "uint8")


def fold_constant_ops(graph: QGraph) -> Changed:
    """The graph without them."""
    tensors, ops = list(graph.tensors), []
    for op in graph.ops:
        if op.outputs[0] not in graph.outputs and _is_constant(op, tensors):
            tensors[op.outputs[0]] = _computed(replace(graph, tensors=tuple(tensors)), op)
        else:
            ops.append(op)
    gone = len(graph.ops) - len(ops)
    if not gone:
        return Changed(graph, False, "no op reads constants alone")
    report = f"{plural(gone, 'op')} of constants alone: computed when compiling"
    return Changed(rebuilt(graph, ops, tensors), True, report)


def _is_constant(op: Op, tensors: list[Tensor]) -> bool:
    inputs = [tensors[i] for i in op.inputs if i != -1]
    values = [tensors[op.outputs[0]], *inputs[: 2 if op.kind in ("ADD", "SUB", "MUL") else 1]]
    batched = op.kind == "RESHAPE" or inputs[0].shape[:1] == (1,)
    return batched and all(t.is_constant for t in inputs) and all(t.dtype in _BYTES for t in values)


def _computed(graph: QGraph, op: Op) -> Tensor:
    output = graph.tensors[op.outputs[0]]
    given = [np.asarray(graph.tensors[i].data) for i in op.inputs if i != -1]
    result = KERNELS[op.kind](graph, op, given)
    return replace(output, data=np.ascontiguousarray(result, output.dtype).reshape(output.shape))

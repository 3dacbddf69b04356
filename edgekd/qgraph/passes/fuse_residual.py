"""ADD behind a CONV_2D whose output nothing else reads: one op, so that the output is never whole in RAM.

Exact, for the new op is defined as the two (edgekd/qgraph/residual.py). It saves memory where the other
operand is needed no longer: the sum takes its place. No other pass knows the op: this one runs last.
"""

from __future__ import annotations

from collections.abc import Collection

from edgekd.qgraph import residual
from edgekd.qgraph.ir import Op, QGraph
from edgekd.qgraph.passes.rewrite import Changed, plural, producers, read_once, readers, rebuilt


def residuals(graph: QGraph) -> dict[int, int]:
    """The ADDs (op indices) that can be fused -> the CONV_2D each: one of unpacked weights, both operands
    activations of the output's shape, the other operand neither the convolution's input nor read later."""
    inner, written, last = read_once(graph), producers(graph), readers(graph)
    found: dict[int, int] = {}
    for index, op in enumerate(graph.ops):
        shapes = {graph.tensors[i].shape for i in (*op.inputs, *op.outputs)} if op.kind == "ADD" else set()
        if len(shapes) != 1 or op.inputs[0] == op.inputs[1]:
            continue
        for between, other in (op.inputs, op.inputs[::-1]):
            conv = written.get(between, -1)
            dies = other not in graph.outputs and last[other][-1] == index
            if dies and between in inner and _fits(graph, conv, other) and conv not in found.values():
                found[index] = conv
                break
    return found


def _fits(graph: QGraph, conv: int, other: int) -> bool:
    op = graph.ops[conv]
    plain = op.kind == "CONV_2D" and graph.tensors[op.inputs[1]].encoding is None
    return plain and not graph.tensors[other].is_constant and other != op.inputs[0]


def fuse_residuals(graph: QGraph, adds: Collection[int] | None = None) -> Changed:
    """Fuse the ADDs `adds` (op indices out of `residuals`; None: all) with their convolutions."""
    found = {add: conv for add, conv in residuals(graph).items() if adds is None or add in adds}
    if not found:
        return Changed(graph, False, "")
    gone = set(found.values())
    ops: list[Op] = []
    for index, op in enumerate(graph.ops):
        if index in found:
            op = residual.fused(graph, graph.ops[found[index]], op)
        if index not in gone:
            ops.append(op)
    report = f"{plural(len(found), 'ADD')} fused into the convolution in front"
    return Changed(rebuilt(graph, ops), True, report)

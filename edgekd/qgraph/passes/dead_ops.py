"""Removes ops whose result nobody uses: no output of the graph depends on them.

Exact because an op has no effect but its output tensor. Inputs of the graph stay, read or not.
"""

from __future__ import annotations

from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.passes.rewrite import Changed, plural, rebuilt


def remove_dead_ops(graph: QGraph) -> Changed:
    """The graph without them."""
    needed = set(graph.outputs)
    kept = []
    for op in reversed(graph.ops):
        if op.outputs[0] in needed:
            kept.append(op)
            needed.update(op.inputs)
    gone = len(graph.ops) - len(kept)
    if not gone:
        return Changed(graph, False, "every op is used")
    return Changed(rebuilt(graph, reversed(kept)), True, f"{plural(gone, 'unused op')}: removed")

"""Makes a RELU, RELU6 or another clamp the clamp of the op in front of it.

Exact where clamps.py finds the same byte for every value that can occur: the same scale on both sides, and
what the op in front already clamps counts too. A function that only shifts the zero point besides fits as
well.
"""

from __future__ import annotations

from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.passes.clamps import fuse_behind
from edgekd.qgraph.passes.rewrite import Changed, plural, rebuilt


def fuse_activations(graph: QGraph, clamps_are_free: bool = True) -> Changed:
    """The graph without them. clamps_are_free: see clamps.fuse_behind."""
    ops, gone = fuse_behind(graph, ("RELU", "RELU6", "TABLE"), clamps_are_free)
    if not gone:
        return Changed(graph, False, "no activation follows an op that can clamp for it")
    return Changed(rebuilt(graph, ops), True, f"{plural(gone, 'activation')}: part of the op in front")

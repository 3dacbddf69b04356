"""Passes over a QGraph: each gives a graph whose outputs are the same bytes for every input.

One file a pass, QGraph -> Changed; docs/passes.md has the rule of each, why it is exact and what it saves.
`optimize` runs them all. An activation that is left keeps its index, and its values: only channels that
nobody needs may be missing from it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.passes.common_subexpressions import merge_common_subexpressions
from edgekd.qgraph.passes.constant_channels import remove_constant_channels
from edgekd.qgraph.passes.constant_ops import fold_constant_ops
from edgekd.qgraph.passes.dead_ops import remove_dead_ops
from edgekd.qgraph.passes.fold_padding import fold_padding
from edgekd.qgraph.passes.fuse_activations import fuse_activations
from edgekd.qgraph.passes.fuse_tables import fuse_tables
from edgekd.qgraph.passes.merge_requantizations import merge_requantizations
from edgekd.qgraph.passes.rewrite import Changed

__all__ = ["Changed", "optimize"]


def optimize(
    graph: QGraph, multiple: int = 1, *, clamps_are_free: bool = True
) -> tuple[QGraph, tuple[str, ...]]:
    """The graph after all passes, and a line for each time that one changed something.

    In order: what is never used, what is constant, what is there twice, padding, activations,
    requantizations, tables, channels; again from the start until nothing changes. Each pass that changes
    something removes ops, constants or channels, so this ends.

    multiple: see remove_constant_channels. clamps_are_free: see clamps.fuse_behind. `graph` is validated.
    """
    passes: tuple[Callable[[QGraph], Changed], ...] = (
        remove_dead_ops,
        fold_constant_ops,
        merge_common_subexpressions,
        fold_padding,
        partial(fuse_activations, clamps_are_free=clamps_are_free),
        partial(merge_requantizations, clamps_are_free=clamps_are_free),
        fuse_tables,
        partial(remove_constant_channels, multiple=multiple),
    )
    lines: list[str] = []
    changed = True
    while changed:
        changed = False
        for each in passes:
            found = each(graph)
            if found.changed:
                graph, changed = found.graph, True
                lines.append(found.report)
    return graph, tuple(lines)

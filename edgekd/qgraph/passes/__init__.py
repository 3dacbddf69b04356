"""Passes over a QGraph: each gives a graph whose outputs are the same bytes for every input.

One file a pass, QGraph -> Changed; docs/kernels.md has what each saves.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.qgraph.ir import QGraph


@dataclass(frozen=True)
class Changed:
    """The new graph (the given one where nothing applied), and what the pass saved in one line."""

    graph: QGraph
    changed: bool
    report: str

"""The proof by test that every pass gives: outputs equal to the byte on random and adversarial inputs."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from edgekd.qgraph import reference
from edgekd.qgraph.ir import QGraph
from tests.graphs import inputs_for


def differ(given_graph: QGraph, found: QGraph, samples: int = 24) -> bool:
    """Whether some output byte differs; the inputs are random and at the ends of their range."""
    rng = np.random.default_rng(3)
    inputs = inputs_for(given_graph, rng, samples)
    ends: list[Any] = []
    for x in inputs:
        info = np.iinfo(x.dtype)
        ends.append(np.where(rng.random(x.shape) < 0.5, info.min, info.max).astype(x.dtype))
    for chosen in (inputs, ends):
        wanted, got = reference.run(given_graph, chosen), reference.run(found, chosen)
        if not all(np.array_equal(a, c) for a, c in zip(wanted, got, strict=True)):
            return True
    return False


def kinds(graph: QGraph) -> Counter[str]:
    """How many ops of each kind."""
    return Counter(op.kind for op in graph.ops)

"""PAD, CONCATENATION, RESHAPE: bytes are moved, never changed."""

from __future__ import annotations

import numpy as np

from edgekd.qgraph.ir import Op, QGraph
from edgekd.qgraph.reference.values import Array, attribute, tensors


def pad(graph: QGraph, op: Op, values: list[Array]) -> Array:
    """The zero point around x; input 1 is int32 [rank, 2], nothing along the batch."""
    _, output = tensors(graph, op)
    return np.pad(values[0], [tuple(pair) for pair in values[1].tolist()], constant_values=output.zero_point)


def concatenation(graph: QGraph, op: Op, values: list[Array]) -> Array:
    """Inputs one after the other along an axis that is not the batch."""
    samples = max(len(value) for value in values)
    whole = [np.broadcast_to(value, (samples, *value.shape[1:])) for value in values]
    return np.concatenate(whole, axis=attribute(op, "axis"))


def reshape(graph: QGraph, op: Op, values: list[Array]) -> Array:
    """The same bytes in the output's shape; a constant may lack the axis of the batch."""
    _, output = tensors(graph, op)
    return values[0].reshape(-1, *output.shape[1:])

"""Ops that are a function of one byte, and what that function is: all 256 values through the reference.

These are the ops that C runs as a table, and ADD, SUB and MUL of a tensor with one constant number or with
itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgekd.qgraph import requantize
from edgekd.qgraph.arithmetic import Ints
from edgekd.qgraph.ir import Op, QGraph
from edgekd.qgraph.ops import TABLE_OPS
from edgekd.qgraph.reference import KERNELS

_BYTES = ("int8", "uint8")
_BINARY = ("ADD", "MUL", "SUB")


@dataclass(frozen=True)
class ByteFunction:
    """The output of each value of the input's dtype: values[i] for lowest + i, in its dtype."""

    source: int
    lowest: int
    values: npt.NDArray[np.generic]

    def of(self, inputs: Ints) -> Ints:
        """The outputs for some inputs, int64."""
        return self.values.astype(np.int64)[inputs - self.lowest]


def byte_function(graph: QGraph, op: Op) -> ByteFunction | None:
    """None where the op is of another kind, or not between int8 and uint8."""
    source = _source(graph, op)
    if source is None:
        return None
    x, y = graph.tensors[source], graph.tensors[op.outputs[0]]
    if x.is_constant or x.shape != y.shape or x.dtype not in _BYTES or y.dtype not in _BYTES:
        return None
    lowest, highest = requantize.limits(x.dtype)
    every = np.arange(lowest, highest + 1).astype(x.dtype)[None]
    small = _on_a_row(graph, op, source)
    values = [every if i == source else np.asarray(small.tensors[i].data) for i in op.inputs]
    return ByteFunction(source, lowest, KERNELS[op.kind](small, op, values)[0].astype(y.dtype))


def _source(graph: QGraph, op: Op) -> int | None:
    """The one activation that the op is a function of."""
    if op.kind in (*TABLE_OPS, "QUANTIZE", "TABLE"):
        return op.inputs[0]
    if op.kind not in _BINARY:
        return None
    activations = {i for i in op.inputs if not graph.tensors[i].is_constant}
    single = all(graph.tensors[i].elements == 1 for i in op.inputs if graph.tensors[i].is_constant)
    return activations.pop() if len(activations) == 1 and single else None


def _on_a_row(graph: QGraph, op: Op, source: int) -> QGraph:
    """The graph with source and output of shape [1, 256], and one-element constants of shape [1]."""
    tensors = list(graph.tensors)
    for index in {source, *op.inputs, op.outputs[0]}:
        tensor = tensors[index]
        if not tensor.is_constant:
            tensors[index] = replace(tensor, shape=(1, 256))
        elif tensor.elements == 1:
            tensors[index] = replace(tensor, shape=(1,), data=np.asarray(tensor.data).reshape(1))
    return replace(graph, tensors=tuple(tensors))

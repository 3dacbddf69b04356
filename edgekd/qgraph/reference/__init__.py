"""The integer reference: a QGraph run in numpy, bit for bit what TFLite Micro's reference kernels compute.

It is the definition that every other execution is held to. Batches of any size run at once, in
pieces small enough for the memory; graphs are those that `validate` accepts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgekd.errors import ArtifactError
from edgekd.progress import Progress, silent
from edgekd.qgraph.ir import Op, QGraph
from edgekd.qgraph.reference import elementwise, linear, pool, shape
from edgekd.qgraph.reference.values import Array

# kind -> (graph, op, an array per input that is there: [N, ...] or a constant as it is) -> output [N, ...]
KERNELS: dict[str, Callable[[QGraph, Op, list[Array]], Array]] = {
    "ADD": elementwise.add_or_sub,
    "AVERAGE_POOL_2D": pool.average_pool,
    "CONCATENATION": shape.concatenation,
    "CONV_2D": linear.conv_2d,
    "CONV_2D_ADD": linear.conv_2d_add,
    "DEPTHWISE_CONV_2D": linear.depthwise_conv_2d,
    "DEQUANTIZE": elementwise.dequantize,
    "FULLY_CONNECTED": linear.fully_connected,
    "LOGISTIC": elementwise.by_table,
    "MAX_POOL_2D": pool.max_pool,
    "MEAN": pool.mean,
    "MUL": elementwise.mul,
    "PAD": shape.pad,
    "QUANTIZE": elementwise.quantize,
    "RELU": elementwise.by_table,
    "RELU6": elementwise.by_table,
    "RESHAPE": shape.reshape,
    "SOFTMAX": elementwise.softmax,
    "SUB": elementwise.add_or_sub,
    "TABLE": elementwise.from_table,
    "TANH": elementwise.by_table,
}

_PIECE_ELEMENTS = 1 << 22  # of the largest intermediate array: 32 MiB as float64


def run(graph: QGraph, inputs: Sequence[Array], *, progress: Progress = silent) -> list[Array]:
    """The outputs [N, ...shape[1:]] for inputs [N, ...shape[1:]], in the graph's dtypes.

    Raises ArtifactError where an input's shape, dtype or number of samples is not the graph's.
    """
    samples = _check_inputs(graph, inputs)
    pieces: list[list[Array]] = []
    step = _samples_per_piece(graph)
    for start in range(0, samples, step):
        values = _run_piece(graph, [x[start : start + step] for x in inputs])
        pieces.append([values[i] for i in graph.outputs])
        progress("reference", min(start + step, samples), samples)
    return [np.concatenate([piece[i] for piece in pieces]) for i in range(len(graph.outputs))]


def run_all(graph: QGraph, inputs: Sequence[Array]) -> dict[int, Array]:
    """As `run`, but every tensor that is not a constant, by its index: for few samples."""
    _check_inputs(graph, inputs)
    return _run_piece(graph, list(inputs))


def _run_piece(graph: QGraph, inputs: list[Array]) -> dict[int, Array]:
    values: dict[int, Array] = dict(zip(graph.inputs, inputs, strict=True))
    samples = len(inputs[0]) if inputs else 1
    for op in graph.ops:
        result = KERNELS[op.kind](graph, op, [_value(graph, values, i) for i in op.inputs if i != -1])
        output = graph.tensors[op.outputs[0]]
        if len(result) != samples:  # made of constants alone
            result = np.broadcast_to(result, (samples, *result.shape[1:]))
        values[op.outputs[0]] = np.ascontiguousarray(result, output.dtype)
    for index in graph.outputs:
        constant = graph.tensors[index].data
        if constant is not None:
            values[index] = np.broadcast_to(constant, (samples, *constant.shape[1:]))
    return values


def _value(graph: QGraph, values: dict[int, Array], index: int) -> Array:
    constant = graph.tensors[index].data
    return values[index] if constant is None else constant


def _check_inputs(graph: QGraph, inputs: Sequence[Array]) -> int:
    if len(inputs) != len(graph.inputs):
        raise ArtifactError(f"graph {graph.name} takes {len(graph.inputs)} inputs, {len(inputs)} were given")
    for index, given in zip(graph.inputs, inputs, strict=True):
        tensor = graph.tensors[index]
        if given.dtype != tensor.dtype or given.shape[1:] != tensor.shape[1:] or given.ndim == 0:
            raise ArtifactError(
                f"graph {graph.name}: input {tensor.name} takes "
                f"{tensor.dtype} [N, {_extents(tensor.shape[1:])}], "
                f"not {given.dtype} [{_extents(given.shape)}]"
            )
    counts = {len(given) for given in inputs}
    if len(counts) > 1 or 0 in counts:
        raise ArtifactError(
            f"graph {graph.name}: inputs need the same number of samples, at least one: {counts}"
        )
    return counts.pop() if counts else 1


def _extents(extents: tuple[int, ...]) -> str:
    return ", ".join(str(extent) for extent in extents)


def _samples_per_piece(graph: QGraph) -> int:
    largest = 1
    for op in graph.ops:
        elements = graph.tensors[op.outputs[0]].elements
        if op.kind in ("CONV_2D", "CONV_2D_ADD"):
            weights = graph.tensors[op.inputs[1]]
            elements = elements // weights.shape[0] * (weights.elements // weights.shape[0])
        largest = max(largest, elements, *(graph.tensors[i].elements for i in op.inputs[:1]))
    return max(1, _PIECE_ELEMENTS // largest)

"""Where real numbers meet the int8 graph: float inputs and outputs are taken off and their work done outside.

A device runs int8; a converter's default file has float32 inputs behind QUANTIZE and outputs behind
DEQUANTIZE. `strip_float_edges` takes these ops off, `quantize_input` and `dequantize_output` do their work.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgekd.errors import UnsupportedOpError
from edgekd.qgraph import requantize
from edgekd.qgraph.ir import Op, QGraph, Tensor
from edgekd.qgraph.reference.elementwise import quantize_real
from edgekd.qgraph.validate import validate


def strip_float_edges(graph: QGraph) -> QGraph:
    """The graph with integer inputs and outputs; tensors keep their indices, `graph` stays as it is.

    Raises UnsupportedOpError where a float tensor is not just behind one QUANTIZE or one DEQUANTIZE.
    """
    inputs = tuple(_behind_quantize(graph, index) for index in graph.inputs)
    outputs = tuple(_before_dequantize(graph, index) for index in graph.outputs)
    ops = tuple(op for op in graph.ops if not _is_float_edge(graph, op))
    stripped = QGraph(graph.name, graph.tensors, ops, inputs, outputs)
    validate(stripped)
    return stripped


def with_float_edges(graph: QGraph) -> QGraph:
    """The graph with float32 inputs and outputs, behind QUANTIZE and DEQUANTIZE where it has integers.

    Tensors keep their indices; the new ones follow behind. Edges that are float already stay.
    """
    tensors, before, behind = list(graph.tensors), [], []

    def edge(index: int) -> int:
        tensor = graph.tensors[index]
        tensors.append(Tensor(f"{tensor.name}_float", tensor.shape, "float32"))
        return len(tensors) - 1

    inputs, outputs = list(graph.inputs), list(graph.outputs)
    for place, index in enumerate(inputs):
        if graph.tensors[index].dtype != "float32":
            inputs[place] = edge(index)
            before.append(Op("QUANTIZE", (inputs[place],), (index,)))
    for place, index in enumerate(outputs):
        if graph.tensors[index].dtype != "float32":
            outputs[place] = edge(index)
            behind.append(Op("DEQUANTIZE", (index,), (outputs[place],)))
    ops = (*before, *graph.ops, *behind)
    framed = QGraph(graph.name, tuple(tensors), ops, tuple(inputs), tuple(outputs))
    validate(framed)
    return framed


def quantize_input(values: npt.ArrayLike, tensor: Tensor) -> npt.NDArray[np.generic]:
    """Real values of any shape in the tensor's integers, as TFLite's QUANTIZE computes them.

    clamp(round half away(value / scale) + zero point), divided in float32; raises ArtifactError on NaN.
    """
    return quantize_real(np.asarray(values, np.float32), tensor)


def dequantize_output(values: npt.NDArray[np.generic], tensor: Tensor) -> npt.NDArray[np.float32]:
    """Integers of any shape as real values: scale * (value - zero point) in double, rounded to float32."""
    wide = values.astype(np.int64) - tensor.zero_point
    return (requantize.scale_of(tensor) * wide).astype(np.float32)


def _is_float_edge(graph: QGraph, op: Op) -> bool:
    source = graph.tensors[op.inputs[0]]
    is_entry = op.kind == "QUANTIZE" and source.dtype == "float32" and op.inputs[0] in graph.inputs
    is_exit = op.kind == "DEQUANTIZE" and op.outputs[0] in graph.outputs
    return is_entry or is_exit


def _behind_quantize(graph: QGraph, index: int) -> int:
    tensor = graph.tensors[index]
    if tensor.dtype != "float32":
        return index
    readers = [op for op in graph.ops if index in op.inputs]
    if len(readers) != 1 or readers[0].kind != "QUANTIZE" or index in graph.outputs:
        raise UnsupportedOpError(
            f"graph {graph.name}: float input {tensor.name} is read by {_kinds(readers)}, "
            "not by one QUANTIZE; export the model with int8 inputs"
        )
    return readers[0].outputs[0]


def _before_dequantize(graph: QGraph, index: int) -> int:
    tensor = graph.tensors[index]
    if tensor.dtype != "float32":
        return index
    writers = [op for op in graph.ops if index in op.outputs]
    readers = [op for op in graph.ops if index in op.inputs]
    if readers or len(writers) != 1 or writers[0].kind != "DEQUANTIZE":
        raise UnsupportedOpError(
            f"graph {graph.name}: float output {tensor.name} is written by {_kinds(writers)} and read by "
            f"{_kinds(readers)}, not written by one DEQUANTIZE alone; export the model with int8 outputs"
        )
    return writers[0].inputs[0]


def _kinds(ops: list[Op]) -> str:
    return ", ".join(op.kind for op in ops) or "no op"

"""A QGraph as a .tflite file for TensorFlow Lite Micro and LiteRT: the same graph, always the same bytes.

Tensors keep their indices, so that `read_tflite(write_tflite(graph))` is the same graph; a CONV_2D without
a bias gets one of zeros behind the last tensor, as LiteRT demands. Constants lie at multiples of 16 bytes,
as the format demands and cores without unaligned loads need.
"""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import UnsupportedOpError
from edgekd.qgraph import requantize
from edgekd.qgraph import tflite_schema as schema
from edgekd.qgraph.encoding import pack
from edgekd.qgraph.ir import Op, QGraph, Tensor
from edgekd.qgraph.ops import EXPLICIT
from edgekd.qgraph.validate import validate

_DATA_ALIGNMENT_BYTES = 16
_SCHEMA_VERSION = 3


def write_tflite(graph: QGraph) -> bytes:
    """The file's bytes: a pure function of the graph.

    Raises UnsupportedOpError for an unsound graph, and for one that passes have changed into what no
    .tflite can hold.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as generated

    validate(graph)
    _check_writable(graph)
    graph = _with_biases(graph)
    builder = flatbuffers.Builder(1024)
    builder.Finish(_model(generated, graph).Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _check_writable(graph: QGraph) -> None:
    for index, op in enumerate(graph.ops):
        activation, padding = (str(op.attrs.get(name, "")) for name in ("activation", "padding"))
        if op.kind not in schema.KINDS or padding == EXPLICIT or activation.startswith(requantize.CLAMP):
            raise UnsupportedOpError(
                f"graph {graph.name}: {graph.label(index)} was made by a pass and has no form in a .tflite; "
                "write the graph as it was read"
            )


def op_list(graph: QGraph) -> list[str]:
    """The kinds of op that an interpreter's op resolver must hold, sorted, under TFLite's names."""
    return sorted({op.kind for op in graph.ops})


def _with_biases(graph: QGraph) -> QGraph:
    """The graph with a bias of zeros in each CONV_2D that has none."""
    tensors, ops = list(graph.tensors), []
    for op in graph.ops:
        if op.kind == "CONV_2D" and op.inputs[2:] in ((), (-1,)):
            x, weights = (graph.tensors[i] for i in op.inputs[:2])
            zeros = np.zeros(weights.shape[0], np.int32)
            scale = np.maximum(x.scale * weights.scale, np.finfo(np.float32).tiny)
            name = f"{graph.tensors[op.outputs[0]].name}_bias"
            tensors.append(Tensor(name, zeros.shape, "int32", scale, data=zeros))
            op = replace(op, inputs=(*op.inputs[:2], len(tensors) - 1))
        ops.append(op)
    return replace(graph, tensors=tuple(tensors), ops=tuple(ops))


def _model(generated: ModuleType, graph: QGraph) -> Any:
    codes = sorted({(op.kind, _version(graph, op)) for op in graph.ops})
    model = generated.ModelT()
    model.version = _SCHEMA_VERSION
    model.description = "edgekd"
    model.operatorCodes = [_operator_code(generated, kind, version) for kind, version in codes]
    constants = [_stored(t, t.data) for t in graph.tensors if t.data is not None]
    model.buffers = [_buffer(generated, None), *(_buffer(generated, data) for data in constants)]
    model.subgraphs = [_subgraph(generated, graph, codes)]
    return model


def _operator_code(generated: ModuleType, kind: str, version: int) -> Any:
    code = generated.OperatorCodeT()
    code.builtinCode = getattr(generated.BuiltinOperator, kind)
    code.deprecatedBuiltinCode = code.builtinCode  # all of ours lie below 127
    code.version = version
    return code


def _subgraph(generated: ModuleType, graph: QGraph, codes: list[tuple[str, int]]) -> Any:
    subgraph = generated.SubGraphT()
    subgraph.name = "main"
    buffer = 0
    subgraph.tensors = []
    for tensor in graph.tensors:
        buffer += tensor.is_constant
        subgraph.tensors.append(_tensor(generated, tensor, buffer if tensor.is_constant else 0))
    subgraph.inputs, subgraph.outputs = _indices(graph.inputs), _indices(graph.outputs)
    subgraph.operators = [_operator(generated, graph, op, codes) for op in graph.ops]
    return subgraph


def _tensor(generated: ModuleType, tensor: Tensor, buffer: int) -> Any:
    result = generated.TensorT()
    result.shape = _indices(tensor.shape)
    kind = schema.INT4 if _is_int4(tensor) else schema.TYPES[tensor.dtype]
    result.type = getattr(generated.TensorType, kind)
    result.buffer = buffer
    result.name = tensor.name
    if len(tensor.scale):
        quantization = generated.QuantizationParametersT()
        quantization.scale = tensor.scale.astype(np.float32)
        quantization.zeroPoint = np.full(len(tensor.scale), tensor.zero_point, np.int64)
        quantization.quantizedDimension = tensor.axis
        result.quantization = quantization
    return result


def _is_int4(tensor: Tensor) -> bool:
    """Whether the file keeps the weights as int4; other tables are unknown to TFLite: plain int8."""
    return tensor.encoding is not None and tensor.encoding.is_uniform_int4


def _stored(tensor: Tensor, data: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    return pack(data.astype(np.int8).view(np.uint8) & 15, 4) if _is_int4(tensor) else data


def _operator(generated: ModuleType, graph: QGraph, op: Op, codes: list[tuple[str, int]]) -> Any:
    result = generated.OperatorT()
    result.opcodeIndex = codes.index((op.kind, _version(graph, op)))
    result.inputs, result.outputs = _indices(_written_inputs(op)), _indices(op.outputs)
    name = schema.KINDS[op.kind].options
    if name is not None:
        result.builtinOptionsType = getattr(generated.BuiltinOptions, name)
        result.builtinOptions = _options(generated, graph, op, name)
    return result


def _written_inputs(op: Op) -> tuple[int, ...]:
    return op.inputs[:-1] if op.inputs[-1] == -1 else op.inputs


def _options(generated: ModuleType, graph: QGraph, op: Op, name: str) -> Any:
    options = getattr(generated, f"{name}T")()
    for attribute, field in schema.KINDS[op.kind].fields.items():
        value = op.attrs[attribute]
        if attribute == "activation":
            value = schema.ACTIVATIONS.index(str(value))
        elif attribute == "padding":
            value = schema.PADDINGS.index(str(value))
        setattr(options, field.member, value)
    if op.kind == "RESHAPE":
        options.newShape = _indices(graph.tensors[op.outputs[0]].shape)
    if op.kind == "FULLY_CONNECTED":
        options.keepNumDims = _keeps_axes(graph, op)
    return options


def _keeps_axes(graph: QGraph, op: Op) -> bool:
    """Whether FULLY_CONNECTED keeps the axes before the last; two axes need no such word."""
    return len(graph.tensors[op.outputs[0]].shape) != 2


def _version(graph: QGraph, op: Op) -> int:
    """The lowest version of the operator that has what this op needs (LiteRT refuses a lower one)."""
    source, output = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
    version = schema.KINDS[op.kind].version
    if op.kind in schema.INT4_VERSIONS and _is_int4(graph.tensors[op.inputs[1]]):
        version = max(version, schema.INT4_VERSIONS[op.kind])
    if op.kind == "FULLY_CONNECTED":
        per_channel = len(graph.tensors[op.inputs[1]].scale) > 1
        needs = ((per_channel, 12), (len(_written_inputs(op)) == 2, 6), (_keeps_axes(graph, op), 5))
        version = max(version, *(number for needed, number in needs if needed), 0)
    elif op.kind == "MUL":
        other = graph.tensors[op.inputs[1]]
        real = requantize.scale_of(source) * requantize.scale_of(other) / requantize.scale_of(output)
        version = 3 if real >= 1 else version
    elif op.kind == "QUANTIZE" and source.dtype != "float32":
        version = 2
    return version


def _indices(values: tuple[int, ...]) -> npt.NDArray[np.int32]:
    return np.array(values, np.int32)


def _buffer(generated: ModuleType, data: npt.NDArray[np.generic] | None) -> Any:
    """A buffer that packs itself with its data aligned; the schema's own class aligns to 1 byte."""

    class AlignedBuffer(generated.BufferT):  # type: ignore[misc, name-defined]
        def Pack(self, builder: Any) -> Any:
            vector = None if data is None else _aligned_vector(builder, data)
            generated.BufferStart(builder)
            if vector is not None:
                generated.BufferAddData(builder, vector)
            return generated.BufferEnd(builder)

    return AlignedBuffer()


def _aligned_vector(builder: Any, data: npt.NDArray[np.generic]) -> Any:
    raw = np.ascontiguousarray(data, data.dtype.newbyteorder("<")).tobytes()
    builder.StartVector(1, len(raw), _DATA_ALIGNMENT_BYTES)
    builder.head -= len(raw)
    builder.Bytes[builder.head : builder.head + len(raw)] = raw
    return builder.EndVector()

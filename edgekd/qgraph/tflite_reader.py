"""A .tflite file, ours or anyone's, as a QGraph: one subgraph, fixed shapes, the ops of `ops.OPS`.

Broken bytes raise ArtifactError; what a sound file holds beyond our reach raises UnsupportedOpError
that names the op, its layer and its shapes. Tensors keep the file's indices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from edgekd.errors import ArtifactError, UnsupportedOpError
from edgekd.qgraph import tflite_schema as schema
from edgekd.qgraph.encoding import uniform, unpack_int4
from edgekd.qgraph.flatbuffer import Reader, Table
from edgekd.qgraph.ir import Attr, Op, QGraph, Tensor
from edgekd.qgraph.ops import OPS
from edgekd.qgraph.validate import validate

_NUMBERS = {
    "int8": "<i1",
    "uint8": "<u1",
    "int16": "<i2",
    "int32": "<i4",
    "int64": "<i8",
    "float32": "<f4",
    "bool": "?",
}
# These may leave out their last input, the bias; a QGraph says so with -1.
_WITH_BIAS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
# Names and shapes stand in messages, and a damaged file may have any.
_LONGEST_NAME, _MOST_SHOWN = 200, 8


def read_tflite(data: bytes, name: str) -> QGraph:
    """The graph in `data`; `name` is the file's, for messages and as the graph's name.

    Raises ArtifactError for a file that is no whole .tflite, UnsupportedOpError for one that holds
    an operator, dtype, shape or quantization that edgekd cannot run.
    """
    if len(data) < 8 or data[4:8] != b"TFL3":
        raise ArtifactError(
            f"{name} is not a TensorFlow Lite model: it is empty, truncated or of another format"
        )
    model = Reader(data, name).root()
    if model.integer(0, "I") != 3:
        raise ArtifactError(
            f"{name} has schema version {model.integer(0, 'I')}; only version 3 exists for .tflite"
        )
    subgraphs = model.tables(2)
    if len(subgraphs) != 1:
        raise UnsupportedOpError(f"{name} holds {len(subgraphs)} subgraphs; export a model with exactly one")
    buffers = model.tables(4)
    tensors = tuple(_tensor(table, i, buffers, name) for i, table in enumerate(subgraphs[0].tables(0)))
    codes = [operator_code(table) for table in model.tables(1)]
    ops = tuple(_op(table, i, codes, tensors, name) for i, table in enumerate(subgraphs[0].tables(3)))
    tensors = _depthwise_axes(tensors, ops)
    graph = QGraph(name, tensors, ops, subgraphs[0].integers(1), subgraphs[0].integers(2))
    validate(graph)
    return graph


def _tensor(table: Table, index: int, buffers: list[Table], file: str) -> Tensor:
    name = table.text(3)[:_LONGEST_NAME] or f"tensor_{index}"
    where = f"{file}, tensor {index} ({name})"
    shape = table.integers(0)
    if len(shape) > _MOST_SHOWN:
        raise UnsupportedOpError(f"{where} has {len(shape)} axes; at most 6 are supported")
    kind = _kind(table)
    dtype = "int8" if kind == schema.INT4 else _dtype(kind, where)
    signature = table.integers(7)
    if any(extent == -1 for extent in signature[1:]) or any(extent < 1 for extent in shape):
        dynamic = _shape_text(signature or shape)
        raise UnsupportedOpError(
            f"{where} has the dynamic shape {dynamic}; export with fixed shapes and batch 1"
        )
    if table.integer(5, "?") or table.has(6):
        raise UnsupportedOpError(f"{where} is a variable or sparse tensor, which edgekd cannot run")
    scale, zero_point, axis = _quantization(table, where, len(shape))
    raw = _raw(table, buffers, where)
    if kind == schema.INT4:
        data = _int4(raw, shape, where)
        encoding = uniform(4, shape[axis] if shape else 0, axis)
        return Tensor(name, shape, dtype, scale, zero_point, axis, data, encoding)
    return Tensor(name, shape, dtype, scale, zero_point, axis, _constant(raw, dtype, shape, where))


def _depthwise_axes(tensors: tuple[Tensor, ...], ops: tuple[Op, ...]) -> tuple[Tensor, ...]:
    """int4 weights of depthwise convolutions count their channels on the last axis, also with one scale."""
    weights = {op.inputs[1] for op in ops if op.kind == "DEPTHWISE_CONV_2D" and len(op.inputs) > 1}
    return tuple(
        replace(t, encoding=uniform(4, t.shape[3], 3))
        if i in weights and t.encoding is not None and len(t.shape) == 4
        else t
        for i, t in enumerate(tensors)
    )


def _kind(table: Table) -> str:
    number = table.integer(1, "b")
    return schema.tensor_types().get(number, f"number {number}")


def _dtype(kind: str, where: str) -> str:
    for dtype, member in schema.TYPES.items():
        if member == kind:
            return dtype
    raise UnsupportedOpError(
        f"{where} has the type {kind}, which edgekd cannot run; quantize the model to int8"
    )


def _quantization(table: Table, where: str, rank: int) -> tuple[npt.NDArray[np.float32], int, int]:
    quantization = table.table(4)
    if quantization is None:
        return np.zeros(0, np.float32), 0, 0
    if quantization.integer(4, "B"):
        raise UnsupportedOpError(
            f"{where} has a custom quantization; only scale and zero point are supported"
        )
    found = quantization.array(2, "<f4")
    scale = np.zeros(0, np.float32) if found is None else found.astype(np.float32, copy=False)
    found_points = quantization.array(3, "<i8")
    given = np.zeros(0, np.int64) if found_points is None else found_points
    zero_points = set(np.unique(given).tolist()) or {0}
    axis = quantization.integer(6, "i")
    if len(zero_points) > 1:
        raise UnsupportedOpError(
            f"{where} has a zero point of its own for each channel; only one is supported"
        )
    if len(given) not in (1, len(scale)):
        raise ArtifactError(
            f"{where} has {len(given)} zero points for {len(scale)} scales; get the file again"
        )
    if len(scale) > 1 and not 0 <= axis < rank:
        raise ArtifactError(f"{where} is quantized along axis {axis}, which its {rank} axes do not have")
    return scale, zero_points.pop(), axis if len(scale) > 1 else 0


def _raw(table: Table, buffers: list[Table], where: str) -> npt.NDArray[np.uint8] | None:
    """The bytes of a constant, None for an activation."""
    index = table.integer(2, "I")
    if index >= len(buffers):
        raise ArtifactError(
            f"{where} lies in buffer {index}, but the file has {len(buffers)}; get the file again"
        )
    if buffers[index].integer(1, "Q") or table.integer(10, "I"):
        raise UnsupportedOpError(
            f"{where} keeps its data outside the model's table; save the model under 2 GB"
        )
    raw = buffers[index].array(0, "u1")
    return None if raw is None or len(raw) == 0 else raw.view(np.uint8)


def _int4(raw: npt.NDArray[np.uint8] | None, shape: tuple[int, ...], where: str) -> npt.NDArray[np.int8]:
    """The values of packed int4 weights; activations of int4 are refused."""
    if raw is None:
        raise UnsupportedOpError(f"{where} is an int4 activation; only constant weights can be int4")
    count = _sized(raw, shape, lambda count: -(-count // 2), where)
    return unpack_int4(raw, count).reshape(shape)


def _sized(
    raw: npt.NDArray[np.uint8], shape: tuple[int, ...], needed: Callable[[int], int], where: str
) -> int:
    """How many values `shape` has. Raises ArtifactError unless `raw` has the bytes that so many need."""
    count = 1
    for extent in shape:
        count *= extent
    if len(raw) != needed(count):
        raise ArtifactError(f"{where} has {len(raw)} bytes of data where shape {shape} needs {needed(count)}")
    return count


def _constant(
    raw: npt.NDArray[np.uint8] | None, dtype: str, shape: tuple[int, ...], where: str
) -> npt.NDArray[np.generic] | None:
    if raw is None:
        return None
    item = np.dtype(_NUMBERS[dtype])
    _sized(raw, shape, lambda count: count * item.itemsize, where)
    if dtype == "bool":
        raw = (raw != 0).view(np.uint8)  # any other byte than 0 and 1 is no bool
    # A view of the file where its bytes are aligned, as they are in a sound file: files may share parts.
    values: npt.NDArray[np.generic] = raw.view(item).astype(dtype, copy=False).reshape(shape)
    return values


def operator_code(table: Table) -> str:
    """The name of an entry in the table of operator codes."""
    number = max(table.integer(0, "b"), table.integer(3, "i"))
    name = schema.operators().get(number, f"number {number}")
    return f"CUSTOM {table.text(1)}" if name == "CUSTOM" else name


def _op(table: Table, index: int, codes: list[str], tensors: tuple[Tensor, ...], file: str) -> Op:
    code = table.integer(0, "I")
    if code >= len(codes):
        raise ArtifactError(f"{file}: op {index} has operator code {code}, but the file has {len(codes)}")
    kind = codes[code]
    inputs, outputs = table.integers(1), table.integers(2)
    for position in (*inputs, *outputs):
        if not -1 <= position < len(tensors):
            raise ArtifactError(
                f"{file}: op {index} {kind} uses tensor {position}, but there are {len(tensors)}"
            )
    layer = tensors[outputs[0]].name if outputs and outputs[0] >= 0 else "no output"
    where = f"{file}: op {index} {kind} ({layer})"
    if kind not in OPS:
        shapes, results = (_shapes_text(tensors, each) for each in (inputs, outputs))
        raise UnsupportedOpError(f"{where}, {shapes} -> {results}, is an operator that edgekd cannot run")
    if kind in _WITH_BIAS and len(inputs) == 2:
        inputs = (*inputs, -1)
    return Op(kind, inputs, outputs, _attributes(table, kind, where))


def _shapes_text(tensors: tuple[Tensor, ...], positions: tuple[int, ...]) -> str:
    shown = [str(tensors[i].shape) for i in positions if i >= 0]
    return ", ".join(shown[:_MOST_SHOWN]) + (", ..." if len(shown) > _MOST_SHOWN else "")


def _shape_text(shape: tuple[int, ...]) -> str:
    return str(shape) if len(shape) <= _MOST_SHOWN else f"of {len(shape)} axes"


def _attributes(table: Table, kind: str, where: str) -> dict[str, Attr]:
    options, known = table.table(4), schema.KINDS[kind]
    attributes: dict[str, Attr] = {}
    if options is None and known.fields:
        raise ArtifactError(f"{where} has no options; get the file again")
    if options is not None and known.options:
        found = schema.options_types().get(table.integer(3, "B"), "unknown")
        if found != known.options:
            raise ArtifactError(f"{where} has {found} where {known.options} belong; get the file again")
        for name, field in known.fields.items():
            attributes[name] = _attribute(name, options.number(field.slot, field.code, field.default), where)
        _refuse_packed_weights(options, kind, where)
    return attributes


def _attribute(name: str, value: int | float, where: str) -> Attr:
    if name in ("activation", "padding"):
        names = schema.ACTIVATIONS if name == "activation" else schema.PADDINGS
        if not 0 <= value < len(names):
            raise ArtifactError(f"{where} has the unknown {name} {value}; get the file again")
        return names[int(value)]
    return bool(value) if name == "keep_dims" else value


def _refuse_packed_weights(options: Table, kind: str, where: str) -> None:
    field = schema.FULLY_CONNECTED_WEIGHTS_FORMAT
    if kind == "FULLY_CONNECTED" and options.number(field.slot, field.code):
        raise UnsupportedOpError(
            f"{where} has shuffled weights, which edgekd cannot run; export plain weights"
        )

"""An int8 QDQ ONNX model, ours or anyone's, as a QGraph: NCHW becomes NHWC once, here.

QuantizeLinear and DequantizeLinear around every activation, weights and biases behind a
DequantizeLinear (a float bias is quantized to scale s_in * s_w). uint8 activations are read as int8
with zero point - 128: the same integers. Float inputs and outputs stay, behind QUANTIZE and DEQUANTIZE.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import ArtifactError, UnsupportedOpError
from edgekd.qgraph.ir import QGraph, Tensor
from edgekd.qgraph.onnx_build import Builder, Constant, Params, Value
from edgekd.qgraph.onnx_model import Node, OnnxModel, parse, parse_proto
from edgekd.qgraph.onnx_ops import CONVERTERS, nhwc
from edgekd.qgraph.validate import validate

_INT8 = 3  # TensorProto.INT8, in QuantizeLinear's attribute output_dtype


def is_qdq(data: bytes, name: str = "the model file") -> bool:
    """Whether an ONNX model is in QDQ form. Raises ArtifactError when it is not a whole ONNX model."""
    model = parse_proto(data, name)
    return any(node.op_type == "QuantizeLinear" for node in model.graph.node)


def read_onnx(data: bytes, name: str) -> QGraph:
    """The QGraph of the QDQ model in `data`; `name` is the file's, for messages and as the graph's name.

    Inputs and outputs are in NHWC order where the file has NCHW. Raises ArtifactError for a file that is no
    whole ONNX model, UnsupportedOpError naming layer, operator and shapes for what edgekd cannot run.
    """
    model = parse(data, name)
    builder = Builder(model)
    try:
        inputs = tuple(_input(builder, model, value) for value in model.inputs)
        for node in model.nodes:
            _node(builder, node)
        outputs = tuple(_output(builder, model, value) for value in model.outputs)
    except (KeyError, IndexError, ValueError, TypeError, OverflowError) as error:
        detail = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ArtifactError(
            f"{name} holds a layer whose parts do not fit ({detail}); export it again"
        ) from None
    graph = _without_unused(QGraph(name, tuple(builder.tensors), tuple(builder.ops), inputs, outputs))
    _check_encodings(builder, graph)
    validate(graph)
    return graph


def _check_encodings(builder: Builder, graph: QGraph) -> None:
    """Every entry of the metadata belongs to the weights of some layer."""
    held = {id(t.encoding.tables) for t in graph.tensors if t.encoding is not None}
    for weights, stored in builder.encodings.items():
        if id(stored.tables) not in held:
            raise ArtifactError(
                f"{builder.model.name}, metadata of initializer {weights!r}: no layer has it as its weights; "
                "write the model again"
            )


def _input(builder: Builder, model: OnnxModel, name: str) -> int:
    """A graph input as a tensor. int8 inputs get their scale from the DequantizeLinear behind them."""
    shape, dtype = model.shapes.get(name), model.dtypes[name]
    if shape is None or not shape or shape[0] != 1:
        shown = "x".join(map(str, shape or ("?",)))
        raise UnsupportedOpError(
            f"{model.name}, input {name!r} has shape {shown}; export the model with batch 1"
        )
    if dtype == "float32":
        index = builder.tensor(Tensor(name, nhwc(shape), "float32"))
        builder.values[name] = Value(index)
        return index
    reader = next((n for n in model.nodes if n.kind == "DequantizeLinear" and n.inputs[0] == name), None)
    if dtype != "int8" or reader is None:
        raise UnsupportedOpError(
            f"{model.name}, input {name!r} is {dtype}; "
            "export with a float32 input, or int8 behind a DequantizeLinear"
        )
    params = _params(builder, reader)
    index = builder.activation(name, nhwc(shape), params)
    builder.values[name] = Value(index, params)
    return index


def _output(builder: Builder, model: OnnxModel, name: str) -> int:
    """A graph output: the int8 tensor itself, or a DEQUANTIZE of it for a float one."""
    value = builder.values.get(name)
    if value is None or value.params is None:
        raise UnsupportedOpError(
            f"{model.name}, output {name!r} is not quantized; quantize every activation (QDQ on both sides)"
        )
    if value.order is not None:
        raise UnsupportedOpError(
            f"{model.name}, output {name!r} is flattened from C x H x W; end the model before the flatten"
        )
    if not any(n.kind == "DequantizeLinear" and name in n.outputs for n in model.nodes):
        return value.index
    tensor = builder.tensor(Tensor(name, builder.tensors[value.index].shape, "float32"))
    return builder.op("DEQUANTIZE", (value.index,), tensor)


def _node(builder: Builder, node: Node) -> None:
    if node.kind == "QuantizeLinear":
        _quantize(builder, node)
    elif node.kind == "DequantizeLinear":
        _dequantize(builder, node)
    elif node.kind == "Identity" and node.inputs[0] in builder.values:
        builder.values[node.outputs[0]] = builder.values[node.inputs[0]]
    elif node.kind in CONVERTERS:
        for name in node.inputs:
            if name in builder.pending and node.kind not in ("Relu", "Clip"):
                raise builder.error(node, f"its input {name!r} is not quantized; quantize every activation")
        if builder.model.consumers.get(node.outputs[0], 0) > 1:
            raise builder.error(
                node, "its float output has several readers; put one QuantizeLinear behind it"
            )
        builder.pending[node.outputs[0]] = CONVERTERS[node.kind](builder, node)
    else:
        known = ", ".join(sorted(CONVERTERS))
        raise builder.error(node, f"edgekd cannot run this operator; it can: {known}")


def _quantize(builder: Builder, node: Node) -> None:
    source, target = node.inputs[0], node.outputs[0]
    if source in builder.model.constants:
        builder.model.constants[target] = _quantized_constant(builder, node)
        return
    params = _params(builder, node)
    if source in builder.pending:
        builder.values[target] = builder.close(builder.pending.pop(source), params, source)
        return
    if source not in builder.values:
        raise builder.error(node, "it quantizes what is no activation that edgekd read; export it again")
    value = builder.values[source]
    if value.params is None:
        shape = builder.tensors[value.index].shape
        index = builder.op("QUANTIZE", (value.index,), builder.activation(target, shape, params))
    else:
        index = builder.requantized(value.index, params, target)
    builder.values[target] = Value(index, params, value.order)


def _dequantize(builder: Builder, node: Node) -> None:
    source, target = node.inputs[0], node.outputs[0]
    if source in builder.model.constants:
        builder.constants[target] = _constant(builder, node)
        return
    value = builder.values.get(source)
    if value is None or value.params is None:
        raise builder.error(node, "it reads what no QuantizeLinear wrote; quantize every activation")
    if not value.params.same(_params(builder, node)):
        raise builder.error(node, "its scale or zero point is not that of the QuantizeLinear before it")
    builder.values[target] = value


def _params(builder: Builder, node: Node) -> Params:
    """One int8 scale and zero point of a QuantizeLinear or DequantizeLinear of an activation."""
    scale = builder.model.constants.get(node.input(1))
    if scale is None or scale.size != 1 or not np.isfinite(scale).all() or float(scale.reshape(-1)[0]) <= 0:
        raise builder.error(node, "an activation needs one constant positive scale")
    zero_point = _zero_point(builder, node, node.attrs.get("output_dtype", 0))
    if zero_point.size != 1 or zero_point.dtype not in (np.int8, np.uint8):
        raise builder.error(
            node, f"its integers are {zero_point.dtype}; only int8 and uint8 activations are supported"
        )
    shift = 128 if zero_point.dtype == np.uint8 else 0
    return Params(np.float32(scale.reshape(-1)[0]), int(zero_point.reshape(-1)[0]) - shift)


def _quantized_constant(builder: Builder, node: Node) -> npt.NDArray[Any]:
    """The integers of a float weight in front of its QuantizeLinear, as some exporters leave it."""
    data, scale = (builder.model.constants.get(node.input(i), np.zeros(0)) for i in (0, 1))
    zero_point = _zero_point(builder, node, node.attrs.get("output_dtype", 0))
    if scale.size == 0 or zero_point.dtype not in (np.int8, np.uint8) or data.dtype != np.float32:
        raise builder.error(node, "a float constant needs a constant scale and int8 or uint8 integers")
    if scale.size > 1:
        wide = [1] * data.ndim
        wide[int(node.attrs.get("axis", 1))] = -1
        scale, zero_point = scale.reshape(wide), zero_point.reshape(wide)
    limits = np.iinfo(zero_point.dtype)
    steps = np.rint(data / scale) + zero_point
    return np.asarray(np.clip(steps, limits.min, limits.max), zero_point.dtype)


def _zero_point(builder: Builder, node: Node, dtype: int) -> npt.NDArray[Any]:
    """The zero point, or 0 in the dtype that the operator has without one."""
    if node.input(2) in builder.model.constants:
        return builder.model.constants[node.input(2)]
    if node.input(2):
        raise builder.error(node, "its zero point is not constant")
    data = builder.model.constants.get(node.inputs[0])
    if node.kind == "DequantizeLinear" and data is not None:
        return np.zeros(1, data.dtype)
    return np.zeros(1, np.int8 if dtype == _INT8 else np.uint8)


def _constant(builder: Builder, node: Node) -> Constant:
    data = builder.model.constants[node.inputs[0]]
    scale = builder.model.constants.get(node.input(1))
    zero_point = _zero_point(builder, node, 0)
    if scale is None or not np.isfinite(scale).all() or (scale <= 0).any() or data.dtype == np.float32:
        raise builder.error(node, "a constant needs constant positive scales and integers")
    if (zero_point != zero_point.reshape(-1)[0]).any():
        raise builder.error(node, "its channels have different zero points; quantize weights symmetrically")
    offset = int(zero_point.reshape(-1)[0])
    if data.dtype == np.uint8:
        data, offset = (data.astype(np.int16) - 128).astype(np.int8), offset - 128
    if data.dtype not in (np.int8, np.int32):
        raise builder.error(
            node, f"its integers are {data.dtype}; only int8 weights and int32 biases are supported"
        )
    stored = builder.encodings.get(node.inputs[0])
    axis = int(node.attrs.get("axis", 1))
    return Constant(data, scale.reshape(-1).astype(np.float32), offset, axis, stored)


def _without_unused(graph: QGraph) -> QGraph:
    """The graph without tensors that no op and no edge names."""
    used = sorted(
        {i for op in graph.ops for i in (*op.inputs, *op.outputs) if i >= 0} | {*graph.inputs, *graph.outputs}
    )
    place = {old: new for new, old in enumerate(used)}
    ops = tuple(
        type(op)(
            op.kind, tuple(place.get(i, -1) for i in op.inputs), tuple(place[i] for i in op.outputs), op.attrs
        )
        for op in graph.ops
    )
    edges = (tuple(place[i] for i in graph.inputs), tuple(place[i] for i in graph.outputs))
    return QGraph(graph.name, tuple(graph.tensors[i] for i in used), ops, *edges)

"""QGraph -> ONNX: the int8 graph as a QDQ model of the same integers, or as the float model that they mean.

A .tflite that another tool made so runs on ONNX Runtime too. Images are NCHW in the result, as everywhere
in ONNX: weights, axes and paddings are rewritten, and a transpose stands only where a RESHAPE takes apart
an image of several channels and pixels. Input and output are float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import UnsupportedOpError
from edgekd.qgraph.edges import with_float_edges
from edgekd.qgraph.ir import Op, QGraph, Tensor
from edgekd.qgraph.ops import paddings

OPSET, IR_VERSION = 17, 9
TO_CHANNELS_FIRST = (0, 3, 1, 2)
AXES = {0: 0, 1: 2, 2: 3, 3: 1}  # an axis of an NHWC image in NCHW
PLAIN = {"LOGISTIC": "Sigmoid", "TANH": "Tanh", "RELU": "Relu"}
SUMS = {"ADD": "Add", "SUB": "Sub", "MUL": "Mul"}

Array = npt.NDArray[Any]


def write_onnx(graph: QGraph, *, quantized: bool) -> bytes:
    """The model's bytes; the same graph gives the same ones.

    quantized: with QuantizeLinear and DequantizeLinear around every op and int8 constants; else the
    constants' real values and no rounding between ops. Raises UnsupportedOpError for an op without a row
    here, and for tensors of other types than int8 and int32.
    """
    from onnx import TensorProto, helper

    writer = _Writer(with_float_edges(graph), quantized)
    for op in writer.graph.ops:
        writer.emit(op)
    values = []
    for indices in (writer.graph.inputs, writer.graph.outputs):
        tensors = [(writer.names[i], channels_first(writer.graph.tensors[i].shape)) for i in indices]
        values.append([helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in tensors])
    made = helper.make_graph(writer.nodes, graph.name, values[0], values[1], writer.constants)
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=IR_VERSION, producer_name="edgekd")
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def channels_first(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of an NHWC image in NCHW; any other as it is."""
    return tuple(shape[axis] for axis in TO_CHANNELS_FIRST) if len(shape) == 4 else tuple(shape)


class _Writer:
    """The growing model. `names`: the real value of each tensor, by index."""

    def __init__(self, graph: QGraph, quantized: bool) -> None:
        self.graph, self.quantized = graph, quantized
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.names = {index: f"input_{place}" for place, index in enumerate(graph.inputs)}

    def emit(self, op: Op) -> None:
        """The nodes of one op, its result rounded to its own integers where the model is quantized."""
        handler = _HANDLERS.get(op.kind)
        if handler is None:
            raise UnsupportedOpError(
                f"graph {self.graph.name}: {op.kind} cannot be written as ONNX; leave the variants float "
                "and int8 out of runtime.variants"
            )
        index = op.outputs[0]
        name = self.activated(handler(self, op), str(op.attrs.get("activation", "NONE")))
        tensor = self.graph.tensors[index]
        if self.quantized and tensor.dtype != "float32":
            name = self.rounded(name, tensor, f"t{index}")
        if index in self.graph.outputs:
            name = self.add("Identity", [name], name=f"output_{self.graph.outputs.index(index)}")
        self.names[index] = name

    def add(self, kind: str, inputs: Sequence[str], name: str = "", **attributes: Any) -> str:
        """One node; returns its output's name."""
        from onnx import helper

        output = name or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def constant(self, values: Array, name: str) -> str:
        """One initializer; returns its name."""
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.array(values, order="C"), name))
        return name

    def rounded(self, name: str, tensor: Tensor, base: str) -> str:
        """Behind a QuantizeLinear and a DequantizeLinear with the tensor's parameters."""
        parameters = self.parameters(tensor, base)
        quantized = self.add("QuantizeLinear", [name, *parameters], name=f"{base}_q")
        return self.add("DequantizeLinear", [quantized, *parameters], name=base)

    def parameters(self, tensor: Tensor, base: str) -> tuple[str, str]:
        if tensor.dtype not in ("int8", "uint8"):
            raise UnsupportedOpError(
                f"graph {self.graph.name}: {tensor.name} is {tensor.dtype}; ONNX is written of int8 alone"
            )
        scale = self.constant(np.array(tensor.scale[0]), f"{base}_scale")
        return scale, self.constant(np.array(tensor.zero_point, tensor.dtype), f"{base}_zero")

    def weights(self, index: int, values: Array, axis: int) -> str:
        """A constant whose dimension `axis` is the quantized one: dequantized here, or by a node."""
        tensor, base = self.graph.tensors[index], f"c{index}"
        scale = tensor.scale if len(tensor.scale) > 1 else tensor.scale[0]
        if not self.quantized:
            shape = [-1 if place == axis else 1 for place in range(values.ndim)]
            wide = values.astype(np.float64) - tensor.zero_point
            real = wide * np.asarray(scale, np.float64).reshape(shape if np.ndim(scale) else ())
            return self.constant(real.astype(np.float32), base)
        zero = np.full(np.shape(scale), tensor.zero_point, tensor.dtype)
        parameters = [
            self.constant(np.asarray(scale, np.float32), f"{base}_scale"),
            self.constant(zero, f"{base}_zero"),
        ]
        stored = self.constant(values, f"{base}_q")
        attributes = {"axis": axis} if np.ndim(scale) else {}
        return self.add("DequantizeLinear", [stored, *parameters], name=base, **attributes)

    def value(self, index: int) -> str:
        """An input's real value: an activation, or a constant in the layout of images."""
        data = self.graph.tensors[index].data
        if data is None:
            return self.names[index]
        return self.weights(index, data.transpose(TO_CHANNELS_FIRST) if data.ndim == 4 else data, 0)

    def activated(self, name: str, activation: str) -> str:
        """Behind the op's fused activation."""
        if activation == "NONE":
            return name
        if activation == "RELU":
            return self.add("Relu", [name])
        if activation == "RELU6":
            ends = [self.constant(np.array(end, np.float32), f"v{len(self.nodes)}_{end}") for end in (0, 6)]
            return self.add("Clip", [name, *ends])
        raise UnsupportedOpError(f"graph {self.graph.name}: the activation {activation} has no form in ONNX")

    def data(self, index: int) -> Array:
        """A constant's values; UnsupportedOpError where it is none."""
        data = self.graph.tensors[index].data
        if data is None:
            name = self.graph.tensors[index].name
            raise UnsupportedOpError(
                f"graph {self.graph.name}: {name} must be constant to be written as ONNX"
            )
        return data


def _bias(writer: _Writer, op: Op) -> list[str]:
    if len(op.inputs) < 3 or op.inputs[2] == -1:
        return []
    return [writer.weights(op.inputs[2], writer.data(op.inputs[2]), 0)]


def _window(writer: _Writer, op: Op, filter_h: int, filter_w: int) -> dict[str, Any]:
    """Strides and pads of a convolution or a pool, as ONNX says them."""
    shape, attrs = writer.graph.tensors[op.inputs[0]].shape, op.attrs
    top, bottom = paddings(attrs, "h", shape[1], filter_h)
    left, right = paddings(attrs, "w", shape[2], filter_w)
    return {"strides": [attrs["stride_h"], attrs["stride_w"]], "pads": [top, left, bottom, right]}


def _conv(writer: _Writer, op: Op) -> str:
    weights = writer.data(op.inputs[1])
    is_depthwise = op.kind == "DEPTHWISE_CONV_2D"
    turned = weights.transpose(3, 0, 1, 2) if is_depthwise else weights.transpose(TO_CHANNELS_FIRST)
    channels = writer.graph.tensors[op.inputs[0]].shape[3]
    group = channels if is_depthwise else channels // turned.shape[1]
    given = [writer.names[op.inputs[0]], writer.weights(op.inputs[1], turned, 0), *_bias(writer, op)]
    dilations = [op.attrs.get("dilation_h", 1), op.attrs.get("dilation_w", 1)]
    window = _window(writer, op, *turned.shape[2:])
    return writer.add("Conv", given, group=group, dilations=dilations, **window)


def _fully_connected(writer: _Writer, op: Op) -> str:
    weights = writer.weights(op.inputs[1], writer.data(op.inputs[1]), 0)
    source = writer.graph.tensors[op.inputs[0]]
    name = writer.names[op.inputs[0]]
    if len(source.shape) != 2:
        name = _reshaped(writer, name, source.shape, (1, source.elements))
    return writer.add("Gemm", [name, weights, *_bias(writer, op)], transB=1)


def _pool(writer: _Writer, op: Op) -> str:
    kernel = [op.attrs["filter_h"], op.attrs["filter_w"]]
    window = {"kernel_shape": kernel, **_window(writer, op, int(str(kernel[0])), int(str(kernel[1])))}
    kind = "MaxPool" if op.kind == "MAX_POOL_2D" else "AveragePool"
    return writer.add(kind, [writer.names[op.inputs[0]]], **window)


def _mean(writer: _Writer, op: Op) -> str:
    """Over rows and columns, which is all that the op may be over."""
    name = writer.add("GlobalAveragePool", [writer.names[op.inputs[0]]])
    shape = writer.graph.tensors[op.outputs[0]].shape
    return name if len(shape) == 4 else _to_shape(writer, name, shape)


def _reshape(writer: _Writer, op: Op) -> str:
    source, target = writer.graph.tensors[op.inputs[0]], writer.graph.tensors[op.outputs[0]]
    return _reshaped(writer, writer.names[op.inputs[0]], source.shape, target.shape)


def _reshaped(writer: _Writer, name: str, source: tuple[int, ...], target: tuple[int, ...]) -> str:
    """By way of NHWC, in which the elements follow each other, where that is another order than NCHW."""
    if _order_differs(source):
        name = writer.add("Transpose", [name], perm=[0, 2, 3, 1])
    if not _order_differs(target):
        return _to_shape(writer, name, channels_first(target))
    name = _to_shape(writer, name, target)
    return writer.add("Transpose", [name], perm=list(TO_CHANNELS_FIRST))


def _order_differs(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[3] > 1 and shape[1] * shape[2] > 1


def _to_shape(writer: _Writer, name: str, shape: Sequence[int]) -> str:
    wanted = writer.constant(np.array(shape, np.int64), f"v{len(writer.nodes)}_shape")
    return writer.add("Reshape", [name, wanted])


def _sum(writer: _Writer, op: Op) -> str:
    return writer.add(SUMS[op.kind], [writer.value(index) for index in op.inputs])


def _concatenation(writer: _Writer, op: Op) -> str:
    axis, rank = int(str(op.attrs["axis"])), len(writer.graph.tensors[op.outputs[0]].shape)
    axis %= rank
    inputs = [writer.value(index) for index in op.inputs]
    return writer.add("Concat", inputs, axis=AXES[axis] if rank == 4 else axis)


def _pad(writer: _Writer, op: Op) -> str:
    """With the real number 0, which is what the zero point stands for."""
    amounts = writer.data(op.inputs[1]).astype(np.int64)
    if len(amounts) == 4:
        amounts = amounts[list(TO_CHANNELS_FIRST)]
    pads = writer.constant(np.concatenate([amounts[:, 0], amounts[:, 1]]), f"v{len(writer.nodes)}_pads")
    return writer.add("Pad", [writer.names[op.inputs[0]], pads])


def _softmax(writer: _Writer, op: Op) -> str:
    if len(writer.graph.tensors[op.inputs[0]].shape) != 2 or op.attrs["beta"] != 1.0:
        raise UnsupportedOpError(f"graph {writer.graph.name}: only a SOFTMAX of [1, n] is written as ONNX")
    return writer.add("Softmax", [writer.names[op.inputs[0]]], axis=-1)


def _plain(writer: _Writer, op: Op) -> str:
    return writer.add(PLAIN[op.kind], [writer.names[op.inputs[0]]])


def _same(writer: _Writer, op: Op) -> str:
    """QUANTIZE and DEQUANTIZE: the value itself; `emit` rounds it where its tensor has integers."""
    return writer.names[op.inputs[0]]


_HANDLERS: dict[str, Callable[[_Writer, Op], str]] = {
    "AVERAGE_POOL_2D": _pool,
    "CONCATENATION": _concatenation,
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _conv,
    "DEQUANTIZE": _same,
    "FULLY_CONNECTED": _fully_connected,
    "MAX_POOL_2D": _pool,
    "MEAN": _mean,
    "PAD": _pad,
    "QUANTIZE": _same,
    "RELU6": lambda writer, op: writer.activated(writer.names[op.inputs[0]], "RELU6"),
    "RESHAPE": _reshape,
    "SOFTMAX": _softmax,
    **dict.fromkeys(SUMS, _sum),
    **dict.fromkeys(PLAIN, _plain),
}

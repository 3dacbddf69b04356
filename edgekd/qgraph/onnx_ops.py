"""One function an ONNX operator: NCHW in, a pending NHWC op out. CONVERTERS is the table of them.

Axes and weights are rewritten here, once, so that no transpose remains: convolution weights OIHW to
OHWI (depthwise: 1HWC), dense weights behind a flatten permuted from C, H, W to H, W, C order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.qgraph.ir import Attr
from edgekd.qgraph.onnx_build import Builder, Constant, Pending, Value
from edgekd.qgraph.onnx_model import Node, Shape
from edgekd.qgraph.ops import same_padding

Array = npt.NDArray[Any]
_INFINITY = float("inf")
_NHWC_AXIS = {0: 0, 1: 3, 2: 1, 3: 2}


def nhwc(shape: Shape) -> Shape:
    """An NCHW shape in NHWC order; other ranks stay."""
    return (shape[0], shape[2], shape[3], shape[1]) if len(shape) == 4 else shape


def _channels_last(data: Array) -> Array:
    return data.transpose(0, 2, 3, 1) if data.ndim == 4 else data


def _output(builder: Builder, node: Node) -> Shape:
    return nhwc(builder.shape(node, node.outputs[0]))


def _weights(builder: Builder, node: Node, position: int) -> Constant:
    found = builder.constants.get(node.input(position))
    if found is None or found.data.dtype != np.int8:
        raise builder.error(node, "its weights are not constant int8; quantize the model with int8 weights")
    if found.zero_point != 0:
        raise builder.error(
            node, f"its weights have zero point {found.zero_point}; quantize them symmetrically"
        )
    return found


def _bias(builder: Builder, node: Node, position: int, scale: npt.NDArray[np.float32], outputs: int) -> int:
    """The int32 bias of scale s_in * s_w: as it is, requantized, quantized from float, or zeros."""
    name = node.input(position)
    if not name:
        return builder.constant(f"{node.outputs[0]}/bias", np.zeros(outputs, np.int32), scale)
    if name in builder.constants:
        held = builder.constants[name]
        if held.data.dtype == np.int32 and np.allclose(held.scale, scale, rtol=1e-5, atol=0):
            return builder.constant(name, held.data.reshape(-1), scale)
        real = held.data.astype(np.float64) * held.scale.astype(np.float64)
    elif name in builder.model.constants:
        real = builder.model.constants[name].astype(np.float64)
    else:
        raise builder.error(node, f"its bias {name!r} is not constant; export the bias as a weight")
    steps = np.rint(real.reshape(-1) / scale.astype(np.float64))
    if steps.shape != (outputs,) or np.abs(steps).max() > 2**31 - 1:
        raise builder.error(
            node, f"its bias does not fit int32 of {outputs} channels; quantize the model again"
        )
    return builder.constant(name, steps.astype(np.int32), scale)


def _windows(
    builder: Builder, node: Node, value: Value, kernel: Shape, fill_ok: bool
) -> tuple[int, dict[str, Attr]]:
    """(input tensor, padding and stride attributes) of a sliding window; an explicit PAD where it is no SAME.

    All four pads are compared with TensorFlow's rule. `fill_ok`: zeros may stand in for the padding.
    """
    _, _, height, width = builder.shape(node, node.inputs[0])
    stride, dilation = node.integers("strides", (1, 1)), node.integers("dilations", (1, 1))
    pads = _pads(builder, node, (height, width), kernel, stride, dilation)
    attrs: dict[str, Attr] = {"stride_h": stride[0], "stride_w": stride[1]}
    same = tuple(
        same_padding(e, k, s, d) for e, k, s, d in zip((height, width), kernel, stride, dilation, strict=True)
    )
    if pads == ((0, 0), (0, 0)):
        return value.index, attrs | {"padding": "VALID"}
    if pads == same:
        return value.index, attrs | {"padding": "SAME"}
    if not fill_ok:
        raise builder.error(
            node, f"its padding {pads} is neither SAME nor VALID; pad with SAME or not at all"
        )
    return builder.padded(value, pads, node.outputs[0]), attrs | {"padding": "VALID"}


def _pads(
    builder: Builder, node: Node, extents: Shape, kernel: Shape, stride: Shape, dilation: Shape
) -> tuple[tuple[int, int], ...]:
    """((top, bottom), (left, right)), auto_pad resolved."""
    mode = node.attrs.get("auto_pad", "NOTSET")
    if mode == "VALID":
        return ((0, 0), (0, 0))
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        rows = [
            same_padding(e, k, s, d) for e, k, s, d in zip(extents, kernel, stride, dilation, strict=True)
        ]
        return tuple(row if mode == "SAME_UPPER" else (row[1], row[0]) for row in rows)
    top, left, bottom, right = node.integers("pads", (0, 0, 0, 0))
    if min(top, left, bottom, right) < 0:
        raise builder.error(node, "its padding is negative; crop in a layer of its own")
    return ((top, bottom), (left, right))


def conv(builder: Builder, node: Node) -> Pending:
    """CONV_2D or DEPTHWISE_CONV_2D."""
    value, weights = builder.value(node, 0), _weights(builder, node, 1)
    if weights.data.ndim != 4:
        raise builder.error(node, "only 2-D convolutions are supported; give it a height or width of 1")
    if len(weights.scale) > 1 and weights.axis != 0:
        raise builder.error(node, "its weights have one scale an input; quantize them an output channel")
    outputs, per_group, *kernel = weights.data.shape
    channels, groups = per_group * int(node.attrs.get("group", 1)), int(node.attrs.get("group", 1))
    depthwise = groups == channels and groups > 1
    if groups != 1 and not depthwise:
        raise builder.error(node, f"{groups} groups of {per_group} channels; use 1 group or one a channel")
    index, attrs = _windows(builder, node, value, tuple(kernel), True)
    dilation = node.integers("dilations", (1, 1))
    attrs |= {"dilation_h": dilation[0], "dilation_w": dilation[1], "activation": "NONE"}
    scale = np.broadcast_to(weights.scale, (outputs,)).astype(np.float32)
    if depthwise:
        attrs["depth_multiplier"] = outputs // channels
        data, axis = weights.data.transpose(1, 2, 3, 0), 3
    else:
        data, axis = weights.data.transpose(0, 2, 3, 1), 0
    filters = builder.constant(node.inputs[1], data, scale, axis=axis, stored=weights.stored)
    bias = _bias(builder, node, 2, value.quantized.scale * scale, outputs)
    kind = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    return Pending(node, kind, (index, filters, bias), _output(builder, node), attrs)


def dense(builder: Builder, node: Node) -> Pending:
    """FULLY_CONNECTED from Gemm or MatMul with constant weights."""
    value, weights = builder.value(node, 0), _weights(builder, node, 1)
    factors = node.attrs.get("alpha", 1.0), node.attrs.get("beta", 1.0), node.attrs.get("transA", 0)
    if len(builder.shape(node, node.inputs[0])) != 2 or weights.data.ndim != 2 or factors != (1.0, 1.0, 0):
        raise builder.error(node, "only input x weights + bias of rank 2 is supported; flatten before it")
    transposed = bool(node.attrs.get("transB", 0))
    matrix = weights.data if transposed else weights.data.T
    if len(weights.scale) > 1 and weights.axis % 2 != (0 if transposed else 1):
        raise builder.error(
            node, "its weights have one scale an input; quantize them an output channel or a tensor"
        )
    if value.order is not None:
        channels, height, width = value.order
        matrix = matrix.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(len(matrix), -1)
    filters = builder.constant(node.inputs[1], matrix, weights.scale, stored=weights.stored)
    scale = (value.quantized.scale * weights.scale).astype(np.float32)
    bias = _bias(builder, node, 2, scale, len(matrix))
    return Pending(
        node, "FULLY_CONNECTED", (value.index, filters, bias), _output(builder, node), {"activation": "NONE"}
    )


def elementwise(builder: Builder, node: Node) -> Pending:
    """ADD, SUB, MUL of two activations, or of one and a constant that broadcasts."""
    shape = builder.shape(node, node.outputs[0])
    sides = [_side(builder, node, position, len(shape)) for position in (0, 1)]
    orders = {value.order for value in sides}
    if len(orders) > 1:
        raise builder.error(
            node, "one of its inputs is flattened in another order; move it before the flatten"
        )
    inputs = tuple(value.index for value in sides)
    return Pending(node, node.kind.upper(), inputs, nhwc(shape), {"activation": "NONE"}, order=orders.pop())


def _side(builder: Builder, node: Node, position: int, rank: int) -> Value:
    name = node.input(position)
    if name not in builder.constants:
        value = builder.value(node, position)
        if len(builder.shape(node, name)) != rank:
            raise builder.error(node, "its inputs have different ranks; reshape one of them first")
        return value
    held = builder.constants[name]
    if held.data.dtype != np.int8 or len(held.scale) != 1:
        raise builder.error(node, f"its constant {name!r} is not int8 with one scale; quantize it a tensor")
    data = _channels_last(held.data.reshape((1,) * (rank - held.data.ndim) + held.data.shape))
    return Value(builder.constant(name, data, held.scale, zero_point=held.zero_point))


def pool(builder: Builder, node: Node) -> Pending:
    """MAX_POOL_2D and AVERAGE_POOL_2D: the output keeps the input's scale."""
    value = builder.value(node, 0)
    kernel = node.integers("kernel_shape", ())
    if len(kernel) != 2 or node.attrs.get("ceil_mode", 0) or node.integers("dilations", (1, 1)) != (1, 1):
        raise builder.error(node, "only 2-D pools without ceil_mode and dilation are supported")
    average = node.kind == "AveragePool"
    if average:
        # TFLite leaves padding out of the mean; ONNX does so unless count_include_pad is set.
        counted = bool(node.attrs.get("count_include_pad", 0))
        index, attrs = _windows(builder, node, value, kernel, counted)
        if counted and attrs["padding"] == "SAME":
            extents, stride = builder.shape(node, node.inputs[0])[2:], node.integers("strides", (1, 1))
            pads = _pads(builder, node, extents, kernel, stride, (1, 1))
            index, attrs["padding"] = builder.padded(value, pads, node.outputs[0]), "VALID"
    else:
        # Zeros may stand in for minus infinity where no value is below real zero.
        index, attrs = _windows(builder, node, value, kernel, value.quantized.zero_point == -128)
    attrs |= {"filter_h": kernel[0], "filter_w": kernel[1], "activation": "NONE"}
    kind = "AVERAGE_POOL_2D" if average else "MAX_POOL_2D"
    return Pending(node, kind, (index,), _output(builder, node), attrs, keeps_scale=value.quantized)


def mean(builder: Builder, node: Node) -> Pending:
    """MEAN over height and width, from GlobalAveragePool or ReduceMean; it may rescale."""
    value = builder.value(node, 0)
    rank = len(builder.shape(node, node.inputs[0]))
    keep = True
    if node.kind == "ReduceMean":
        listed = builder.model.constants.get(node.input(1))
        axes = listed.reshape(-1).tolist() if listed is not None else list(node.attrs.get("axes", ()))
        keep = bool(node.attrs.get("keepdims", 1))
        if sorted(int(axis) % rank for axis in axes) != [2, 3] or rank != 4:
            raise builder.error(
                node, f"a mean over axes {axes}; only height and width together are supported"
            )
    axes_index = builder.constant(f"{node.outputs[0]}/axes", np.array([1, 2], np.int32))
    return Pending(node, "MEAN", (value.index, axes_index), _output(builder, node), {"keep_dims": keep})


def concat(builder: Builder, node: Node) -> Pending:
    """CONCATENATION: inputs are requantized to the output's scale where they differ."""
    shape = builder.shape(node, node.outputs[0])
    values = [builder.value(node, position) for position in range(len(node.inputs))]
    if any(value.order is not None for value in values):
        raise builder.error(node, "an input is flattened from NCHW; concatenate before the flatten")
    axis = int(node.attrs["axis"]) % len(shape)
    axis = _NHWC_AXIS[axis] if len(shape) == 4 else axis
    attrs: dict[str, Attr] = {"axis": axis, "activation": "NONE"}
    inputs = tuple(value.index for value in values)
    return Pending(node, "CONCATENATION", inputs, nhwc(shape), attrs, requantize=True)


def pad(builder: Builder, node: Node) -> Pending:
    """PAD of an NCHW activation with zeros."""
    value = builder.value(node, 0)
    rank = len(builder.shape(node, node.inputs[0]))
    pads = builder.model.constants.get(node.input(1), np.zeros(0))
    fill = builder.model.constants.get(node.input(2), np.zeros(1))
    if (
        node.attrs.get("mode", "constant") != "constant"
        or pads.size != 2 * rank
        or pads.min() < 0
        or node.input(3)
    ):
        raise builder.error(node, "only constant padding of all axes is supported")
    held = builder.constants.get(node.input(2))
    if np.any(fill) or (held is not None and np.any(held.data != held.zero_point)):
        raise builder.error(node, "its fill is not 0; pad with zeros")
    table = pads.reshape(2, rank).T.astype(np.int32)
    table = table[[0, 2, 3, 1]] if rank == 4 else table
    paddings = builder.constant(f"{node.outputs[0]}/paddings", table)
    return Pending(node, "PAD", (value.index, paddings), _output(builder, node), keeps_scale=value.quantized)


def reshape(builder: Builder, node: Node) -> Pending:
    """RESHAPE: a flatten remembers its C, H, W for the dense layer; other moves of data are refused."""
    value = builder.value(node, 0)
    before, after = builder.shape(node, node.inputs[0]), builder.shape(node, node.outputs[0])
    order = None
    if value.order is not None:
        raise builder.error(node, "it reshapes what was flattened before; leave out the first flatten")
    if not _order_free(before) or not _order_free(after):
        if len(before) != 4 or len(after) != 2 or after[0] != 1:
            raise builder.error(node, "it mixes channels and pixels; only a flatten to 1 x N is supported")
        order = before[1:]
    return Pending(node, "RESHAPE", (value.index,), nhwc(after), {}, keeps_scale=value.quantized, order=order)


def _order_free(shape: Shape) -> bool:
    """Whether NCHW and NHWC have the same order in memory."""
    return len(shape) != 4 or shape[1] == 1 or shape[2] * shape[3] == 1


def softmax(builder: Builder, node: Node) -> Pending:
    """SOFTMAX over the last axis of a rank-2 activation."""
    value, shape = builder.value(node, 0), builder.shape(node, node.inputs[0])
    if len(shape) != 2 or int(node.attrs.get("axis", -1)) % 2 != 1 or value.order is not None:
        raise builder.error(node, "only a softmax over the last axis of a 1 x N tensor is supported")
    return Pending(node, "SOFTMAX", (value.index,), shape, {"beta": 1.0})


def table_op(builder: Builder, node: Node) -> Pending:
    """LOGISTIC, TANH."""
    value = builder.value(node, 0)
    kind = {"Sigmoid": "LOGISTIC", "Tanh": "TANH"}[node.kind]
    return Pending(node, kind, (value.index,), _output(builder, node), order=value.order)


def clamp(builder: Builder, node: Node) -> Pending:
    """Relu or Clip: fused into the op before it, else RELU or RELU6 of its own."""
    limits = clip_limits(builder, node)
    before = builder.pending.pop(node.inputs[0], None)
    if before is not None:
        low, high = before.clip or (-_INFINITY, _INFINITY)
        return replace(before, clip=(max(low, limits[0]), min(high, limits[1])))
    value = builder.value(node, 0)
    if limits not in ((0.0, 6.0), (0.0, _INFINITY)):
        raise builder.error(
            node, f"a clamp to {limits[0]:g} .. {limits[1]:g}; only Relu and Relu6 are supported"
        )
    kind = "RELU6" if limits[1] == 6 else "RELU"
    return Pending(node, kind, (value.index,), _output(builder, node), order=value.order)


def clip_limits(builder: Builder, node: Node) -> tuple[float, float]:
    """(lowest, highest) value behind `node`."""
    if node.kind == "Relu":
        return 0.0, _INFINITY
    limits = [-_INFINITY, _INFINITY]
    for position, key in ((1, "min"), (2, "max")):
        name = node.input(position)
        if name in builder.model.constants:
            limits[position - 1] = float(builder.model.constants[name].reshape(-1)[0])
        elif name:
            raise builder.error(node, "its limits are not constant")
        elif key in node.attrs:
            limits[position - 1] = float(node.attrs[key])
    return limits[0], limits[1]


CONVERTERS: dict[str, Callable[[Builder, Node], Pending]] = {
    "Add": elementwise,
    "AveragePool": pool,
    "Clip": clamp,
    "Concat": concat,
    "Conv": conv,
    "Flatten": reshape,
    "Gemm": dense,
    "GlobalAveragePool": mean,
    "MatMul": dense,
    "MaxPool": pool,
    "Mul": elementwise,
    "Pad": pad,
    "ReduceMean": mean,
    "Relu": clamp,
    "Reshape": reshape,
    "Sigmoid": table_op,
    "Softmax": softmax,
    "Squeeze": reshape,
    "Sub": elementwise,
    "Tanh": table_op,
    "Unsqueeze": reshape,
}

"""The rules of each kind of op: attributes, dtypes, shapes, tied scales, multipliers; part of `validate`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from edgekd.errors import UnsupportedOpError
from edgekd.qgraph import arithmetic, requantize, residual
from edgekd.qgraph.ir import Op, QGraph, Tensor
from edgekd.qgraph.ops import EXPLICIT, OPS, paddings

_MAX_WINDOW = 1024  # strides, dilations and filter extents
_MAX_SHIFT = 30  # of a multiplier: a 32-bit value shifted further is gone
_MAX_BIAS_ERROR = 0.02  # |bias scale - input scale * weight scale| in output steps, TFLite's own bound
_MAX_POOL_SCALE_ERROR = 1e-6  # TFLite's own bound
_MAX_SOFTMAX_DEPTH = 4095  # the sum has 12 integer bits
_MOST_SHOWN = 10  # shapes in a message
_MAX_CONCATENATED = 10  # TFLite Micro's own bound
_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_MAX_MEAN_PIXELS = 1 << 22  # their sum stays inside int32


class _Case:
    """One op with its tensors, and the way to refuse it."""

    def __init__(self, graph: QGraph, index: int) -> None:
        self.graph = graph
        self.index = index
        self.op: Op = graph.ops[index]
        self.kind = self.op.kind
        self.inputs = [graph.tensors[i] for i in self.op.inputs if i != -1]
        self.output = graph.tensors[self.op.outputs[0]]
        shapes = ", ".join(str(t.shape) for t in self.inputs[:_MOST_SHOWN])
        shapes += ", ..." if len(self.inputs) > _MOST_SHOWN else ""
        self._where = f"graph {graph.name}: {graph.label(index)}, {shapes} -> {self.output.shape}"

    def fail(self, why: str) -> NoReturn:
        raise UnsupportedOpError(f"{self._where}: {why}")

    def require(self, holds: bool, why: str) -> None:
        if not holds:
            self.fail(why)

    def number(self, name: str) -> int:
        value = self.op.attrs[name]
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(f"{name} is {value!r}, not a whole number")
        return value


def check_op(graph: QGraph, index: int) -> None:
    """Raise UnsupportedOpError unless op `index` (which has one output, and inputs that exist) is sound."""
    kind = graph.ops[index].kind
    case = _Case(graph, index)
    if kind not in OPS or kind not in _RULES:
        case.fail("is an operator that edgekd cannot run")
    wanted = {*OPS[kind], *(["pads"] if case.op.attrs.get("padding") == EXPLICIT else [])}
    if set(case.op.attrs) != wanted:
        case.fail(f"has the attributes {sorted(case.op.attrs)}, not {sorted(wanted)}")
    fewest, most, rule = _RULES[kind]
    given = len(case.op.inputs)
    case.require(fewest <= given <= most, f"has {given} inputs, not {fewest} to {most}")
    absent = [i for i, position in enumerate(case.op.inputs) if position == -1]
    case.require(not absent or (absent == [2] and rule in _WITH_BIAS), "lacks an input")
    _check_attributes(case)
    _check_encodings(case)
    if kind not in ("QUANTIZE", "DEQUANTIZE", "TABLE"):
        _check_int8(case, case.inputs[0], "input")
        _check_int8(case, case.output, "output")
    rule(case)


def _check_attributes(case: _Case) -> None:
    for name in OPS[case.kind]:
        value = case.op.attrs[name]
        if name == "activation":
            _check_activation(case, str(value))
        elif name == "padding":
            case.require(value in ("SAME", "VALID", EXPLICIT), f"padding {value!r} is neither SAME nor VALID")
        elif name == "keep_dims":
            case.require(isinstance(value, bool), f"keep_dims is {value!r}, not true or false")
        elif name == "beta":
            case.require(isinstance(value, float) and 0 < value < 1e6, f"beta is {value!r}, not above 0")
        elif name not in ("axis", *residual.OWN):
            extent = case.number(name)
            case.require(1 <= extent <= _MAX_WINDOW, f"{name} is {extent}, not 1 to {_MAX_WINDOW}")
    if case.op.attrs.get("activation") == "RELU6" or case.kind == "RELU6":
        tensor = case.inputs[0] if case.kind == "RELU6" else case.output
        if len(tensor.scale) == 1:
            case.require(6.0 / requantize.scale_of(tensor) < 2.0**30, "the scale is too small for a RELU6")


def _check_encodings(case: _Case) -> None:
    """Only the weights of a linear op may be stored as indices."""
    for number, position in enumerate(case.op.inputs):
        packed = position != -1 and case.graph.tensors[position].encoding is not None
        if packed and (number != 1 or case.kind not in _WEIGHTED):
            case.fail(f"its input {number} is packed; only the weights of {', '.join(_WEIGHTED)} can be")


def _check_activation(case: _Case, activation: str) -> None:
    if not activation.startswith(requantize.CLAMP):
        case.require(activation in ("NONE", "RELU", "RELU6"), f"activation {activation} is not supported")
        return
    try:
        low, high = requantize.clamp_of(activation)
    except ValueError:
        case.fail(f"activation {activation} is not supported")
    lowest, highest = requantize.limits(case.output.dtype)
    case.require(lowest <= low <= high <= highest, f"activation {activation} is outside the output's range")


def _check_int8(case: _Case, tensor: Tensor, role: str) -> None:
    case.require(tensor.dtype == "int8", f"the {role} is {tensor.dtype}; quantize the model to int8")
    case.require(len(tensor.scale) == 1, f"the {role} has {len(tensor.scale)} scales, not one")


def _check_real(case: _Case, real: float, highest: float = 2.0**_MAX_SHIFT) -> None:
    if not 0 < real < highest:
        case.fail(f"its scales differ too much (factor {real:.3g}); quantize the model again")


def _check_tied(case: _Case, tensor: Tensor, tolerance: float = 0.0) -> None:
    apart = abs(requantize.scale_of(tensor) - requantize.scale_of(case.output))
    if apart > tolerance or tensor.zero_point != case.output.zero_point:
        case.fail(
            "input and output need equal scale and zero point, "
            f"not {tensor.scale[0]:.6g}, {tensor.zero_point} "
            f"and {case.output.scale[0]:.6g}, {case.output.zero_point}"
        )


def _check_fixed_output(case: _Case, scale: float, zero_point: int) -> None:
    if requantize.scale_of(case.output) != scale or case.output.zero_point != zero_point:
        case.fail(f"the output needs scale {scale} and zero point {zero_point}; quantize the model again")


def _check_output_shape(case: _Case, expected: tuple[int, ...]) -> None:
    case.require(case.output.shape == expected, f"the output's shape should be {expected}")


def _check_pads(case: _Case, name: str, reach: int) -> None:
    """Every window meets the image: each pad is smaller than what the window spans."""
    pads = case.op.attrs["pads"]
    whole = isinstance(pads, tuple) and len(pads) == 4 and all(type(pad) is int for pad in pads)
    case.require(whole, f"pads are {pads!r}, not four whole numbers")
    given = paddings(case.op.attrs, name, 1, 1)
    case.require(all(0 <= pad < reach for pad in given), f"pads of {given} reach past a window of {reach}")


def _windows(case: _Case, filter_h: int, filter_w: int) -> tuple[int, int]:
    """The output's height and width."""
    sizes = []
    for axis, taps, name in ((1, filter_h, "h"), (2, filter_w, "w")):
        extent, stride = case.inputs[0].shape[axis], case.number(f"stride_{name}")
        dilation = case.number(f"dilation_{name}") if f"dilation_{name}" in case.op.attrs else 1
        reach = (taps - 1) * dilation + 1
        if case.op.attrs["padding"] == EXPLICIT:
            _check_pads(case, name, reach)
        padding = sum(paddings(case.op.attrs, name, extent, taps))
        case.require(padding <= _MAX_WINDOW, f"the window of {reach} pixels is too large")
        size = (extent + padding - reach) // stride + 1
        if case.op.attrs["padding"] == "SAME":
            size = -(-extent // stride)
        case.require(size >= 1, f"the window of {reach} pixels is larger than the image")
        sizes.append(size)
    return sizes[0], sizes[1]


def _convolution(case: _Case) -> None:
    x, weights = case.inputs[:2]
    case.require(len(x.shape) == 4 and len(weights.shape) == 4, "image and weights need four axes")
    depthwise = case.kind == "DEPTHWISE_CONV_2D"
    if depthwise:
        channels = x.shape[3] * case.number("depth_multiplier")
        case.require(
            weights.shape[0] == 1 and weights.shape[3] == channels, f"weights need shape 1, H, W, {channels}"
        )
    else:
        channels = weights.shape[0]
        case.require(
            weights.shape[3] == x.shape[3], f"weights need {x.shape[3]} channels; groups are not supported"
        )
    _check_weights(case, weights, 3 if depthwise else 0, channels)
    _check_output_shape(case, (1, *_windows(case, weights.shape[1], weights.shape[2]), channels))


def _residual(case: _Case) -> None:
    """The rules of both ops that it stands for."""
    scale, zero_point = case.op.attrs["between_scale"], case.op.attrs["between_zero_point"]
    case.require(
        isinstance(scale, float) and bool(0 < np.float32(scale) < np.inf),
        f"between_scale is {scale!r}, not a positive number",
    )
    case.require(type(zero_point) is int and -128 <= zero_point <= 127, f"zero point {zero_point!r} between")
    apart = residual.unfused(case.graph, case.index)
    check_op(apart, case.index)
    check_op(apart, case.index + 1)


def _fully_connected(case: _Case) -> None:
    x, weights = case.inputs[:2]
    case.require(len(weights.shape) == 2, "weights need two axes, [out, in]")
    outputs, depth = weights.shape
    case.require(x.elements % depth == 0, f"the input does not divide into rows of {depth}")
    rows = x.elements // depth
    flat, kept = (rows, outputs), (*x.shape[:-1], outputs)
    case.require(case.output.shape in (flat, kept), f"the output's shape should be {flat} or {kept}")
    case.require(case.output.elements == rows * outputs, f"the output should have {rows * outputs} elements")
    _check_weights(case, weights, 0, outputs)


def _check_weights(case: _Case, weights: Tensor, axis: int, channels: int) -> None:
    case.require(weights.is_constant, "weights that are not constant are not supported")
    case.require(weights.dtype == "int8", f"the weights are {weights.dtype}; quantize the model to int8")
    case.require(weights.zero_point == 0, f"the weights have zero point {weights.zero_point}, not 0")
    case.require(len(weights.scale) >= 1, "the weights have no scale")
    case.require(len(weights.scale) == 1 or weights.axis == axis, f"weight scales lie on axis {weights.axis}")
    if weights.encoding is not None and weights.encoding.axis != axis:
        case.fail(f"the weights' tables are for channels on axis {weights.encoding.axis}, not {axis}")
    for real in requantize.channel_reals(case.graph, case.op):
        case.require(real >= 0, "a scale is negative")
        if real > 0:  # 0 is a dead channel whose product underflows
            _check_real(case, float(real))
    if case.op.inputs[2:] not in ((), (-1,)):
        _check_bias(case, case.inputs[2], channels)
    _check_sums(case, np.asarray(weights.data), axis)


def _check_sums(case: _Case, weights: npt.NDArray[np.generic], axis: int) -> None:
    """Every sum, with and without bias, and shifted as the multiplier needs it, stays within int32.

    TFLite's kernels leave undefined what overflows, so it is refused. Weights are summed as int8: a file of
    them is not to be held eight times.
    """
    others = tuple(i for i in range(weights.ndim) if i != axis)
    positive = np.maximum(weights, 0).sum(axis=others, dtype=np.int64)
    negative = weights.sum(axis=others, dtype=np.int64) - positive
    low, high = -128 - case.inputs[0].zero_point, 127 - case.inputs[0].zero_point
    most, least = high * positive + low * negative, low * positive + high * negative
    bias = case.inputs[2].data if len(case.inputs) > 2 else None
    offset = np.zeros(len(most), np.int64) if bias is None else bias.astype(np.int64)
    left = np.maximum(requantize.channel_multipliers(case.graph, case.op)[1], 0).astype(np.int64)
    ends = [
        (np.maximum(most, most + offset) << left).max(),
        (np.minimum(least, least + offset) << left).min(),
    ]
    if ends[0] > arithmetic.INT32_MAX or ends[1] < arithmetic.INT32_MIN:
        case.fail("a sum can leave int32 (its bias or its multiplier is too large); quantize the model again")


def _check_bias(case: _Case, bias: Tensor, channels: int) -> None:
    x, weights = case.inputs[:2]
    case.require(bias.is_constant and bias.dtype == "int32", f"the bias is {bias.dtype}, not constant int32")
    case.require(bias.shape == (channels,), f"the bias has shape {bias.shape}, not ({channels},)")
    case.require(len(bias.scale) in (1, channels), f"the bias has {len(bias.scale)} scales")
    product = requantize.scale_of(x) * weights.scale.astype(np.float64)
    error = np.abs(product - bias.scale.astype(np.float64)).max() / requantize.scale_of(case.output)
    case.require(bool(error <= _MAX_BIAS_ERROR), "the bias's scale is not input scale * weight scale")


def _binary(case: _Case) -> None:
    a, b = case.inputs
    _check_int8(case, b, "second input")
    case.require(not (a.is_constant and b.is_constant), "both inputs are constant; fold them when exporting")
    try:
        expected = np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        case.fail("the inputs' shapes do not broadcast")
    _check_output_shape(case, expected)
    if case.kind == "MUL":
        real = requantize.scale_of(a) * requantize.scale_of(b) / requantize.scale_of(case.output)
        _check_real(case, real)
        return
    for real in requantize.sum_reals(case.graph, case.op):
        _check_real(case, real, highest=1.0)
        case.require(arithmetic.quantize_multiplier(real)[1] <= 0, "its scales differ too much")


def _pool(case: _Case) -> None:
    x = case.inputs[0]
    case.require(len(x.shape) == 4, "the image needs four axes")
    size = _windows(case, case.number("filter_h"), case.number("filter_w"))
    _check_output_shape(case, (1, *size, x.shape[3]))
    _check_tied(case, x, _MAX_POOL_SCALE_ERROR)


def _mean(case: _Case) -> None:
    x, axes = case.inputs
    case.require(axes.data is not None and axes.dtype == "int32", "the axes need to be constant int32")
    case.require(len(x.shape) == 4 and len(axes.shape) <= 1, "the image needs four axes")
    given = [] if axes.data is None else np.atleast_1d(axes.data).tolist()
    case.require(
        len(given) == 2 and {axis % 4 for axis in given} == {1, 2} and all(-4 <= axis < 4 for axis in given),
        f"mean over axes {given}; only height and width together, (1, 2), are supported",
    )
    _check_output_shape(case, (1, 1, 1, x.shape[3]) if case.op.attrs["keep_dims"] else (1, x.shape[3]))
    case.require(x.shape[1] * x.shape[2] <= _MAX_MEAN_PIXELS, "the image is too large")
    _check_real(case, requantize.rescale_real(case.graph, case.op))


def _pad(case: _Case) -> None:
    x, paddings = case.inputs
    case.require(
        paddings.data is not None and paddings.dtype == "int32", "the paddings need to be constant int32"
    )
    case.require(paddings.shape == (len(x.shape), 2), f"the paddings have shape {paddings.shape}")
    case.require(len(x.shape) <= 4, "at most four axes are supported")
    widths = [] if paddings.data is None else paddings.data.tolist()
    case.require(all(0 <= w <= 1 << 16 for pair in widths for w in pair), f"the paddings are {widths}")
    case.require(widths[0] == [0, 0], "the batch cannot be padded")
    _check_output_shape(case, tuple(n + sum(w) for n, w in zip(x.shape, widths, strict=True)))
    _check_tied(case, x)


def _concatenation(case: _Case) -> None:
    rank, axis = len(case.output.shape), case.number("axis")
    case.require(case.op.attrs["activation"] == "NONE", "a fused activation is not supported here")
    case.require(-rank <= axis < rank and axis % rank != 0, f"axis {axis} is the batch or does not exist")
    axis %= rank
    for tensor in case.inputs:
        _check_int8(case, tensor, "input")
        case.require(len(tensor.shape) == rank, "the inputs differ in their number of axes")
        _check_tied(case, tensor)
        for i in range(rank):
            case.require(
                i == axis or tensor.shape[i] == case.output.shape[i], f"the inputs differ on axis {i}"
            )
    total = sum(tensor.shape[axis] for tensor in case.inputs)
    case.require(total == case.output.shape[axis], f"the output needs extent {total} on axis {axis}")


def _reshape(case: _Case) -> None:
    x = case.inputs[0]
    case.require(x.elements == case.output.elements, "input and output differ in their number of elements")
    case.require(len(case.inputs) == 1 or case.inputs[1].is_constant, "the new shape needs to be constant")
    _check_tied(case, x)


def _softmax(case: _Case) -> None:
    _check_output_shape(case, case.inputs[0].shape)
    _check_fixed_output(case, 1 / 256, -128)
    depth = case.output.shape[-1]
    case.require(depth <= _MAX_SOFTMAX_DEPTH, f"{depth} classes; at most {_MAX_SOFTMAX_DEPTH} are supported")
    real = requantize.softmax_real(case.graph, case.op)
    case.require(real > 1, "the input's scale times beta is too small")


def _gate(case: _Case) -> None:
    _check_output_shape(case, case.inputs[0].shape)
    _check_fixed_output(case, *((1 / 256, -128) if case.kind == "LOGISTIC" else (1 / 128, 0)))
    shift = requantize.gate_multiplier(case.inputs[0])[1]
    case.require(
        0 <= shift < 63, f"the input's scale {case.inputs[0].scale[0]:.3g} is too small or too large"
    )


def _relu(case: _Case) -> None:
    _check_output_shape(case, case.inputs[0].shape)
    if case.kind == "RELU6":  # TFLite Micro clamps without a rescale
        _check_tied(case, case.inputs[0])
    _check_real(case, requantize.rescale_real(case.graph, case.op))


def _quantize(case: _Case) -> None:
    x, y = case.inputs[0], case.output
    pairs = (("float32", "int8"), ("int8", "int8"), ("int8", "uint8"), ("uint8", "int8"))
    case.require(
        (x.dtype, y.dtype) in pairs, f"{x.dtype} to {y.dtype} is not supported; quantize the model to int8"
    )
    _check_output_shape(case, x.shape)
    if x.dtype != "float32":
        case.require(len(x.scale) == 1, f"the input has {len(x.scale)} scales, not one")
        _check_real(case, requantize.rescale_real(case.graph, case.op))


def _table(case: _Case) -> None:
    x, table = case.inputs
    for tensor, role in ((x, "input"), (case.output, "output")):
        case.require(tensor.dtype in ("int8", "uint8"), f"the {role} is {tensor.dtype}, not int8 or uint8")
    case.require(table.is_constant and table.shape == (256,), "the table needs 256 constant values")
    case.require(table.dtype == case.output.dtype, f"the table is {table.dtype}, the output another")
    _check_output_shape(case, x.shape)


def _dequantize(case: _Case) -> None:
    x, y = case.inputs[0], case.output
    pairs = (("int8", "float32"), ("uint8", "float32"))
    case.require(
        (x.dtype, y.dtype) in pairs, f"{x.dtype} to {y.dtype} is not supported; quantize the model to int8"
    )
    case.require(len(x.scale) == 1, f"the input has {len(x.scale)} scales, not one")
    _check_output_shape(case, x.shape)


# kind -> the fewest and the most inputs, and its rule
_RULES: dict[str, tuple[int, int, Callable[[_Case], None]]] = {
    "ADD": (2, 2, _binary),
    "AVERAGE_POOL_2D": (1, 1, _pool),
    "CONCATENATION": (1, _MAX_CONCATENATED, _concatenation),
    "CONV_2D": (2, 3, _convolution),
    "CONV_2D_ADD": (4, 4, _residual),
    "DEPTHWISE_CONV_2D": (2, 3, _convolution),
    "DEQUANTIZE": (1, 1, _dequantize),
    "FULLY_CONNECTED": (2, 3, _fully_connected),
    "LOGISTIC": (1, 1, _gate),
    "MAX_POOL_2D": (1, 1, _pool),
    "MEAN": (2, 2, _mean),
    "MUL": (2, 2, _binary),
    "PAD": (2, 2, _pad),
    "QUANTIZE": (1, 1, _quantize),
    "RELU": (1, 1, _relu),
    "RELU6": (1, 1, _relu),
    "RESHAPE": (1, 2, _reshape),
    "SOFTMAX": (1, 1, _softmax),
    "SUB": (2, 2, _binary),
    "TABLE": (2, 2, _table),
    "TANH": (1, 1, _gate),
}

_WITH_BIAS = (_convolution, _fully_connected, _residual)  # input 2 may be absent

"""From scales to integers: the multipliers, shifts, ranges and tables of each kind of op.

One place computes them, in float32 or double exactly where TFLite Micro does, so that the reference,
the tables and the generated C can't drift apart. All functions take a graph that `validate` accepts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekd.errors import UnsupportedOpError
from edgekd.qgraph import arithmetic
from edgekd.qgraph.ir import Op, QGraph, Tensor

ADD_LEFT_SHIFT = 20
CLAMP = "CLAMP "  # begins an activation that passes make: "CLAMP lowest highest"
SOFTMAX_INTEGER_BITS = 5
SOFTMAX_SUM_INTEGER_BITS = 12
GATE_INTEGER_BITS = 4  # of LOGISTIC's and TANH's argument


@dataclass(frozen=True)
class Sum:
    """ADD and SUB: both inputs shifted left by 20, scaled, added, scaled again."""

    input1: tuple[int, int]  # multiplier, shift (<= 0)
    input2: tuple[int, int]
    output: tuple[int, int]


def scale_of(tensor: Tensor) -> float:
    """The tensor's one scale: a float32's value in a double."""
    return float(tensor.scale[0])


def limits(dtype: str) -> tuple[int, int]:
    """The smallest and the largest value of an integer dtype."""
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def quantize_scalar(value: float, tensor: Tensor) -> int:
    """A real number in the tensor's integers, not clamped: float32 division, half away from zero."""
    return int(arithmetic.round_half_away(np.float32(value) / tensor.scale[0])) + tensor.zero_point


def activation_range(output: Tensor, activation: str) -> tuple[int, int]:
    """The clamp (lowest, highest) of a fused activation in the output's integers."""
    low, high = limits(output.dtype)
    if activation.startswith(CLAMP):
        return clamp_of(activation)
    if activation in ("RELU", "RELU6"):
        low = max(low, output.zero_point)
    if activation == "RELU6":
        high = min(high, quantize_scalar(6.0, output))
    return low, high


def clamp_of(activation: str) -> tuple[int, int]:
    """(lowest, highest) of the activation "CLAMP lowest highest"; ValueError for another text."""
    low, high = (int(part) for part in activation.removeprefix(CLAMP).split(" "))
    return low, high


def activation_name(output: Tensor, low: int, high: int) -> str:
    """The activation whose clamp on `output` is (low, high): TFLite's own where one is."""
    for name in ("NONE", "RELU", "RELU6"):
        if (name != "RELU6" or 6.0 / scale_of(output) < 2.0**30) and activation_range(output, name) == (
            low,
            high,
        ):
            return name
    return f"{CLAMP}{low} {high}"


def channel_reals(graph: QGraph, op: Op) -> npt.NDArray[np.float64]:
    """input scale * weight scale / output scale per output channel (or one, per tensor), in double."""
    x, weights, y = (graph.tensors[i] for i in (op.inputs[0], op.inputs[1], op.outputs[0]))
    real: npt.NDArray[np.float64] = scale_of(x) * weights.scale.astype(np.float64) / scale_of(y)
    return real


def channel_multipliers(graph: QGraph, op: Op) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED: (multipliers, shifts), int32 [output channels]."""
    weights = graph.tensors[op.inputs[1]]
    channels = weights.shape[3] if op.kind == "DEPTHWISE_CONV_2D" else weights.shape[0]
    real = np.broadcast_to(channel_reals(graph, op), (channels,))
    return arithmetic.quantize_multipliers(real)


def sum_reals(graph: QGraph, op: Op) -> tuple[float, float, float]:
    """The three real factors of ADD (in double) or SUB (in float32)."""
    number = np.float32 if op.kind == "SUB" else np.float64
    a, b, y = (number(graph.tensors[i].scale[0]) for i in (*op.inputs[:2], op.outputs[0]))
    twice = number(2) * max(a, b)
    return float(a / twice), float(b / twice), float(twice / (number(1 << ADD_LEFT_SHIFT) * y))


def sum_multipliers(graph: QGraph, op: Op) -> Sum:
    """ADD and SUB: the three (multiplier, shift) pairs."""
    return Sum(*(arithmetic.quantize_multiplier(real) for real in sum_reals(graph, op)))


def mul_multiplier(graph: QGraph, op: Op) -> tuple[int, int]:
    """MUL: (multiplier, shift) of scale1 * scale2 / output scale."""
    a, b, y = (scale_of(graph.tensors[i]) for i in (*op.inputs[:2], op.outputs[0]))
    return arithmetic.quantize_multiplier(a * b / y)


def rescale_real(graph: QGraph, op: Op) -> float:
    """input scale / output scale of a one-tensor op: RELU divides in float32, the others in double."""
    x, y = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
    if op.kind == "RELU":
        return float(x.scale[0] / y.scale[0])
    return scale_of(x) / scale_of(y)


def rescale_multiplier(graph: QGraph, op: Op) -> tuple[int, int]:
    """QUANTIZE between integers, and RELU: (multiplier, shift)."""
    return arithmetic.quantize_multiplier(rescale_real(graph, op))


def mean_multiplier(graph: QGraph, op: Op) -> tuple[int, int, int]:
    """MEAN over height and width: (multiplier, shift, pixels); the division is in the multiplier."""
    shape = graph.tensors[op.inputs[0]].shape
    pixels = shape[1] * shape[2]
    multiplier, shift = arithmetic.quantize_multiplier(rescale_real(graph, op))
    by = min(pixels.bit_length() - 1, 32, 31 + shift)
    return (multiplier << by) // pixels, shift - by, pixels


def softmax_real(graph: QGraph, op: Op) -> float:
    """beta * input scale in units of 2**-26, capped as TFLite caps it."""
    beta = op.attrs["beta"]
    if not isinstance(beta, float):
        raise UnsupportedOpError(f"SOFTMAX: beta is {beta!r}, not a real number")
    scale = scale_of(graph.tensors[op.inputs[0]])
    scaled = float(np.float32(beta)) * scale * (1 << (31 - SOFTMAX_INTEGER_BITS))
    return min(scaled, 2.0**31 - 1.0)


def softmax_table(graph: QGraph, op: Op) -> npt.NDArray[np.int32]:
    """exp((x - max) * beta * scale) in Q0.31 for max - x = 0 to 255; 0 where TFLite skips the element."""
    multiplier, shift = arithmetic.quantize_multiplier(softmax_real(graph, op))
    difference = np.arange(256, dtype=np.int64)
    counted = difference <= arithmetic.input_radius(SOFTMAX_INTEGER_BITS, shift)
    shifted = arithmetic.wrap_int32(-np.where(counted, difference, 0) << shift)
    scaled = arithmetic.doubling_high_mul(shifted, multiplier)
    exps = arithmetic.exp_on_negative_values(scaled, SOFTMAX_INTEGER_BITS)
    return np.where(counted, exps, 0).astype(np.int32)


def gate_multiplier(tensor: Tensor) -> tuple[int, int, int]:
    """LOGISTIC and TANH: (multiplier, left shift, radius) of the argument in Q4.27."""
    fraction, shift = np.frexp(scale_of(tensor) * 2.0 ** (31 - GATE_INTEGER_BITS))
    multiplier = int(arithmetic.round_half_away(fraction * 2.0**31))
    return multiplier, int(shift), arithmetic.input_radius(GATE_INTEGER_BITS, int(shift))

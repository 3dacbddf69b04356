"""ADD, SUB, MUL, the table functions, SOFTMAX, and QUANTIZE / DEQUANTIZE at the edges."""

from __future__ import annotations

import numpy as np

from edgekd.errors import ArtifactError
from edgekd.qgraph import arithmetic, lut, requantize
from edgekd.qgraph.ir import Op, QGraph, Tensor
from edgekd.qgraph.reference.values import Array, finish, tensors


def add_or_sub(graph: QGraph, op: Op, values: list[Array]) -> Array:
    """Both inputs to a common scale with 20 spare bits, summed, rescaled; broadcasts as TFLite does."""
    (a_tensor, b_tensor), output = tensors(graph, op)
    factors = requantize.sum_multipliers(graph, op)
    a, b = _aligned(graph, op, values)
    left = _scaled(a, a_tensor, factors.input1)
    right = _scaled(b, b_tensor, factors.input2)
    total = left - right if op.kind == "SUB" else left + right
    scaled = arithmetic.multiply_by_quantized_multiplier(total, *factors.output)
    return finish(scaled, output, str(op.attrs["activation"]))


def mul(graph: QGraph, op: Op, values: list[Array]) -> Array:
    """The product of both inputs less their zero points, times one multiplier."""
    (a_tensor, b_tensor), output = tensors(graph, op)
    a, b = (v.astype(np.int64) for v in _aligned(graph, op, values))
    product = (a - a_tensor.zero_point) * (b - b_tensor.zero_point)
    scaled = arithmetic.multiply_by_quantized_multiplier(product, *requantize.mul_multiplier(graph, op))
    return finish(scaled, output, str(op.attrs["activation"]))


def by_table(graph: QGraph, op: Op, values: list[Array]) -> Array:
    """An int8 function of one value: a look-up in its 256 bytes."""
    return lut.table(op, graph)[values[0].astype(np.int64) + 128]


def from_table(graph: QGraph, op: Op, values: list[Array]) -> Array:
    """A look-up in the op's own 256 values; the first one is for the lowest of the input's dtype."""
    lowest, _ = requantize.limits(graph.tensors[op.inputs[0]].dtype)
    found: Array = values[1][values[0].astype(np.int64) - lowest]
    return found


def softmax(graph: QGraph, op: Op, values: list[Array]) -> Array:
    """Along the last axis, in gemmlowp's fixed point; outputs are 1/256 steps from -128."""
    table = requantize.softmax_table(graph, op).astype(np.int64)
    x = values[0].astype(np.int64)
    exps = table[x.max(axis=-1, keepdims=True) - x]
    parts = arithmetic.rounding_divide_by_pot(exps, requantize.SOFTMAX_SUM_INTEGER_BITS)
    total = parts.sum(axis=-1, keepdims=True)
    scale, over_unit = arithmetic.reciprocal(total, requantize.SOFTMAX_SUM_INTEGER_BITS)
    product = arithmetic.doubling_high_mul(scale, exps)
    result = arithmetic.rounding_divide_by_pot(product, over_unit + 31 - 8)
    return np.clip(result - 128, -128, 127).astype(np.int8)


def quantize(graph: QGraph, op: Op, values: list[Array]) -> Array:
    """float32 -> int8, or a rescale between int8 and uint8 quantizations."""
    (source,), output = tensors(graph, op)
    if source.dtype == "float32":
        return quantize_real(values[0], output)
    wide = values[0].astype(np.int64) - source.zero_point
    factor = requantize.rescale_multiplier(graph, op)
    return finish(arithmetic.multiply_by_quantized_multiplier(wide, *factor), output)


def quantize_real(values: Array, tensor: Tensor) -> Array:
    """clamp(round half away(value / scale) + zero point), the division in float32.

    Infinities saturate; a NaN raises ArtifactError (TFLite leaves it undefined).
    """
    real = np.asarray(values, np.float32)
    if np.isnan(real).any():
        raise ArtifactError(f"input {tensor.name} holds values that are not numbers (NaN); mend the data")
    with np.errstate(over="ignore"):
        rounded = arithmetic.round_half_away(real / tensor.scale[0])
    return np.clip(rounded + tensor.zero_point, *requantize.limits(tensor.dtype)).astype(tensor.dtype)


def dequantize(graph: QGraph, op: Op, values: list[Array]) -> Array:
    """scale * (value - zero point), in double, rounded once to float32."""
    (source,), _ = tensors(graph, op)
    return (requantize.scale_of(source) * (values[0].astype(np.int64) - source.zero_point)).astype(np.float32)


def _scaled(values: Array, tensor: Tensor, factor: tuple[int, int]) -> Array:
    shifted = (values.astype(np.int64) - tensor.zero_point) << requantize.ADD_LEFT_SHIFT
    return arithmetic.multiply_by_quantized_multiplier(shifted, *factor)


def _aligned(graph: QGraph, op: Op, values: list[Array]) -> list[Array]:
    """Both inputs at the output's rank: axes of extent 1 go behind the batch, as shapes have batch 1."""
    rank = len(graph.tensors[op.outputs[0]].shape)
    aligned = []
    for index, value in zip(op.inputs, values, strict=True):
        missing = rank - value.ndim
        is_constant = graph.tensors[index].is_constant
        lead = () if is_constant else value.shape[:1]
        rest = value.shape if is_constant else value.shape[1:]
        aligned.append(value.reshape(*lead, *([1] * missing), *rest))
    return aligned

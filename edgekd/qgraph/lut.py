"""Functions of one int8 value as 256 bytes: what the reference looks up and what generated C may store."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edgekd.qgraph import arithmetic, requantize
from edgekd.qgraph.arithmetic import Ints
from edgekd.qgraph.ir import Op, QGraph, Tensor


def table(op: Op, graph: QGraph) -> npt.NDArray[np.int8]:
    """The outputs for inputs -128 to 127, int8 [256]: LOGISTIC, TANH, RELU, RELU6, QUANTIZE int8 -> int8."""
    source, output = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
    values = np.arange(-128, 128, dtype=np.int64)
    if op.kind == "LOGISTIC":
        result = _gate(values, source, 1 << 23, arithmetic.logistic_fixed)
    elif op.kind == "TANH":
        result = _gate(values, source, 1 << 24, arithmetic.tanh_fixed)
    elif op.kind == "RELU6":
        result = np.clip(values, *requantize.activation_range(source, "RELU6"))
    else:
        factor = requantize.rescale_multiplier(graph, op)
        scaled = arithmetic.multiply_by_quantized_multiplier(values - source.zero_point, *factor)
        activation = "RELU" if op.kind == "RELU" else "NONE"
        result = np.clip(scaled + output.zero_point, *requantize.activation_range(output, activation))
    return result.astype(np.int8)


def _gate(values: Ints, source: Tensor, unit: int, function: Callable[[Ints, int], Ints]) -> Ints:
    """LOGISTIC or TANH; `unit` is one output step in the function's Q0.31."""
    multiplier, shift, radius = requantize.gate_multiplier(source)
    x = values - source.zero_point
    inside = np.abs(x) < radius
    # Outside the radius the product would leave int32: TFLite never computes it.
    scaled = arithmetic.multiply_by_quantized_multiplier(np.where(inside, x, 0), multiplier, min(shift, 31))
    raw = function(scaled, requantize.GATE_INTEGER_BITS)
    steps = arithmetic.rounding_divide_by_pot(raw, unit.bit_length() - 1)
    offset = -128 if function is arithmetic.logistic_fixed else 0
    return np.where(inside, np.clip(steps + offset, -128, 127), np.where(x > 0, 127, -128))

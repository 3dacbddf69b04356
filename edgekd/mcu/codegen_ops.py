"""One emitter for each kind of op: which kernel runs it, with which constants, arrays and scratch.

An emitter decides everything that is known at build time (folded zero points, multipliers, tables,
paddings) and returns an Emission; it writes no C beyond the call. What the kernels cannot run is
refused here, by name, with the layer and its shapes. Convolutions are in codegen_linear.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edgekd.mcu.codegen_case import Call, Case, Emission
from edgekd.mcu.codegen_linear import conv_2d, depthwise_conv_2d, fully_connected
from edgekd.mcu.codegen_text import Array, Value
from edgekd.qgraph import arithmetic, lut, requantize
from edgekd.qgraph.reference.values import before

BROADCAST_AXES = 4


def pool(case: Case) -> Emission:
    """AVERAGE_POOL_2D and MAX_POOL_2D."""
    rows, columns = case.number("filter_h"), case.number("filter_w")
    kernel = f"k_{case.op.kind.lower()}_s8"
    fields = {
        **case.extents(
            in_h=case.x.shape[1],
            in_w=case.x.shape[2],
            channels=case.x.shape[3],
            out_h=case.y.shape[1],
            out_w=case.y.shape[2],
            filter_h=rows,
            filter_w=columns,
            stride_h=case.number("stride_h"),
            stride_w=case.number("stride_w"),
            pad_top=before(case.op, case.x.shape[1], rows, "h"),
            pad_left=before(case.op, case.x.shape[2], columns, "w"),
        ),
        **case.clamp(),
    }
    return Emission((Call(kernel, ("&layer", case.source(), case.target())),), (f"{kernel}_t", fields))


def mean(case: Case) -> Emission:
    """MEAN over height and width together."""
    multiplier, shift, pixels = requantize.mean_multiplier(case.graph, case.op)
    fields: dict[str, Value] = {
        "pixels": pixels,
        "channels": case.x.shape[3],
        "multiplier": multiplier,
        "shift": shift,
        "in_zero_point": case.x.zero_point,
        "out_zero_point": case.y.zero_point,
    }
    return Emission((Call("k_mean_s8", ("&layer", case.source(), case.target())),), ("k_mean_s8_t", fields))


def add_or_sub(case: Case) -> Emission:
    """ADD and SUB share a kernel."""
    factors = requantize.sum_multipliers(case.graph, case.op)
    a, b = case.inputs
    fields: dict[str, Value] = {
        "shape": _broadcast(case),
        "a_multiplier": factors.input1[0],
        "b_multiplier": factors.input2[0],
        "out_multiplier": factors.output[0],
        "a_shift": factors.input1[1],
        "b_shift": factors.input2[1],
        "out_shift": factors.output[1],
        "subtract": int(case.op.kind == "SUB"),
        "a_zero_point": a.zero_point,
        "b_zero_point": b.zero_point,
        "out_zero_point": case.y.zero_point,
        **case.clamp(),
    }
    arguments = ("&layer", case.source(0), case.source(1), case.target())
    return Emission((Call("k_add_s8", arguments),), ("k_add_s8_t", fields))


def mul(case: Case) -> Emission:
    multiplier, shift = requantize.mul_multiplier(case.graph, case.op)
    a, b = case.inputs
    fields: dict[str, Value] = {
        "shape": _broadcast(case),
        "multiplier": multiplier,
        "shift": shift,
        "a_zero_point": a.zero_point,
        "b_zero_point": b.zero_point,
        "out_zero_point": case.y.zero_point,
        **case.clamp(),
    }
    arguments = ("&layer", case.source(0), case.source(1), case.target())
    return Emission((Call("k_mul_s8", arguments),), ("k_mul_s8_t", fields))


def by_table(case: Case) -> Emission:
    """Any function of one byte: RELU, RELU6, LOGISTIC, TANH, TABLE, QUANTIZE between int8 and uint8."""
    if "float32" in (case.x.dtype, case.y.dtype):
        case.fail("the C has no floating point: give it the quantized tensor (strip the float edges)")
    table = Array("table", _table(case))
    arguments = ("table", case.source(0, "uint8_t"), str(case.x.elements), case.target("uint8_t"))
    return Emission((Call("k_table_8", arguments),), tables=(table,))


def softmax(case: Case) -> Emission:
    """Trailing zeros of the table of exponentials are left out: beyond its end everything is 0."""
    exps = requantize.softmax_table(case.graph, case.op)
    exps = exps[: int(np.flatnonzero(exps)[-1]) + 1]
    depth = case.y.shape[-1]
    fields: dict[str, Value] = {
        "exps": "exps",
        "exps_length": len(exps),
        "rows": case.y.elements // depth,
        "depth": depth,
    }
    call = Call("k_softmax_s8", ("&layer", case.source(), case.target()))
    return Emission((call,), ("k_softmax_s8_t", fields), tables=(Array("exps", exps),))


def concatenation(case: Case) -> Emission:
    """Each input's rows (all axes from the joined one inwards) into the output's wider rows."""
    shape = case.y.shape
    axis = case.number("axis") % len(shape)
    rows = int(np.prod(shape[:axis], dtype=np.int64))
    step = case.y.elements // rows
    calls: list[Call] = []
    offset = 0
    for position, tensor in enumerate(case.inputs):
        width = tensor.elements // rows
        sizes = (str(rows), str(width), str(step))
        calls.append(Call("k_copy_rows_8", (case.source(position), *sizes, case.target(offset=offset))))
        offset += width
    return Emission(tuple(calls))


def pad(case: Case) -> Emission:
    paddings = case.inputs[1].data
    if paddings is None:
        case.fail("its paddings are not constant")
    missing = 4 - len(case.x.shape)
    fields: dict[str, Value] = {
        "extent": (*[1] * missing, *case.y.shape),
        "before": (*[0] * missing, *(int(pair[0]) for pair in paddings.tolist())),
        "inside": (*[1] * missing, *case.x.shape),
        "value": case.y.zero_point,
    }
    return Emission((Call("k_pad_8", ("&layer", case.source(), case.target())),), ("k_pad_8_t", fields))


def reshape(case: Case) -> Emission:
    """Of a constant only: any other RESHAPE's output is its input's bytes, and nothing runs."""
    size = str(case.y.elements)
    return Emission((Call("k_copy_rows_8", (case.source(), "1", size, size, case.target())),))


def _table(case: Case) -> npt.NDArray[np.uint8]:
    """256 output bytes, ordered by the input byte taken as unsigned."""
    if case.op.kind == "TABLE":
        given = case.inputs[1].data
        assert given is not None
        return np.roll(given, 128 if case.x.dtype == "int8" else 0).view(np.uint8)
    if case.x.dtype == case.y.dtype == "int8":
        signed = lut.table(case.op, case.graph)
        return np.roll(signed, 128).view(np.uint8)
    values = np.arange(256, dtype=np.uint8).view(case.x.dtype).astype(np.int64)
    factor = requantize.rescale_multiplier(case.graph, case.op)
    scaled = arithmetic.multiply_by_quantized_multiplier(values - case.x.zero_point, *factor)
    bounded = np.clip(scaled + case.y.zero_point, *requantize.limits(case.y.dtype))
    return bounded.astype(case.y.dtype).view(np.uint8)


def _broadcast(case: Case) -> dict[str, Value]:
    """The fields of a k_broadcast_t: neighbouring axes that both operands walk alike are one axis."""
    rank = len(case.y.shape)
    a, b = (_trailing(t.shape, rank) for t in case.inputs)
    merged: list[tuple[int, bool, bool]] = []  # extent, a repeats, b repeats
    for extent, a_extent, b_extent in zip(case.y.shape, a, b, strict=True):
        if extent == 1:
            continue
        repeats = (a_extent == 1, b_extent == 1)
        if merged and merged[-1][1:] == repeats:
            merged[-1] = (merged[-1][0] * extent, *repeats)
        else:
            merged.append((extent, *repeats))
    if len(merged) > BROADCAST_AXES:
        case.fail(
            f"its operands broadcast over {len(merged)} alternating axes; at most {BROADCAST_AXES} can run"
        )
    merged = [(1, True, True)] * (BROADCAST_AXES - len(merged)) + merged
    extents = [extent for extent, _, _ in merged]
    return {
        "extent": extents,
        "a_step": _steps([(extent, repeats) for extent, repeats, _ in merged]),
        "b_step": _steps([(extent, repeats) for extent, _, repeats in merged]),
    }


def _trailing(shape: tuple[int, ...], rank: int) -> tuple[int, ...]:
    return (*[1] * (rank - len(shape)), *shape)


def _steps(axes: list[tuple[int, bool]]) -> list[int]:
    """Elements from one index to the next on each axis; 0 where the operand repeats."""
    steps: list[int] = []
    step = 1
    for extent, repeats in reversed(axes):
        steps.append(0 if repeats else step)
        step *= 1 if repeats else extent
    return steps[::-1]


EMITTERS: dict[str, Callable[[Case], Emission]] = {
    "ADD": add_or_sub,
    "AVERAGE_POOL_2D": pool,
    "CONCATENATION": concatenation,
    "CONV_2D": conv_2d,
    "DEPTHWISE_CONV_2D": depthwise_conv_2d,
    "FULLY_CONNECTED": fully_connected,
    "LOGISTIC": by_table,
    "MAX_POOL_2D": pool,
    "MEAN": mean,
    "MUL": mul,
    "PAD": pad,
    "QUANTIZE": by_table,
    "RELU": by_table,
    "RELU6": by_table,
    "RESHAPE": reshape,
    "SOFTMAX": softmax,
    "SUB": add_or_sub,
    "TABLE": by_table,
    "TANH": by_table,
}

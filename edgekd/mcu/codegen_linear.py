"""Emitters of CONV_2D, DEPTHWISE_CONV_2D and FULLY_CONNECTED: weights, folded biases, multipliers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgekd.mcu.codegen_case import SCRATCH, Call, Case, Emission
from edgekd.mcu.codegen_packed import packed
from edgekd.mcu.codegen_text import Array, Value
from edgekd.qgraph import arithmetic, requantize
from edgekd.qgraph.reference.values import before

Weights = npt.NDArray[np.int8]


def fully_connected(case: Case) -> Emission:
    """Each row of the input times [out, in]: the shared matrix kernel."""
    return _matrix(case, _constant(case, 1), case.x.elements // case.inputs[1].shape[1])


def conv_2d(case: Case) -> Emission:
    """A 1x1 filter with stride 1 is a matrix over pixels; the rest gathers windows into scratch."""
    return _convolution(case, _constant(case, 1))


def depthwise_conv_2d(case: Case) -> Emission:
    """One filter a channel; over a single input channel it is an ordinary convolution."""
    weights = _constant(case, 1)
    if case.x.shape[3] == 1:
        return _convolution(case, np.ascontiguousarray(weights.transpose(3, 1, 2, 0)))
    _, rows, columns, outputs = weights.shape
    arrays, requantized = _requantization(case, outputs)
    bias = case.array("bias", _bias(case, outputs))
    fields: dict[str, Value] = {
        "weights": arrays_name(case, "filter"),
        "bias": bias.name,
        **requantized,
        **_window(case, rows, columns),
        **case.extents(
            depth_multiplier=case.number("depth_multiplier"),
            outputs=outputs,
            in_zero_point=case.x.zero_point,
            out_zero_point=case.y.zero_point,
        ),
        **case.clamp(),
    }
    return Emission(
        calls=(Call("k_depthwise_conv_2d_s8", ("&layer", case.source(), case.target())),),
        struct=("k_depthwise_conv_2d_s8_t", fields),
        weights=(case.array("filter", weights), bias, *arrays),
        macs=case.y.elements * rows * columns,
    )


def arrays_name(case: Case, role: str) -> str:
    return f"model_weights_{case.index:02d}_{role}"


def _convolution(case: Case, weights: Weights) -> Emission:
    """`weights` are [outputs, filter_h, filter_w, channels]."""
    _, rows, columns, _ = weights.shape
    if (rows, columns, case.number("stride_h"), case.number("stride_w")) == (1, 1, 1, 1):
        return _matrix(case, weights, case.x.shape[1] * case.x.shape[2])
    matrix, arrays = _matrix_fields(case, weights)
    fields: dict[str, Value] = {
        "gemm": matrix,
        **_window(case, rows, columns),
        **case.extents(in_zero_point=case.x.zero_point),
    }
    plain = Emission(
        calls=(Call("k_conv_2d_s8", ("&layer", case.source(), SCRATCH, case.target())),),
        struct=("k_conv_2d_s8_t", fields),
        weights=arrays,
        macs=case.y.elements * weights[0].size,
        scratch_bytes=4 * weights[0].size,  # K_CONV_2D_S8_SCRATCH_BYTES
    )
    return packed(case, plain, weights, case.y.shape[2])


def _matrix(case: Case, weights: Weights, rows: int) -> Emission:
    fields, arrays = _matrix_fields(case, weights)
    packs = rows > 1 and _may_pair(case, weights)
    plain = Emission(
        calls=(
            Call("k_gemm_s8", ("&layer", case.source(), str(rows), SCRATCH if packs else "0", case.target())),
        ),
        struct=("k_gemm_s8_t", fields),
        weights=arrays,
        macs=rows * weights.size,
        scratch_bytes=4 * weights[0].size if packs else 0,  # K_GEMM_S8_SCRATCH_BYTES
    )
    return packed(case, plain, weights, 0) if rows > 1 or case.wants_flash else plain


def _matrix_fields(case: Case, weights: Weights) -> tuple[dict[str, Value], tuple[Array, ...]]:
    """The fields of a k_gemm_s8_t and the arrays behind them; the input's zero point goes into the bias."""
    outputs = weights.shape[0]
    sums = weights.reshape(outputs, -1).sum(axis=1, dtype=np.int64)
    folded = arithmetic.wrap_int32(_bias(case, outputs).astype(np.int64) - case.x.zero_point * sums)
    arrays, requantized = _requantization(case, outputs)
    filter_array = case.array("filter", _blocks(weights.reshape(outputs, -1)))
    bias = case.array("bias", folded.astype(np.int32))
    fields: dict[str, Value] = {
        "weights": filter_array.name,
        "bias": bias.name,
        **requantized,
        "depth": weights[0].size,
        "outputs": outputs,
        "out_zero_point": case.y.zero_point,
        **case.clamp(),
        "paired": int(_may_pair(case, weights)),
    }
    return fields, (filter_array, bias, *arrays)


def _may_pair(case: Case, weights: Weights) -> bool:
    """Whether two rows may share a multiply: each output's sum stays within 22 bits whatever the input.

    Where the weights may be replaced: whatever the weights.
    """
    if case.is_updatable:
        return bool(128 * 128 * weights[0].size < 1 << 22)
    sums = np.abs(weights.astype(np.int64)).reshape(len(weights), -1).sum(axis=1)
    return bool((128 * sums < 1 << 22).all())


def _blocks(rows: Weights) -> Weights:
    """[outputs, depth] as k_gemm_s8 stores it: blocks of four outputs, [depth][4]; the rest as plain rows."""
    whole = len(rows) // 4 * 4
    blocks = rows[:whole].reshape(-1, 4, rows.shape[1]).transpose(0, 2, 1)
    return np.concatenate([blocks.ravel(), rows[whole:].ravel()])


def _requantization(case: Case, outputs: int) -> tuple[tuple[Array, ...], dict[str, Value]]:
    """Multiplier and shift a channel, or one of each where all channels have the same."""
    multipliers, shifts = requantize.channel_multipliers(case.graph, case.op)
    step = 1
    same = bool((multipliers == multipliers[0]).all() and (shifts == shifts[0]).all())
    if case.is_updatable:  # what is the same now need not stay so, but for one scale
        same = len(case.inputs[1].scale) == 1
    if outputs == 1 or same:
        multipliers, shifts, step = multipliers[:1], shifts[:1], 0
    arrays = (case.array("multiplier", multipliers), case.array("shift", shifts.astype(np.int8)))
    return arrays, {"multiplier": arrays[0].name, "shift": arrays[1].name, "channel_step": step}


def _window(case: Case, rows: int, columns: int) -> dict[str, Value]:
    """Shapes, strides, dilations and paddings of a filter of `rows` by `columns`."""
    return case.extents(
        in_h=case.x.shape[1],
        in_w=case.x.shape[2],
        channels=case.x.shape[3],
        out_h=case.y.shape[1],
        out_w=case.y.shape[2],
        filter_h=rows,
        filter_w=columns,
        stride_h=case.number("stride_h"),
        stride_w=case.number("stride_w"),
        dilation_h=case.number("dilation_h"),
        dilation_w=case.number("dilation_w"),
        pad_top=before(case.op, case.x.shape[1], rows, "h"),
        pad_left=before(case.op, case.x.shape[2], columns, "w"),
    )


def _constant(case: Case, position: int) -> Weights:
    data = case.inputs[position].data
    if data is None:
        case.fail("its weights are not constant")
    return data.astype(np.int8)


def _bias(case: Case, outputs: int) -> npt.NDArray[np.int32]:
    """The bias, or zeros where the op has none."""
    if len(case.inputs) < 3:
        return np.zeros(outputs, np.int32)
    data = case.inputs[2].data
    if data is None:
        case.fail("its bias is not constant")
    return data.astype(np.int32)

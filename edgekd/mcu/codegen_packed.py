"""Portable kernels with weights stored as indices: the same layer, unpacked into scratch in parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from edgekd.mcu.codegen_case import SCRATCH, Case, Emission
from edgekd.mcu.codegen_text import Value
from edgekd.mcu.plan import room_bytes
from edgekd.qgraph.encoding import pack

REGATHER_SHARE = 0.05  # of a layer's instructions that may go into gathering its windows again
KERNELS = {"k_gemm_s8": "k_gemm_packed_s8", "k_conv_2d_s8": "k_conv_2d_packed_s8"}
# Instructions for two pixels, about: gathering an input, an input of four outputs, finishing four outputs.
_GATHER, _MULTIPLY, _FINISH = 7, 10, 110


def packed(case: Case, plain: Emission, weights: npt.NDArray[np.int8], row_pixels: int) -> Emission:
    """`plain` with its weights as indices; itself where they are not stored so, or that saves nothing.
    Updatable builds store all weights plainly: how they are stored is a property of their values.

    plain: one call of k_gemm_s8 or k_conv_2d_s8, its weights first. weights: [outputs, ...], output by output
    as the encoding counts them. row_pixels: pixels of an output row, 0 for the rows of a matrix.
    """
    encoding = case.inputs[1].encoding
    rows = weights.reshape(len(weights), -1)
    if encoding is None or case.is_updatable or encoding.stored_bytes(rows.size) >= rows.size:
        return plain
    assert plain.struct is not None
    outputs, depth = rows.shape
    kernel, bits = KERNELS[plain.calls[0].kernel], encoding.stored_bits
    once = not row_pixels and case.x.elements == depth  # each weight is used once
    chunk = min(outputs, 4) if once else _chunk(case, outputs, depth)
    arguments = tuple(SCRATCH if a in ("0", SCRATCH) else a for a in plain.calls[0].arguments)
    arrays = [
        case.array("filter", _stream(encoding.indices(rows), bits)),
        case.array("table", encoding.whole_tables),
    ]
    if len(encoding.tables) > 1:
        arrays.append(case.array("group", encoding.channel_tables))
    unpacked: dict[str, Value] = {
        "indices": arrays[0].name,
        "tables": arrays[1].name,
        "channel_tables": arrays[2].name if len(arrays) > 2 else "0",
        "bits": bits,
        "chunk": chunk,
    }
    inner = {"conv" if row_pixels else "gemm": _without_weights(plain.struct[1])}
    apart = 0 if once or chunk == outputs else chunk * (row_pixels or 2)
    return replace(
        plain,
        calls=(replace(plain.calls[0], kernel=kernel, arguments=arguments),),
        struct=(f"{kernel}_t", {**inner, "packed": unpacked}),
        weights=(*arrays, *plain.weights[1:]),
        scratch_bytes=-(-depth * chunk // 4) * 4 + (0 if once else 4 * depth) + apart,
    )


def _chunk(case: Case, outputs: int, depth: int) -> int:
    """Outputs to unpack together: a multiple of four, or all."""
    blocks = -(-outputs // 4)
    room = (room_bytes(case.graph)[case.index] - 4 * depth) // (4 * depth)
    again = _GATHER * depth / (blocks * (_MULTIPLY * depth + _FINISH))
    most = 1 + int(REGATHER_SHARE / again)
    parts = min(-(-blocks // max(1, min(blocks, room))), most)
    return min(outputs, 4 * -(-blocks // parts))


def _stream(indices: npt.NDArray[np.int64], bits: int) -> npt.NDArray[np.uint8]:
    """[outputs, depth] as k_unpack_s8 reads them."""
    whole = len(indices) // 4 * 4
    blocks = indices[:whole].reshape(-1, 4, indices.shape[1]).transpose(0, 2, 1)
    return np.concatenate([pack(blocks, bits), *(pack(row, bits) for row in indices[whole:])])


def _without_weights(fields: Mapping[str, Value]) -> Mapping[str, Value]:
    if "gemm" in fields:
        inner = fields["gemm"]
        assert isinstance(inner, Mapping)
        return {**fields, "gemm": _without_weights(inner)}
    return {**fields, "weights": "0"}

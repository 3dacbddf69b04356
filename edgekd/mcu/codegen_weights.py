"""The learned values as one blob: where each array lies, the header that guards it, and its text in C.

The blob's bytes are decided here, so that its checksum is known when it is written and a device can check
it, or take another of the same layout. docs/generated-c.md has the format; k_weights.h reads it.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgekd.mcu.codegen_text import C_TYPES, LICENSE, Array, rows
from edgekd.qgraph.ir import QGraph

MAGIC, FORMAT, HEADER_BYTES = b"EDKW", 1, 32
ARRAY_ALIGNMENT_BYTES = 4
LAYOUT_BYTES = DIGEST_BYTES = 8
FIXED = bytes(LAYOUT_BYTES)  # the layout of weights that cannot be replaced
NAME = "model_weights_"  # how the generated C calls an array of the blob

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_SECTION = """
/* The section lets a linker script place the weights; elsewhere they are ordinary constants. */
#if defined(__GNUC__) && defined(__ELF__)
#define MODEL_WEIGHTS_PLACE __attribute__((section(".model_weights")))
#else
#define MODEL_WEIGHTS_PLACE
#endif
"""


@dataclass(frozen=True)
class Weights:
    """arrays: in the order in which they lie behind the header, each at a multiple of 4 bytes.

    layout: 8 bytes that name the code that can use the blob, FIXED where none but its own can.
    model: the model's digest.
    """

    arrays: tuple[Array, ...]
    layout: bytes
    model: bytes

    @property
    def blob(self) -> bytes:
        """Header and arrays, as they lie in a little-endian core's flash."""
        body = b"".join(_padded(_little_endian(array)) for array in self.arrays)
        checked = self.layout + self.model[:DIGEST_BYTES] + body
        total, checksum = HEADER_BYTES + len(body), zlib.crc32(checked)
        return MAGIC + struct.pack("<HHII", FORMAT, HEADER_BYTES, total, checksum) + checked

    @property
    def bytes(self) -> int:
        """Of the whole blob."""
        return HEADER_BYTES + sum(_aligned(array.values.nbytes) for array in self.arrays)


def ordered(arrays: Sequence[Array]) -> tuple[Array, ...]:
    """Wide elements first: then nothing but the end of a byte array needs padding."""
    return tuple(sorted(arrays, key=lambda array: -array.values.dtype.itemsize))


def model_digest(graph: QGraph) -> bytes:
    """SHA-256 over everything of a graph that decides its outputs; names are left out."""
    digest = hashlib.sha256()
    for tensor in graph.tensors:
        what = (tensor.shape, tensor.dtype, tensor.zero_point, tensor.axis, tensor.data is not None)
        digest.update(repr(what).encode() + np.asarray(tensor.scale, "<f4").tobytes())
        if tensor.data is not None:
            digest.update(_little_endian(Array("", tensor.data)))
    for op in graph.ops:
        digest.update(repr((op.kind, op.inputs, op.outputs, sorted(op.attrs.items()))).encode())
    digest.update(repr((graph.inputs, graph.outputs)).encode())
    return digest.digest()


def layout_of(files: Mapping[str, str], edges: str) -> bytes:
    """What names the code of an updatable build: its text without comments, the contracts of its kernels.

    edges: the scales and zero points that the caller's own code knows.
    """
    digest = hashlib.sha256(edges.encode())
    for name in sorted(files):
        if name in ("model.c", "model_weights.h"):
            digest.update(f"{name}\n{_COMMENT.sub('', files[name])}".encode())
        elif name.startswith("k_") and name.endswith(".h"):
            digest.update(f"{name}\n{files[name]}".encode())
    return digest.digest()[:LAYOUT_BYTES]


def header_text(arrays: Sequence[Array], is_updatable: bool) -> str:
    """model_weights.h: the blob as a struct; a macro an array, as layers name it."""
    members = "".join(
        f"    {C_TYPES[str(array.values.dtype)]} {member(array)}[{array.values.size}];\n{_gap(array)}"
        for array in arrays
    )
    where = "weights->" if is_updatable else "model_weights."
    names = "".join(f"#define {array.name} ({where}{member(array)})\n" for array in arrays)
    return (
        f"{LICENSE}\n/* Weights, biases, multipliers and shifts: see model_weights.c. */\n"
        "#ifndef MODEL_WEIGHTS_H\n#define MODEL_WEIGHTS_H\n\n#include <stdint.h>\n\n"
        '#include "k_weights.h"\n\ntypedef struct model_weights {\n    k_weights_header_t header;\n'
        f"{members}}} model_weights_t;\n\n"
        f"extern const model_weights_t model_weights;\n\n{names}\n#endif\n"
    )


def source_text(weights: Weights) -> str:
    """model_weights.c: the one object that holds everything learned."""
    magic, form, header_bytes, total, checksum, *names = struct.unpack(
        "<IHHIIIIII", weights.blob[:HEADER_BYTES]
    )
    fields = "".join(
        f"    .{member(array)} = {{\n{rows(array.values.ravel().tolist(), indent=' ' * 8)}    }},\n"
        for array in weights.arrays
    )
    layout, model = (f"{{{a:#010x}u, {b:#010x}u}}" for a, b in (names[:2], names[2:]))
    return (
        f"{LICENSE}\n/* Everything learned: weights, biases, multipliers and shifts, behind a header. */\n"
        f'#include "model_weights.h"\n{_SECTION}\n'
        f"typedef char model_weights_must_have_no_gaps[sizeof(model_weights_t) == {total} ? 1 : -1];\n\n"
        "const model_weights_t model_weights MODEL_WEIGHTS_PLACE = {\n"
        "    .header = {\n"
        f"        .magic = {magic:#010x}u,\n        .format = {form},\n"
        f"        .header_bytes = {header_bytes},\n"
        f"        .bytes = {total},\n        .checksum = {checksum:#010x}u,\n"
        f"        .layout = {layout},\n        .model = {model},\n    }},\n{fields}}};\n"
    )


def member(array: Array) -> str:
    """The struct's member for an array: model_weights_03_bias is w03_bias."""
    return "w" + array.name.removeprefix(NAME)


def _gap(array: Array) -> str:
    missing = _aligned(array.values.nbytes) - array.values.nbytes
    return f"    uint8_t behind_{member(array)}[{missing}];\n" if missing else ""


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // ARRAY_ALIGNMENT_BYTES) * ARRAY_ALIGNMENT_BYTES


def _padded(data: bytes) -> bytes:
    return data + bytes(_aligned(len(data)) - len(data))


def _little_endian(array: Array) -> bytes:
    values = np.ascontiguousarray(array.values)
    return values.astype(values.dtype.newbyteorder("<")).tobytes()

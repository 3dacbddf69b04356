"""The TensorFlow Lite Micro export: the model as a C array, its op resolver list, and the arena it needs.

The arena is *measured* where the `tflite-micro` package exists (Linux x86-64: 64-bit pointers and
reference kernels, so the figure is labelled so), and *bounded* for each core family by a model of
TFLM's allocator: its greedy planner over activations and kernel scratch, plus what it keeps for
tensors, nodes and per-channel requantization on a 32-bit core.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec

from edgekd.qgraph.ir import Op, QGraph
from edgekd.qgraph.tflite_writer import op_list

CORE_FAMILIES = ("reference", "dsp", "mve")

# What TFLM keeps on a 32-bit core, in bytes (sizes of its structs, fitted to measured arenas).
_FIXED, _TENSOR, _NODE = 400, 12, 32
_OP_DATA = {"FULLY_CONNECTED": 56, "RESHAPE": 16}
_OP_DATA_OTHER, _CMSIS_OP_EXTRA, _CHANNEL = 112, 32, 8
_MVE_DEPTHWISE_BLOCK = 124


@dataclass(frozen=True)
class Arena:
    """Bytes that TFLM's arena takes: `bound` a core family; `measured_x86_64` None where it cannot run."""

    bound: Mapping[str, int]
    measured_x86_64: int | None


def model_array(tflite: bytes, name: str) -> dict[str, str]:
    """`model_data.h` and `model_data.cc`: the flatbuffer as a 16-byte aligned array of C++11."""
    what = f"{name}: a TensorFlow Lite model of {len(tflite)} bytes, by edgekd"
    head = f"/* SPDX-License-Identifier: 0BSD\n * {what}. */\n"
    header = (
        f"{head}#ifndef EDGEKD_MODEL_DATA_H\n#define EDGEKD_MODEL_DATA_H\n\n"
        "extern const unsigned char g_model_data[];\nextern const unsigned int g_model_data_len;\n\n#endif\n"
    )
    rows = [tflite[i : i + 16] for i in range(0, len(tflite), 16)]
    body = ",\n".join("    " + ", ".join(f"0x{byte:02x}" for byte in row) for row in rows)
    source = (
        f'{head}#include "model_data.h"\n\n'
        f"alignas(16) extern const unsigned char g_model_data[] = {{\n{body},\n}};\n"
        f"extern const unsigned int g_model_data_len = {len(tflite)};\n"
    )
    return {"model_data.h": header, "model_data.cc": source}


def op_resolver(graph: QGraph) -> str:
    """The lines that an application for TFLM writes by hand: the resolver with just the model's ops."""
    methods = [_resolver_method(kind) for kind in op_list(graph)]
    lines = [f"  resolver.Add{method}();" for method in methods]
    return (
        "/* SPDX-License-Identifier: 0BSD */\n"
        '#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"\n\n'
        f"static tflite::MicroMutableOpResolver<{len(methods)}> resolver;\n\n"
        "static void register_ops() {\n" + "\n".join(lines) + "\n}\n"
    )


def _resolver_method(kind: str) -> str:
    """CONV_2D -> Conv2D, as MicroMutableOpResolver spells it."""
    return "".join(part.upper() if part == "2D" else part.capitalize() for part in kind.split("_"))


def arena(graph: QGraph, tflite: bytes) -> Arena:
    """The arena's bound for each core family, and the size measured on this machine where TFLM runs here."""
    return Arena({family: arena_bound(graph, family) for family in CORE_FAMILIES}, measure_arena(tflite))


def measure_arena(tflite: bytes) -> int | None:
    """TFLM's own account of its arena (64-bit pointers, reference kernels), or None without its package.

    It prints to the C library's stderr, so it runs in a child process.
    """
    if find_spec("tflite_micro") is None:
        return None
    code = (
        "import sys; from tflite_micro.python.tflite_micro import runtime; "
        "runtime.Interpreter.from_bytes(sys.stdin.buffer.read()).print_allocations()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=tflite, capture_output=True, timeout=60, check=False
    )
    found = re.search(rb"Arena allocation total (\d+) bytes", done.stdout + done.stderr)
    return int(found.group(1)) if found else None


def arena_bound(graph: QGraph, family: str) -> int:
    """An upper bound in bytes of TFLM's arena on a 32-bit core of `family` (see CORE_FAMILIES)."""
    scratch = [_scratch_bytes(graph, op, family) for op in graph.ops]
    return _greedy_bytes(graph, scratch) + _persistent_bytes(graph, family)


def _persistent_bytes(graph: QGraph, family: str) -> int:
    used = {i for op in graph.ops for i in (*op.inputs, *op.outputs) if i != -1}
    total = _FIXED + _TENSOR * len(used) + _NODE * len(graph.ops)
    for op in graph.ops:
        total += _OP_DATA.get(op.kind, _OP_DATA_OTHER)
        channels = graph.tensors[op.outputs[0]].shape[-1]
        if op.kind in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            total += _CHANNEL * channels
        if family != "reference":
            total += _CMSIS_OP_EXTRA
        if family == "mve" and op.kind == "FULLY_CONNECTED":
            total += 4 * channels  # kernel sums, computed once
    return total


def _scratch_bytes(graph: QGraph, op: Op, family: str) -> int:
    """CMSIS-NN's buffer for one call: two columns of im2col, or a depthwise patch, as int16."""
    if family == "reference" or op.kind not in ("CONV_2D", "DEPTHWISE_CONV_2D", "AVERAGE_POOL_2D"):
        return 0
    if op.kind == "AVERAGE_POOL_2D":
        return 4 * graph.tensors[op.inputs[0]].shape[-1]
    weights = graph.tensors[op.inputs[1]].shape
    patch = weights[1] * weights[2] * weights[3]
    if op.kind == "CONV_2D":
        return 4 * (patch + 4)
    if family == "mve":
        return 4 * _MVE_DEPTHWISE_BLOCK * weights[1] * weights[2]
    return 2 * patch


def _greedy_bytes(graph: QGraph, scratch: list[int]) -> int:
    """TFLM's greedy planner: buffers by falling size (equals: the later first), each at its lowest gap."""
    buffers = _lifetimes(graph) + [(size, i, i) for i, size in enumerate(scratch) if size]
    placed: list[tuple[int, int, int, int]] = []  # offset, end, first, last
    for size, first, last in sorted(buffers, key=lambda b: (-b[0], -b[1])):
        size = -(-size // 16) * 16
        offset = 0
        for start, end, born, dies in sorted(placed):
            if born <= last and first <= dies:
                if start >= offset + size:
                    break
                offset = max(offset, end)
        placed.append((offset, offset + size, first, last))
    return max((end for _, end, _, _ in placed), default=0)


def _lifetimes(graph: QGraph) -> list[tuple[int, int, int]]:
    """(bytes, first op, last op) of every activation; graph inputs and outputs as TFLM keeps them."""
    first = dict.fromkeys(graph.inputs, 0)
    last = dict.fromkeys(graph.inputs, 0)
    for index, op in enumerate(graph.ops):
        for tensor in op.inputs:
            if tensor in first:
                last[tensor] = index
        for tensor in op.outputs:
            first[tensor] = last[tensor] = index
    for tensor in graph.outputs:
        last[tensor] = len(graph.ops)
    return [(graph.tensors[t].nbytes, first[t], last[t]) for t in first]

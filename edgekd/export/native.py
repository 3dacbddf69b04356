"""The generated C as shared objects for Linux: bit for bit the microcontroller's answers, and no runtime.

One file an architecture, by the same compiler package as firmware. firmware_stubs/linux/native_model.c is
its interface; docs/formats/linux.md describes it. Nothing of libc is linked, so glibc and musl load it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgekd.errors import UnsupportedOpError
from edgekd.mcu.codegen import generate
from edgekd.mcu.toolchain import Compiler
from edgekd.qgraph.edges import quantize_input, strip_float_edges
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.reference import run
from edgekd.resources import resource_dir


def native_file(architecture: str) -> str:
    """The file's name in a bundle."""
    return f"native-{architecture}.so"


def native_graph(graph: QGraph) -> QGraph:
    """`graph` without its float edges, once it has one 8-bit input and one 8-bit output.

    Raises UnsupportedOpError for any other edges.
    """
    stripped = strip_float_edges(graph)
    edges = [stripped.tensors[i] for i in (*stripped.inputs, *stripped.outputs)]
    if len(edges) != 2 or {edge.dtype for edge in edges} - {"int8", "uint8"}:
        raise UnsupportedOpError(
            f"graph {graph.name}: C for Linux takes one 8-bit input and gives one 8-bit output, not "
            f"{', '.join(edge.dtype for edge in edges)}; leave the variant native out"
        )
    return stripped


def build_native(graph: QGraph, architectures: Sequence[str], compiler: Compiler) -> dict[str, bytes]:
    """Architecture -> the shared object of `graph` (native_graph's result); the same bytes every time.

    Raises ArtifactError where the compiler refuses, ConfigError for an unknown architecture.
    """
    files = generate(graph).files
    result: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in files.items():
            (folder / file).write_text(text, encoding="utf-8")
        shutil.copyfile(
            resource_dir("firmware_stubs") / "linux" / "native_model.c", folder / "native_model.c"
        )
        for architecture in architectures:
            output = folder / native_file(architecture)
            compiler.compile_linux_shared(architecture, sorted(folder.glob("*.c")), [folder], output)
            result[architecture] = output.read_bytes()
    return result


def exact_answers(
    graph: QGraph, x: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.generic]]:
    """Integers in and out, [N, ...] each, by the integer reference; x: float32 [N, ...] in NHWC."""
    taken = quantize_input(x, graph.tensors[graph.inputs[0]])
    return taken, run(graph, [taken])[0]

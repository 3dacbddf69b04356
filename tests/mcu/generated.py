"""Generated C in tests: written to a folder, built for the host, compared with the integer reference."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.mcu.codegen import GeneratedModel, generate
from edgekd.mcu.host import HostModel
from edgekd.mcu.toolchain import Compiler
from edgekd.qgraph import reference
from edgekd.qgraph.ir import Op, QGraph, Tensor
from tests.graphs import inputs_for

Array = npt.NDArray[Any]


def write(model: GeneratedModel, folder: Path) -> Path:
    """The generated files in `folder`, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in model.files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def pack(arrays: list[Array]) -> Array:
    """Inputs [N, ...] each, as the bytes of model_input one after the other: uint8 [N, bytes]."""
    return np.concatenate([a.reshape(len(a), -1).view(np.uint8) for a in arrays], axis=1)


def unpack(graph: QGraph, rows: Array) -> list[Array]:
    """The outputs of the C in the graph's dtypes and shapes."""
    parts, start = [], 0
    for index in graph.outputs:
        tensor = graph.tensors[index]
        part = np.ascontiguousarray(rows[:, start : start + tensor.nbytes])
        parts.append(part.view(tensor.dtype).reshape(len(rows), *tensor.shape[1:]))
        start += tensor.nbytes
    return parts


def run_host(graph: QGraph, inputs: list[Array], compiler: Compiler, folder: Path) -> list[Array]:
    """The graph's outputs from its generated C, built for this machine."""
    host = HostModel(write(generate(graph), folder / "generated"), compiler, folder / "work")
    return unpack(graph, host.run(pack(inputs)))


def disagreements(graph: QGraph, compiler: Compiler, folder: Path, samples: int = 16) -> list[int]:
    """Positions of the outputs where the C and the reference differ in any byte."""
    inputs = inputs_for(graph, np.random.default_rng(7), samples)
    expected = reference.run(graph, inputs)
    found = run_host(graph, inputs, compiler, folder)
    return [i for i, (a, b) in enumerate(zip(expected, found, strict=True)) if not np.array_equal(a, b)]


def merge(graphs: list[QGraph]) -> QGraph:
    """Several graphs side by side in one: their inputs and outputs follow each other."""
    tensors: list[Tensor] = []
    ops: list[Op] = []
    inputs: list[int] = []
    outputs: list[int] = []
    for graph in graphs:
        base = len(tensors)
        tensors += graph.tensors
        for op in graph.ops:
            moved = tuple(i if i == -1 else base + i for i in op.inputs)
            ops.append(Op(op.kind, moved, tuple(base + i for i in op.outputs), op.attrs))
        inputs += [base + i for i in graph.inputs]
        outputs += [base + i for i in graph.outputs]
    return QGraph("merged", tuple(tensors), tuple(ops), tuple(inputs), tuple(outputs))


def run_sanitized(folder: Path, inputs: int, work: Path) -> None:
    """Build the C in `folder` for this machine under ASan and UBSan, and run it on constant inputs."""
    sizes = ", ".join(f"MODEL_INPUT{i}_BYTES" for i in range(inputs))
    (folder / "main.c").write_text(_SANITIZED.replace("SIZES", sizes), encoding="utf-8")
    flags = ["-std=c99", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    program = work / "program"
    sources = [str(path) for path in sorted(folder.glob("*.c"))]
    subprocess.run(["gcc", *flags, "-I", str(folder), *sources, "-o", str(program)], check=True)
    result = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


_SANITIZED = """
#include "model.h"
#include <stdlib.h>
#include <string.h>
static const size_t sizes[] = {SIZES};
int main(void) {
    static const int fills[] = {-128, 127, 1};
    model_t *model = malloc(sizeof *model); /* so that the sanitizer sees its ends */
    model_init(model);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < MODEL_INPUT_COUNT; i++) memset(model_input(model, i), fills[round], sizes[i]);
        model_invoke(model);
    }
    free(model);
    return 0;
}
"""

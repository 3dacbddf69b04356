"""Every kernel over a grid of attributes, bit for bit against the integer reference, on the host.

All cases of one kind are branches of one graph, so that each kind is compiled once; a failure names
the case. The same grids run under GCC's address and undefined-behaviour sanitizers.
"""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.mcu.codegen import generate
from edgekd.mcu.toolchain import Compiler
from edgekd.qgraph import reference
from edgekd.qgraph.ir import QGraph
from tests.graphs import Builder, inputs_for
from tests.mcu.generated import disagreements, pack, write

PADDINGS = ("SAME", "VALID")
ACTIVATIONS = ("NONE", "RELU", "RELU6")
Branch = tuple[str, int]  # what the case is, its output


def conv_branches(b: Builder) -> list[Branch]:
    """Kernels, strides, dilations, paddings and channels that are not multiples of the tile."""
    branches = []
    grid = itertools.product(((3, 3), (1, 1), (2, 5), (4, 1)), ((1, 1), (2, 1), (3, 2)), PADDINGS)
    for i, (kernel, stride, padding) in enumerate(grid):
        for channels, outputs in ((1, 1), (3, 5), (4, 8)):
            options: dict[str, Any] = {"stride": stride, "padding": padding}
            options |= {"activation": ACTIVATIONS[i % 3], "per_channel": i % 2 == 0, "bias": i % 5 != 0}
            x = b.input((1, 7, 6 + i % 2, channels))
            case = f"conv {kernel} {channels}->{outputs} {options}"
            branches.append((case, b.conv(x, outputs, kernel, **options)))
    for dilation, padding in itertools.product(((2, 2), (1, 3), (3, 1)), PADDINGS):
        x = b.input((1, 9, 8, 3))
        output = b.conv(x, 4, (3, 2), dilation=dilation, padding=padding)
        branches.append((f"conv dilation {dilation} {padding}", output))
    return branches


def wide_branches(b: Builder) -> list[Branch]:
    """Sums at and beyond the 22 bits that two rows may share a multiply in, with every sign of extreme."""
    branches = []
    for depth, weight in itertools.product((258, 259), (127, -127)):  # 258 * 127 is the last below 2^15
        output = b.conv(b.input((1, 3, 3, depth)), 6, (1, 1))
        data = b.tensors[b.ops[-1].inputs[1]].data
        assert data is not None
        data[...] = weight
        branches.append((f"conv 1x1 of {depth} weights {weight}", output))
    for depth, kernel, outputs in ((80, (3, 3), 5), (700, (1, 1), 9)):
        branches.append((f"conv {kernel} depth {depth}", b.conv(b.input((1, 3, 5, depth)), outputs, kernel)))
    return branches


def depthwise_branches(b: Builder) -> list[Branch]:
    branches = []
    grid = itertools.product(((3, 3), (1, 1), (5, 2)), ((1, 1), (2, 2)), PADDINGS, (1, 2, 3))
    for i, (kernel, stride, padding, multiplier) in enumerate(grid):
        for channels in (1, 4, 7):
            options: dict[str, Any] = {"stride": stride, "padding": padding, "multiplier": multiplier}
            options |= {"activation": ACTIVATIONS[i % 3], "per_channel": i % 2 == 0, "bias": i % 5 != 0}
            x = b.input((1, 6, 5 + i % 3, channels))
            branches.append((f"depthwise {kernel} {channels} {options}", b.depthwise(x, kernel, **options)))
    for dilation, padding in itertools.product(((2, 2), (1, 3)), PADDINGS):
        x = b.input((1, 9, 8, 5))
        output = b.depthwise(x, (3, 2), dilation=dilation, padding=padding)
        branches.append((f"depthwise dilation {dilation} {padding}", output))
    return branches


def dense_branches(b: Builder) -> list[Branch]:
    branches = []
    for depth, outputs, per_channel, bias in itertools.product(
        (1, 2, 7, 33), (1, 4, 7), (False, True), (False, True)
    ):
        x = b.input((1, depth))
        output = b.dense(x, outputs, per_channel=per_channel, bias=bias, activation=ACTIVATIONS[depth % 3])
        branches.append((f"dense {depth}->{outputs} {per_channel} {bias}", output))
    for shape in ((1, 3, 5), (1, 2, 3, 4)):
        branches.append((f"dense rows {shape}", b.dense(b.input(shape), 6, depth=shape[-1])))
    return branches


def pool_branches(b: Builder) -> list[Branch]:
    branches = []
    kinds = ("AVERAGE_POOL_2D", "MAX_POOL_2D")
    grid = itertools.product(kinds, ((2, 2), (3, 1), (5, 4)), ((1, 1), (2, 3)), PADDINGS, ACTIVATIONS)
    for i, (kind, kernel, stride, padding, activation) in enumerate(grid):
        x = b.input((1, 7, 6, 1 + i % 5))
        output = b.pool(x, kind, kernel, stride=stride, padding=padding, activation=activation)
        branches.append((f"{kind} {kernel} {stride} {padding} {activation}", output))
    for shape, keep in itertools.product(((1, 1, 1, 3), (1, 5, 7, 2), (1, 16, 16, 9)), (False, True)):
        branches.append((f"mean {shape} {keep}", b.mean(b.input(shape), keep_dims=keep)))
    return branches


def binary_branches(b: Builder) -> list[Branch]:
    """Equal shapes, every broadcast that merges to four axes, constants on either side, an operand twice."""
    branches = []
    shapes: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
        ((1, 3, 4, 5), (1, 3, 4, 5)), ((1, 3, 4, 5), (1, 1, 1, 5)), ((1, 1, 1, 1), (1, 3, 4, 5)),
        ((1, 3, 1, 5), (1, 1, 4, 1)), ((1, 3, 4, 1), (1, 1, 1, 5)), ((1, 7), (1, 7)), ((1, 2, 3), (1, 2, 1)),
    )  # fmt: skip
    for i, (kind, (left, right)) in enumerate(itertools.product(("ADD", "SUB", "MUL"), shapes)):
        output = b.binary(kind, b.input(left), b.input(right), activation=ACTIVATIONS[i % 3])
        branches.append((f"{kind} {left} {right}", output))
    for kind, shape in itertools.product(("ADD", "SUB", "MUL"), ((5,), (1, 3, 4, 5), (1,))):
        values = b.rng.integers(-128, 128, shape).astype(np.int8)
        constant = b.constant(values, np.array([b.scale()]), zero_point=9)
        x = b.input((1, 3, 4, 5))
        branches.append((f"{kind} x, constant {shape}", b.binary(kind, x, constant)))
        branches.append((f"{kind} constant {shape}, x", b.binary(kind, constant, x)))
    x = b.input((1, 9))
    return [*branches, ("ADD x, x", b.binary("ADD", x, x))]


def table_branches(b: Builder) -> list[Branch]:
    branches = []
    for kind, low in itertools.product(("LOGISTIC", "TANH", "RELU", "RELU6"), (0.001, 0.02, 0.3)):
        branches.append((f"{kind} {low}", b.unary(kind, b.input((1, 40), scale=low))))
    for source, target in (("int8", "int8"), ("int8", "uint8"), ("uint8", "int8")):
        x = b.input((1, 64), dtype=source, zero_point=100)
        branches.append((f"QUANTIZE {source} {target}", b.quantize(x, target)))
    return branches


def moving_branches(b: Builder) -> list[Branch]:
    branches = []
    for shape, widths in (
        ((1, 3, 4, 2), [[0, 0], [1, 2], [0, 3], [1, 0]]),
        ((1, 3, 2), [[0, 0], [2, 0], [0, 1]]),
        ((1, 5), [[0, 0], [3, 4]]),
        ((1, 2, 2, 3), [[0, 0], [0, 0], [0, 0], [0, 0]]),
    ):
        branches.append((f"PAD {shape} {widths}", b.pad(b.input(shape), widths)))
    for axis in (1, 2, 3):
        x = b.input((1, 3, 4, 5))
        tensor = b.tensors[x]
        shape = tuple(2 if i == axis else extent for i, extent in enumerate(tensor.shape))
        y = b.input(shape, scale=float(tensor.scale[0]), zero_point=tensor.zero_point)
        fixed = b.constant(
            b.rng.integers(-128, 128, b.shape(x)).astype(np.int8), tensor.scale, tensor.zero_point
        )
        branches.append((f"CONCATENATION {axis}", b.concatenate([x, y, fixed, x], axis)))
    x = b.input((1, 3, 4))
    return [*branches, ("RESHAPE", b.reshape(x, (1, 2, 6)))]


def softmax_branches(b: Builder) -> list[Branch]:
    branches = []
    for shape, scale, beta in itertools.product(
        ((1, 1), (1, 2), (1, 10), (1, 3, 7)), (0.001, 0.07, 0.9), (1.0, 0.3)
    ):
        branches.append((f"SOFTMAX {shape} {scale} {beta}", b.softmax(b.input(shape, scale=scale), beta)))
    return [*branches, ("SOFTMAX wide", b.softmax(b.input((1, 4000), scale=0.0001)))]


FAMILIES: dict[str, Callable[[Builder], list[Branch]]] = {
    "conv": conv_branches,
    "wide": wide_branches,
    "depthwise": depthwise_branches,
    "dense": dense_branches,
    "pool": pool_branches,
    "binary": binary_branches,
    "table": table_branches,
    "moving": moving_branches,
    "softmax": softmax_branches,
}


def family_graph(name: str) -> tuple[QGraph, list[str]]:
    """One graph with a branch a case, and the cases' descriptions in the order of its outputs."""
    builder = Builder(np.random.default_rng(11), name)
    branches = FAMILIES[name](builder)
    return builder.graph(*(output for _, output in branches)), [case for case, _ in branches]


@pytest.mark.parametrize("family", FAMILIES)
def test_kernels_equal_the_reference(family: str, compiler: Compiler, tmp_path: Path) -> None:
    graph, cases = family_graph(family)
    assert [cases[i] for i in disagreements(graph, compiler, tmp_path, samples=24)] == []


MAIN = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "model.h"
static const long in_bytes[] = {%s};
static const long out_bytes[] = {%s};
int main(void)
{
    for (;;) {
        model_t *model = malloc(sizeof *model); /* so that the sanitizer sees its ends */
        model_init(model);
        for (int i = 0; i < MODEL_INPUT_COUNT; i++) {
            if (fread(model_input(model, i), (size_t)in_bytes[i], 1, stdin) != 1) { free(model); return 0; }
        }
        model_invoke(model);
        for (int i = 0; i < MODEL_OUTPUT_COUNT; i++) {
            fwrite(model_output(model, i), (size_t)out_bytes[i], 1, stdout);
        }
        free(model);
    }
}
"""


@pytest.mark.needs("gcc")
@pytest.mark.parametrize("family", FAMILIES)
def test_kernels_are_clean_under_sanitizers(family: str, tmp_path: Path) -> None:
    graph, _ = family_graph(family)
    folder = write(generate(graph), tmp_path / "generated")
    sizes = [", ".join(str(graph.tensors[i].nbytes) for i in side) for side in (graph.inputs, graph.outputs)]
    (folder / "main.c").write_text(MAIN % tuple(sizes))
    flags = [
        "-std=c99",
        "-O1",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
        "-I",
        str(folder),
    ]
    program = str(tmp_path / "program")
    subprocess.run(["gcc", *flags, *map(str, sorted(folder.glob("*.c"))), "-o", program], check=True)
    inputs = inputs_for(graph, np.random.default_rng(3), 8)
    done = subprocess.run([program], input=pack(inputs).tobytes(), capture_output=True, check=False)
    assert (done.returncode, done.stderr[:600]) == (0, b"")
    assert done.stdout == pack(reference.run(graph, inputs)).tobytes()

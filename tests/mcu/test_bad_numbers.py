"""Numbers at their ends: each is refused in one sentence, or is the same bytes in every execution.

Scales, shifts, zero points, dead channels and biases at the limits of what the format can say; the reader on
the written file, the integer reference, TFLite Micro, portable C, the DSP family on the host and on the core.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.soaks.on_core import run_on_core
from edgekd.errors import BudgetError, UnsupportedOpError
from edgekd.mcu.codegen import generate
from edgekd.mcu.firmware import build_image
from edgekd.mcu.host import HostModel
from edgekd.mcu.toolchain import Compiler
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.reference import run
from edgekd.qgraph.tflite_reader import read_tflite
from edgekd.qgraph.tflite_writer import write_tflite
from tests.graphs import Builder, inputs_for
from tests.mcu.firmware_models import mcu_target
from tests.mcu.generated import Array, merge, pack, unpack, write
from tests.qgraph.interpreters import run_tflite_micro

INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1
TINY = (0.01, 1e-9, 1e-12, 1e-30, 1e-40, 0.004, 2e-9, 0.02)  # weight scales: live, dead, denormal


def net(kind: str, seed: int, in_zero: int, out_zero: int) -> QGraph:
    """One op of a kind between tensors of these zero points (a depthwise one between 1x1 convolutions)."""
    b = Builder(np.random.default_rng([seed, *kind.encode()]), f"{kind}-{in_zero}-{out_zero}")
    x = b.input((1, 24) if kind == "dense" else (1, 5, 5, 8), zero_point=in_zero)
    if kind == "depthwise":
        y = b.conv(x, 8, (1, 1))
        b.tensors[y] = replace(b.tensors[y], zero_point=in_zero)
        z = b.depthwise(y)
        b.tensors[z] = replace(b.tensors[z], zero_point=out_zero)
        return b.graph(b.conv(z, 4, (1, 1)))
    made: dict[str, Callable[[], int]] = {
        "conv": lambda: b.conv(x, 8),
        "dense": lambda: b.dense(x, 8),
        "add": lambda: b.binary("ADD", x, b.conv(x, 8, (1, 1))),
        "mul": lambda: b.binary("MUL", x, b.conv(x, 8, (1, 1))),
        "mean": lambda: b.mean(x),
    }
    y = made[kind]()
    b.tensors[y] = replace(b.tensors[y], zero_point=out_zero)
    return b.graph(y)


def linear(graph: QGraph, kind: str) -> int:
    return next(index for index, op in enumerate(graph.ops) if op.kind == kind)


def with_constant(graph: QGraph, kind: str, position: int, **changes: object) -> QGraph:
    """Another weight (position 1) or bias (2) in the first op of that kind."""
    index = graph.ops[linear(graph, kind)].inputs[position]
    tensors = list(graph.tensors)
    tensors[index] = replace(tensors[index], **changes)  # type: ignore[arg-type]
    return replace(graph, tensors=tuple(tensors))


KINDS = {"conv": "CONV_2D", "depthwise": "DEPTHWISE_CONV_2D", "dense": "FULLY_CONNECTED"}


def dead_channels(kind: str) -> QGraph:
    """Weight scales down to denormals: their products vanish, biases of any size are multiplied by 0."""
    graph = net(kind, 3, -5, -128)
    x = graph.tensors[graph.ops[linear(graph, KINDS[kind])].inputs[0]]
    scale = np.array(TINY, np.float32)
    axis = 3 if kind == "depthwise" else 0
    large = np.where(scale < 1e-6, 1 << 30, 50).astype(np.int32) * np.resize([1, -1], len(scale)).astype(
        np.int32
    )
    graph = with_constant(graph, KINDS[kind], 1, scale=scale, axis=axis)
    return with_constant(graph, KINDS[kind], 2, scale=(x.scale[0] * scale).astype(np.float32), data=large)


def at_the_ends(kind: str, beyond: int = 0) -> QGraph:
    """Biases with which the largest and the smallest possible sum are the ends of int32 (and `beyond`)."""
    graph = net(kind, 4, 3, 7)
    op = graph.ops[linear(graph, KINDS[kind])]
    x, weights, _ = (graph.tensors[i] for i in op.inputs)
    rows = np.asarray(weights.data, np.int64)
    rows = rows.reshape(-1, rows.shape[-1]).T if kind == "depthwise" else rows.reshape(len(rows), -1)
    low, high = -128 - x.zero_point, 127 - x.zero_point
    most = np.maximum(rows * low, rows * high).sum(axis=1)
    least = np.minimum(rows * low, rows * high).sum(axis=1)
    even = np.arange(len(rows)) % 2 == 0
    data = np.where(even, INT32_MAX - most + beyond, INT32_MIN - least).astype(np.int32)
    return with_constant(graph, KINDS[kind], 2, data=data)


def shifted(bits: int, kind: str = "conv") -> QGraph:
    """Weights 0 and 1, an output scale that makes the multiplier 2**bits."""
    graph = net(kind, 5, 0, 0)
    op = graph.ops[linear(graph, KINDS[kind])]
    x, weights, _ = (graph.tensors[i] for i in op.inputs)
    data = np.zeros(weights.shape, np.int8)
    data.reshape(len(data), -1)[:, 0] = 1
    graph = with_constant(graph, KINDS[kind], 1, data=data, scale=np.ones(1, np.float32), axis=0)
    zeros = np.zeros(weights.shape[0], np.int32)
    graph = with_constant(graph, KINDS[kind], 2, data=zeros, scale=x.scale.copy())
    tensors = list(graph.tensors)
    output = op.outputs[0]
    tensors[output] = replace(tensors[output], scale=(x.scale * 2.0**-bits).astype(np.float32))
    return replace(graph, tensors=tuple(tensors))


SOUND: dict[str, Callable[[], QGraph]] = {
    **{
        f"zero points {a}, {b}, {kind}": lambda kind=kind, a=a, b=b: net(kind, 1, a, b)  # type: ignore[misc]
        for kind in ("conv", "depthwise", "dense", "add", "mul", "mean")
        for a, b in ((-128, 127), (127, -128), (127, 127), (-128, -128))
    },
    **{f"dead channels, {kind}": lambda kind=kind: dead_channels(kind) for kind in KINDS},  # type: ignore[misc]
    **{f"biases at the ends, {kind}": lambda kind=kind: at_the_ends(kind) for kind in KINDS},  # type: ignore[misc]
    **{f"multiplier 2**{n}": lambda n=n: shifted(n) for n in (1, 8, 22)},  # type: ignore[misc]
    **{f"multiplier 2**{n}": lambda n=n: shifted(n) for n in (-8, -29, -30, -31, -40, -58)},  # type: ignore[misc]
}


def scaled(index: int, scale: float) -> QGraph:
    graph = net("conv", 6, 0, 0)
    tensors = list(graph.tensors)
    tensors[index] = replace(tensors[index], scale=np.array([scale], np.float32))
    return replace(graph, tensors=tuple(tensors))


def unlike(scale: float, zero_point: int) -> QGraph:
    """A CONCATENATION whose second input differs."""
    b = Builder(np.random.default_rng(1), "unlike")
    x = b.input((1, 4, 4, 4), scale=0.05, zero_point=1)
    other = b.input((1, 4, 4, 4), scale=0.05 * scale, zero_point=1 + zero_point)
    return b.graph(b.concatenate([x, other]))


BAD: dict[str, tuple[Callable[[], QGraph], str]] = {
    "an input's scale is denormal": (lambda: scaled(0, 1e-40), "scale 1e-40 is out of reach"),
    "an output's scale is denormal": (lambda: scaled(3, 1e-42), "scale 1e-42 is out of reach"),
    "a scale is infinite": (lambda: scaled(0, float("inf")), "not finite"),
    "a scale is negative": (lambda: scaled(0, -0.5), "negative"),
    **{
        f"multiplier 2**{n}": (lambda n=n: shifted(n), "differ too much|a sum can leave int32")  # type: ignore[misc]
        for n in (24, 30, 31, 45, 55)
    },
    **{
        f"a bias one beyond, {kind}": (lambda kind=kind: at_the_ends(kind, 1), "a sum can leave int32")  # type: ignore[misc]
        for kind in KINDS
    },
    "a zero point beyond int8": (lambda: net("conv", 1, 128, 0), "zero point 128"),
    "unlike scales": (lambda: unlike(1.01, 0), "need equal scale and zero point"),
    "unlike zero points": (lambda: unlike(1.0, 1), "need equal scale and zero point"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_would_be_undefined_is_refused(name: str) -> None:
    """By the validation of a graph, and (where it can be written) by the reader of a file."""
    from edgekd.qgraph.validate import validate

    make, message = BAD[name]
    with pytest.raises(UnsupportedOpError, match=message) as refused:
        validate(make())
    assert "\n" not in str(refused.value)


def written_unchecked(graph: QGraph, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A file that our writer would refuse to write."""
    monkeypatch.setattr("edgekd.qgraph.tflite_writer.validate", lambda graph: None)
    return write_tflite(graph)


@pytest.mark.parametrize(
    "name", [n for n in BAD if "unlike" not in n and "128" not in n and "beyond int8" not in n]
)
def test_the_reader_refuses_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, message = BAD[name]
    data = written_unchecked(make(), monkeypatch)
    with pytest.raises(UnsupportedOpError, match=message) as refused:
        read_tflite(data, "bad.tflite")
    assert "bad.tflite" in str(refused.value)


@pytest.fixture(scope="module")
def graphs() -> list[QGraph]:
    """Read back from the files that they are written to."""
    return [read_tflite(write_tflite(make()), name) for name, make in SOUND.items()]


@pytest.fixture(scope="module")
def expected(graphs: list[QGraph]) -> list[tuple[list[Array], list[Array]]]:
    rows = [inputs_for(graph, np.random.default_rng(i), 8) for i, graph in enumerate(graphs)]
    return [(x, run(graph, x)) for graph, x in zip(graphs, rows, strict=True)]


@pytest.mark.needs("tflite-micro")
def test_tflite_micro_computes_the_same(
    graphs: list[QGraph], expected: list[tuple[list[Array], list[Array]]]
) -> None:
    apart = [
        name
        for name, graph, (x, y) in zip(SOUND, graphs, expected, strict=True)
        if not np.array_equal(run_tflite_micro(graph, x)[0], y[0])
    ]
    assert apart == []


def apart(graphs: list[QGraph], expected: list[tuple[list[Array], list[Array]]], rows: Array) -> list[str]:
    """The names whose outputs differ in `rows`, all outputs of as many samples as it has."""
    found = unpack(merge(graphs), rows)
    return [
        n
        for n, a, (_, b) in zip(SOUND, found, expected, strict=True)
        if not np.array_equal(a, b[0][: len(a)])
    ]


@pytest.mark.parametrize("family", ["portable", "dsp"])
def test_generated_c_computes_the_same(
    family: str,
    graphs: list[QGraph],
    expected: list[tuple[list[Array], list[Array]]],
    clang: Compiler,
    tmp_path: Path,
) -> None:
    model = generate(merge(graphs), family)
    host = HostModel(write(model, tmp_path / "generated"), clang, tmp_path / "work")
    assert apart(graphs, expected, host.run(pack([x for xs, _ in expected for x in xs]))) == []


@pytest.mark.needs("unicorn")
def test_the_core_computes_the_same(
    graphs: list[QGraph], expected: list[tuple[list[Array], list[Array]]], clang: Compiler, tmp_path: Path
) -> None:
    graph = merge(graphs)
    rows = pack([x[:4] for xs, _ in expected for x in xs])
    found = run_on_core(generate(graph, "dsp"), graph, rows, mcu_target(), clang, tmp_path)
    assert apart(graphs, expected, found) == []


def test_a_model_bigger_than_the_profile_is_refused(clang: Compiler, tmp_path: Path) -> None:
    target = mcu_target()
    assert target.memory is not None
    small = replace(target, memory=replace(target.memory, flash_bytes=16 << 10))
    b = Builder(np.random.default_rng(1), "big")
    folder = write(generate(b.graph(b.dense(b.input((1, 4096)), 8)), "dsp"), tmp_path / "generated")
    with pytest.raises(BudgetError, match=r"flash.*16,384|16,384.*flash"):
        build_image(folder, small, clang, tmp_path / "image")

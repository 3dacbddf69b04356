"""Each op of the reference, over a grid of its attributes, against TFLite Micro: every output value equal.

Fewer, larger cases go to LiteRT as well (BUILTIN_REF), op by op.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from edgekd.qgraph.ir import QGraph
from tests import graphs
from tests.graphs import Builder
from tests.qgraph.interpreters import differs_from_tflite_micro, ops_differing_from_litert

Case = tuple[str, Callable[[Builder], int]]
ACTIVATIONS = ("NONE", "RELU", "RELU6")


def windows() -> Iterator[dict[str, Any]]:
    """Kernels, strides and paddings, odd and even, dilation where the stride is 1."""
    for kernel, stride, padding in itertools.product(
        ((1, 1), (3, 3), (2, 5), (4, 1)), ((1, 1), (2, 2), (1, 3), (3, 2)), ("SAME", "VALID")
    ):
        yield {"kernel": kernel, "stride": stride, "padding": padding}
    for kernel, dilation, padding in itertools.product(((3, 3), (2, 3)), ((2, 2), (3, 1)), ("SAME", "VALID")):
        yield {"kernel": kernel, "dilation": dilation, "padding": padding}


def convolutions() -> Iterator[Case]:
    for number, window in enumerate(windows()):
        common = {
            "activation": ACTIVATIONS[number % 3],
            "per_channel": number % 4 != 0,
            "bias": number % 5 != 0,
            **window,
        }
        shape = ((1, 9, 7, 3), (1, 8, 10, 1), (1, 11, 6, 4))[number % 3]
        yield f"conv-{number}", lambda b, s=shape, o=common: b.conv(b.input(s), 5, **o)
        multiplier = 1 + number % 3
        yield (
            f"depthwise-{number}",
            lambda b, s=shape, o=common, m=multiplier: b.depthwise(b.input(s), multiplier=m, **o),
        )


def pools() -> Iterator[Case]:
    for number, (kind, window) in enumerate(
        itertools.product(("AVERAGE_POOL_2D", "MAX_POOL_2D"), list(windows())[:32])
    ):
        options = {"activation": ACTIVATIONS[number % 3], **window}
        yield f"{kind}-{number}", lambda b, k=kind, o=options: b.pool(b.input((1, 9, 8, 3)), k, **o)


def denses() -> Iterator[Case]:
    for number, (shape, per_channel, bias) in enumerate(
        itertools.product(((1, 19), (1, 3, 2, 5), (1, 256)), (False, True), (False, True))
    ):
        options = {"per_channel": per_channel, "bias": bias, "activation": ACTIVATIONS[number % 3]}
        yield f"dense-{number}", lambda b, s=shape, o=options: b.dense(b.input(s), 7, **o)
    yield "dense-rows", lambda b: b.dense(b.input((1, 4, 6)), 5, depth=6)


def binaries() -> Iterator[Case]:
    shapes = (
        *(((1, 4, 3, 5), (1, 4, 3, 5)), ((1, 4, 3, 5), (1, 1, 1, 5)), ((1, 1, 3, 1), (1, 4, 3, 5))),
        *(((1, 4, 3, 5), (1, 5)), ((1, 6), (1, 6)), ((1, 4, 3, 5), (1, 4, 1, 5))),
    )
    for kind, (a, b), activation in itertools.product(("ADD", "SUB", "MUL"), shapes, ACTIVATIONS):
        yield (
            f"{kind}-{a}-{b}-{activation}",
            lambda g, k=kind, a=a, b=b, f=activation: g.binary(k, g.input(a), g.input(b), activation=f),
        )
    for kind, shape in itertools.product(("ADD", "SUB", "MUL"), ((5,), (1, 1, 1, 5), (), (3, 5))):
        yield f"{kind}-constant-{shape}", lambda b, k=kind, s=shape: with_constant(b, k, s)


def with_constant(b: Builder, kind: str, shape: tuple[int, ...]) -> int:
    data = b.rng.integers(-128, 128, shape).astype(np.int8).reshape(shape)
    constant = b.constant(data, np.array([b.scale()]), zero_point=int(b.rng.integers(-20, 20)))
    x = b.input((1, 4, 3, 5))
    return b.binary(kind, constant, x) if kind == "SUB" else b.binary(kind, x, constant)


def others() -> Iterator[Case]:
    for number, keep in itertools.product(range(6), (False, True)):
        shape = ((1, 7, 5, 3), (1, 1, 1, 4), (1, 8, 8, 2), (1, 3, 1, 6), (1, 25, 5, 4), (1, 2, 31, 1))[number]
        yield f"mean-{shape}-{keep}", lambda b, s=shape, k=keep: b.mean(b.input(s), keep_dims=k)
    for widths in ([[0, 0], [1, 0], [0, 2], [0, 0]], [[0, 0], [0, 0], [3, 1], [1, 1]], [[0, 0]] * 4):
        yield f"pad-{widths}", lambda b, w=widths: b.pad(b.input((1, 4, 3, 2)), w)
    yield "pad-2d", lambda b: b.pad(b.input((1, 5)), [[0, 0], [2, 1]])
    for axis in (1, 2, 3, -1):
        yield f"concatenate-{axis}", lambda b, a=axis: concatenation(b, a)
    for shape in ((1, 24), (1, 6, 4), (1, 2, 2, 6), (1, 1, 24, 1)):
        yield f"reshape-{shape}", lambda b, s=shape: b.reshape(b.input((1, 4, 3, 2)), s)
    for depth, scale, beta in itertools.product((1, 2, 10, 300, 511), (0.004, 0.1, 1.5), (1.0, 0.5)):
        yield (
            f"softmax-{depth}-{scale}-{beta}",
            lambda b, d=depth, s=scale, e=beta: b.softmax(b.input((1, d), scale=s), e),
        )
    yield "softmax-4d", lambda b: b.softmax(b.input((1, 3, 2, 5), scale=0.07))
    for kind, scale in itertools.product(("LOGISTIC", "TANH"), (1e-4, 0.02, 0.08, 0.3, 5.0, 40.0)):
        yield f"{kind}-{scale}", lambda b, k=kind, s=scale: b.unary(k, b.input((1, 16, 16), scale=s))
    for kind, number in itertools.product(("RELU", "RELU6", "QUANTIZE"), range(5)):
        yield f"{kind}-{number}", lambda b, k=kind: element_wise(b, k)
    for source, result in (("uint8", "int8"), ("int8", "uint8")):
        for same in (False, True):
            yield f"quantize-{source}-{result}-{same}", lambda b, s=source, r=result, e=same: edge(b, s, r, e)


def concatenation(b: Builder, axis: int) -> int:
    shapes = [[1, 3, 4, 2] for _ in range(3)]
    shapes[1][axis], shapes[2][axis] = 5, 1
    x = b.input((1, 3, 4, 2))
    rest = [b.input(tuple(s), scale=float(b.tensors[x].scale[0]), zero_point=b.tensors[x].zero_point)
            for s in shapes[1:]]  # fmt: skip
    return b.concatenate([x, *rest], axis)


def element_wise(b: Builder, kind: str) -> int:
    x = b.input((1, 16, 16))
    return b.quantize(x) if kind == "QUANTIZE" else b.unary(kind, x)


def edge(b: Builder, source: str, result: str, same_scale: bool) -> int:
    zero_point = {"uint8": 131, "int8": 3}
    scale = 0.05 if same_scale else 0.021
    x = b.input((1, 7, 9), dtype=source, scale=0.05, zero_point=zero_point[source])
    return b.quantize(x, result, scale=scale, zero_point=zero_point[result])


CASES = dict([*convolutions(), *pools(), *denses(), *binaries(), *others()])


def build(name: str) -> tuple[QGraph, np.random.Generator]:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    b = Builder(rng, "case")
    return b.graph(CASES[name](b)), rng


@pytest.mark.needs("tflite-micro")
@pytest.mark.parametrize("name", CASES)
def test_every_value_equals_tflite_micros(name: str) -> None:
    graph, rng = build(name)
    assert differs_from_tflite_micro(graph, graphs.inputs_for(graph, rng, 16)) == 0


def is_a_steep_gate(name: str) -> bool:
    """LOGISTIC and TANH above an input scale of 2: LiteRT looks up a table that it made in float."""
    kind, _, scale = name.partition("-")
    return kind in ("LOGISTIC", "TANH") and float(scale) > 2


@pytest.mark.needs("ai-edge-litert")
@pytest.mark.parametrize("name", [name for name in CASES if not is_a_steep_gate(name)])
def test_every_value_equals_litert_references(name: str) -> None:
    graph, rng = build(name)
    assert ops_differing_from_litert(graph, graphs.inputs_for(graph, rng, 8)) == []


@pytest.mark.needs("tflite-micro")
def test_all_256_values_of_each_table() -> None:
    for name in CASES:
        graph, _ = build(name)
        if len(graph.ops) == 1 and graph.ops[0].kind in ("LOGISTIC", "TANH", "RELU", "RELU6"):
            every = np.arange(-128, 128).astype(np.int8).reshape(1, 16, 16)
            assert differs_from_tflite_micro(graph, [every]) == 0, name

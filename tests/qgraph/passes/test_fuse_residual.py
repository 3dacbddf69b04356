"""ADD fused into the convolution in front: every byte stays, and only what may be fused is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.errors import UnsupportedOpError
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.passes.fuse_residual import fuse_residuals, residuals
from edgekd.qgraph.residual import KIND
from edgekd.qgraph.tflite_writer import write_tflite
from edgekd.qgraph.validate import validate
from tests.graphs import Builder
from tests.qgraph.passes.same_bytes import differ, kinds


def residual_block(
    seed: int = 1, *, swapped: bool = False, sum_activation: str = "NONE", channels: int = 4, **options: Any
) -> QGraph:
    """input, conv, then conv + what the first one read; `options` are the last conv's."""
    b = Builder(np.random.default_rng(seed))
    x = b.unary("TANH", b.input((1, 5, 7, channels)))
    y = b.conv(b.conv(x, 6), channels, **options)
    operands = (x, y) if swapped else (y, x)
    return b.graph(b.binary("ADD", *operands, activation=sum_activation))


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("activation", ["NONE", "RELU"])
@pytest.mark.parametrize("sum_activation", ["NONE", "RELU"])
def test_the_sum_joins_its_convolution(swapped: bool, activation: str, sum_activation: str) -> None:
    graph = residual_block(swapped=swapped, activation=activation, sum_activation=sum_activation)
    changed = fuse_residuals(graph)
    assert changed.changed and kinds(changed.graph) == {"TANH": 1, "CONV_2D": 1, KIND: 1}
    assert changed.report == "1 ADD fused into the convolution in front"
    assert not differ(graph, changed.graph)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    kernel=st.sampled_from([(1, 1), (3, 3), (2, 3)]),
    dilation=st.sampled_from([(1, 1), (2, 1)]),
    channels=st.integers(1, 9),
    bias=st.booleans(),
    per_channel=st.booleans(),
    swapped=st.booleans(),
)
def test_every_byte_stays(
    seed: int,
    kernel: tuple[int, int],
    dilation: tuple[int, int],
    channels: int,
    bias: bool,
    per_channel: bool,
    swapped: bool,
) -> None:
    graph = residual_block(
        seed,
        kernel=kernel,
        dilation=dilation,
        channels=channels,
        bias=bias,
        per_channel=per_channel,
        swapped=swapped,
    )
    changed = fuse_residuals(graph)
    assert changed.changed and not differ(graph, changed.graph, 6)


def test_two_convolutions_that_meet_and_chains_of_blocks() -> None:
    b = Builder(np.random.default_rng(2))
    x = b.input((1, 6, 6, 3))
    y = b.binary("ADD", b.conv(x, 4), b.conv(x, 4, (1, 1)))
    z = b.binary("ADD", y, b.conv(b.conv(y, 5), 4))
    graph = b.graph(z)
    assert residuals(graph) == {2: 0, 5: 4}
    changed = fuse_residuals(graph)
    assert kinds(changed.graph) == {"CONV_2D": 2, KIND: 2} and not differ(graph, changed.graph)
    chosen = fuse_residuals(graph, {5})
    assert kinds(chosen.graph) == {"CONV_2D": 3, "ADD": 1, KIND: 1} and not differ(graph, chosen.graph)


def kept(case: str) -> QGraph:
    """Graphs in which nothing may be fused."""
    b = Builder(np.random.default_rng(3))
    x = b.unary("TANH", b.input((1, 5, 5, 4)))
    y = b.conv(x, 4)
    if case == "its own input":
        return b.graph(b.binary("ADD", y, x))
    if case == "twice the same":
        return b.graph(b.binary("ADD", y, y))
    if case == "SUB":
        return b.graph(b.binary("SUB", b.conv(y, 4), x))
    if case == "broadcast":
        return b.graph(b.binary("ADD", b.conv(y, 4), b.mean(x)))
    if case == "read later":
        z = b.binary("ADD", b.conv(y, 4), x)
        return b.graph(z, b.unary("LOGISTIC", x))
    if case == "an output":
        z = b.conv(y, 4)
        return b.graph(z, b.binary("ADD", z, x))
    if case == "other, an output":
        return b.graph(x, b.binary("ADD", b.conv(y, 4), x))
    if case == "depthwise":
        return b.graph(b.binary("ADD", b.depthwise(y), x))
    numbers = b.rng.integers(-9, 9, (1, 5, 5, 4)).astype(np.int8)
    return b.graph(b.binary("ADD", b.conv(y, 4), b.constant(numbers, np.array([0.1]))))


@pytest.mark.parametrize(
    "case",
    [
        "its own input",
        "twice the same",
        "SUB",
        "broadcast",
        "read later",
        "an output",
        "other, an output",
        "depthwise",
        "a constant",
    ],
)
def test_what_may_not_be_fused_stays(case: str) -> None:
    graph = kept(case)
    changed = fuse_residuals(graph)
    assert not changed.changed and changed.graph is graph


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("between_scale", 0.0, "between_scale is 0.0"),
        ("between_scale", float("inf"), "between_scale is inf"),
        ("between_scale", 1, "between_scale is 1"),
        ("between_scale", 1e30, "scales differ too much"),
        ("between_zero_point", 128, "zero point 128 between"),
        ("between_zero_point", 0.5, "zero point 0.5 between"),
        ("sum_activation", "TANH", "activation TANH"),
        ("stride_h", 3, "output's shape"),
    ],
)
def test_an_op_that_is_not_sound_is_refused(name: str, value: Any, why: str) -> None:
    graph = fuse_residuals(residual_block()).graph
    ops = [replace(op, attrs={**op.attrs, name: value}) if op.kind == KIND else op for op in graph.ops]
    with pytest.raises(UnsupportedOpError, match=why):
        validate(replace(graph, ops=tuple(ops)))


def test_no_file_holds_it() -> None:
    with pytest.raises(UnsupportedOpError, match="CONV_2D_ADD"):
        write_tflite(fuse_residuals(residual_block()).graph)

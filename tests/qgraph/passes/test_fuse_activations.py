"""Activations into the op in front: every byte stays, over all values that an op can give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.errors import UnsupportedOpError
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.passes.fuse_activations import fuse_activations
from edgekd.qgraph.tflite_writer import write_tflite
from edgekd.qgraph.validate import validate
from tests.graphs import Builder
from tests.qgraph.passes.same_bytes import differ, kinds

PRODUCERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "SUB", "MUL", "AVERAGE_POOL_2D")


def producer(b: Builder, kind: str, activation: str) -> int:
    x = b.input((1, 5, 4, 3))
    if kind == "CONV_2D":
        return b.conv(x, 4, activation=activation)
    if kind == "DEPTHWISE_CONV_2D":
        return b.depthwise(x, activation=activation)
    if kind == "FULLY_CONNECTED":
        return b.dense(x, 6, activation=activation)
    if kind == "AVERAGE_POOL_2D":
        return b.pool(x, activation=activation)
    return b.binary(kind, x, b.input((1, 5, 4, 3)), activation=activation)


def activated(kind: str, activation: str, then: str, shift: int = 0, seed: int = 1) -> QGraph:
    """A producer, then RELU (to the same scale, its zero point `shift` higher) or RELU6."""
    b = Builder(np.random.default_rng(seed))
    x = producer(b, kind, activation)
    tensor = b.tensors[x]
    if kind != "AVERAGE_POOL_2D":
        scale = np.maximum(tensor.scale, np.float32(0.03))  # so that 6 lies inside the range
        b.tensors[x] = tensor = replace(tensor, scale=scale, zero_point=tensor.zero_point % 100 - 50)
    moved = min(127, max(-128, tensor.zero_point + shift))
    output = b.activation(tensor.shape, float(tensor.scale[0]), moved)
    return b.graph(b.op(then, (x,), output))


@pytest.mark.parametrize("kind", PRODUCERS)
@pytest.mark.parametrize("activation", ["NONE", "RELU", "RELU6"])
@pytest.mark.parametrize("then", ["RELU", "RELU6"])
def test_an_activation_becomes_the_clamp_in_front(kind: str, activation: str, then: str) -> None:
    graph = activated(kind, activation, then)
    changed = fuse_activations(graph)
    assert changed.changed and len(changed.graph.ops) == 1
    assert changed.report == "1 activation: part of the op in front"
    wanted = "RELU6" if "RELU6" in (activation, then) else "RELU"
    if kind in ("ADD", "SUB", "MUL"):  # of linear ops and pools the range may be known to end before 6
        assert changed.graph.ops[0].attrs["activation"] == wanted
    assert not differ(graph, changed.graph)


@pytest.mark.parametrize("shift", [-300, -20, 20])
def test_a_zero_point_that_moves_is_a_clamp_too(shift: int) -> None:
    graph = activated("CONV_2D", "RELU6", "RELU", shift)
    changed = fuse_activations(graph)
    if changed.changed:
        assert not differ(graph, changed.graph)
    assert changed.changed or shift == -300  # what saturated below cannot come back


def test_another_scale_and_another_reader_keep_the_activation() -> None:
    b = Builder(np.random.default_rng(1))
    assert not fuse_activations(b.graph(b.unary("RELU", b.conv(b.input((1, 4, 4, 2)), 3)))).changed
    b = Builder(np.random.default_rng(1))
    x = b.conv(b.input((1, 4, 4, 2)), 3)
    assert not fuse_activations(b.graph(b.unary("RELU6", x), x)).changed
    b = Builder(np.random.default_rng(1))
    assert not fuse_activations(b.graph(b.unary("RELU6", b.input((1, 4, 4, 2))))).changed


def test_where_a_clamp_costs_only_one_that_is_none_is_taken() -> None:
    narrow = activated("CONV_2D", "NONE", "RELU")
    assert not fuse_activations(narrow, clamps_are_free=False).changed
    clamped = activated("CONV_2D", "RELU", "RELU6")
    assert fuse_activations(clamped, clamps_are_free=False).changed
    graph = activated("CONV_2D", "NONE", "RELU")
    tensors = [
        replace(t, zero_point=-128) if not t.is_constant and t.name != "t0" else t for t in graph.tensors
    ]
    at_the_end = replace(graph, tensors=tuple(tensors))
    assert fuse_activations(at_the_end, clamps_are_free=False).changed


def test_a_table_that_clamps_is_fused_and_no_file_holds_its_clamp() -> None:
    b = Builder(np.random.default_rng(5))
    x = b.conv(b.input((1, 4, 4, 2)), 3)
    table = b.constant(np.clip(np.arange(-128, 128), -17, 60).astype(np.int8))
    graph = b.graph(b.op("TABLE", (x, table), b.like(x, b.shape(x))))
    changed = fuse_activations(graph)
    assert changed.graph.ops[0].attrs["activation"] == "CLAMP -17 60"
    assert not differ(graph, changed.graph)
    with pytest.raises(UnsupportedOpError, match="has no form in a"):
        write_tflite(changed.graph)


@pytest.mark.parametrize("text", ["CLAMP 5", "CLAMP 9 3", "CLAMP -129 0", "CLAMP a b", "TANH"])
def test_a_clamp_that_is_none_is_refused(text: str) -> None:
    graph = activated("CONV_2D", "NONE", "RELU")
    graph.ops[0].attrs["activation"] = text  # type: ignore[index]
    with pytest.raises(UnsupportedOpError, match="activation"):
        validate(graph)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(PRODUCERS),
    activation=st.sampled_from(("NONE", "RELU", "RELU6")),
    ends=st.tuples(st.integers(-128, 127), st.integers(-128, 127)),
    shift=st.integers(-40, 40),
)
def test_random_tables_keep_every_byte(
    seed: int, kind: str, activation: str, ends: tuple[int, int], shift: int
) -> None:
    """Tables that clamp and shift, some of which can be fused and some cannot."""
    b = Builder(np.random.default_rng(seed))
    x = producer(b, kind, activation)
    values = np.clip(np.clip(np.arange(-128, 128), min(ends), max(ends)) + shift, -128, 127)
    moved = min(127, max(-128, b.tensors[x].zero_point + shift * (seed % 3 > 0)))
    output = b.activation(b.shape(x), float(b.tensors[x].scale[0]), moved)
    graph = b.graph(b.op("TABLE", (x, b.constant(values.astype(np.int8))), output))
    assert not differ(graph, fuse_activations(graph).graph, 8)
    assert set(kinds(fuse_activations(graph).graph)) <= {kind, "TABLE"}

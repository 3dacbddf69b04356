"""QUANTIZE merged or removed only where every value that can occur stays the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.passes.merge_requantizations import merge_requantizations
from tests.graphs import Builder
from tests.qgraph.passes.same_bytes import differ, kinds


def shifted(b: Builder, x: int, by: int, factor: float = 1.0) -> int:
    """QUANTIZE to a zero point `by` higher (within int8) and a scale `factor` times as large."""
    tensor = b.tensors[x]
    zero_point = min(127, max(-128, tensor.zero_point + by))
    return b.quantize(x, scale=float(tensor.scale[0]) * factor, zero_point=zero_point)


def behind(kind: str, by: int, factor: float = 1.0, activation: str = "NONE", seed: int = 1) -> QGraph:
    b = Builder(np.random.default_rng(seed))
    x = b.input((1, 5, 4, 3))
    if kind == "CONV_2D":
        y = b.conv(x, 4, activation=activation)
    elif kind == "MEAN":
        y = b.mean(x)
    else:
        y = b.binary(kind, x, b.input((1, 5, 4, 3)), activation=activation)
    b.tensors[y] = replace(b.tensors[y], zero_point=-10)
    return b.graph(shifted(b, y, by, factor))


@pytest.mark.parametrize("kind", ["CONV_2D", "ADD", "SUB", "MUL"])
@pytest.mark.parametrize("by", [-30, 0, 17])
@pytest.mark.parametrize("activation", ["NONE", "RELU", "RELU6"])
def test_a_zero_point_moves_into_the_op_in_front(kind: str, by: int, activation: str) -> None:
    graph = behind(kind, by, activation=activation)
    changed = merge_requantizations(graph)
    assert kinds(changed.graph) == {kind: 1}
    assert not differ(graph, changed.graph)
    assert changed.report.startswith("1 requantization removed: ")


def test_a_mean_has_no_clamp_to_give() -> None:
    changed = merge_requantizations(behind("MEAN", 0))
    assert kinds(changed.graph) == {"MEAN": 1}
    assert not merge_requantizations(behind("MEAN", 30)).changed  # saturates where one op would not


@pytest.mark.parametrize("factor", [0.5, 2.0, 1.001])
def test_another_scale_rounds_twice_and_stays(factor: float) -> None:
    assert not merge_requantizations(behind("CONV_2D", 3, factor)).changed


def test_an_identity_goes_wherever_it_stands() -> None:
    b = Builder(np.random.default_rng(4))
    x = b.input((1, 5, 4, 3))
    graph = b.graph(shifted(b, b.pool(shifted(b, x, 0)), 0))
    changed = merge_requantizations(graph)
    assert changed.report == (
        "2 requantizations removed: 1 into the op in front, 0 into those behind, 1 without effect"
    )
    assert kinds(changed.graph) == {"AVERAGE_POOL_2D": 1} and changed.graph.outputs == graph.outputs
    assert not differ(graph, changed.graph)


def test_an_activation_that_clamps_nothing_that_can_occur_goes() -> None:
    b = Builder(np.random.default_rng(4))
    x = b.conv(b.input((1, 4, 4, 2)), 3, activation="RELU6")
    graph = b.graph(b.unary("RELU6", b.pool(x, "MAX_POOL_2D", (2, 2))))
    changed = merge_requantizations(graph)
    assert kinds(changed.graph) == {"CONV_2D": 1, "MAX_POOL_2D": 1} and not differ(graph, changed.graph)


def test_from_input_to_output_something_has_to_copy() -> None:
    b = Builder(np.random.default_rng(4))
    x = b.input((1, 6))
    assert not merge_requantizations(b.graph(shifted(b, x, 0))).changed


@pytest.mark.parametrize("reader", ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "MEAN"])
def test_those_behind_read_the_unshifted_values(reader: str) -> None:
    b = Builder(np.random.default_rng(5))
    x = b.conv(b.input((1, 5, 5, 2)), 4, activation="RELU")
    b.tensors[x] = replace(b.tensors[x], zero_point=-100)
    spare = b.unary("TANH", x)  # so that the convolution cannot write the shifted tensor
    y = shifted(b, x, -20)  # -100 to 127 becomes -120 to 107: nothing saturates
    made = {
        "CONV_2D": lambda: b.conv(y, 3),
        "DEPTHWISE_CONV_2D": lambda: b.depthwise(y),
        "FULLY_CONNECTED": lambda: b.dense(y, 3),
        "ADD": lambda: b.binary("ADD", y, y),
        "MEAN": lambda: b.mean(y),
    }[reader]()
    graph = b.graph(made, spare)
    changed = merge_requantizations(graph)
    assert kinds(changed.graph)["QUANTIZE"] == 0 and not differ(graph, changed.graph)


def test_a_shift_that_saturates_stays() -> None:
    b = Builder(np.random.default_rng(5))
    y = shifted(b, b.input((1, 5, 5, 2), zero_point=0), -20)
    assert not merge_requantizations(b.graph(b.conv(y, 3))).changed


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(("CONV_2D", "ADD", "SUB", "MUL", "MEAN")),
    by=st.integers(-130, 130),
    factor=st.sampled_from((1.0, 1.0, 1.0000001, 0.25, 3.0)),
    free=st.booleans(),
)
def test_random_shifts_keep_every_byte(seed: int, kind: str, by: int, factor: float, free: bool) -> None:
    activation = ("NONE", "RELU", "RELU6")[seed % 3]
    graph = behind(kind, by, factor, "NONE" if kind == "MEAN" else activation, seed)
    assert not differ(graph, merge_requantizations(graph, free).graph, 8)

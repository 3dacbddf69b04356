"""Whole graphs, random and float-edged, against both interpreters; and how the reference is called."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.errors import ArtifactError
from edgekd.qgraph import reference
from edgekd.qgraph.ir import QGraph, Tensor
from tests import graphs
from tests.graphs import Builder
from tests.qgraph.interpreters import differs_from_tflite_micro, ops_differing_from_litert

SEEDS = st.integers(0, 2**32 - 1)


@pytest.mark.needs("tflite-micro")
@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=SEEDS, ops=st.integers(1, 8))
def test_random_graphs_equal_tflite_micro(seed: int, ops: int) -> None:
    rng = np.random.default_rng(seed)
    graph = graphs.random_graph(rng, ops)
    assert differs_from_tflite_micro(graph, graphs.inputs_for(graph, rng, 8)) == 0


@pytest.mark.needs("ai-edge-litert")
@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=SEEDS)
def test_random_graphs_equal_litert_op_by_op(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = graphs.random_graph(rng)
    assert ops_differing_from_litert(graph, graphs.inputs_for(graph, rng, 4)) == []


@pytest.mark.needs("tflite-micro")
@pytest.mark.parametrize("make", [graphs.small_net, graphs.float_edged])
@pytest.mark.parametrize("seed", range(3))
def test_whole_nets_on_a_thousand_inputs(make: Callable[[np.random.Generator], QGraph], seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = make(rng)
    assert differs_from_tflite_micro(graph, graphs.inputs_for(graph, rng, 1000)) == 0


def dead_channels(rng: np.random.Generator) -> QGraph:
    """A pointwise convolution with weight scales from 1e-9 down to where the product vanishes."""
    b = Builder(rng)
    x = b.input((1, 3, 3, 4), scale=0.02)
    scales = np.array([0.01, 1e-9, 1e-12, 1e-30, 0.004], np.float32)
    weights = b.constant(rng.integers(-127, 128, (5, 1, 1, 4)).astype(np.int8), scales)
    bias = np.array([90, 1 << 30, -(1 << 30), 1 << 30, -70], np.int32)
    offset = b.constant(bias, b.tensors[x].scale[0] * scales)
    output = b.activation((1, 3, 3, 5), 0.03)
    attrs = {"padding": "VALID", "activation": "NONE"} | dict.fromkeys(
        ("stride_h", "stride_w", "dilation_h", "dilation_w"), 1
    )
    return b.graph(b.op("CONV_2D", (x, weights, offset), output, **attrs))


@pytest.mark.needs("tflite-micro")
def test_dead_channels_with_vanishing_scales() -> None:
    rng = np.random.default_rng(0)
    graph = dead_channels(rng)
    assert differs_from_tflite_micro(graph, graphs.inputs_for(graph, rng, 16)) == 0


@pytest.mark.needs("tflite-micro")
@pytest.mark.parametrize("factor", [1.0, 1.9, 3.7, 200.0])
def test_multipliers_of_one_and_more(factor: float) -> None:
    """1.9 tells a product of the two scales in double from one in float32."""
    b = Builder(np.random.default_rng(4))
    x = b.input((1, 9), scale=0.1)
    weights = b.constant(b.rng.integers(-127, 128, (6, 9)).astype(np.int8), np.array([0.2]))
    output = b.activation((1, 6), 0.02 / factor)
    graph = b.graph(b.op("FULLY_CONNECTED", (x, weights, -1), output, activation="NONE"))
    near = np.random.default_rng(1).integers(-2, 3, (64, 9)) + graph.tensors[x].zero_point
    inputs = [np.clip(near, -128, 127).astype(np.int8)]
    assert differs_from_tflite_micro(graph, inputs) == 0


@pytest.mark.needs("tflite-micro")
def test_several_inputs_and_outputs() -> None:
    b = Builder(np.random.default_rng(5))
    x, y = b.input((1, 4, 4, 2)), b.input((1, 4, 4, 2))
    total = b.binary("ADD", x, y)
    graph = b.graph(total, b.mean(b.binary("SUB", y, total)))
    assert differs_from_tflite_micro(graph, graphs.inputs_for(graph, b.rng, 8)) == 0


def test_a_batch_equals_its_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    graph = graphs.small_net(rng)
    inputs = graphs.inputs_for(graph, rng, 13)
    whole = reference.run(graph, inputs)[0]
    monkeypatch.setattr(reference, "_PIECE_ELEMENTS", 1)
    seen: list[tuple[int, int]] = []
    alone = reference.run(graph, inputs, progress=lambda _, done, total: seen.append((done, total)))[0]
    assert np.array_equal(whole, alone)
    assert seen[-1] == (13, 13) and len(seen) == 13
    everything = reference.run_all(graph, inputs)
    assert np.array_equal(everything[graph.outputs[0]], whole)
    assert {op.outputs[0] for op in graph.ops} | set(graph.inputs) == set(everything)


def test_outputs_have_the_graphs_dtypes_and_shapes() -> None:
    rng = np.random.default_rng(7)
    graph = graphs.float_edged(rng)
    output = reference.run(graph, graphs.inputs_for(graph, rng, 3))[0]
    assert output.dtype == np.float32 and output.shape == (3, 3)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ([], "takes 1 inputs, 0 were given"),
        ([np.zeros((2, 8, 8, 1), np.uint8)], "not uint8"),
        ([np.zeros((2, 8, 7, 1), np.int8)], "8, 8, 1"),
        ([np.zeros((0, 8, 8, 1), np.int8)], "at least one"),
    ],
)
def test_wrong_inputs_are_refused(inputs: list[np.ndarray], sentence: str) -> None:
    graph = graphs.small_net(np.random.default_rng(0))
    with pytest.raises(ArtifactError, match=sentence):
        reference.run(graph, inputs)


def test_a_nan_is_refused_and_infinity_saturates() -> None:
    tensor = Tensor("x", (1, 2), "int8", np.array([0.5], np.float32), 3)
    quantize = reference.elementwise.quantize_real
    values = np.array([np.inf, -np.inf, 1e38, -1e38, 0.25, -0.25, 0.75], np.float32)
    assert quantize(values, tensor).tolist() == [127, -128, 127, -128, 4, 2, 5]
    with pytest.raises(ArtifactError, match="NaN"):
        quantize(np.array([np.nan], np.float32), tensor)

"""Constant channels: the same bytes on random and adversarial inputs, and what is removed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.qgraph import reference
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.passes.constant_channels import remove_constant_channels
from edgekd.qgraph.passes.intervals import intervals
from edgekd.qgraph.tflite_reader import read_tflite
from tests.graphs import Builder, inputs_for, random_graph
from tests.qgraph.passes.same_bytes import differ

Array = npt.NDArray[Any]
SEEDS = st.integers(0, 2**32 - 1)
FAR = 40_000_000  # a bias that no weights of these graphs can outweigh


def planted(b: Builder, x: int, low: int, high: int) -> int:
    """The last op's output, its first channels constant: `low` at the bottom, then `high` at the top."""
    op = b.ops[-1]
    bias = b.tensors[op.inputs[2]]
    data = np.asarray(bias.data).copy()
    data[:low], data[low : low + high] = -FAR, FAR
    b.tensors[op.inputs[2]] = replace(bias, data=data)
    return x


def separable(seed: int, padding: str = "SAME", zero_point: int | None = -128) -> QGraph:
    """conv, depthwise, conv, pool, dense: with channels that never change and some that meet zero weights."""
    b = Builder(np.random.default_rng(seed))
    x = planted(b, b.conv(b.input((1, 7, 6, 3)), 12, activation="RELU"), 3, 2)
    if zero_point is not None:
        b.tensors[x] = replace(b.tensors[x], zero_point=zero_point)
    x = planted(b, b.depthwise(x, padding=padding, activation="RELU"), 4, 1)
    x = planted(b, b.conv(x, 16, (1, 1), activation="RELU"), 5, 2)
    weights = b.tensors[b.ops[-1].inputs[1]]
    data = np.asarray(weights.data).copy()
    data[..., 10] = 0
    b.tensors[b.ops[-1].inputs[1]] = replace(weights, data=data)
    x = b.depthwise(x, stride=(2, 2))
    x = b.pool(x, "AVERAGE_POOL_2D", b.shape(x)[1:3], padding="VALID")
    return b.graph(b.dense(b.reshape(x, (1, 16)), 5))


@pytest.mark.parametrize("multiple", (1, 4))
@pytest.mark.parametrize("padding", ("SAME", "VALID"))
@pytest.mark.parametrize("zero_point", (-128, 0, 5))
@pytest.mark.parametrize("seed", range(3))
def test_planted_channels_go_and_every_byte_stays(
    seed: int, zero_point: int, padding: str, multiple: int
) -> None:
    graph = separable(seed, padding, zero_point)
    changed = remove_constant_channels(graph, multiple)
    assert changed.changed
    assert not differ(graph, changed.graph)
    widths = [changed.graph.tensors[op.outputs[0]].shape[-1] for op in changed.graph.ops]
    assert widths[2] < 16  # seven planted, one dead
    if multiple == 4:
        assert all(width % 4 == 0 for width in widths[:-1])


def test_a_dead_channel_goes_with_the_row_that_makes_it() -> None:
    b = Builder(np.random.default_rng(1))
    x = b.conv(b.input((1, 3, 3, 4)), 6, (1, 1))
    y = b.conv(x, 5, (1, 1))
    weights = b.tensors[b.ops[-1].inputs[1]]
    data = np.asarray(weights.data).copy()
    data[..., 2] = 0
    b.tensors[b.ops[-1].inputs[1]] = replace(weights, data=data)
    graph = b.graph(y)
    changed = remove_constant_channels(graph)
    assert changed.report == "1 of 15 channels are constant or dead: removed"
    assert changed.graph.tensors[changed.graph.ops[0].inputs[1]].shape == (5, 1, 1, 4)
    assert not differ(graph, changed.graph)


def test_a_constant_that_padding_makes_visible_stays() -> None:
    b = Builder(np.random.default_rng(2))
    x = planted(b, b.conv(b.input((1, 4, 4, 2)), 3, (1, 1)), 0, 1)  # 127, and the zero point is another
    b.tensors[x] = replace(b.tensors[x], zero_point=3)
    graph = b.graph(b.conv(x, 4, (3, 3)))
    changed = remove_constant_channels(graph)
    assert not changed.changed
    assert changed.graph is graph


def test_outputs_and_inputs_keep_their_channels() -> None:
    b = Builder(np.random.default_rng(4))
    graph = b.graph(planted(b, b.conv(b.input((1, 4, 4, 2)), 6, (1, 1)), 2, 2))
    assert not remove_constant_channels(graph, 4).changed


def test_intervals_hold_for_every_value() -> None:
    graph = separable(7)
    ends = intervals(graph)
    values = reference.run_all(graph, inputs_for(graph, np.random.default_rng(1), 32))
    for op in graph.ops:
        low, high = ends[op.outputs[0]]
        rows = values[op.outputs[0]].reshape(-1, len(low))
        assert (rows >= low).all() and (rows <= high).all()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=SEEDS, ops=st.integers(2, 9), multiple=st.sampled_from((1, 4)))
def test_random_graphs_keep_every_byte(seed: int, ops: int, multiple: int) -> None:
    graph = random_graph(np.random.default_rng(seed), ops)
    changed = remove_constant_channels(graph, multiple)
    assert not differ(graph, changed.graph, 6)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=SEEDS, planted_seed=SEEDS)
def test_random_biases_keep_every_byte(seed: int, planted_seed: int) -> None:
    rng = np.random.default_rng(planted_seed)
    graph = random_graph(np.random.default_rng(seed), 5)
    tensors = list(graph.tensors)
    for op in graph.ops:
        if op.kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED") and op.inputs[2:] not in (
            (),
            (-1,),
        ):
            bias = tensors[op.inputs[2]]
            far = rng.choice([0, -FAR, FAR], bias.shape, p=[0.4, 0.3, 0.3])
            tensors[op.inputs[2]] = replace(bias, data=(np.asarray(bias.data) + far).astype(np.int32))
    graph = QGraph(graph.name, tuple(tensors), graph.ops, graph.inputs, graph.outputs)
    assert not differ(graph, remove_constant_channels(graph, 4).graph, 6)


@pytest.mark.shared
def test_visual_wake_words_loses_two_thirds_of_its_channels(shared: Path) -> None:
    data = shared / "data/mlperf_tiny"
    graph = read_tflite((data / "models/vww_96_int8.tflite").read_bytes(), "vww")
    changed = remove_constant_channels(graph, 4)
    assert changed.report == "2160 of 3255 channels are constant or dead: removed"
    x = np.fromfile(data / "golden/vww_96_int8.input.bin", np.int8).reshape(-1, 96, 96, 3)
    golden = np.fromfile(data / "golden/vww_96_int8.output.bin", np.int8).reshape(-1, 2)
    assert np.array_equal(reference.run(changed.graph, [x[-4:]])[0], golden[-4:])
    assert not differ(graph, changed.graph, 4)

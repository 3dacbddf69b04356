"""All passes together: every byte stays on random graphs, and the real models' golden bytes too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.qgraph import reference
from edgekd.qgraph.passes import optimize
from edgekd.qgraph.tflite_reader import read_tflite
from tests.graphs import Builder, inputs_for
from tests.qgraph.passes.same_bytes import differ, kinds
from tests.random_graphs import wide_graph

SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=SEEDS, multiple=st.sampled_from((1, 4)), free=st.booleans())
def test_random_graphs_keep_every_byte(seed: int, multiple: int, free: bool) -> None:
    graph = wide_graph(np.random.default_rng(seed))
    found, lines = optimize(graph, multiple, clamps_are_free=free)
    assert bool(lines) == (found is not graph)
    assert not differ(graph, found, 6)
    again, more = optimize(found, multiple, clamps_are_free=free)
    assert again is found and not more


def test_a_constant_channel_that_fills_up_is_folded_by_its_reader() -> None:
    """Six channels stay six at a multiple of four, and the constant one among them loses its value."""
    graph = wide_graph(np.random.default_rng([1, 413]))
    found, lines = optimize(graph, 4)
    assert lines[-1].endswith("channels are constant or dead: removed") and not differ(graph, found, 8)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=SEEDS)
def test_what_is_left_keeps_its_tensor_and_its_values(seed: int) -> None:
    graph = wide_graph(np.random.default_rng(seed))
    found, _ = optimize(graph)
    inputs = inputs_for(graph, np.random.default_rng(seed + 1), 4)
    wanted, got = reference.run_all(graph, inputs), reference.run_all(found, inputs)
    whole = [i for i in got if got[i].shape == wanted[i].shape]
    assert set(graph.outputs) <= set(whole)
    assert all(np.array_equal(wanted[i], got[i]) for i in whole)


def test_each_pass_makes_room_for_the_next() -> None:
    b = Builder(np.random.default_rng(1))
    x = b.input((1, 8, 8, 3))
    x = b.conv(b.pad(x, [[0, 0], [0, 1], [0, 1], [0, 0]]), 4, stride=(2, 2), padding="VALID")
    x = b.unary("RELU6", x)
    x = b.quantize(b.quantize(x, "uint8"))
    y = b.pool(b.unary("TANH", b.unary("LOGISTIC", x)), "MAX_POOL_2D")
    graph = b.graph(b.dense(y, 3))
    found, lines = optimize(graph, 4)
    assert kinds(found) == {"CONV_2D": 1, "TABLE": 1, "MAX_POOL_2D": 1, "FULLY_CONNECTED": 1}
    assert lines == (
        "1 PAD (243 bytes written) folded into the windows behind",
        "1 activation: part of the op in front",
        "4 functions of one byte: 1 look-up",
    )
    assert not differ(graph, found)


@pytest.mark.shared
@pytest.mark.parametrize("model", ["ad01_int8", "kws_ref_model", "pretrainedResnet_quant", "vww_96_int8"])
def test_golden_bytes_of_real_models(shared: Path, model: str) -> None:
    data = shared / "data/mlperf_tiny"
    graph = read_tflite((data / f"models/{model}.tflite").read_bytes(), model)
    found, _ = optimize(graph, 4)
    flat = [np.fromfile(data / f"golden/{model}.{part}.bin", np.int8) for part in ("input", "output")]
    x, y = (
        part.reshape(-1, *graph.tensors[index].shape[1:])[-16:]
        for part, index in zip(flat, (graph.inputs[0], graph.outputs[0]), strict=True)
    )
    assert np.array_equal(reference.run(found, [x])[0], y)

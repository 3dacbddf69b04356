"""ONNX Runtime's layers beside the reference's: the same places, apart by rounding, and what is left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd.errors import ArtifactError
from edgekd.export.onnx_layers import run_onnx_layers
from edgekd.mcu.diff import Execution, by_reference, compare
from edgekd.qgraph.edges import strip_float_edges
from edgekd.qgraph.onnx_reader import read_onnx
from edgekd.quantize.activation import uint8_variant
from tests.graphs import inputs_for
from tests.qgraph.test_onnx_reader import quantized
from tests.quantize.nets import NETS


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("name", ["same", "flatten dense", "residual", "padded pools"])
def test_layers_stand_beside_the_references(name: str, unsigned: bool, tmp_path: Path) -> None:
    data, _ = quantized(name, tmp_path)
    data = uint8_variant(data) if unsigned else data
    graph = strip_float_edges(read_onnx(data, f"{name}.onnx"))
    inputs = inputs_for(graph, np.random.default_rng(1), 8)
    found = run_onnx_layers(data, f"{name}.onnx", graph, inputs)
    expected = by_reference.layers(graph, inputs)
    assert len(graph.ops) - 1 in found and len(found) >= len(graph.ops) / 2
    for index, values in found.items():
        assert values.dtype == np.int8 and values.shape == expected[index].shape, graph.label(index)
        apart = np.abs(values.astype(int) - expected[index])
        assert apart.max() <= NETS[name][1] and (apart == 0).mean() > 0.6, graph.label(index)
    side = Execution(lambda graph, inputs: run_onnx_layers(data, "m.onnx", graph, inputs))
    first = compare(graph, inputs, by_reference, side).first
    assert first is None or (abs(first.a - first.b) == 1 and first.accumulator_b is None)


def test_flattened_layers_and_removed_channels_are_left_out(tmp_path: Path) -> None:
    from dataclasses import replace

    data, _ = quantized("flatten dense", tmp_path)
    graph = strip_float_edges(read_onnx(data, "m.onnx"))
    inputs = inputs_for(graph, np.random.default_rng(1), 2)
    found = run_onnx_layers(data, "m.onnx", graph, inputs)
    assert not any(graph.ops[index].kind == "RESHAPE" for index in found)
    first = graph.ops[0].outputs[0]
    fewer = tuple(
        replace(t, shape=(*t.shape[:3], 1)) if index == first else t for index, t in enumerate(graph.tensors)
    )
    assert 0 in found and 0 not in run_onnx_layers(data, "m.onnx", replace(graph, tensors=fewer), inputs)


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    data, _ = quantized("same", tmp_path)
    graph = strip_float_edges(read_onnx(data, "m.onnx"))
    inputs = inputs_for(graph, np.random.default_rng(1), 2)
    with pytest.raises(ArtifactError, match=r"m\.onnx is not a"):
        run_onnx_layers(data[:-40], "m.onnx", graph, inputs)

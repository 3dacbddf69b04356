"""The four MLPerf Tiny models, which others wrote: every golden byte, every intermediate tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd.qgraph import reference
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.loader import load_graph
from edgekd.qgraph.tflite_reader import read_tflite
from edgekd.qgraph.tflite_writer import op_list, write_tflite
from tests import graphs
from tests.qgraph.interpreters import (
    differs_from_tflite_micro,
    ops_differing_from_litert,
    run_tflite_micro,
)

MODELS = ("ad01_int8", "kws_ref_model", "pretrainedResnet_quant", "vww_96_int8")

pytestmark = pytest.mark.shared
each_model = pytest.mark.parametrize("model", MODELS)
# Inputs given to TFLite Micro: as many as a few seconds allow.
SAMPLES = {"ad01_int8": 1000, "kws_ref_model": 300, "pretrainedResnet_quant": 60, "vww_96_int8": 60}


def load(shared: Path, model: str) -> QGraph:
    path = shared / "data/mlperf_tiny/models" / f"{model}.tflite"
    return load_graph(path.read_bytes(), path.name)


def golden(shared: Path, model: str, part: str, graph: QGraph, index: int) -> np.ndarray:
    flat = np.fromfile(shared / "data/mlperf_tiny/golden" / f"{model}.{part}.bin", np.int8)
    return flat.reshape(-1, *graph.tensors[index].shape[1:])


@each_model
def test_every_golden_output_byte(shared: Path, model: str) -> None:
    graph = load(shared, model)
    outputs = reference.run(graph, [golden(shared, model, "input", graph, graph.inputs[0])])
    assert np.array_equal(outputs[0], golden(shared, model, "output", graph, graph.outputs[0]))


@each_model
def test_every_intermediate_tensor(shared: Path, model: str) -> None:
    graph = load(shared, model)
    values = reference.run_all(graph, [golden(shared, model, "tensors.input", graph, graph.inputs[0])])
    recorded = np.load(shared / "data/mlperf_tiny/golden" / f"{model}.tensors.npz")
    compared = set()
    for key in recorded.files:
        sample, tensor = (int(part[1:]) for part in key.split("_"))
        assert np.array_equal(values[tensor][sample].ravel(), recorded[key].ravel()), key
        compared.add(tensor)
    assert {op.outputs[0] for op in graph.ops} <= compared


@each_model
@pytest.mark.needs("tflite-micro")
def test_the_rewritten_file_gives_the_golden_outputs_in_tflite_micro(shared: Path, model: str) -> None:
    graph = load(shared, model)
    again = read_tflite(write_tflite(graph), model)
    inputs = [golden(shared, model, "input", graph, graph.inputs[0])]
    outputs = run_tflite_micro(again, inputs)
    assert np.array_equal(outputs[0], golden(shared, model, "output", graph, graph.outputs[0]))
    assert op_list(again) == op_list(graph)


@each_model
@pytest.mark.needs("ai-edge-litert")
def test_every_op_equals_litert(shared: Path, model: str) -> None:
    graph = load(shared, model)
    inputs = [golden(shared, model, "input", graph, graph.inputs[0])[::10]]
    assert ops_differing_from_litert(graph, [values[:4] for values in inputs]) == []


@each_model
@pytest.mark.needs("tflite-micro")
def test_mixed_inputs_equal_tflite_micro(shared: Path, model: str) -> None:
    """A quarter each uniform, near the zero point, extremes, golden."""
    graph = load(shared, model)
    real = golden(shared, model, "input", graph, graph.inputs[0])
    inputs = graphs.inputs_for(graph, np.random.default_rng(8), SAMPLES[model], real)
    assert differs_from_tflite_micro(graph, inputs) == 0


def test_keyword_spotting_scores_what_tflite_micro_scores(shared: Path) -> None:
    graph = load(shared, "kws_ref_model")
    data = np.load(shared / "data/mlperf_tiny/kws01/features.npz")
    outputs = reference.run(graph, [data["x"]])[0]
    assert round(float((outputs.argmax(axis=1) == data["y"]).mean()), 3) == 0.901

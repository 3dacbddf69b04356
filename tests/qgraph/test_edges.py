"""Float edges taken off, quantizing outside the graph, tables, and the loader."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.errors import ArtifactError, UnsupportedOpError
from edgekd.qgraph import edges, lut, reference
from edgekd.qgraph.ir import Op, QGraph, Tensor
from edgekd.qgraph.loader import load_graph
from edgekd.qgraph.tflite_writer import write_tflite
from tests import graphs
from tests.graphs import Builder


def test_stripped_edges_compute_the_same() -> None:
    rng = np.random.default_rng(0)
    graph = graphs.float_edged(rng)
    inner = edges.strip_float_edges(graph)
    x = graphs.inputs_for(graph, rng, 40)[0]
    entry, exit_ = inner.tensors[inner.inputs[0]], inner.tensors[inner.outputs[0]]
    assert (entry.dtype, exit_.dtype) == ("int8", "int8")
    assert [op.kind for op in inner.ops] == ["CONV_2D", "MEAN", "FULLY_CONNECTED", "SOFTMAX"]
    result = edges.dequantize_output(reference.run(inner, [edges.quantize_input(x, entry)])[0], exit_)
    assert np.array_equal(result, reference.run(graph, [x])[0])


def test_integer_graphs_stay_as_they_are() -> None:
    graph = graphs.small_net(np.random.default_rng(1))
    inner = edges.strip_float_edges(graph)
    assert (inner.inputs, inner.outputs, inner.ops) == (graph.inputs, graph.outputs, graph.ops)


def test_a_uint8_edge_keeps_its_quantize() -> None:
    b = Builder(np.random.default_rng(2))
    x = b.quantize(b.input((1, 5), dtype="uint8", scale=0.1, zero_point=120))
    graph = b.graph(b.quantize(b.dense(x, 3), "uint8"))
    inner = edges.strip_float_edges(graph)
    assert [op.kind for op in inner.ops] == ["QUANTIZE", "FULLY_CONNECTED", "QUANTIZE"]


def two_readers() -> QGraph:
    b = Builder(np.random.default_rng(3))
    x = b.input((1, 5), dtype="float32")
    return b.graph(b.quantize(x), b.quantize(x))


def float_through() -> QGraph:
    b = Builder(np.random.default_rng(4))
    x = b.quantize(b.input((1, 5), dtype="float32"))
    real = b.dequantize(x)
    return b.graph(real, b.quantize(real))


@pytest.mark.parametrize(
    ("graph", "sentence"),
    [(two_readers(), "read by QUANTIZE, QUANTIZE"), (float_through(), "read by QUANTIZE, not")],
)
def test_other_float_edges_are_refused(graph: QGraph, sentence: str) -> None:
    with pytest.raises(UnsupportedOpError, match=sentence):
        edges.strip_float_edges(graph)


@pytest.mark.parametrize("kind", ["LOGISTIC", "TANH", "RELU", "RELU6", "QUANTIZE"])
def test_tables_hold_the_reference(kind: str) -> None:
    b = Builder(np.random.default_rng(5))
    x = b.input((1, 256), scale=0.05, zero_point=-11)
    graph = b.graph(b.quantize(x) if kind == "QUANTIZE" else b.unary(kind, x))
    every = np.arange(-128, 128).astype(np.int8)[None]
    table = lut.table(graph.ops[0], graph)
    assert table.dtype == np.int8 and table.shape == (256,)
    assert np.array_equal(table, reference.run(graph, [every])[0][0])


def test_gates_are_near_the_real_functions() -> None:
    scale = np.float32(0.05)
    source = Tensor("x", (1, 256), "int8", np.array([scale]), 0)
    real = np.arange(-128, 128) * float(scale)
    for kind, zero_point, steps, function in (
        ("LOGISTIC", -128, 256, lambda v: 1 / (1 + np.exp(-v))),
        ("TANH", 0, 128, np.tanh),
    ):
        output = Tensor("y", (1, 256), "int8", np.array([1 / steps], np.float32), zero_point)
        graph = QGraph("gate", (source, output), (Op(kind, (0,), (1,)),), (0,), (1,))
        got = lut.table(graph.ops[0], graph).astype(float)
        want = np.clip(function(real) * steps + zero_point, -128, 127)
        assert np.abs(got - want).max() <= 1


def test_loader_tells_a_tflite_by_its_bytes() -> None:
    data = write_tflite(graphs.conv_graph(np.random.default_rng(6)))
    assert load_graph(data, "model.bin").ops[0].kind == "CONV_2D"
    assert load_graph(data, "model.onnx").name == "model.onnx"


@pytest.mark.parametrize(
    ("data", "name", "sentence"),
    [
        (b"", "a.tflite", "is empty"),
        (b"\x89PNG\r\n\x1a\n", "a.png", "neither"),
        (b"not a model at all", "a.tflite", "not a TensorFlow Lite model"),
        (b"TFL3", "TFL3", "neither"),
    ],
)
def test_loader_refuses_anything_else(data: bytes, name: str, sentence: str) -> None:
    with pytest.raises(ArtifactError, match=sentence) as caught:
        load_graph(data, name)
    assert name in str(caught.value)

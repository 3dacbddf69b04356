"""The written file: read back as the same graph, the same bytes each time, aligned, and no path inside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from edgekd.errors import UnsupportedOpError
from edgekd.qgraph import reference
from edgekd.qgraph.flatbuffer import Reader
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.tflite_reader import read_tflite
from edgekd.qgraph.tflite_writer import op_list, write_tflite
from tests import graphs
from tests.graphs import Builder

Make = Callable[[np.random.Generator], QGraph]
MAKERS: list[Make] = [graphs.small_net, graphs.float_edged, graphs.conv_graph, graphs.depthwise_graph,
                      graphs.random_graph]  # fmt: skip


def assert_same(one: QGraph, other: QGraph) -> None:
    assert (one.inputs, one.outputs) == (other.inputs, other.outputs)
    for a, b in zip(one.tensors, other.tensors, strict=True):
        assert (a.name, a.shape, a.dtype, a.zero_point, a.axis) == (
            b.name,
            b.shape,
            b.dtype,
            b.zero_point,
            b.axis,
        )
        assert np.array_equal(a.scale, b.scale)
        assert (a.data is None) == (b.data is None)
        assert a.data is None or np.array_equal(a.data, b.data)
    for p, q in zip(one.ops, other.ops, strict=True):
        assert (p.kind, p.inputs, p.outputs, dict(p.attrs)) == (q.kind, q.inputs, q.outputs, dict(q.attrs))


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("seed", range(4))
def test_reads_back_as_the_same_graph(make: Make, seed: int) -> None:
    graph = make(np.random.default_rng(seed))
    written = write_tflite(graph)
    if any(op.kind == "CONV_2D" and op.inputs[2] == -1 for op in graph.ops):
        graph = read_tflite(written, graph.name)  # biases of zeros were added: compare from here on
    again = read_tflite(written, graph.name)
    assert_same(graph, again)
    assert write_tflite(again) == written == write_tflite(graph)


def test_a_missing_bias_changes_no_value() -> None:
    rng = np.random.default_rng(1)
    graph = graphs.conv_graph(rng, bias=False)
    again = read_tflite(write_tflite(graph), "again")
    inputs = graphs.inputs_for(graph, rng)
    assert len(again.tensors) == len(graph.tensors) + 1
    assert np.array_equal(reference.run(graph, inputs)[0], reference.run(again, inputs)[0])


def test_constants_are_aligned_to_16_bytes() -> None:
    data = write_tflite(graphs.small_net(np.random.default_rng(2)))
    buffers = Reader(data, "x").root().tables(4)
    raw = [buffer.array(0, "u1") for buffer in buffers]
    found = [data.find(part.tobytes()) for part in raw if part is not None and len(part) >= 16]
    assert len(found) >= 6
    assert all(position % 16 == 0 for position in found)


def test_no_name_of_the_graph_ends_in_the_file() -> None:
    graph = replace(graphs.small_net(np.random.default_rng(3)), name="/home/somebody/model.onnx")
    assert b"somebody" not in write_tflite(graph)


def test_op_list() -> None:
    graph = graphs.small_net(np.random.default_rng(4))
    assert op_list(graph) == [
        *("ADD", "AVERAGE_POOL_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "RESHAPE", "SOFTMAX")
    ]


def test_an_unsound_graph_is_not_written() -> None:
    graph = graphs.conv_graph(np.random.default_rng(5))
    with pytest.raises(UnsupportedOpError, match="reads tensor"):
        write_tflite(replace(graph, inputs=(graph.outputs[0],)))


@pytest.mark.needs("ai-edge-litert")
def test_litert_loads_every_version_of_every_op() -> None:
    from ai_edge_litert.interpreter import Interpreter

    b = Builder(np.random.default_rng(6))
    x = b.input((1, 4, 6))
    one = b.dense(x, 5, depth=6)  # keeps its axes
    two = b.dense(one, 5, depth=5, per_channel=True, bias=False)
    three = b.dense(b.reshape(two, (1, 20)), 3, bias=False)
    product = b.op("MUL", (three, three), b.activation((1, 3), 1e-5), activation="NONE")
    graph = b.graph(b.quantize(product))
    Interpreter(model_content=write_tflite(graph)).allocate_tensors()

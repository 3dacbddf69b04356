"""int4 weights in .tflite files: read, written, and computed as TFLite Micro and LiteRT compute them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgekd.errors import ArtifactError, UnsupportedOpError
from edgekd.qgraph import reference
from edgekd.qgraph.encoding import uniform, unpack_int4
from edgekd.qgraph.flatbuffer import Reader
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.tflite_reader import read_tflite
from edgekd.qgraph.tflite_writer import write_tflite
from tests import graphs
from tests.graphs import inputs_for
from tests.qgraph.interpreters import differs_from_tflite_micro, ops_differing_from_litert
from tests.qgraph.test_tflite_writer import assert_same

Array = npt.NDArray[Any]
Make = Callable[[np.random.Generator], QGraph]


def int4(graph: QGraph, lowest: int = -7) -> QGraph:
    """`graph` with the weights of its linear ops as plain int4 in lowest to 7, scales 18 times as large."""
    tensors = list(graph.tensors)
    for op in graph.ops:
        if op.kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            w, axis = tensors[op.inputs[1]], 3 if op.kind == "DEPTHWISE_CONV_2D" else 0
            data = np.clip(np.asarray(w.data, np.int64) // 16, lowest, 7).astype(np.int8)
            scale, packed = w.scale * np.float32(18), uniform(4, w.shape[axis], axis)
            tensors[op.inputs[1]] = replace(w, data=data, scale=scale, encoding=packed)
            if op.inputs[2] != -1:
                bias = tensors[op.inputs[2]]
                tensors[op.inputs[2]] = replace(bias, scale=bias.scale * np.float32(18))
    return replace(graph, tensors=tuple(tensors))


MAKERS: dict[str, Make] = {
    "conv": lambda rng: graphs.conv_graph(rng),
    "conv, one scale": lambda rng: graphs.conv_graph(rng, per_channel=False),
    "conv, odd number of weights": lambda rng: graphs.conv_graph(rng, (1, 5, 5, 3), 3, kernel=(1, 3)),
    "depthwise": lambda rng: graphs.depthwise_graph(rng),
    "depthwise, one scale": lambda rng: graphs.depthwise_graph(rng, per_channel=False),
    "dense": lambda rng: graphs.dense_graph(rng, per_channel=False),
    "net": lambda rng: graphs.small_net(rng),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_int4_comes_back(make: Make) -> None:
    graph = int4(make(np.random.default_rng(3)))
    data = write_tflite(graph)
    again = read_tflite(data, graph.name)
    assert_same(graph, again)
    for op in (op for op in again.ops if op.kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")):
        encoding = again.tensors[op.inputs[1]].encoding
        assert encoding is not None and encoding.is_uniform_int4
    assert write_tflite(again) == data
    plain = replace(graph, tensors=tuple(replace(t, encoding=None) for t in graph.tensors))
    assert len(data) <= len(write_tflite(plain))


@pytest.mark.needs("tflite-micro")
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("lowest", (-7, -8))
def test_tflite_micro_computes_the_same_bytes(make: Make, lowest: int) -> None:
    rng = np.random.default_rng(4)
    graph = int4(make(rng), lowest)
    assert differs_from_tflite_micro(graph, inputs_for(graph, rng, 8)) == 0


@pytest.mark.parametrize("make", [MAKERS["conv"], MAKERS["depthwise"], MAKERS["dense"]])
def test_litert_computes_the_same_bytes(make: Make) -> None:
    rng = np.random.default_rng(5)
    graph = int4(make(rng))
    assert ops_differing_from_litert(graph, inputs_for(graph, rng, 8)) == []


def test_the_lower_nibble_comes_first() -> None:
    assert unpack_int4(np.array([0x7F, 0x98], np.uint8), 3).tolist() == [-1, 7, -8]
    graph = int4(graphs.dense_graph(np.random.default_rng(1), (1, 2), 1, per_channel=False))
    weights = graph.ops[0].inputs[1]
    tensors = list(graph.tensors)
    tensors[weights] = replace(tensors[weights], data=np.array([[3, -2]], np.int8))
    data = write_tflite(replace(graph, tensors=tuple(tensors)))
    model = Reader(data, "x").root()
    table = model.tables(2)[0].tables(0)[weights]
    stored = model.tables(4)[table.integer(2, "I")].array(0, "u1")
    assert table.integer(1, "b") == schema.TensorType.INT4
    assert stored is not None and stored.tolist() == [0xE3]


def test_other_tables_are_written_as_int8() -> None:
    from edgekd.qgraph.codebook import share_weights

    graph = share_weights(graphs.small_net(np.random.default_rng(6)))
    again = read_tflite(write_tflite(graph), "x")
    assert all(t.encoding is None for t in again.tensors)
    inputs = inputs_for(graph, np.random.default_rng(7))
    assert np.array_equal(reference.run(graph, inputs)[0], reference.run(again, inputs)[0])


def edited(graph: QGraph, change: Callable[[Any], None]) -> bytes:
    """The written file with its object tree changed by hand."""
    import flatbuffers

    model = schema.ModelT.InitFromPackedBuf(write_tflite(graph), 0)
    change(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def test_a_buffer_of_the_wrong_length_is_refused() -> None:
    graph = int4(graphs.conv_graph(np.random.default_rng(8)))
    weights = graph.ops[0].inputs[1]

    def longer(model: Any) -> None:
        buffer = model.buffers[model.subgraphs[0].tensors[weights].buffer]
        buffer.data = np.concatenate([buffer.data, np.zeros(3, np.uint8)])

    with pytest.raises(ArtifactError, match=r"has 71 bytes of data where shape \(5, 3, 3, 3\) needs 68"):
        read_tflite(edited(graph, longer), "wrong.tflite")


def test_int4_activations_are_refused() -> None:
    graph = graphs.conv_graph(np.random.default_rng(9))

    def narrow(model: Any) -> None:
        model.subgraphs[0].tensors[graph.inputs[0]].type = schema.TensorType.INT4

    with pytest.raises(UnsupportedOpError, match="is an int4 activation; only constant weights can be int4"):
        read_tflite(edited(graph, narrow), "narrow.tflite")


def test_int4_on_an_op_that_cannot_take_it_is_refused() -> None:
    b = graphs.Builder(np.random.default_rng(10))
    x = b.input((1, 2, 2, 4))
    other = b.constant(np.ones((1, 2, 2, 4), np.int8), np.array([0.1], np.float32))
    graph = b.graph(b.binary("ADD", x, other))

    def narrow(model: Any) -> None:
        tensor = model.subgraphs[0].tensors[other]
        tensor.type = schema.TensorType.INT4
        model.buffers[tensor.buffer].data = np.full(8, 0x11, np.uint8)

    with pytest.raises(UnsupportedOpError, match="its input 1 is packed; only the weights of CONV_2D"):
        read_tflite(edited(graph, narrow), "add.tflite")


def test_int2_is_refused_by_name() -> None:
    graph = int4(graphs.conv_graph(np.random.default_rng(11)))

    def narrow(model: Any) -> None:
        model.subgraphs[0].tensors[graph.ops[0].inputs[1]].type = schema.TensorType.INT2

    with pytest.raises(UnsupportedOpError, match="has the type INT2, which edgekd cannot run"):
        read_tflite(edited(graph, narrow), "int2.tflite")

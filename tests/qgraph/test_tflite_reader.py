"""Files that are broken, hostile, or hold what we cannot run: one sentence each, and nothing else.

The sound files are in test_tflite_writer.py and test_shared_models.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgekd.errors import ArtifactError, EdgekdError, UnsupportedOpError
from edgekd.qgraph import reference
from edgekd.qgraph.tflite_reader import read_tflite
from edgekd.qgraph.tflite_writer import write_tflite
from edgekd.qgraph.validate import validate
from tests import graphs

FILE = write_tflite(graphs.small_net(np.random.default_rng(0)))
FLOAT_FILE = write_tflite(graphs.float_edged(np.random.default_rng(0)))


def is_one_sentence(error: EdgekdError) -> bool:
    return len(str(error)) > 20 and "\n" not in str(error)


@pytest.mark.parametrize("length", [0, 1, 4, 7, 8, 12, 20, 100, len(FILE) // 2, len(FILE) - 200])
def test_truncated(length: int) -> None:
    with pytest.raises(ArtifactError, match=r"cut\.tflite") as caught:
        read_tflite(FILE[:length], "cut.tflite")
    assert is_one_sentence(caught.value)


@pytest.mark.parametrize("data", [b"PK\x03\x04" * 20, b"\x00" * 64, b"\xff" * 64, FILE[::-1]])
def test_other_formats(data: bytes) -> None:
    with pytest.raises(ArtifactError, match="not a TensorFlow Lite model"):
        read_tflite(data, "other.tflite")


def mutations(rng: np.random.Generator) -> bytes:
    """FILE or FLOAT_FILE with bits flipped, bytes or words replaced, or parts moved or cut."""
    data = bytearray(FILE if rng.random() < 0.7 else FLOAT_FILE)
    for _ in range(int(rng.integers(1, 6))):
        position = int(rng.integers(8, len(data) - 8)) if rng.random() < 0.8 else int(rng.integers(0, 8))
        choice = int(rng.integers(0, 5))
        if choice == 0:
            data[position] ^= 1 << int(rng.integers(0, 8))
        elif choice == 1:
            data[position] = int(rng.choice([0, 1, 127, 128, 255]))
        elif choice == 2:
            aligned = position // 4 * 4
            word = int(rng.choice([0, 1, 4, 8, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, len(data)]))
            data[aligned : aligned + 4] = word.to_bytes(4, "little")
        elif choice == 3:
            del data[position : position + int(rng.integers(1, 9))]
        else:
            source = int(rng.integers(0, len(data) - 8))
            data[position : position + 8] = data[source : source + 8]
    return bytes(data)


def test_five_hundred_mutations_end_in_an_error_or_a_sound_graph() -> None:
    refused = 0
    for seed in range(500):
        data = mutations(np.random.default_rng(seed))
        started = time.monotonic()
        try:
            graph = read_tflite(data, "mutant.tflite")
            validate(graph)
            reference.run(graph, graphs.inputs_for(graph, np.random.default_rng(1), 1))
        except EdgekdError as error:
            refused += 1
            assert is_one_sentence(error), seed
        assert time.monotonic() - started < 5, seed
    assert 100 < refused < 500


def test_every_flipped_bit_of_the_structure() -> None:
    """All bits of the last kilobyte, where the tables lie; constants lie before."""
    for position in range(len(FILE) - 700, len(FILE), 3):
        for bit in range(8):
            data = bytearray(FILE)
            data[position] ^= 1 << bit
            try:
                read_tflite(bytes(data), "flipped.tflite")
            except EdgekdError as error:
                assert is_one_sentence(error)


def test_a_small_file_that_describes_a_huge_tree_is_refused_soon() -> None:
    """20,000 times one subgraph of 20,000 times one tensor: 400 million tables in 160 kB."""
    count = 20_000
    builder = flatbuffers.Builder(1 << 20)
    schema.TensorStart(builder)
    tensor = schema.TensorEnd(builder)
    schema.SubGraphStartTensorsVector(builder, count)
    for _ in range(count):
        builder.PrependUOffsetTRelative(tensor)
    tensors = builder.EndVector()
    schema.BufferStart(builder)
    buffer = schema.BufferEnd(builder)
    schema.ModelStartBuffersVector(builder, 1)
    builder.PrependUOffsetTRelative(buffer)
    buffers = builder.EndVector()
    schema.SubGraphStart(builder)
    schema.SubGraphAddTensors(builder, tensors)
    subgraph = schema.SubGraphEnd(builder)
    schema.ModelStartSubgraphsVector(builder, count)
    for _ in range(count):
        builder.PrependUOffsetTRelative(subgraph)
    subgraphs = builder.EndVector()
    schema.ModelStart(builder)
    schema.ModelAddVersion(builder, 3)
    schema.ModelAddSubgraphs(builder, subgraphs)
    schema.ModelAddBuffers(builder, buffers)
    builder.Finish(schema.ModelEnd(builder), file_identifier=b"TFL3")
    started = time.monotonic()
    with pytest.raises(EdgekdError):
        read_tflite(bytes(builder.Output()), "bomb.tflite")
    assert time.monotonic() - started < 10


def test_a_table_of_an_odd_number_of_bytes_is_refused() -> None:
    """TFLite Micro, which checks nothing, would read a field behind it that others take for absent."""
    root = int.from_bytes(FILE[:4], "little")
    vtable = root - int.from_bytes(FILE[root : root + 4], "little", signed=True)
    broken = bytearray(FILE)
    broken[vtable] -= 1
    with pytest.raises(ArtifactError, match="lists its fields by two") as caught:
        read_tflite(bytes(broken), "odd.tflite")
    assert is_one_sentence(caught.value)


def changed(change: Callable[[Any], None], data: bytes = FILE) -> bytes:
    """The file with its object tree changed."""
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    change(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def graph_of(model: Any) -> Any:
    return model.subgraphs[0]


def set_code(number: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        code = model.operatorCodes[0]
        code.builtinCode, code.deprecatedBuiltinCode = number, min(number, 127)

    return change


def make_custom(model: Any) -> None:
    set_code(schema.BuiltinOperator.CUSTOM)(model)
    model.operatorCodes[0].customCode = "MyOp"


def options(name: str, value: object, index: int = 0) -> Callable[[Any], None]:
    return lambda model: setattr(graph_of(model).operators[index].builtinOptions, name, value)


def tensor(name: str, value: object, index: int = 0) -> Callable[[Any], None]:
    return lambda model: setattr(graph_of(model).tensors[index], name, value)


def quantization(name: str, value: object, index: int = 0) -> Callable[[Any], None]:
    return lambda model: setattr(graph_of(model).tensors[index].quantization, name, value)


def reshape_first_output(model: Any) -> None:
    graph = graph_of(model)
    graph.tensors[graph.operators[0].outputs[0]].shape = [1, 5, 4, 8]


UNSUPPORTED: dict[str, tuple[Callable[[Any], None], str]] = {
    "op": (set_code(schema.BuiltinOperator.LSTM), r"op 3 LSTM \(t\d+\), .*\(1, 4, 4, 8\) -> \(1, 4, 4, 8\)"),
    "custom op": (make_custom, "CUSTOM MyOp"),
    "unknown op": (set_code(9999), "number 9999"),
    "two subgraphs": (lambda m: m.subgraphs.append(m.subgraphs[0]), "2 subgraphs"),
    "no subgraph": (lambda m: setattr(m, "subgraphs", []), "0 subgraphs"),
    "dynamic shape": (tensor("shapeSignature", [1, -1, 8, 1]), r"dynamic shape \(1, -1, 8, 1\)"),
    "zero shape": (tensor("shape", [1, 0, 8, 1]), "dynamic shape"),
    "batch 2": (tensor("shape", [2, 8, 8, 1]), "batch 1"),
    "int4": (tensor("type", schema.TensorType.INT4), "int4 activation"),
    "int16": (tensor("type", schema.TensorType.INT16), "int16"),
    "variable": (tensor("isVariable", True), "variable"),
    "no scale": (tensor("quantization", None), "0 scales"),
    "scale of zero": (quantization("scale", [0.0]), "zero, negative or not finite"),
    "scale of nan": (quantization("scale", [float("nan")]), "not finite"),
    "two scales": (quantization("scale", [1.0, 2.0]), "scales"),
    "zero points": (quantization("zeroPoint", [1, 2]), "zero point of its own"),
    "huge zero point": (quantization("zeroPoint", [1 << 40]), "zero point"),
    "activation": (options("fusedActivationFunction", 4), "activation TANH"),
    "stride": (options("strideW", 0), "stride_w is 0"),
    "huge stride": (options("strideW", 1 << 30), "stride_w"),
    "dilation": (options("dilationHFactor", -3), "dilation_h is -3"),
    "output shape": (reshape_first_output, "should be"),
    "no inputs": (lambda m: setattr(graph_of(m), "inputs", []), "0 inputs"),
    "input twice": (lambda m: setattr(graph_of(m), "inputs", [0, 0]), "two inputs"),
    "output of nothing": (lambda m: setattr(graph_of(m), "outputs", [1]), "constant"),
    "wrong tensor": (lambda m: setattr(graph_of(m), "inputs", [9999]), "does not exist"),
    "out of order": (lambda m: graph_of(m).operators.reverse(), "before it is written"),
    "lost input": (lambda m: setattr(graph_of(m).operators[0], "inputs", [0, -1, 2]), "lacks an input"),
    "no outputs": (lambda m: setattr(graph_of(m).operators[0], "outputs", []), "0 outputs"),
    "written twice": (lambda m: setattr(graph_of(m).operators[0], "outputs", [0]), "already has a value"),
}

BROKEN: dict[str, tuple[Callable[[Any], None], str]] = {
    "schema version": (lambda m: setattr(m, "version", 2), "schema version 2"),
    "buffer": (tensor("buffer", 77), "buffer 77"),
    "data length": (tensor("shape", [8, 3, 3, 2], 1), "bytes of data where shape"),
    "op code": (lambda m: setattr(graph_of(m).operators[0], "opcodeIndex", 50), "operator code 50"),
    "op tensor": (lambda m: setattr(graph_of(m).operators[0], "inputs", [0, 99, 2]), "tensor 99"),
    "axis": (quantization("quantizedDimension", 9, 1), "axis 9"),
    "no zero point": (quantization("zeroPoint", [], 1), "0 zero points for"),
    "unknown activation": (options("fusedActivationFunction", 77), "unknown activation"),
    "unknown padding": (options("padding", 5), "unknown padding"),
}


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_unsupported(case: str) -> None:
    change, sentence = UNSUPPORTED[case]
    with pytest.raises(UnsupportedOpError, match=sentence) as caught:
        read_tflite(changed(change), "foreign.tflite")
    assert is_one_sentence(caught.value)
    assert "foreign.tflite" in str(caught.value)


@pytest.mark.parametrize("case", BROKEN)
def test_broken(case: str) -> None:
    change, sentence = BROKEN[case]
    with pytest.raises(ArtifactError, match=sentence) as caught:
        read_tflite(changed(change), "broken.tflite")
    assert is_one_sentence(caught.value)


def test_missing_or_foreign_options() -> None:
    def drop(model: Any) -> None:
        operator = graph_of(model).operators[0]
        operator.builtinOptions, operator.builtinOptionsType = None, 0

    def swap(model: Any) -> None:
        operator = graph_of(model).operators[0]
        operator.builtinOptions, operator.builtinOptionsType = (
            schema.AddOptionsT(),
            schema.BuiltinOptions.AddOptions,
        )

    for change, sentence in ((drop, "no options"), (swap, "AddOptions where Conv2DOptions belong")):
        with pytest.raises(ArtifactError, match=sentence):
            read_tflite(changed(change), "broken.tflite")


def test_what_other_converters_write_is_taken() -> None:
    """A dynamic batch in the signature, names with odd bytes, op codes in the old field only, metadata."""

    def change(model: Any) -> None:
        graph_of(model).tensors[0].shapeSignature = [-1, 8, 8, 1]
        graph_of(model).tensors[0].name = b"serving\ndefault\xff:0"
        for code in model.operatorCodes:
            code.builtinCode = 0
        metadata = schema.MetadataT()
        metadata.name, metadata.buffer = "min_runtime_version", 0
        model.metadata = [metadata]

    graph = read_tflite(changed(change), "foreign.tflite")
    assert graph.tensors[0].name == "serving?default?:0"
    assert [op.kind for op in graph.ops][:2] == ["CONV_2D", "DEPTHWISE_CONV_2D"]


def test_a_damaged_name_or_shape_does_not_flood_the_message() -> None:
    def change(model: Any) -> None:
        tensor = graph_of(model).tensors[0]
        tensor.name = b"x" * 5000
        tensor.shapeSignature = [1, *([-1] * 300)]

    def deepen(model: Any) -> None:
        graph_of(model).tensors[0].shape = [1 << 30] * 300

    for damage, sentence in ((change, "dynamic shape of 301 axes"), (deepen, "has 300 axes")):
        with pytest.raises(UnsupportedOpError, match=sentence) as caught:
            read_tflite(changed(damage), "foreign.tflite")
        assert len(str(caught.value)) < 500 and is_one_sentence(caught.value)


def test_shuffled_weights_are_refused() -> None:
    graph = graphs.dense_graph(np.random.default_rng(1))
    data = changed(options("weightsFormat", 1), write_tflite(graph))
    with pytest.raises(UnsupportedOpError, match="shuffled"):
        read_tflite(data, "shuffled.tflite")

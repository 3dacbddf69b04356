"""Packed weights in QDQ ONNX models come back, ONNX Runtime does not mind them, bad entries are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekd.errors import ArtifactError, EdgekdError, UnsupportedOpError
from edgekd.export.onnx_session import run_onnx
from edgekd.qgraph.codebook import round_to_tables
from edgekd.qgraph.encoding import Encoding
from edgekd.qgraph.onnx_encoding import PREFIX, with_encodings
from edgekd.qgraph.onnx_reader import read_onnx
from edgekd.qgraph.reference import run
from edgekd.quantize.ptq import quantize_onnx
from edgekd.recipe import QuantizeParams
from tests.quantize.nets import build

PAGE = Path(__file__).resolve().parents[2] / "docs/formats/packed-onnx.md"
LAYERS = ("Conv", "Gemm", "MatMul")


def weights_of(model: onnx.ModelProto) -> dict[str, int]:
    """int8 initializers that are a layer's weights -> the axis of their output channels."""
    sources = {node.output[0]: node.input[0] for node in model.graph.node}
    found = {}
    for node in model.graph.node:
        if node.op_type in LAYERS:
            turned = any(a.name == "transB" and a.i for a in node.attribute)
            found[sources[node.input[1]]] = 0 if node.op_type == "Conv" or turned else 1
    return found


def packed(tmp_path: Path, name: str = "same", tables: int = 2) -> tuple[bytes, dict[str, Encoding], Any]:
    """A quantized net with its weights rounded to tables of 16, the encodings, and its calibration set."""
    float_model, samples = build(name)
    quantize_onnx(float_model, samples, QuantizeParams(), tmp_path)
    model = onnx.load_model_from_string((tmp_path / "int8.onnx").read_bytes())
    encodings = {}
    for weights, axis in weights_of(model).items():
        tensor = next(t for t in model.graph.initializer if t.name == weights)
        data = numpy_helper.to_array(tensor)
        values, encodings[weights] = round_to_tables(data, 16, min(tables, data.shape[axis]), axis)
        tensor.CopyFrom(numpy_helper.from_array(values, weights))
    return with_encodings(model.SerializeToString(), encodings), encodings, samples


@pytest.mark.parametrize("name", ("same", "depthwise", "flatten dense", "matmul"))
def test_encodings_come_back(name: str, tmp_path: Path) -> None:
    data, encodings, _ = packed(tmp_path, name)
    graph = read_onnx(data, "packed.onnx")
    layers = [op for op in graph.ops if op.kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")]
    found = [graph.tensors[op.inputs[1]].encoding for op in layers]
    assert len(found) == len(encodings) > 0
    for read, given in zip(found, encodings.values(), strict=True):
        assert read is not None
        assert np.array_equal(read.tables, given.tables)
        assert np.array_equal(read.channel_tables, given.channel_tables)


def test_the_integers_and_onnx_runtime_know_nothing_of_it(tmp_path: Path) -> None:
    data, _, samples = packed(tmp_path)
    plain = with_encodings(data, {})
    assert all(t.encoding is None for t in read_onnx(plain, "plain.onnx").tensors)
    x = np.ascontiguousarray(np.moveaxis(samples, 1, -1))
    pair = [run(read_onnx(model, "x"), [x])[0] for model in (data, plain)]
    assert np.array_equal(*pair)
    assert np.array_equal(run_onnx(data, samples), run_onnx(plain, samples))


def test_the_page_has_the_bytes() -> None:
    text = PAGE.read_text("utf-8")
    example = text.split("Example: `")[1].split("`")[0]
    tables = np.array([[-40, 0, 15, 60], [-9, -2, 0, 7]], np.int8)
    from edgekd.qgraph.onnx_encoding import _KEYS, SCHEMA, entry

    assert entry(Encoding(2, tables, np.array([0, 1], np.uint8))) == example
    assert f"schema {SCHEMA}" in text.splitlines()[0]
    assert all(f"| `{key}` |" in text for key in _KEYS) and f"`{PREFIX}`" in text


GOOD = {"schema": 1, "bits": 4, "tables": [list(range(-8, 8))]}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ([1], "not of schema 1"),
        ({**GOOD, "schema": 2}, "not of schema 1"),
        ({**GOOD, "colour": 1}, "not of schema 1"),
        ({**GOOD, "bits": 5}, "needs bits of 2, 4, 8"),
        ({**GOOD, "tables": []}, "a list of tables"),
        ({**GOOD, "tables": [[]]}, "a list of tables"),
        ({**GOOD, "tables": [[1, 2], [3]]}, "a list of tables"),
        ({**GOOD, "tables": [[1.5]]}, "a list of tables"),
        ({**GOOD, "tables": [[200]]}, "a list of tables"),
        ({**GOOD, "tables": {"a": 1}}, "a list of tables"),
        ({**GOOD, "tables": [list(range(17))]}, "do not fit indices of 4 bits"),
        ({**GOOD, "tables": [[0]] * 300}, "1 to 256"),
        (GOOD, "does not stand in its channel's table"),
        ({**GOOD, "channel_tables": [0, -1]}, "numbers its channels' tables"),
        ({**GOOD, "channel_tables": "no"}, "numbers its channels' tables"),
        ({**GOOD, "channel_tables": [0]}, "1 channels have a table"),
    ],
)
def test_bad_metadata_are_one_sentence(value: Any, words: str, tmp_path: Path) -> None:
    data, _, _ = packed(tmp_path)
    model = onnx.load_model_from_string(data)
    item = next(p for p in model.metadata_props if p.key.startswith(PREFIX))
    item.value = value if isinstance(value, str) else json.dumps(value)
    with pytest.raises(EdgekdError, match=words) as caught:
        read_onnx(model.SerializeToString(), "bad.onnx")
    assert "\n" not in str(caught.value) and str(caught.value).count("bad.onnx") == 1
    assert isinstance(caught.value, ArtifactError | UnsupportedOpError)


@pytest.mark.parametrize("name", ("nobody", "an_activation"))
def test_an_entry_for_no_weights_is_refused(name: str, tmp_path: Path) -> None:
    data, _, _ = packed(tmp_path)
    model = onnx.load_model_from_string(data)
    model.metadata_props.add(key=PREFIX + name, value=json.dumps(GOOD))
    with pytest.raises(ArtifactError, match=f"'{name}': no layer has it as its weights"):
        read_onnx(model.SerializeToString(), "bad.onnx")


def test_only_initializers_that_stand_in_the_tables_are_encoded(tmp_path: Path) -> None:
    data, encodings, _ = packed(tmp_path)
    name, given = next(iter(encodings.items()))
    with pytest.raises(ArtifactError, match="has no initializer 'other' to encode"):
        with_encodings(data, {"other": given})
    with pytest.raises(UnsupportedOpError, match="does not stand in its channel's table"):
        with_encodings(data, {name: Encoding(4, given.tables[:, :1], given.channel_tables, given.axis)})

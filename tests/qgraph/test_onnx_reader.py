"""The QDQ reader: the same numbers as ONNX Runtime, no transposes, and clear refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgekd.errors import ArtifactError, EdgekdError, UnsupportedOpError
from edgekd.evaluate.metrics import difference_histogram
from edgekd.export.onnx_session import run_onnx
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.onnx_reader import is_qdq, read_onnx
from edgekd.qgraph.reference import run
from edgekd.quantize.activation import uint8_variant
from edgekd.quantize.ptq import quantize_onnx
from edgekd.recipe import QuantizeParams
from tests.quantize.nets import NETS, Net, build


def quantized(name: str, tmp_path: Path) -> tuple[bytes, Any]:
    model, calibration = build(name)
    quantize_onnx(model, calibration, QuantizeParams(), tmp_path)
    return (tmp_path / "int8.onnx").read_bytes(), calibration


def channels_last(x: Any) -> Any:
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)) if x.ndim == 4 else x


def differences(graph: QGraph, data: bytes, x: Any) -> dict[int, int]:
    """Steps of the output between the integer reference and ONNX Runtime."""
    scale = float(graph.tensors[graph.ops[-1].inputs[0]].scale[0])
    reference = run(graph, [channels_last(x)])[0]
    return difference_histogram(np.rint(reference / scale), np.rint(channels_last(run_onnx(data, x)) / scale))


@pytest.mark.parametrize("name", NETS)
def test_the_reference_says_what_onnx_runtime_says(name: str, tmp_path: Path) -> None:
    data, x = quantized(name, tmp_path)
    graph = read_onnx(data, f"{name}.onnx")
    _, steps, kinds = NETS[name]
    assert tuple(op.kind for op in graph.ops) == ("QUANTIZE", *kinds, "DEQUANTIZE")
    assert graph.tensors[graph.inputs[0]].shape == (1, 6, 9, 2)
    histogram = differences(graph, data, x)
    assert max(map(abs, histogram)) <= steps, histogram
    assert histogram[0] >= 0.6 * sum(histogram.values()), histogram


@pytest.mark.parametrize("name", ["same", "flatten dense", "residual", "padded pools"])
def test_uint8_activations_are_the_same_integers(name: str, tmp_path: Path) -> None:
    data, x = quantized(name, tmp_path)
    signed, unsigned = read_onnx(data, "a"), read_onnx(uint8_variant(data), "a")
    assert np.array_equal(run(signed, [channels_last(x)])[0], run(unsigned, [channels_last(x)])[0])
    assert [t.zero_point for t in signed.tensors] == [t.zero_point for t in unsigned.tensors]


def test_a_float_model_is_told_from_a_qdq_model(tmp_path: Path) -> None:
    data, _ = quantized("same", tmp_path)
    assert is_qdq(data) and not is_qdq(build("same")[0])


@pytest.mark.parametrize("content", [b"", b"not onnx at all", b"\x08\x0a", bytes(100)])
def test_what_is_no_onnx_is_refused(content: bytes) -> None:
    with pytest.raises(ArtifactError):
        is_qdq(content)
    with pytest.raises(ArtifactError, match=r"m\.onnx"):
        read_onnx(content, "m.onnx")


def test_truncations_and_flipped_bits_end_in_one_sentence(tmp_path: Path) -> None:
    data, _ = quantized("flatten dense", tmp_path)
    random = np.random.Generator(np.random.Philox(5))
    broken = [data[:length] for length in range(0, len(data), 211)]
    for position in random.integers(0, len(data), 150):
        flipped = bytearray(data)
        flipped[position] ^= 1 << int(random.integers(0, 8))
        broken.append(bytes(flipped))
    refused = 0
    for content in broken:
        try:
            read_onnx(content, "m.onnx")
        except EdgekdError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > len(range(0, len(data), 211)) * 0.9


def edited(tmp_path: Path, name: str = "same") -> onnx.ModelProto:
    return onnx.load_model_from_string(quantized(name, tmp_path)[0])


def refusal(model: onnx.ModelProto) -> str:
    with pytest.raises(UnsupportedOpError) as caught:
        read_onnx(model.SerializeToString(), "m.onnx")
    assert "m.onnx" in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def test_an_unknown_operator_is_named_with_its_layer_and_shapes(tmp_path: Path) -> None:
    model = edited(tmp_path)
    conv = next(n for n in model.graph.node if n.op_type == "Conv")
    output = conv.output[0]
    conv.output[0] = "before"
    model.graph.node.append(helper.make_node("HardSwish", ["before"], [output], name="swish"))
    nodes = sorted(model.graph.node, key=lambda n: n.name == "swish")
    at = next(i for i, n in enumerate(nodes) if n.op_type == "QuantizeLinear" and n.input[0] == output)
    nodes.insert(at, nodes.pop())
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert "layer 'swish': HardSwish (1x5x6x9 -> 1x5x6x9)" in refusal(model)


def test_a_layer_without_quantization_is_named(tmp_path: Path) -> None:
    model = edited(tmp_path)
    conv = [n for n in model.graph.node if n.op_type == "Conv"]
    conv[1].input[0] = conv[0].output[0]
    assert "several readers" in refusal(model)


@pytest.mark.parametrize("extents", [(4, 2, 6, 9), (None, 2, 6, 9), (1, 2, None, 9)])
def test_batches_and_dynamic_shapes_are_refused(tmp_path: Path, extents: tuple[int | None, ...]) -> None:
    model = edited(tmp_path)
    for dim, extent in zip(model.graph.input[0].type.tensor_type.shape.dim, extents, strict=True):
        dim.Clear()
        if extent is None:
            dim.dim_param = "n"
        else:
            dim.dim_value = extent
    del model.graph.value_info[:]
    for dim in model.graph.output[0].type.tensor_type.shape.dim:
        dim.Clear()
    assert "batch 1" in refusal(model)


def test_weights_with_a_zero_point_are_refused(tmp_path: Path) -> None:
    model = edited(tmp_path, "matmul")
    zero = next(t for t in model.graph.initializer if t.name == "constant_0_zero_point")
    zero.CopyFrom(numpy_helper.from_array(np.array(3, np.int8), zero.name))
    assert "zero point 3; quantize them symmetrically" in refusal(model)


def test_grouped_convolutions_are_refused(tmp_path: Path) -> None:
    net = Net(1, 4, 6, 9)
    quantize_onnx(net.model(net.conv("input", 4, 4, group=2)), net.samples(), QuantizeParams(), tmp_path)
    assert "2 groups of 2 channels" in refusal(onnx.load(tmp_path / "int8.onnx"))


def test_a_float_model_is_refused_by_the_reader() -> None:
    with pytest.raises(UnsupportedOpError, match=r"not constant int8|is not quantized"):
        read_onnx(build("same")[0], "float.onnx")


def test_a_float_bias_is_quantized_to_the_products_scale(tmp_path: Path) -> None:
    """Other quantizers leave the bias in float."""
    data, x = quantized("same", tmp_path)
    model = onnx.load_model_from_string(data)
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and constants.get(node.input[0], np.zeros(0)).dtype == np.int32:
            real = constants[node.input[0]] * constants[node.input[1]]
            model.graph.initializer.append(numpy_helper.from_array(real.astype(np.float32), node.output[0]))
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    graph, floats = read_onnx(data, "a"), read_onnx(model.SerializeToString(), "a")
    assert np.array_equal(run(graph, [channels_last(x)])[0], run(floats, [channels_last(x)])[0])


def test_int8_edges_are_kept(tmp_path: Path) -> None:
    """A model whose input and output are int8, without Q in front and DQ behind."""
    data, x = quantized("same", tmp_path)
    model = onnx.load_model_from_string(data)
    first = next(n for n in model.graph.node if n.input[0] == "input")
    last = next(n for n in model.graph.node if n.output[0] == model.graph.output[0].name)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info(first.output[0], 3, [1, 2, 6, 9]))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info(last.input[0], 3, [1, 3, 6, 9]))
    model.graph.node.remove(last)
    model.graph.node.remove(first)
    graph, floats = read_onnx(model.SerializeToString(), "a"), read_onnx(data, "a")
    assert [op.kind for op in graph.ops] == ["CONV_2D", "CONV_2D"]
    entry = graph.tensors[graph.inputs[0]]
    integers = np.clip(np.rint(channels_last(x) / entry.scale[0]) + entry.zero_point, -128, 127).astype(
        np.int8
    )
    leave = graph.tensors[graph.outputs[0]]
    real = (run(graph, [integers])[0].astype(np.float32) - leave.zero_point) * leave.scale[0]
    assert np.abs(real - run(floats, [channels_last(x)])[0]).max() <= leave.scale[0] * 1.01


def with_clamp(model: onnx.ModelProto, limits: tuple[float, float] | None) -> bytes:
    """`model` with a Relu (None) or a Clip between its first Conv and the QuantizeLinear."""
    at = next(i for i, n in enumerate(model.graph.node) if n.op_type == "Conv")
    output = model.graph.node[at].output[0]
    model.graph.node[at].output[0] = "before_clamp"
    nodes = list(model.graph.node)
    if limits is None:
        nodes.insert(at + 1, helper.make_node("Relu", ["before_clamp"], [output]))
    else:
        nodes.insert(at + 1, helper.make_node("Clip", ["before_clamp", "low", "high"], [output]))
        for name, limit in zip(("low", "high"), limits, strict=True):
            model.graph.initializer.append(numpy_helper.from_array(np.float32(limit), name))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("name", "limits", "fused"),
    [
        ("same", None, "RELU"),
        ("dilated", None, "RELU"),
        ("dilated", (0.0, 6.0), "RELU6"),
        ("dilated", (-1e3, 1e3), "NONE"),
    ],
)
def test_a_clamp_in_front_of_the_quantizer_is_fused(
    name: str, limits: tuple[float, float] | None, fused: str, tmp_path: Path
) -> None:
    data, x = quantized(name, tmp_path)
    clamped = with_clamp(onnx.load_model_from_string(data), limits)
    graph = read_onnx(clamped, "m.onnx")
    conv = next(op for op in graph.ops if op.kind == "CONV_2D")
    assert conv.attrs["activation"] == fused
    assert max(map(abs, differences(graph, clamped, x))) <= 1


def test_a_clamp_that_cannot_be_fused_is_refused(tmp_path: Path) -> None:
    data, _ = quantized("dilated", tmp_path)
    model = onnx.load_model_from_string(with_clamp(onnx.load_model_from_string(data), (-0.5, 0.5)))
    assert "a clamp to -0.5 .. 0.5 behind it cannot be fused" in refusal(model)


def test_weights_in_float_behind_their_own_quantizer_are_read(tmp_path: Path) -> None:
    """As torch's exporters leave them: float constant, QuantizeLinear, DequantizeLinear."""
    data, x = quantized("depthwise", tmp_path)
    model = onnx.load_model_from_string(data)
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        held = constants.get(node.input[0])
        if node.op_type == "DequantizeLinear" and held is not None and held.dtype == np.int8:
            scale = constants[node.input[1]].reshape(-1, *[1] * (held.ndim - 1))
            real = numpy_helper.from_array((held * scale).astype(np.float32), node.input[0] + "_real")
            model.graph.initializer.append(real)
            quantizer = helper.make_node(
                "QuantizeLinear", [real.name, *node.input[1:]], [real.name + "_int8"], axis=0
            )
            nodes.append(quantizer)
            node.input[0] = quantizer.output[0]
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    graph, other = read_onnx(data, "a"), read_onnx(model.SerializeToString(), "a")
    assert np.array_equal(run(graph, [channels_last(x)])[0], run(other, [channels_last(x)])[0])

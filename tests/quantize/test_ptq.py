"""Post-training quantization: what TFLite's specification asks for, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekd.data import load_dataset
from edgekd.errors import ArtifactError, UnsupportedOpError
from edgekd.evaluate.metrics import agreement
from edgekd.export.onnx_session import run_onnx
from edgekd.qgraph.onnx_reader import read_onnx
from edgekd.qgraph.reference import run
from edgekd.quantize.activation import uint8_variant
from edgekd.quantize.ptq import quantize_onnx
from edgekd.recipe import QuantizeParams
from tests.learn.chain import Chain
from tests.quantize.nets import NETS, Net, build

PARAMS = QuantizeParams()


def quantized(model: bytes, calibration: Any, out: Path, params: QuantizeParams = PARAMS) -> bytes:
    quantize_onnx(model, calibration, params, out)
    return (out / "int8.onnx").read_bytes()


@pytest.mark.parametrize("name", NETS)
def test_integers_follow_the_specification(name: str, tmp_path: Path) -> None:
    graph = read_onnx(quantized(*build(name), tmp_path), name)
    for op in graph.ops:
        tensors = [graph.tensors[i] for i in op.inputs]
        output = graph.tensors[op.outputs[0]]
        if op.kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            value, weights, bias = tensors
            assert weights.data is not None and np.abs(weights.data.astype(int)).max() == 127
            assert weights.zero_point == bias.zero_point == 0 and bias.dtype == "int32"
            channels = 1 if op.kind == "FULLY_CONNECTED" else output.shape[-1]
            assert len(weights.scale) == channels
            assert np.array_equal(bias.scale, value.scale * weights.scale)
        if op.kind in ("MAX_POOL_2D", "AVERAGE_POOL_2D", "RESHAPE", "PAD", "CONCATENATION"):
            quantized_inputs = tensors if op.kind == "CONCATENATION" else tensors[:1]
            for tensor in quantized_inputs:
                assert tensor.scale == output.scale and tensor.zero_point == output.zero_point
        fixed = {"SOFTMAX": (1 / 256, -128), "LOGISTIC": (1 / 256, -128), "TANH": (1 / 128, 0)}
        if op.kind in fixed:
            assert (float(output.scale[0]), output.zero_point) == fixed[op.kind]


def test_a_relu_costs_nothing_and_its_range_starts_at_zero(tmp_path: Path) -> None:
    graph = read_onnx(quantized(*build("same"), tmp_path), "same")
    assert [op.kind for op in graph.ops] == ["QUANTIZE", "CONV_2D", "CONV_2D", "DEQUANTIZE"]
    assert graph.tensors[graph.ops[1].outputs[0]].zero_point == -128


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    assert quantized(*build("concat"), tmp_path) == quantized(*build("concat"), tmp_path)


def test_a_percentile_gives_narrower_ranges_than_the_extremes(tmp_path: Path) -> None:
    model, x = build("same")
    x[0, 0, 0, 0] = 40.0
    wide = read_onnx(quantized(model, x, tmp_path), "a")
    narrow = read_onnx(quantized(model, x, tmp_path, QuantizeParams("percentile", 99.0)), "a")
    assert narrow.tensors[narrow.ops[0].outputs[0]].scale < 0.5 * wide.tensors[wide.ops[0].outputs[0]].scale


def test_the_student_keeps_its_answers(chain: Chain) -> None:
    """Integer reference, ONNX Runtime on the int8 and on the float model, over the whole test split."""
    data = load_dataset(chain.data)
    x, _ = data.part("test")
    int8 = chain.int8.read_bytes()
    graph = read_onnx(int8, "int8.onnx")
    kinds = [op.kind for op in graph.ops]
    assert kinds == [
        "QUANTIZE",
        *("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D"),
        *("MEAN", "FULLY_CONNECTED", "DEQUANTIZE"),
    ]
    reference = run(graph, [np.ascontiguousarray(x.transpose(0, 2, 3, 1))])[0]
    runtime = run_onnx(int8, x)
    assert agreement(reference, runtime) >= 0.99
    assert agreement(runtime, run_onnx(chain.model.read_bytes(), x)) >= 0.97
    step = float(graph.tensors[graph.ops[-1].inputs[0]].scale[0])
    assert np.abs(reference - runtime).max() <= 3 * step


def test_the_uint8_variant_answers_alike(chain: Chain) -> None:
    data = load_dataset(chain.data)
    x, _ = data.part("validation")
    int8 = chain.int8.read_bytes()
    graph = read_onnx(int8, "int8.onnx")
    step = float(graph.tensors[graph.ops[-1].inputs[0]].scale[0])
    assert np.abs(run_onnx(int8, x) - run_onnx(uint8_variant(int8), x)).max() <= 2 * step


def test_the_uint8_variant_has_uint8_activations_and_int8_weights(chain: Chain) -> None:
    model = onnx.load_model_from_string(uint8_variant(chain.int8.read_bytes()))
    onnx.checker.check_model(model)
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            assert constants[node.input[2]].dtype == np.uint8
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            assert constants[node.input[0]].dtype in (np.int8, np.int32)


def test_the_uint8_variant_of_what_is_no_int8_model_is_refused(chain: Chain) -> None:
    with pytest.raises(ArtifactError, match="no int8 activations"):
        uint8_variant(chain.model.read_bytes())
    with pytest.raises(ArtifactError, match=r"not valid ONNX|no int8 activations"):
        uint8_variant(b"nothing")


def test_no_path_or_trace_survives(chain: Chain) -> None:
    for path in (chain.model, chain.int8):
        content = path.read_bytes()
        for trace in (b"/tmp", b"/work", b"/home", b"/root", b".py", b"Traceback", str(Path.cwd()).encode()):
            assert trace not in content, (path.name, trace)


CALIBRATIONS = [
    (np.zeros((24, 2, 6, 9), np.float32), "all calibration samples are equal"),
    (np.ones((9, 2, 6, 9), np.float32), "9 calibration samples are too few"),
    (np.zeros((0, 2, 6, 9), np.float32), "0 calibration samples are too few"),
    (np.zeros((24, 6, 9, 2), np.float32), r"have shape \(6, 9, 2\) and the model takes \(2, 6, 9\)"),
    (np.zeros((24, 108), np.float32), r"have shape \(108,\)"),
    (np.full((24, 2, 6, 9), np.nan, np.float32), "holds NaN or infinity"),
]


@pytest.mark.parametrize(("calibration", "said"), CALIBRATIONS)
def test_calibration_that_says_nothing_is_refused(calibration: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=said):
        quantize_onnx(build("same")[0], calibration, PARAMS, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_unsupported_operator_is_named_with_layer_and_shapes(tmp_path: Path) -> None:
    net = Net(1, 2, 6, 9)
    model = net.model(net.add("Elu", net.conv("input", 2, 4)))
    with pytest.raises(UnsupportedOpError, match=r"'node_elu_1': operator Elu \(1x4x4x7 -> 1x4x4x7\)"):
        quantize_onnx(model, net.samples(), PARAMS, tmp_path)


@pytest.mark.parametrize(("batch", "said"), [("n", r"dynamic shape \[\?, 2, 6, 9\]"), (4, "has batch 4")])
def test_dynamic_shapes_and_batches_are_refused(batch: int | str, said: str, tmp_path: Path) -> None:
    net = Net(1, 2, 6, 9)
    model = net.model(net.conv("input", 2, 4), batch=batch)
    with pytest.raises(UnsupportedOpError, match=said):
        quantize_onnx(model, net.samples(), PARAMS, tmp_path)


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_what_is_no_onnx_is_refused(content: bytes | None, tmp_path: Path) -> None:
    model, x = build("same")
    with pytest.raises(ArtifactError, match="ONNX"):
        quantize_onnx(model[: len(model) // 2] if content is None else content, x, PARAMS, tmp_path)


@pytest.mark.parametrize("opset", [11, 13, 17])
def test_older_exporters_are_understood(opset: int, tmp_path: Path) -> None:
    """Constant nodes in the graph, weights listed as inputs, axes as an attribute."""
    net = Net(1, 2, 6, 9)
    x = net.add("Relu", net.conv("input", 2, 4))
    x = net.add("ReduceMean", x, axes=[2, 3], keepdims=0)
    model = onnx.load_model_from_string(net.model(net.dense(x, 4, 3), opset=opset))
    first, *rest = model.graph.initializer
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [first.name], value=first))
    model.graph.input.append(onnx.helper.make_tensor_value_info(rest[0].name, 1, list(rest[0].dims)))
    del model.graph.initializer[:]
    model.graph.initializer.extend(rest)
    graph = read_onnx(quantized(model.SerializeToString(), net.samples(), tmp_path), "old.onnx")
    assert [op.kind for op in graph.ops][1:-1] == ["CONV_2D", "MEAN", "FULLY_CONNECTED"]


def test_two_inputs_are_refused(tmp_path: Path) -> None:
    net = Net(1, 2, 6, 9)
    model = onnx.load_model_from_string(net.model(net.add("Add", "input", "other")))
    other = model.graph.input.add()
    other.CopyFrom(model.graph.input[0])
    other.name = "other"
    model = onnx.shape_inference.infer_shapes(model)
    with pytest.raises(UnsupportedOpError, match=r"has 2 inputs \(input, other\)"):
        quantize_onnx(model.SerializeToString(), net.samples(), PARAMS, tmp_path)

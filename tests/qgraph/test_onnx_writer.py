"""The ONNX that is written of a graph: read back it is the same graph, and ONNX Runtime answers alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd.errors import UnsupportedOpError
from edgekd.qgraph.edges import dequantize_output, strip_float_edges
from edgekd.qgraph.ir import Op, QGraph, Tensor
from edgekd.qgraph.onnx_reader import read_onnx
from edgekd.qgraph.onnx_writer import write_onnx
from edgekd.qgraph.reference import run
from edgekd.qgraph.tflite_reader import read_tflite
from tests.graphs import inputs_for, small_net

MODELS = ("ad01_int8", "kws_ref_model", "pretrainedResnet_quant", "vww_96_int8")


def through_onnx(graph: QGraph, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outputs of the graph that is read back, and ONNX Runtime's of both models, in the output's integers."""
    from edgekd.export.onnx_session import run_onnx

    taken, given = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    real = dequantize_output(x, taken)
    real = np.ascontiguousarray(np.moveaxis(real, -1, 1)) if real.ndim == 4 else real
    quantized = write_onnx(graph, quantized=True)
    assert write_onnx(graph, quantized=True) == quantized
    back = run(strip_float_edges(read_onnx(quantized, "written.onnx")), [x])[0]
    answers = [run_onnx(data, real) for data in (quantized, write_onnx(graph, quantized=False))]
    return (back, *(each / given.scale[0] + given.zero_point for each in answers))  # type: ignore[return-value]


@pytest.mark.parametrize("seed", [3, 4])
def test_a_small_net_comes_back_as_it_was(seed: int) -> None:
    random = np.random.default_rng(seed)
    graph = small_net(random)
    x = inputs_for(graph, random, 30)[0]
    back, quantized, real = through_onnx(graph, x)
    expected = run(graph, [x])[0]
    assert np.array_equal(back, expected)
    assert (np.abs(quantized - expected) < 1.5).mean() > 0.95 and np.isfinite(real).all()


def test_the_float_model_computes_with_the_real_values() -> None:
    random = np.random.default_rng(7)
    scales = [np.float32([each]) for each in (0.1, 0.02, 0.1 * 0.02, 0.05)]
    weights, bias = random.integers(-127, 128, (4, 6)), random.integers(-500, 500, 4)
    tensors = (
        Tensor("x", (1, 6), "int8", scales[0], 3),
        Tensor("w", (4, 6), "int8", scales[1], data=weights.astype(np.int8)),
        Tensor("b", (4,), "int32", scales[2], data=bias.astype(np.int32)),
        Tensor("y", (1, 4), "int8", scales[3], -5),
    )
    op = Op("FULLY_CONNECTED", (0, 1, 2), (3,), {"activation": "NONE"})
    x = random.integers(-128, 128, (20, 6)).astype(np.int8)
    _, _, real = through_onnx(QGraph("dense", tensors, (op,), (0,), (3,)), x)
    exact = ((x - 3.0) * 0.1) @ (weights * 0.02).T + bias * 0.002
    assert real == pytest.approx(exact / 0.05 - 5, abs=1e-3)


@pytest.mark.shared
@pytest.mark.parametrize("model", MODELS)
def test_the_mlperf_models_come_back_byte_for_byte(shared: Path, model: str) -> None:
    folder = shared / "data" / "mlperf_tiny"
    graph = read_tflite((folder / "models" / f"{model}.tflite").read_bytes(), model)
    sides = []
    for side, index in (("input", graph.inputs[0]), ("output", graph.outputs[0])):
        data = np.fromfile(folder / "golden" / f"{model}.{side}.bin", np.int8)
        sides.append(data.reshape(-1, *graph.tensors[index].shape[1:])[:8])
    assert np.array_equal(through_onnx(graph, sides[0])[0], sides[1])


def test_an_op_that_has_no_form_in_onnx_is_named() -> None:
    graph = small_net(np.random.default_rng(3))
    odd = Op("TABLE", graph.ops[-1].inputs, graph.ops[-1].outputs)
    broken = QGraph(graph.name, graph.tensors, (*graph.ops[:-1], odd), graph.inputs, graph.outputs)
    with pytest.raises(UnsupportedOpError):
        write_onnx(broken, quantized=True)

"""Equalization, bias correction, guards and bits by layer: by hand, and in whole models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest

from edgekd.errors import BudgetError, ConfigError
from edgekd.export.onnx_session import run_onnx
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.onnx_reader import read_onnx
from edgekd.qgraph.reference import run
from edgekd.qgraph.rounding import Grid, levels
from edgekd.quantize.equalize import equalize, factors, shift
from edgekd.quantize.layers import constant, layers_of
from edgekd.quantize.mixed import Sensitivity, choose, sensitivities
from edgekd.quantize.ptq import quantize_onnx
from edgekd.recipe import LayerBits, QuantizeParams
from tests.quantize.nets import NETS, Net, build

BELOW_NOISE = 0.01  # squared error of 8 bits as a share of the outputs' variance


def graph_of(model: bytes, x: Any, params: QuantizeParams, out: Path) -> QGraph:
    quantize_onnx(model, x, params, out)
    return read_onnx((out / "int8.onnx").read_bytes(), "int8.onnx")


def error_of(graph: QGraph, model: bytes, x: Any) -> float:
    """Squared error against the float model as a share of its variance."""
    y = run_onnx(model, x)
    found = run(graph, [np.ascontiguousarray(np.moveaxis(x, 1, -1))])[0]
    found = np.moveaxis(found, -1, 1) if found.ndim == 4 else found
    return float(((found.reshape(y.shape) - y) ** 2).mean() / y.var())


@pytest.mark.parametrize("name", NETS)
def test_every_refinement_keeps_what_the_model_computes(name: str, tmp_path: Path) -> None:
    model, x = build(name)
    params = QuantizeParams(
        "mse", bias_correction=True, equalize=True, bias_guard=True, scale_floor=1e-4, weight_bits=8
    )
    assert error_of(graph_of(model, x, params, tmp_path), model, x) < BELOW_NOISE


def test_equalization_by_hand() -> None:
    """Ranges 8 and 2 meet at sqrt(8 * 2) = 4: the first is divided by 2 and the second multiplied."""
    assert factors(np.array([8.0, 1, 0]), np.array([2.0, 4, 3])).tolist() == [2, 0.5, 1]


@pytest.mark.parametrize("name", ["same", "depthwise", "residual"])
def test_equalization_changes_nothing_of_the_function(name: str) -> None:
    model, x = build(name)
    proto = onnx.load_model_from_string(model)
    assert equalize(proto) == {"same": 1, "depthwise": 1, "residual": 0}[name]
    assert np.abs(run_onnx(proto.SerializeToString(), x) - run_onnx(model, x)).max() < 1e-4


def test_equalization_balances_channels_of_different_size() -> None:
    net = Net(1, 2, 6, 9)
    weights = net.random.normal(size=(4, 2, 3, 3)) * np.array([1, 0.1, 10, 1])[:, None, None, None]
    first = net.add("Conv", "input", net.constant(weights.astype(np.float32)), kernel_shape=[3, 3])
    proto = onnx.load_model_from_string(net.model(net.conv(net.add("Relu", first), 4, 3)))
    equalize(proto)
    ahead, behind = (np.abs(constant(proto, layer.weights)) for layer in layers_of(proto))
    assert ahead.max(axis=(1, 2, 3)) == pytest.approx(behind.max(axis=(0, 2, 3)), rel=1e-3)


def test_the_shift_of_a_rounded_layer_by_hand() -> None:
    """W = 0.3, 0.8 on whole numbers is 0, 1: off by -0.3 and 0.2. E[x] = 10, 5: -3 + 1 = -2."""
    grid = Grid(np.ones(1, np.float32), levels(4))
    assert shift(np.array([[0.3, 0.8]], np.float32), grid, np.array([10.0, 5])) == pytest.approx([-2])
    depthwise = np.array([[[[0.3]]], [[[0.8]]]], np.float32)
    assert shift(depthwise, grid, np.array([10.0, 5]), groups=2) == pytest.approx([-3, 1])
    assert shift(np.array([[0.3], [0.8]], np.float32), grid, np.array([10.0, 5]), axis=1) == pytest.approx(
        [-2]
    )


def test_bias_correction_takes_the_mean_error_out(tmp_path: Path) -> None:
    model, x = build("flatten dense")
    x = np.abs(x)
    mean = run_onnx(model, x).mean(axis=0)
    found = []
    for corrected in (False, True):
        graph = graph_of(model, x, QuantizeParams(weight_bits=2, bias_correction=corrected), tmp_path)
        answers = run(graph, [np.ascontiguousarray(np.moveaxis(x, 1, -1))])[0]
        found.append(np.abs(answers.mean(axis=0) - mean).max())
    assert found[1] < 0.6 * found[0]


@pytest.mark.parametrize("bits", [4, 2])
def test_weights_of_fewer_bits_are_marked_and_small(bits: int, tmp_path: Path) -> None:
    for name in ("depthwise", "matmul", "flatten dense"):
        model, x = build(name)
        graph = graph_of(model, x, QuantizeParams(weight_bits=bits), tmp_path)
        encoded = [t for t in graph.tensors if t.encoding is not None]
        assert len(encoded) == len(layers_of(onnx.load_model_from_string(model)))
        for tensor in encoded:
            assert tensor.encoding is not None and tensor.encoding.stored_bits == bits
            assert tensor.data is not None and set(np.unique(tensor.data)) <= set(levels(bits).tolist())
        assert error_of(graph, model, x) < {4: 0.05, 2: 0.6}[bits]


def test_a_dead_channel_with_a_bias_is_guarded(tmp_path: Path) -> None:
    """Weights of 1e-12 and a bias of 1 ask for an int32 of 1e13."""
    net = Net(1, 2, 6, 9)
    weights = net.random.normal(size=(3, 2, 3, 3)).astype(np.float32)
    weights[1] *= 1e-12
    given = net.constant(weights), net.constant(np.array([0.5, 1.0, -0.5], np.float32))
    model = net.model(net.add("Conv", "input", *given, kernel_shape=[3, 3]))
    x = net.samples()
    graph = graph_of(model, x, QuantizeParams(bias_guard=True), tmp_path)
    bias = graph.tensors[graph.ops[1].inputs[2]]
    assert bias.data is not None and 2**29 < np.abs(bias.data.astype(np.int64)).max() < 2**30
    dead = run(graph, [np.ascontiguousarray(np.moveaxis(x, 1, -1))])[0][..., 1]
    step = float(graph.tensors[graph.ops[1].outputs[0]].scale[0])
    assert np.abs(dead - 1).max() <= step
    floored = graph_of(model, x, QuantizeParams(scale_floor=0.01), tmp_path)
    scales = floored.tensors[floored.ops[1].inputs[1]].scale
    assert scales.min() == pytest.approx(0.01 * scales.max(), rel=1e-5)


def row(layer: str, bits: int, loss: float, stored_bytes: int) -> Sensitivity:
    return Sensitivity(layer, bits, loss, 0.0, stored_bytes)


ROWS = [
    *(row("a", 8, 0, 100), row("a", 4, 0.10, 50), row("a", 2, 0.9, 25)),
    *(row("b", 8, 0, 1000), row("b", 4, 0.50, 500), row("b", 2, 2.0, 250)),
]


def test_the_choice_by_loss_a_byte() -> None:
    """b to 4 bits costs 0.001 a byte, a to 4 0.002; then b to 2 0.006, a to 2 0.032."""
    assert choose(ROWS, 1100, {}) == {"a": 8, "b": 8}
    assert choose(ROWS, 700, {}) == {"a": 8, "b": 4}
    assert choose(ROWS, 560, {}) == {"a": 4, "b": 4}
    assert choose(ROWS, 300, {}) == {"a": 4, "b": 2}
    assert choose(ROWS, 1060, {"b": 8}) == {"a": 4, "b": 8}
    with pytest.raises(BudgetError, match=r"still take 275 bytes and quantize.max_weight_bytes allows 274"):
        choose(ROWS, 274, {})


def test_a_budget_decides_bits_and_leaves_a_report(tmp_path: Path) -> None:
    model, x = build("flatten dense")
    metrics = quantize_onnx(model, x, QuantizeParams(max_weight_bytes=400), tmp_path)
    said = json.loads((tmp_path / "sensitivity.json").read_text("utf-8"))
    rows = [Sensitivity(**each) for each in said["layers"]]
    assert said["chosen_bits"] == metrics["bits"] == {"constant_0": 8, "constant_2": 4}
    assert sum(r.stored_bytes for r in rows if metrics["bits"][r.layer] == r.bits) <= 400
    assert rows == sensitivities(onnx.load_model_from_string(model), x)
    by = {(r.layer, r.bits): r.loss for r in rows}
    assert all(0 == by[layer, 8] < by[layer, 4] < by[layer, 2] for layer in metrics["bits"])
    root = ElementTree.fromstring((tmp_path / "sensitivity.svg").read_text("utf-8"))
    assert len(root.findall("{*}rect")) == 1 + 2 + 2 * len(metrics["bits"])


def test_single_layers_have_bits_of_their_own(tmp_path: Path) -> None:
    model, x = build("flatten dense")
    params = QuantizeParams(layer_bits=(LayerBits("constant_2", 4),))
    metrics = quantize_onnx(model, x, params, tmp_path)
    assert metrics["bits"] == {"constant_0": 8, "constant_2": 4}
    with pytest.raises(ConfigError, match=r"no weights of layer 'dense'; it has constant_0, constant_2"):
        quantize_onnx(model, x, QuantizeParams(layer_bits=(LayerBits("dense", 4),)), tmp_path)

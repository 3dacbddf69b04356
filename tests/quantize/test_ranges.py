"""Ranges by squared error and by entropy: cases worked out by hand."""

from __future__ import annotations

from math import log
from pathlib import Path

import numpy as np
import pytest

from edgekd.qgraph.onnx_reader import read_onnx
from edgekd.qgraph.reference import run
from edgekd.quantize.ptq import quantize_onnx
from edgekd.quantize.ranges import COSTS, best_range, divergence, squared_error
from edgekd.recipe import QuantizeParams
from tests.quantize.nets import Net

VALUES, COUNTS = np.array([0.0, 1, 2, 3, 6]), np.array([300.0, 300, 300, 300, 1])


def test_squared_error_weighs_rounding_against_clipping() -> None:
    """Four levels. 0 .. 6 has steps of 2: all 1s and 3s are off by 1. 0 .. 3 clips the one 6 by 3."""
    assert squared_error(VALUES, COUNTS, 0, 6, 4) == 600
    assert squared_error(VALUES, COUNTS, 0, 3, 4) == 9
    assert best_range(VALUES, COUNTS, "mse", 4) == pytest.approx((0, 3))


def test_divergence_of_merged_levels() -> None:
    """P = 1, 3, 3, 3 tenths; two levels merge 0 with 1 and 2 with 3: Q = 2, 2, 3, 3 tenths."""
    found = divergence(np.arange(4.0), np.array([1.0, 3, 3, 3]), 0, 3, 2)
    assert found == pytest.approx(0.1 * log(1 / 2) + 0.3 * log(3 / 2))


def test_divergence_counts_what_is_outside_at_the_end() -> None:
    """0 .. 2 with three levels: P = 1/4, 1/4, 2/4 (the 3 counts at 2), Q = 1/3 each."""
    found = divergence(np.arange(4.0), np.ones(4), 0, 2, 3)
    assert found == pytest.approx(0.5 * log(3 / 4) + 0.5 * log(3 / 2))


@pytest.mark.parametrize("method", COSTS)
def test_what_fits_is_not_clipped(method: str) -> None:
    values = np.arange(-100.0, 156)
    assert best_range(values, np.ones(256), method) == (-100, 155)
    assert best_range(np.zeros(3), np.ones(3), method) == (0, 0)


def test_an_outlier_is_clipped_in_a_model(tmp_path: Path) -> None:
    net = Net(1, 2, 6, 9)
    model, x = net.model(net.add("Relu", net.conv("input", 2, 3))), net.samples(600)
    x[0, 0, 0, 0] = 40.0
    scales = []
    for method in ("minmax", "mse", "entropy"):
        quantize_onnx(model, x, QuantizeParams(method), tmp_path)
        graph = read_onnx((tmp_path / "int8.onnx").read_bytes(), "a")
        scales.append(float(graph.tensors[graph.ops[0].outputs[0]].scale[0]))
        assert graph.tensors[graph.ops[1].outputs[0]].zero_point == -128  # a ReLU still costs nothing
    assert scales[2] < 0.5 * scales[0]
    assert scales[1] <= scales[0]  # at 8 bits one outlier costs more than the steps it makes


def test_a_relu_before_a_concatenation_of_other_signs_stays(tmp_path: Path) -> None:
    """Both have one scale, whose range reaches below 0: the clamp is no longer the range's end."""
    net = Net(1, 2, 6, 9)
    relu = net.add("Relu", net.conv("input", 2, 3))
    model = net.model(net.add("Concat", relu, net.conv("input", 2, 2), axis=1))
    x = net.samples()
    quantize_onnx(model, x, QuantizeParams(), tmp_path)
    graph = read_onnx((tmp_path / "int8.onnx").read_bytes(), "a")
    y = run(graph, [np.ascontiguousarray(np.moveaxis(x, 1, -1))])[0]
    assert y[..., :3].min() == 0 and y[..., 3:].min() < -1

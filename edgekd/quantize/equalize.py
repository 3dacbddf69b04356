"""Changes of a float model that make it easier to quantize and compute the same: Nagel et al. 2019.

Cross-layer equalization: a ReLU lets positive factors through, so output channel i of one convolution may
be divided by s_i where the next multiplies by it. Bias correction: what rounded weights shift on average
is taken out of the bias.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.qgraph.rounding import Grid
from edgekd.quantize.layers import Layer, bias_of, constant, layers_of, put_bias, put_constant
from edgekd.quantize.ranges import observed

Floats = npt.NDArray[np.float32]
Reals = npt.NDArray[np.float64]

_ROUNDS = 20  # over all pairs; depthwise blocks are chains and settle slowly
_SETTLED = 1e-4


def factors(first: Reals, second: Reals) -> Reals:
    """s_i = sqrt(r1_i / r2_i) from both ranges (max |w|) of each channel: both become sqrt(r1_i r2_i).

    1 where a channel is dead on either side.
    """
    alive = (first > 0) & (second > 0)
    return np.sqrt(np.where(alive, first, 1.0) / np.where(alive, second, 1.0))


def equalize(model: Any) -> int:
    """Equalize every pair of convolutions of an onnx.ModelProto in place; returns how many pairs there are.

    A pair has nothing but a ReLU between, and nobody else reads there.
    """
    pairs = list(_pairs(model))
    for _ in range(_ROUNDS if pairs else 0):
        if max(_equalize_pair(model, *pair) for pair in pairs) < _SETTLED:
            break
    return len(pairs)


def _pairs(model: Any) -> Iterator[tuple[Layer, Layer]]:
    readers: dict[str, list[Any]] = {value.name: [None] for value in model.graph.output}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    layers = [layer for layer in layers_of(model) if layer.node.op_type == "Conv"]
    uses = [layer.weights for layer in layers] + [layer.bias for layer in layers if layer.bias]
    by_output = {layer.node.output[0]: layer for layer in layers}
    for first in layers:
        output = first.node.output[0]
        while len(readers[output]) == 1 and readers[output][0] and readers[output][0].op_type == "Relu":
            output = readers[output][0].output[0]
        reader = readers[output][0] if len(readers[output]) == 1 else None
        second = by_output.get(reader.output[0]) if reader else None
        if second is None or second.node.input[0] != output:
            continue
        alone = all(uses.count(name) == 1 for name in (first.weights, second.weights, first.bias) if name)
        if alone and _channels_in(model, second) is not None:
            yield first, second


def _channels_in(model: Any, layer: Layer) -> Reals | None:
    """max |w| of each input channel; None for groups that are neither one nor depthwise."""
    weights = np.abs(constant(model, layer.weights)).astype(np.float64)
    if layer.groups == 1:
        return np.asarray(weights.max(axis=(0, 2, 3)))
    if weights.shape[1] != 1:
        return None
    each = weights.reshape(layer.groups, -1)  # depthwise: the filters of an input channel stand together
    return np.asarray(each.max(axis=1))


def _equalize_pair(model: Any, first: Layer, second: Layer) -> float:
    """Returns how far the largest factor is from 1."""
    ahead, behind = (constant(model, layer.weights).astype(np.float64) for layer in (first, second))
    inputs = _channels_in(model, second)
    assert inputs is not None
    s = factors(np.abs(ahead).reshape(len(ahead), -1).max(axis=1), inputs)
    put_constant(model, first.weights, (ahead / s[:, None, None, None]).astype(np.float32))
    if first.bias:
        bias = bias_of(model, first, len(ahead))
        put_constant(model, first.bias, (bias / s).astype(np.float32))
    if second.groups == 1:
        behind = behind * s[None, :, None, None]
    else:
        behind = behind * np.repeat(s, len(behind) // second.groups)[:, None, None, None]
    put_constant(model, second.weights, behind.astype(np.float32))
    return float(np.abs(s - 1).max())


def shift(weights: Floats, grid: Grid, means: Reals, axis: int = 0, groups: int = 1) -> Reals:
    """(W' - W) E[x] by output channel: what rounding W to W' adds to the mean output; padding left out.

    weights: [out, in / groups, kh, kw], or two axes with the outputs on `axis`. means: E[x] of the inputs.
    """
    error = np.moveaxis(grid.values(weights).astype(np.float64) - weights, axis, 0)
    error = error.reshape(*error.shape[:2], -1).sum(axis=2)
    each = len(error) // groups
    taken = means.reshape(groups, -1).repeat(each, axis=0)
    return np.asarray((error * taken).sum(axis=1))


def correct_biases(model: Any, grids: Mapping[str, Grid], calibration: Floats) -> None:
    """Take `shift` out of the bias of each Conv and Gemm of an onnx.ModelProto, in place.

    grids: by the weights' name. E[x] is the mean over the calibration samples of the float model's input.
    """
    layers = [layer for layer in layers_of(model) if layer.node.op_type != "MatMul"]
    names = sorted({layer.node.input[0] for layer in layers})
    means: dict[str, Reals] = {}
    for seen in observed(model, names, calibration):
        for name, x in seen.items():
            mean = x.astype(np.float64).reshape(*x.shape[:2], -1).mean(axis=(0, 2))
            means[name] = means.get(name, 0.0) + mean / len(calibration)
    for layer in layers:
        weights = constant(model, layer.weights)
        found = shift(weights, grids[layer.weights], means[layer.node.input[0]], layer.axis, layer.groups)
        bias = bias_of(model, layer, len(found)) - found
        put_bias(model, layer, bias.astype(np.float32))

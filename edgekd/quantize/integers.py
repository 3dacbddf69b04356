"""Integers put into a QDQ model: our own weights, scales and biases in place of the quantizer's.

The quantizer gives the nodes and the activations' scales (which it was told); whatever is known of the
weights, trained with the quantizer in place or of fewer bits, is written here, from integer parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from edgekd.errors import ArtifactError
from edgekd.qgraph.encoding import Encoding, encode, uniform
from edgekd.qgraph.onnx_encoding import with_encodings
from edgekd.qgraph.rounding import Grid, guarded
from edgekd.quantize.layers import Layer, bias_of, constant, layers_of, put_constant


def with_integers(quantized: Any, floating: Any, grids: Mapping[str, Grid], guard: bool) -> bytes:
    """The QDQ onnx.ModelProto with the weights of `floating` on `grids` (by weights' name), as a file.

    Biases are rounded anew to scale s_in * s_w. guard: s_w is raised until they fit an int32 with room.
    Weights of fewer than 8 bits are marked in the metadata. `quantized` is changed.
    """
    encodings: dict[str, Encoding] = {}
    for layer in layers_of(floating):
        weights = constant(floating, layer.weights)
        grid = grids[layer.weights]
        places = list(_places(quantized, layer))
        if not places:
            raise ArtifactError(f"layer {layer.name}: its weights were not quantized; export the model again")
        channels = weights.shape[layer.axis]
        bias = bias_of(floating, layer, channels).astype(np.float64)
        if guard:
            for node in places:
                scales = guarded(grid.scales, bias.astype(np.float32), _scale(quantized, node.input[0]))
                grid = replace(grid, scales=scales)
        integers = grid.integers(weights)
        _put(quantized, places[0].input[1], integers, grid.scales)
        for node in places:
            if len(node.input) > 2:
                scales = np.float32(_scale(quantized, node.input[0])) * grid.scales
                wide = np.rint(bias / scales)
                _put(quantized, node.input[2], np.clip(wide, -(2**31), 2**31 - 1).astype(np.int32), scales)
        if grid.bits < 8:
            name = _maker(quantized, places[0].input[1]).input[0]
            encodings[name] = _encoding(grid, integers, channels, layer)
    data: bytes = quantized.SerializeToString(deterministic=True)
    return with_encodings(data, encodings) if encodings else data


def _encoding(grid: Grid, integers: Any, channels: int, layer: Layer) -> Encoding:
    """Uniform integers by their own table, others by the grid's."""
    plain = uniform(grid.bits, channels, layer.axis)
    if grid.is_uniform and plain.holds(integers):
        return plain
    return encode(integers, grid.table, grid.channel_tables, layer.axis, f"layer {layer.name}")


def _places(model: Any, layer: Layer) -> Iterator[Any]:
    """The nodes of the QDQ model that read the layer's weights."""
    for node in model.graph.node:
        if node.op_type == layer.node.op_type and len(node.input) > 1:
            maker = _maker(model, node.input[1])
            if maker is not None and maker.input[0] == f"{layer.weights}_quantized":
                yield node


def _maker(model: Any, name: str) -> Any:
    return next((node for node in model.graph.node if name in node.output), None)


def _scale(model: Any, activation: str) -> float:
    """The scale of an activation behind its DequantizeLinear."""
    return float(constant(model, _maker(model, activation).input[1]).reshape(-1)[0])


def _put(model: Any, dequantized: str, integers: Any, scales: Any) -> None:
    """Integers and scales of the DequantizeLinear that gives `dequantized`, in the shapes that are there."""
    node = _maker(model, dequantized)
    shape = constant(model, node.input[1]).shape
    put_constant(model, node.input[0], integers)
    put_constant(model, node.input[1], np.asarray(scales, np.float32).reshape(shape))

"""An int8 graph of a structure with random weights: what it costs on a device, before anything is trained.

Ops, shapes and layout are those that the exported and quantized student will have; the integers are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.learn.structure import INPUT, LayerSpec, Structure
from edgekd.qgraph.encoding import uniform
from edgekd.qgraph.ir import Op, QGraph, Tensor
from edgekd.qgraph.validate import validate

_SEED = 1
_SCALE = np.array([0.04], np.float32)  # of every activation; weights are scaled so that their sums fill it


class _Blank:
    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        self.tensors: list[Tensor] = []
        self.ops: list[Op] = []

    def add(self, tensor: Tensor) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def activation(self, name: str, shape: tuple[int, ...], relu: bool = False) -> int:
        """A ReLU is the clamp at the zero point -128, as the quantizer leaves it."""
        return self.add(Tensor(name, shape, "int8", _SCALE, -128 if relu else 0))

    def linear(self, name: str, spec: LayerSpec, x: int, size: tuple[int, int], bits: int) -> int:
        """A convolution or dense layer behind tensor `x`; bits: of its weights."""
        dense, depthwise = spec.kind == "dense", spec.groups > 1
        window = () if dense else (spec.kernel, spec.kernel)
        rows = 1 if depthwise else spec.outputs
        shape = (rows, *window, spec.outputs if depthwise else spec.inputs)
        axis = 3 if depthwise else 0
        data, values = _drawn(shape, axis, bits)
        data = _moved(data, axis, len(self.ops))  # equal arrays would be stored once
        largest = (1 << bits - 1) - 1
        spread = 0.4 * largest * np.sqrt(spec.weights / spec.outputs)  # of int8 weights and activations' sums
        step = np.full(1 if dense else spec.outputs, 1 / spread, np.float32)
        encoding = uniform(bits, spec.outputs, axis) if bits < 8 else None
        weights = self.add(Tensor(f"{name}/w", shape, "int8", step, 0, axis, data, encoding))
        products = _SCALE * step
        bias = self.add(Tensor(f"{name}/b", values.shape, "int32", products, 0, 0, values))
        height, width = size
        output = (1, spec.outputs) if dense else (1, height, width, spec.outputs)
        y = self.activation(name, output, spec.relu)
        self.ops.append(Op(_kind(spec), (x, weights, bias), (y,), _attributes(spec)))
        return y

    def pool(self, name: str, x: int) -> int:
        axes = self.add(Tensor(f"{name}/axes", (2,), "int32", np.zeros(0, np.float32), 0, 0, _AXES))
        y = self.activation(name, (1, self.tensors[x].shape[-1]))
        self.ops.append(Op("MEAN", (x, axes), (y,), {"keep_dims": False}))
        return y

    def sum(self, name: str, spec: LayerSpec, x: int, other: int) -> int:
        y = self.activation(name, self.tensors[x].shape, spec.relu)
        self.ops.append(Op("ADD", (x, other), (y,), {"activation": "NONE"}))
        return y


_AXES = np.array([1, 2], np.int32)


@lru_cache(maxsize=64)
def _drawn(
    shape: tuple[int, ...], axis: int, bits: int
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int32]]:
    """(weights, biases), the same for the same shape: weights as training leaves them, normal, each output
    channel's largest at the largest of `bits`. (Uniform ones would have sums twice as large, beyond what some
    kernels take.)"""
    rng = np.random.Generator(np.random.Philox(_SEED))
    drawn = rng.standard_normal(shape)
    others = tuple(i for i in range(len(shape)) if i != axis)
    scaled = ((1 << bits - 1) - 1) * drawn / np.abs(drawn).max(others, keepdims=True)
    biases = rng.integers(-999, 1000, shape[axis])
    return np.asarray(np.rint(scaled), np.int8), biases.astype(np.int32)


def _moved(data: npt.NDArray[np.int8], axis: int, by: int) -> npt.NDArray[np.int8]:
    """Each output channel's weights moved round by some places: other bytes, of the same sums."""
    channels = np.moveaxis(data, axis, 0)
    moved = np.roll(channels.reshape(len(channels), -1), by, axis=1).reshape(channels.shape)
    return np.ascontiguousarray(np.moveaxis(moved, 0, axis))


def blank_graph(structure: Structure, bits: Mapping[int, int] | None = None) -> QGraph:
    """The validated graph (batch 1, NHWC, int8 in and out); the same bytes for the same structure.

    bits: of the weights of single layers by their place, 8, 4 or 2; 8 where a layer is not named.
    """
    bits = bits or {}
    made = _Blank(structure)
    channels, *size = structure.input_shape
    outputs = {INPUT: made.activation("input", (1, *size, channels))}
    for index, spec in enumerate(structure.layers):
        x, name = outputs[structure.source(index)], f"layers.{index}"
        if spec.kind == "pool":
            outputs[index] = made.pool(name, x)
        elif spec.kind == "add":
            assert spec.other is not None
            outputs[index] = made.sum(name, spec, x, outputs[spec.other])
        else:
            outputs[index] = made.linear(name, spec, x, structure.sizes[index], bits.get(index, 8))
    last = (outputs[len(structure.layers) - 1],)
    graph = QGraph("blank", tuple(made.tensors), tuple(made.ops), (outputs[INPUT],), last)
    validate(graph)
    return graph


def _kind(spec: LayerSpec) -> str:
    if spec.kind == "dense":
        return "FULLY_CONNECTED"
    return "DEPTHWISE_CONV_2D" if spec.groups > 1 else "CONV_2D"


def _attributes(spec: LayerSpec) -> dict[str, Any]:
    if spec.kind == "dense":
        return {"activation": "NONE"}
    strides = {"stride_h": spec.stride, "stride_w": spec.stride, "dilation_h": 1, "dilation_w": 1}
    more = {"depth_multiplier": 1} if spec.groups > 1 else {}
    return strides | {"padding": "SAME", "activation": "NONE"} | more

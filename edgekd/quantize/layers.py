"""The weighted layers of a float ONNX model: weights and biases by output channel, read and put back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

KINDS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True, eq=False)
class Layer:
    """A node with constant weights. axis: of its output channels in the weights as the file has them."""

    node: Any
    weights: str
    axis: int
    groups: int

    @property
    def name(self) -> str:
        """The name that recipes and reports give the layer: its weights' without the tail."""
        return self.weights.removesuffix(".weight")

    @property
    def per_channel(self) -> bool:
        """Whether TFLite's specification gives each output channel its own scale."""
        return bool(self.node.op_type == "Conv")

    @property
    def bias(self) -> str:
        """The bias's name, "" where there is none."""
        return self.node.input[2] if len(self.node.input) > 2 else ""


def layers_of(model: Any) -> list[Layer]:
    """Every Conv, Gemm and MatMul of an onnx.ModelProto with constant weights, in order."""
    constants = {tensor.name for tensor in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if node.op_type in KINDS and node.input[1] in constants:
            attrs = {a.name: a.i for a in node.attribute}
            first = node.op_type == "Conv" or (node.op_type == "Gemm" and attrs.get("transB", 0) == 1)
            found.append(Layer(node, node.input[1], 0 if first else 1, attrs.get("group", 1)))
    return found


def constant(model: Any, name: str) -> npt.NDArray[Any]:
    """An initializer's values."""
    from onnx import numpy_helper

    tensor = next(t for t in model.graph.initializer if t.name == name)
    return np.asarray(numpy_helper.to_array(tensor))


def put_constant(model: Any, name: str, values: npt.NDArray[Any]) -> None:
    """Replace an initializer, or append it."""
    from onnx import numpy_helper

    fresh = numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name)
    old = next((t for t in model.graph.initializer if t.name == name), None)
    if old is None:
        model.graph.initializer.append(fresh)
    else:
        old.CopyFrom(fresh)


def bias_of(model: Any, layer: Layer, channels: int) -> Floats:
    """The layer's bias, zeros where it has none; float32 [channels]."""
    if not layer.bias:
        return np.zeros(channels, np.float32)
    return np.broadcast_to(constant(model, layer.bias).reshape(-1), (channels,)).astype(np.float32)


def put_bias(model: Any, layer: Layer, bias: Floats) -> None:
    """Give a Conv or Gemm the bias; it gets an input for it where it has none."""
    if layer.bias:
        put_constant(model, layer.bias, bias)
        return
    name = f"{layer.weights}_bias"
    put_constant(model, name, bias)
    layer.node.input.append(name)

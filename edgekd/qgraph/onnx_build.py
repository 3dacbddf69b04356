"""The growing QGraph of the QDQ reader: tensors, ops, and what is still waiting for its QuantizeLinear."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import UnsupportedOpError
from edgekd.qgraph.ir import Attr, Op, Tensor
from edgekd.qgraph.onnx_encoding import StoredEncoding, read_entries
from edgekd.qgraph.onnx_model import Node, OnnxModel, Shape

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Params:
    """Scale and zero point of an int8 tensor; uint8 files are read as int8 with zero point - 128."""

    scale: np.float32
    zero_point: int

    def same(self, other: Params) -> bool:
        return bool(self.scale == other.scale) and self.zero_point == other.zero_point


@dataclass(frozen=True, eq=False)
class Value:
    """An activation: its tensor, and for one that was flattened from NCHW the (C, H, W) it came from."""

    index: int
    params: Params | None = None
    order: Shape | None = None

    @property
    def quantized(self) -> Params:
        """Its scale and zero point. Raises UnsupportedOpError for a float tensor."""
        if self.params is None:
            raise UnsupportedOpError(
                "a float tensor has no scale; quantize every activation (QDQ on both sides)"
            )
        return self.params


@dataclass(frozen=True, eq=False)
class Constant:
    """A DequantizeLinear of a constant: integers (uint8 shifted to int8), one scale or one a channel.

    stored: how the model's metadata say that the integers are stored on a device.
    """

    data: Array
    scale: npt.NDArray[np.float32]
    zero_point: int
    axis: int
    stored: StoredEncoding | None = None


@dataclass(frozen=True, eq=False)
class Pending:
    """An op whose output has no scale yet: the next node must be its activation or its QuantizeLinear.

    shape: of the output in the QGraph. clip: what a Relu or Clip behind it allows. keeps_scale: TFLite's
    operator cannot rescale, so its output has its input's scale. requantize: inputs need the output's scale.
    """

    node: Node
    kind: str
    inputs: tuple[int, ...]
    shape: Shape
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    clip: tuple[float, float] | None = None
    keeps_scale: Params | None = None
    requantize: bool = False
    order: Shape | None = None


def plain_name(name: str) -> str:
    """A tensor's name without what ONNX Runtime's quantizer hangs on it."""
    for tail, instead in (
        ("_DequantizeLinear_Output", ""),
        ("_QuantizeLinear_Output", "_int8"),
        ("_QuantizeLinear_Input", "_int8"),
    ):
        if name.endswith(tail):
            return name.removesuffix(tail) + instead
    return name


class Builder:
    """Tensors and ops in order; every method that adds gives the new tensor's index."""

    def __init__(self, model: OnnxModel) -> None:
        self.model = model
        self.encodings = read_entries(model.metadata, model.name)
        self.tensors: list[Tensor] = []
        self.ops: list[Op] = []
        self.values: dict[str, Value] = {}
        self.constants: dict[str, Constant] = {}
        self.pending: dict[str, Pending] = {}

    def tensor(self, tensor: Tensor) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def activation(self, name: str, shape: Shape, params: Params) -> int:
        return self.tensor(
            Tensor(plain_name(name), shape, "int8", np.array([params.scale]), params.zero_point)
        )

    def constant(
        self,
        name: str,
        data: Array,
        scale: npt.NDArray[np.float32] | None = None,
        axis: int = 0,
        zero_point: int = 0,
        stored: StoredEncoding | None = None,
    ) -> int:
        """stored: of the weights of a layer, whose output channels are on `axis`."""
        data = np.ascontiguousarray(data)
        empty = np.zeros(0, np.float32)
        held = empty if scale is None else scale.astype(np.float32)
        encoding = None if stored is None else stored.of(data.shape[axis], axis)
        return self.tensor(
            Tensor(plain_name(name), data.shape, str(data.dtype), held, zero_point, axis, data, encoding)
        )

    def op(
        self, kind: str, inputs: tuple[int, ...], output: int, attrs: Mapping[str, Attr] | None = None
    ) -> int:
        self.ops.append(Op(kind, inputs, (output,), dict(attrs or {})))
        return output

    def requantized(self, index: int, params: Params, name: str) -> int:
        """`index` itself where it has `params`, else a QUANTIZE of it."""
        tensor = self.tensors[index]
        if params.same(Params(np.float32(tensor.scale[0]), tensor.zero_point)):
            return index
        return self.op("QUANTIZE", (index,), self.activation(name, tensor.shape, params))

    def padded(self, value: Value, pads: tuple[tuple[int, int], ...], name: str) -> int:
        """A PAD of an NHWC activation by (before, after) for H and W; its fill is the zero point, real 0."""
        before = self.tensors[value.index]
        table = np.array([(0, 0), *pads, (0, 0)], np.int32)
        shape = tuple(int(extent + row.sum()) for extent, row in zip(before.shape, table, strict=True))
        paddings = self.constant(f"{name}/paddings", table)
        return self.op(
            "PAD", (value.index, paddings), self.activation(f"{name}/padded", shape, value.quantized)
        )

    def value(self, node: Node, position: int) -> Value:
        """The int8 activation at input `position` of `node`. Raises UnsupportedOpError when it is none."""
        name = node.input(position)
        found = self.values.get(name)
        if found is None or found.params is None:
            what = (
                "is constant"
                if name in self.constants or name in self.model.constants
                else "is not quantized"
            )
            raise self.error(
                node, f"its input {name!r} {what}; quantize every activation (QDQ on both sides)"
            )
        return found

    def shape(self, node: Node, name: str) -> Shape:
        """The ONNX shape of a tensor."""
        if name not in self.model.shapes:
            raise self.error(node, f"the shape of {name!r} is unknown; export with fixed shapes")
        return self.model.shapes[name]

    def error(self, node: Node, why: str) -> UnsupportedOpError:
        return UnsupportedOpError(f"{self.model.describe(node)}: {why}")

    def close(self, pending: Pending, params: Params, name: str) -> Value:
        """Emit `pending` now that its output's scale is known."""
        if "activation" in pending.attrs:
            pending = replace(
                pending, attrs={**pending.attrs, "activation": self._activation(pending, params)}
            )
        elif pending.clip is not None:
            self._activation(pending, params)
        inputs = pending.inputs
        if pending.requantize:
            inputs = tuple(self.requantized(i, params, f"{name}/input_{n}") for n, i in enumerate(inputs))
        held = pending.keeps_scale or params
        suffix = "" if held.same(params) else "/unscaled"
        output = self.activation(name + suffix, pending.shape, held)
        self.op(pending.kind, inputs, output, pending.attrs)
        return Value(self.requantized(output, params, name), params, pending.order)

    def _activation(self, pending: Pending, params: Params) -> str:
        """The fused activation for the pending Relu or Clip; "NONE" where the int8 range clamps as much."""
        if pending.clip is None:
            return "NONE"
        low, high = pending.clip
        if low == 0 and high in (6, float("inf")) and "activation" in pending.attrs:
            return "RELU6" if high == 6 else "RELU"
        tolerance = float(params.scale) / 2
        reached = ((-128 - params.zero_point) * params.scale, (127 - params.zero_point) * params.scale)
        if reached[0] < low - tolerance or reached[1] > high + tolerance:
            raise self.error(
                pending.node, f"a clamp to {low:g} .. {high:g} behind it cannot be fused; use Relu or Relu6"
            )
        return "NONE"

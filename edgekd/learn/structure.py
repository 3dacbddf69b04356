"""A student's structure as plain data: what it costs can be told, and written as JSON, without torch.

Layers run in order on one NCHW activation: convolutions (each with a bias, padded as the device
pads), one global average pool, one dense layer that gives the logits. There is no softmax: argmax
works on logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgekd.errors import ArtifactError, BudgetError
from edgekd.recipe import StudentParams

KINDS = ("conv", "pool", "dense")


@dataclass(frozen=True)
class LayerSpec:
    """One layer.

    kind: "conv" (kernel x kernel, TensorFlow's SAME padding), "pool" (global) or "dense".
    groups: 1, or `inputs` for a depthwise convolution. relu: clamp at zero behind the bias.
    """

    kind: str
    inputs: int
    outputs: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    relu: bool = False

    @property
    def weights(self) -> int:
        """Number of weights, biases left out."""
        return 0 if self.kind == "pool" else self.outputs * self.inputs // self.groups * self.kernel**2


@dataclass(frozen=True)
class Structure:
    """`input_shape`: (C, H, W)."""

    input_shape: tuple[int, int, int]
    layers: tuple[LayerSpec, ...]

    @property
    def weight_bytes(self) -> int:
        """Flash for int8 weights (one byte each) and int32 biases (four each) once quantized."""
        return sum(layer.weights + 4 * layer.outputs for layer in self.layers if layer.kind != "pool")

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference; padding counts as if it were data, pooling not at all."""
        total, (_, height, width) = 0, self.input_shape
        for layer in self.layers:
            if layer.kind == "pool":
                height = width = 1
            height, width = -(-height // layer.stride), -(-width // layer.stride)
            total += layer.weights * height * width
        return total

    def to_json(self) -> dict[str, Any]:
        return {"input_shape": list(self.input_shape), "layers": [asdict(layer) for layer in self.layers]}

    @staticmethod
    def from_json(table: dict[str, Any]) -> Structure:
        """Raises ArtifactError when `table` is not what `to_json` gives."""
        try:
            channels, height, width = (int(extent) for extent in table["input_shape"])
            layers = tuple(LayerSpec(**layer) for layer in table["layers"])
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"the student's structure is not readable ({error}); distill it again"
            ) from None
        if not layers or any(layer.kind not in KINDS for layer in layers):
            raise ArtifactError("the student's structure holds an unknown kind of layer; distill it again")
        return Structure((channels, height, width), layers)


def separable(params: StudentParams, input_shape: Sequence[int], classes: int) -> Structure:
    """A stem convolution, depthwise-separable blocks, a global pool and a dense layer.

    Raises BudgetError when it exceeds the recipe's limits.
    """
    channels, height, width = input_shape
    layers = [LayerSpec("conv", channels, params.channels[0], 3, params.strides[0], relu=True)]
    for before, after, stride in zip(params.channels, params.channels[1:], params.strides[1:], strict=False):
        layers.append(LayerSpec("conv", before, before, 3, stride, groups=before, relu=True))
        layers.append(LayerSpec("conv", before, after, relu=True))
    layers.append(LayerSpec("pool", params.channels[-1], params.channels[-1]))
    layers.append(LayerSpec("dense", params.channels[-1], classes))
    structure = Structure((channels, height, width), tuple(layers))
    check_limits(structure, params)
    return structure


def check_limits(structure: Structure, params: StudentParams) -> None:
    """Raise BudgetError unless weights and multiply-accumulates keep the recipe's limits."""
    if structure.weight_bytes > params.max_weight_bytes:
        raise BudgetError(
            f"the student needs {structure.weight_bytes} bytes of weights and biases and "
            f"student.max_weight_bytes allows {params.max_weight_bytes}; take fewer student.channels"
        )
    if structure.macs > params.max_macs:
        raise BudgetError(
            f"the student needs {structure.macs} multiply-accumulates and student.max_macs allows "
            f"{params.max_macs}; take fewer student.channels or larger student.strides"
        )


# Student architectures by the name that a recipe gives.
MODELS = {"ds-cnn": separable}

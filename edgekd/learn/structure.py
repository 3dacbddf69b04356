"""A student's structure as plain data: what it costs can be told, and written as JSON, without torch.

Each layer takes the output of the one before it, or of the one it names; "add" takes two. Convolutions
have a bias and are padded as the device pads; there is no softmax: argmax works on logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

from edgekd.errors import ArtifactError, BudgetError, ConfigError
from edgekd.recipe import StudentParams

KINDS = ("conv", "pool", "dense", "add")
INPUT = -1  # as a layer's source: the network's own input


@dataclass(frozen=True)
class LayerSpec:
    """One layer.

    kind: "conv" (kernel x kernel, TensorFlow's SAME padding), "pool" (global), "dense" or "add".
    groups: 1, or `inputs` for a depthwise convolution. relu: clamp at zero behind the bias or the sum (conv,
    dense, add).
    source: index of the layer whose output it takes, INPUT, or None for the layer before.
    other: index of the layer whose output "add" adds to it.
    """

    kind: str
    inputs: int
    outputs: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    relu: bool = False
    source: int | None = None
    other: int | None = None

    @property
    def weights(self) -> int:
        """Number of weights, biases left out."""
        weighted = self.kind in ("conv", "dense")
        return self.outputs * self.inputs // self.groups * self.kernel**2 if weighted else 0


@dataclass(frozen=True)
class Structure:
    """`input_shape`: (C, H, W), or (F,) for vectors, which dense layers alone take."""

    input_shape: tuple[int, ...]
    layers: tuple[LayerSpec, ...]

    @property
    def reconstructs(self) -> bool:
        """Whether the outputs are the inputs again: an autoencoder's."""
        return len(self.input_shape) == 1

    def size_before(self, index: int) -> tuple[int, int]:
        """Height and width of what layer `index` takes; (1, 1) for vectors."""
        source = self.source(index)
        if source != INPUT:
            return self.sizes[source]
        height, width = self.input_shape[1:] or (1, 1)
        return height, width

    def source(self, index: int) -> int:
        """The layer (or INPUT) whose output layer `index` takes."""
        named = self.layers[index].source
        return index - 1 if named is None else named

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of each layer's output."""
        found: list[tuple[int, int]] = []
        for index, layer in enumerate(self.layers):
            source = self.source(index)
            height, width = (self.input_shape[1:] or (1, 1)) if source == INPUT else found[source]
            stride = layer.stride
            found.append((1, 1) if layer.kind == "pool" else (-(-height // stride), -(-width // stride)))
        return tuple(found)

    @property
    def weight_bytes(self) -> int:
        """Flash for int8 weights (one byte each) and int32 biases (four each) once quantized."""
        return sum(layer.weights + 4 * layer.outputs for layer in self.layers if layer.weights)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference; padding counts as data, pools and sums not at all."""
        return sum(
            layer.weights * height * width
            for layer, (height, width) in zip(self.layers, self.sizes, strict=True)
        )

    def to_json(self) -> dict[str, Any]:
        return {"input_shape": list(self.input_shape), "layers": [asdict(layer) for layer in self.layers]}

    @staticmethod
    def from_json(table: dict[str, Any]) -> Structure:
        """Raises ArtifactError when `table` is not what `to_json` gives."""
        try:
            shape = tuple(int(extent) for extent in table["input_shape"])
            layers = tuple(LayerSpec(**layer) for layer in table["layers"])
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"the student's structure is not readable ({error}); distill it again"
            ) from None
        if len(shape) not in (1, 3):
            raise ArtifactError(f"the student takes samples of shape {shape}; distill it again")
        if not layers or any(layer.kind not in KINDS for layer in layers):
            raise ArtifactError("the student's structure holds an unknown kind of layer; distill it again")
        for index, layer in enumerate(layers):
            named = [layer.source] if layer.source is not None else []
            named += [layer.other if layer.other is not None else index] if layer.kind == "add" else []
            if any(not INPUT <= where < index for where in named):
                raise ArtifactError(f"the student's layer {index} takes what is not there; distill it again")
        return Structure(shape, layers)


def separable(params: StudentParams, input_shape: Sequence[int], classes: int) -> Structure:
    """A stem convolution, depthwise-separable blocks, a global pool and a dense layer.

    Raises BudgetError when it exceeds the recipe's limits.
    """
    channels, height, width = _image(input_shape, params)
    layers = [LayerSpec("conv", channels, params.channels[0], 3, params.strides[0], relu=True)]
    for before, after, stride in zip(params.channels, params.channels[1:], params.strides[1:], strict=False):
        layers.append(LayerSpec("conv", before, before, 3, stride, groups=before, relu=True))
        layers.append(LayerSpec("conv", before, after, relu=True))
    return _headed(layers, params, (channels, height, width), classes)


def residual(params: StudentParams, input_shape: Sequence[int], classes: int) -> Structure:
    """A stem convolution, blocks of two 3 x 3 convolutions and a shortcut, a global pool and a dense layer.

    channels (16, 16, 32, 64) with strides (1, 1, 2, 2) on 3 x 32 x 32 is MLPerf Tiny's ResNet-8. A shortcut
    is a 1 x 1 convolution where the block changes channels or size. Raises BudgetError beyond the limits.
    """
    channels, height, width = _image(input_shape, params)
    layers = [LayerSpec("conv", channels, params.channels[0], 3, params.strides[0], relu=True)]
    for before, after, stride in zip(params.channels, params.channels[1:], params.strides[1:], strict=False):
        start = len(layers) - 1
        layers.append(LayerSpec("conv", before, after, 3, stride, relu=True))
        layers.append(LayerSpec("conv", after, after, 3))
        straight, shortcut = len(layers) - 1, start
        if before != after or stride != 1:
            layers.append(LayerSpec("conv", before, after, 1, stride, source=start))
            shortcut = len(layers) - 1
        layers.append(LayerSpec("add", after, after, relu=True, source=straight, other=shortcut))
    return _headed(layers, params, (channels, height, width), classes)


def mobilenet(params: StudentParams, input_shape: Sequence[int], classes: int) -> Structure:
    """MobileNetV1 (Howard et al. 2017, arXiv 1704.04861) at `params.width`; its own channels and strides.

    width 0.25 on 3 x 96 x 96 is MLPerf Tiny's network for visual wake words. Raises BudgetError.
    """
    channels = tuple(max(4, round(params.width * full)) for full in _MOBILENET_CHANNELS)
    whole = replace(params, channels=channels, strides=_MOBILENET_STRIDES)
    return separable(whole, input_shape, classes)


def autoencoder(params: StudentParams, input_shape: Sequence[int], classes: int) -> Structure:
    """Dense layers with ReLU of `params.channels` outputs, and a last one that gives the sample again.

    channels (128, 128, 128, 128, 8, 128, 128, 128, 128) on 640 numbers are MLPerf Tiny's network for anomaly
    detection. Raises BudgetError beyond the limits, ConfigError for samples that are no vectors.
    """
    if len(input_shape) != 1:
        raise ConfigError(
            f"student.model autoencoder takes vectors and the samples have the shape {tuple(input_shape)}; "
            "set data.vectors = true"
        )
    widths = (int(input_shape[0]), *params.channels)
    layers = [LayerSpec("dense", a, b, relu=True) for a, b in pairwise(widths)]
    layers.append(LayerSpec("dense", widths[-1], widths[0]))
    structure = Structure((widths[0],), tuple(layers))
    check_limits(structure, params)
    return structure


_MOBILENET_CHANNELS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
_MOBILENET_STRIDES = (2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)


def blocks(params: StudentParams, input_shape: Sequence[int], classes: int) -> Structure:
    """The stages of `params.blocks` (edgekd.learn.blocks), a pool and a dense layer. Raises BudgetError."""
    from edgekd.learn.blocks import block_layers

    channels, height, width = _image(input_shape, params)
    layers = [layer for stage in block_layers(params.blocks, channels) for layer in stage]
    whole = replace(params, channels=(layers[-1].outputs,))
    return _headed(layers, whole, (channels, height, width), classes)


def _image(input_shape: Sequence[int], params: StudentParams) -> tuple[int, int, int]:
    if len(input_shape) != 3:
        raise ConfigError(
            f"student.model {params.model} takes samples [channels, height, width] and these have the shape "
            f"{tuple(input_shape)}; reshape them in the data set"
        )
    channels, height, width = input_shape
    return channels, height, width


def _headed(
    layers: list[LayerSpec], params: StudentParams, input_shape: tuple[int, int, int], classes: int
) -> Structure:
    layers.append(LayerSpec("pool", params.channels[-1], params.channels[-1]))
    layers.append(LayerSpec("dense", params.channels[-1], classes))
    structure = Structure(input_shape, tuple(layers))
    check_limits(structure, params)
    return structure


def check_limits(structure: Structure, params: StudentParams) -> None:
    """Raise BudgetError unless weights and multiply-accumulates keep the recipe's limits."""
    channels = "channels in student.blocks" if params.model == "blocks" else "student.channels"
    strides = "strides there" if params.model == "blocks" else "student.strides"
    if structure.weight_bytes > params.max_weight_bytes:
        raise BudgetError(
            f"the student needs {structure.weight_bytes} bytes of weights and biases and "
            f"student.max_weight_bytes allows {params.max_weight_bytes}; take fewer {channels}"
        )
    if structure.macs > params.max_macs:
        raise BudgetError(
            f"the student needs {structure.macs} multiply-accumulates and student.max_macs allows "
            f"{params.max_macs}; take fewer {channels} or larger {strides}"
        )


# Student architectures by the name that a recipe gives.
MODELS = {
    "autoencoder": autoencoder,
    "blocks": blocks,
    "ds-cnn": separable,
    "mobilenet": mobilenet,
    "resnet": residual,
}

"""Students built of blocks: stages of residual, bottleneck, separable, inverted or fused ones behind a stem.

Blocks and their papers: residual and bottleneck (He et al. 2015, arXiv 1512.03385), separable (MobileNetV1,
1704.04861), inverted (MobileNetV2, 1801.04381, with ReLU for ReLU6), fused (EfficientNetV2, 2104.00298).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from edgekd.learn.structure import LayerSpec
from edgekd.recipe.blocks import BlockParams


class _Chain:
    """Layers in order, and the channels that the last one gives."""

    def __init__(self, channels: int) -> None:
        self.layers: list[LayerSpec] = []
        self.channels = channels

    @property
    def last(self) -> int:
        """The last layer's place; INPUT before the first."""
        return len(self.layers) - 1

    def conv(self, outputs: int, kernel: int = 1, stride: int = 1, relu: bool = True) -> None:
        self.layers.append(LayerSpec("conv", self.channels, outputs, kernel, stride, relu=relu))
        self.channels = outputs

    def depthwise(self, kernel: int, stride: int, relu: bool = True) -> None:
        channels = self.channels
        self.layers.append(LayerSpec("conv", channels, channels, kernel, stride, groups=channels, relu=relu))

    def shortcut(self, start: int, inputs: int, stride: int) -> None:
        """Add what layer `start` gave, by a 1 x 1 convolution where the shape changed, then ReLU."""
        straight, other, outputs = self.last, start, self.channels
        if inputs != outputs or stride != 1:
            self.layers.append(LayerSpec("conv", inputs, outputs, 1, stride, source=start))
            other = self.last
        self.layers.append(LayerSpec("add", outputs, outputs, relu=True, source=straight, other=other))

    def sum(self, start: int, inputs: int, stride: int) -> None:
        """Add what layer `start` gave where the shape stayed."""
        if inputs == self.channels and stride == 1 and start >= 0:
            self.layers.append(LayerSpec("add", inputs, inputs, source=self.last, other=start))


def _conv(chain: _Chain, block: BlockParams) -> None:
    chain.conv(block.channels, block.kernel, block.stride)


def _residual(chain: _Chain, block: BlockParams) -> None:
    start, inputs = chain.last, chain.channels
    chain.conv(block.channels, block.kernel, block.stride)
    chain.conv(block.channels, block.kernel, relu=False)
    chain.shortcut(start, inputs, block.stride)


def _bottleneck(chain: _Chain, block: BlockParams) -> None:
    start, inputs = chain.last, chain.channels
    narrow = max(1, block.channels // block.expansion)
    chain.conv(narrow)
    chain.conv(narrow, block.kernel, block.stride)
    chain.conv(block.channels, relu=False)
    chain.shortcut(start, inputs, block.stride)


def _separable(chain: _Chain, block: BlockParams) -> None:
    chain.depthwise(block.kernel, block.stride)
    chain.conv(block.channels)


def _inverted(chain: _Chain, block: BlockParams) -> None:
    start, inputs = chain.last, chain.channels
    if block.expansion > 1:
        chain.conv(block.expansion * inputs)
    chain.depthwise(block.kernel, block.stride)
    chain.conv(block.channels, relu=False)
    chain.sum(start, inputs, block.stride)


def _fused(chain: _Chain, block: BlockParams) -> None:
    start, inputs = chain.last, chain.channels
    chain.conv(block.expansion * inputs, block.kernel, block.stride)
    chain.conv(block.channels, relu=False)
    chain.sum(start, inputs, block.stride)


def _shrink(chain: _Chain, block: BlockParams) -> None:
    chain.depthwise(block.stride, block.stride, relu=False)


_BUILDERS: dict[str, Callable[[_Chain, BlockParams], None]] = {
    "conv": _conv,
    "residual": _residual,
    "bottleneck": _bottleneck,
    "separable": _separable,
    "inverted": _inverted,
    "fused": _fused,
    "shrink": _shrink,
}


def block_layers(blocks: Sequence[BlockParams], channels: int) -> list[list[LayerSpec]]:
    """The layers of each stage behind `channels` inputs; `source` and `other` count through all stages."""
    chain = _Chain(channels)
    found: list[list[LayerSpec]] = []
    for block in blocks:
        first = len(chain.layers)
        for number in range(block.repeat):
            _BUILDERS[block.kind](chain, block if number == 0 else replace(block, stride=1))
        found.append(chain.layers[first:])
    return found

"""[[student.blocks]]: which blocks a student is built of."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.declaration import setting

# Kinds of blocks; edgekd/learn/blocks.py builds them.
BLOCKS = ("conv", "residual", "bottleneck", "separable", "inverted", "fused", "shrink")


@dataclass(frozen=True)
class BlockParams:
    """One stage of a student of model "blocks": `repeat` blocks, of which the first has the stride.

    kind: conv, a convolution; residual, two of them and a shortcut; bottleneck, 1 x 1 to
    channels / expansion, a convolution, 1 x 1 back and a shortcut; separable, depthwise and 1 x 1; inverted,
    1 x 1 to expansion * inputs, depthwise, 1 x 1 and a sum where shapes allow; fused, a convolution to
    expansion * inputs, 1 x 1 and such a sum; shrink, a depthwise convolution over each stride x stride pixels
    that keeps the channels: a lower resolution. Not all kinds read all keys.
    """

    kind: str = setting("conv", choices=BLOCKS)
    channels: int = setting(16, unit="channels", minimum=1, maximum=1024)
    stride: int = setting(1, unit="pixels", minimum=1, maximum=4)
    kernel: int = setting(3, unit="pixels", minimum=1, maximum=9)
    expansion: int = setting(1, minimum=1, maximum=16)
    repeat: int = setting(1, unit="blocks", minimum=1, maximum=64)

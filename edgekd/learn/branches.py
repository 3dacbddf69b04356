"""Branches beside a convolution that exist only while it is trained, and are folded into it afterwards.

QARepVGG (Chu et al. 2022, arXiv 2212.01593), which took RepVGG's branches (arXiv 2101.03697) and moved the
batch norms so that the folded weights have no outliers and int8 does not break:

    y = norm(norm'(conv_k(x)) + conv_1(x) + x)

conv_k: the k x k convolution; conv_1: a 1 x 1 one on the middle of each window, without batch norm; x: the
shortcut, where size and channels stay. All are linear, so in evaluation mode they are one convolution.
"""

from __future__ import annotations

import torch
from torch import nn

from edgekd.learn.structure import LayerSpec


def affine(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """(gain, offset): what batch norm computes in evaluation mode."""
    variance, mean = norm.running_var, norm.running_mean
    assert variance is not None and mean is not None
    gain = norm.weight / torch.sqrt(variance + norm.eps)
    return gain, norm.bias - mean * gain


class Branches(nn.Module):
    """What stands beside the convolution of `spec`; its input has `top` and `left` zeros before it."""

    def __init__(self, spec: LayerSpec, top: int, left: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(spec.outputs)
        self.point = nn.Conv2d(
            spec.inputs, spec.outputs, 1, stride=spec.stride, groups=spec.groups, bias=False
        )
        self.stride, self.middle = spec.stride, spec.kernel // 2
        # The shortcut needs each window's middle to be the pixel itself.
        centred = (top, left) == (self.middle, self.middle)
        self.shortcut = spec.inputs == spec.outputs and spec.stride == 1 and centred

    def forward(self, y: torch.Tensor, padded: torch.Tensor) -> torch.Tensor:
        """The sum of all branches. y: the convolution's own output; padded: its input with its border."""
        rows, columns = ((extent - 1) * self.stride + 1 for extent in y.shape[2:])
        top = left = self.middle
        middles = padded[:, :, top : top + rows, left : left + columns]
        total: torch.Tensor = self.norm(y) + self.point(middles)
        return total + middles if self.shortcut else total

    def folded(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(weight, bias) of the one convolution that equals all branches; weight: the convolution's own."""
        gain, offset = affine(self.norm)
        whole = weight * gain[:, None, None, None]
        middle = self.point.weight[:, :, 0, 0].clone()
        if self.shortcut:
            ones = torch.arange(len(middle))
            middle[ones, ones % middle.shape[1]] += 1
        whole[:, :, self.middle, self.middle] += middle
        return whole, offset

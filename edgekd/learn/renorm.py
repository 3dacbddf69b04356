"""Batch norm put back into a folded student, so that fine-tuning can take large steps again.

Without it the rate that would move the weights far enough breaks them: a ResNet-8 pruned to half its cost
answers at random behind one epoch at a fifth of the rate that it was distilled with.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from edgekd.learn.structure import INPUT
from edgekd.learn.student import Dense, PaddedConv, StudentNet


@torch.no_grad()
def renormalised(net: StudentNet, x: torch.Tensor) -> StudentNet:
    """A student with batch norm that computes the same as the folded `net` in evaluation mode.

    x: float32 [N, ...], whose statistics each batch norm starts from: mean and variance of the layer's sums
    on x, and the gain and offset that undo them. `fold` gives a folded student again.
    """
    normed = StudentNet(net.structure, normalised=True)
    outputs = {INPUT: x}
    for index, (layer, spec) in enumerate(zip(net.layers, net.structure.layers, strict=True)):
        taken = [outputs[net.structure.source(index)]]
        if spec.other is not None:
            taken.append(outputs[spec.other])
        if isinstance(layer, PaddedConv | Dense):
            _start(layer, normed.layers[index], taken[0])
        outputs[index] = layer(*taken)
    return normed


def _start(layer: PaddedConv | Dense, normed: torch.nn.Module, x: torch.Tensor) -> None:
    """Fill one layer: the weights as they are, batch norm so that it only adds the bias."""
    weight, bias = layer.folded()
    assert isinstance(normed, PaddedConv | Dense) and bias is not None
    (normed.conv if isinstance(normed, PaddedConv) else normed).weight.copy_(weight)
    norm = normed.norm
    if norm is None:  # the last layer
        assert isinstance(normed, Dense)
        normed.bias.copy_(bias)
        return
    sums = _sums(layer, x)
    others = [axis for axis in range(sums.ndim) if axis != 1]
    mean, variance = sums.mean(others), sums.var(others, unbiased=False)
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.weight.copy_(torch.sqrt(variance + norm.eps))
    norm.bias.copy_(mean + bias)


def _sums(layer: PaddedConv | Dense, x: torch.Tensor) -> torch.Tensor:
    """What the layer adds its bias to."""
    if isinstance(layer, Dense):
        return functional.linear(x, layer.weight)
    conv = layer.conv
    x = x if layer.even else functional.pad(x, layer.pads)
    return functional.conv2d(x, conv.weight, None, conv.stride, conv.padding, 1, conv.groups)

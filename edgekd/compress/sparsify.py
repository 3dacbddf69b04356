"""Sparsity: the smallest weights of each layer become zero, and stay zero while the rest is tuned.

Magnitude pruning (Han et al. 2015, arXiv 1506.02626). "unstructured" zeroes a share of each layer; "2:4" the
two smallest of every four consecutive input channels, which some processors can skip (Mishra et al. 2021,
arXiv 2104.08378). Depthwise convolutions stay whole: few weights, each needed. What zeros save on a device is
for its compiler to say (edgekd.mcu.zeros).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from edgekd.errors import UnsupportedOpError
from edgekd.learn.student import PaddedConv, StudentNet
from edgekd.recipe import CompressParams

FOUR, OF_FOUR = 4, 2  # of every four, so many stay


def sparsify(net: StudentNet, params: CompressParams) -> StudentNet:
    """The same network with zeros in it, untuned. Raises UnsupportedOpError where 2:4 fits no layer."""
    sparse = copy.deepcopy(net)
    fitting = 0
    with torch.no_grad():
        for weight in _weights(sparse):
            if params.pattern == "unstructured":
                weight.mul_(largest(weight, params.sparsity))
            elif weight.shape[1] % FOUR == 0:
                weight.mul_(two_of_four(weight))
            else:
                continue
            fitting += 1
    if not fitting:
        raise UnsupportedOpError(
            "compress.pattern 2:4 needs layers whose input channels are a multiple of four, and this student "
            'has none; set pattern = "unstructured"'
        )
    return sparse.eval()


def largest(weight: torch.Tensor, sparsity: float) -> torch.Tensor:
    """Ones [shape of weight] where it is kept: all but the share `sparsity` of smallest magnitude."""
    flat = weight.abs().flatten()
    keep = torch.ones_like(flat)
    keep[torch.argsort(flat, stable=True)[: int(sparsity * len(flat))]] = 0
    return keep.reshape(weight.shape)


def two_of_four(weight: torch.Tensor) -> torch.Tensor:
    """Ones where weight [out, in, ...] is kept: the two largest of inputs 4 n .. 4 n + 3 at each position."""
    last = weight.abs().movedim(1, -1)
    fours = last.reshape(*last.shape[:-1], -1, FOUR)
    order = torch.argsort(fours, dim=-1, descending=True, stable=True)
    keep = torch.zeros_like(fours).scatter(-1, order[..., :OF_FOUR], 1.0)
    return keep.reshape(last.shape).movedim(-1, 1)


@contextmanager
def zeros_kept(net: StudentNet) -> Iterator[None]:
    """Weights that are zero now stay exactly zero in a training inside: their gradients are.

    Neither AdamW nor SGD with momentum, nor decay or averages, move a weight from zero without a gradient.
    """
    hooks = [weight.register_hook(_masking(weight)) for weight in _weights(net)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _masking(weight: torch.Tensor) -> Any:
    mask = (weight.detach() != 0).float()
    return lambda gradient: gradient * mask.to(gradient.device)


def zero_weights(net: StudentNet) -> int:
    """How many weights (biases left out) are zero."""
    return sum(int((weight == 0).sum()) for weight in _weights(net))


def _weights(net: StudentNet) -> list[Any]:
    """The weight of every convolution and dense layer but depthwise ones."""
    found = []
    for spec, layer in zip(net.structure.layers, net.layers, strict=True):
        if spec.weights and spec.groups == 1:
            module: Any = layer.conv if isinstance(layer, PaddedConv) else layer
            found.append(module.weight)
    return found

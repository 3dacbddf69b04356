"""A student in which some layers have become several: references between layers follow, weights go in."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgekd.learn.structure import INPUT, LayerSpec, Structure
from edgekd.learn.student import PaddedConv, StudentNet

Values = npt.NDArray[np.float64]
# One layer: what it is, its weight (in any shape of the right size) and bias; None where it has none.
Piece = tuple[LayerSpec, tuple[Values, Values] | None]


def weights_of(layer: Any) -> tuple[Values, Values]:
    """(weight, as torch shapes it, bias [out]) of a folded convolution or dense layer, float64."""
    module: Any = layer.conv if isinstance(layer, PaddedConv) else layer
    return (
        module.weight.detach().numpy().astype(np.float64),
        module.bias.detach().numpy().astype(np.float64),
    )


def rebuilt(structure: Structure, pieces: Sequence[Sequence[Piece]]) -> StudentNet:
    """A folded student with layer i of `structure` replaced by pieces[i], one after the other.

    The first piece takes what the layer took; who took the layer's output takes that of the last piece.
    `source` and `other` of the pieces themselves are not read.
    """
    ends: list[int] = []
    specs: list[LayerSpec] = []
    for layer, parts in zip(structure.layers, pieces, strict=True):
        first, source, other = len(specs), _place(layer.source, ends), _place(layer.other, ends)
        specs += [dataclasses.replace(spec, source=None, other=None) for spec, _ in parts]
        specs[first] = dataclasses.replace(specs[first], source=source, other=other)
        ends.append(len(specs) - 1)
    net = StudentNet(Structure(structure.input_shape, tuple(specs)), normalised=False)
    flat = [values for parts in pieces for _, values in parts]
    for module, values in zip(net.layers, flat, strict=True):
        if values is not None:
            _put(module, *values)
    return net


def _place(old: int | None, ends: Sequence[int]) -> int | None:
    """Where the output of layer `old` is now."""
    return old if old is None or old == INPUT else ends[old]


def _put(layer: Any, weight: Values, bias: Values) -> None:
    module: Any = layer.conv if isinstance(layer, PaddedConv) else layer
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(weight.reshape(module.weight.shape)).float())
        module.bias.copy_(torch.from_numpy(bias).float())

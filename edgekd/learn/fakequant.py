"""Fake quantization: layers that let a network feel its integers while it is trained in float.

The forward pass rounds, the backward pass takes the slope of the line that the staircase follows, 1 inside
the range and 0 outside (straight-through; Bengio, Leonard and Courville 2013, arXiv 1308.3432).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from edgekd.qgraph.encoding import Int8
from edgekd.qgraph.rounding import Grid, grid_of

_SMALLEST_SCALE = 2.0**-60
_MOMENTUM = 0.99  # share of an activation's running range that is kept at each step


class FakeActivation(nn.Module):
    """An activation held as int8 with one scale and zero point, from a running range.

    low, high: the range, buffers. It is what `observe` saw, and follows each batch's extremes in training.
    """

    low: torch.Tensor
    high: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    def observe(self, x: torch.Tensor) -> None:
        """Widen the range so that it holds `x`."""
        self.low.copy_(torch.minimum(self.low, x.min()))
        self.high.copy_(torch.maximum(self.high, x.max()))

    def grid(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(scale float32, zero point int32): s = (high - low) / 255, z = round(-128 - low / s)."""
        scale = ((self.high - self.low) / 255).clamp(min=_SMALLEST_SCALE)
        zero_point = torch.round(-128 - self.low / scale).clamp(-128, 127)
        return scale, zero_point.to(torch.int32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.float()
        if self.training:
            with torch.no_grad():
                self.low.lerp_(x.min().clamp(max=0), 1 - _MOMENTUM)
                self.high.lerp_(x.max().clamp(min=0), 1 - _MOMENTUM)
        return torch.fake_quantize_per_tensor_affine(x, *self.grid(), -128, 127)


class FakeWeights(nn.Module):
    """Weights [out, ...] held as scale times an entry of a table of whole numbers.

    The scale is a fixed share of the largest weight, of each output channel or of all: so it follows the
    weights while they move. `start` finds the share with the least squared error. Any ascending table will
    do; one without gaps goes through torch's own operator.
    """

    share: torch.Tensor
    table: torch.Tensor

    def __init__(self, table: Int8, share: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("table", torch.from_numpy(table.astype(np.float32)))
        self.register_buffer("share", share)
        self.low, self.high = int(table[0]), int(table[-1])
        self.whole = len(table) == self.high - self.low + 1

    @staticmethod
    def start(weights: torch.Tensor, bits: int, per_channel: bool) -> FakeWeights:
        """For integers of `bits` bits, fitted to `weights`."""
        given = weights.detach().cpu().numpy()
        grid = grid_of(given, bits, 0 if per_channel else None)
        most = np.abs(given).reshape(len(given), -1).max(axis=1)
        most = np.maximum(most if per_channel else most.max(keepdims=True), _SMALLEST_SCALE)
        return FakeWeights(grid.table, torch.from_numpy((grid.scales / most).astype(np.float32)))

    def scales(self, weights: torch.Tensor) -> torch.Tensor:
        """float32, one or one an output channel."""
        most = weights.detach().abs().flatten(1).amax(dim=1)
        most = most if len(self.share) > 1 else most.max()[None]
        return (most * self.share).clamp(min=_SMALLEST_SCALE)

    def grid(self, weights: torch.Tensor) -> Grid:
        """The same as plain arrays: what a file is written from."""
        return Grid(self.scales(weights).cpu().numpy(), self.table.cpu().numpy().astype(np.int8))

    def forward(self, weights: torch.Tensor) -> torch.Tensor:
        scales = self.scales(weights)
        if self.whole and len(scales) == len(weights):
            zeros = torch.zeros_like(scales, dtype=torch.int32)
            return torch.fake_quantize_per_channel_affine(weights, scales, zeros, 0, self.low, self.high)
        wide = scales.reshape(-1, *[1] * (weights.ndim - 1))
        held: torch.Tensor = _Nearest.apply(weights / wide, self.table)  # type: ignore[no-untyped-call]
        return held * wide


class _Nearest(torch.autograd.Function):
    """The nearest entry of an ascending table; halfway the even one where the table has no gaps."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward((x >= table[0]) & (x <= table[-1]))
        if len(table) == int(table[-1] - table[0]) + 1:
            return torch.round(x).clamp(float(table[0]), float(table[-1]))
        middles = (table[1:] + table[:-1]) / 2
        return table[torch.bucketize(x, middles)]

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (inside,) = ctx.saved_tensors
        return gradient * inside, None

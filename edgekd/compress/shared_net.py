"""A student that takes weights from tables, while it is trained: entries, scales and choice all move.

A weight is scale[channel] * table[group of channels][index]. Entries and scales are trained by the gradients
of all weights that they make (Han et al. 2016, arXiv 1510.00149); the indices follow float weights behind
them, chosen anew at every step until `SETTLED` of the steps are done. With many entries gradients reach these
weights straight through the choice (Bengio et al. 2013, arXiv 1308.3432). With few the choice is soft and
hardens: a weight is the mean of all entries, near ones counting most (Cho et al. 2022, arXiv 2108.12659).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from edgekd.compress.tables import LARGEST, best_table
from edgekd.learn.student import StudentNet
from edgekd.qgraph.rounding import Grid

SETTLED = 0.7  # share of the steps behind which no index changes any more
FEW = 4  # entries, up to which the choice is soft: measured, docs/methods/weight-sharing.md
SOFT = 64.0  # over the entries: how soft the choice begins, a quarter of the entries' mean distance
HARD = 0.3  # how soft it ends, in steps of an int8
_SMALLEST_SCALE = 2.0**-60
_LEAST_IMPORTANCE = 1e-3  # of the mean: a weight that no sample moved counts a little, too


@dataclass(frozen=True)
class Plan:
    """How one layer's weights are shared. groups: tables, of which neighbouring output channels share one.

    per_channel: whether each output channel has its own scale (else all have one: TFLite's dense layers).
    """

    entries: int
    groups: int
    per_channel: bool

    def channel_tables(self, channels: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        """The table of each output channel, uint8 [channels]."""
        return (np.arange(channels) * self.groups // channels).astype(np.uint8)


class SharedWeights(nn.Module):
    """The tables, scales and indices of one layer's weights [out, ...].

    entries: float32 [groups * entries], as shares of LARGEST; gains: natural logarithms of what the scales
    have been multiplied with. Neither decays: both have one axis.
    """

    start: torch.Tensor
    numbers: torch.Tensor
    is_free: torch.Tensor
    indices: torch.Tensor

    def __init__(self, weights: torch.Tensor, importances: torch.Tensor, plan: Plan) -> None:
        super().__init__()
        given, channels = weights.detach(), len(weights)
        most = given.abs().flatten(1).amax(dim=1)
        most = most if plan.per_channel else most.max()[None]
        numbers = plan.channel_tables(channels)
        self.register_buffer("start", (most / LARGEST).clamp(min=_SMALLEST_SCALE))
        self.register_buffer("numbers", torch.from_numpy(numbers).long())
        self.gains = nn.Parameter(torch.zeros_like(self.start))
        wide = self.scales(given).detach()
        values = (given / wide).flatten(1).double().numpy()
        squares = (importances * wide**2).flatten(1).double().numpy()
        squares = squares + _LEAST_IMPORTANCE * squares.mean()
        tables = [
            best_table(values[numbers == g], squares[numbers == g], plan.entries) for g in range(plan.groups)
        ]
        table = torch.from_numpy(np.stack(tables).astype(np.float32))
        self.register_buffer("is_free", (table != 0).float())  # what is 0 stays 0
        self.entries = nn.Parameter((table / LARGEST).flatten())
        self.register_buffer("indices", torch.zeros(channels, given[0].numel(), dtype=torch.int64))
        self.choose(given)

    def scales(self, weights: torch.Tensor) -> torch.Tensor:
        """float32, one or one an output channel, in a shape that multiplies `weights`."""
        found = self.start * torch.exp(self.gains)
        return found.reshape(-1, *[1] * (weights.ndim - 1))

    def tables(self) -> torch.Tensor:
        """Whole numbers as float32 [groups, entries]; gradients pass the rounding."""
        exact = self.entries.reshape(self.is_free.shape) * (LARGEST * self.is_free)
        return exact + (torch.round(exact).clamp(-LARGEST, LARGEST) - exact).detach()

    @torch.no_grad()
    def choose(self, weights: torch.Tensor) -> None:
        """Give each weight the nearest entry of its channel's table."""
        scaled = (weights / self.scales(weights)).flatten(1).contiguous()
        ascending, order = self.tables().sort(dim=1)  # entries may have passed each other
        middles = (ascending[:, 1:] + ascending[:, :-1]) / 2
        places = torch.searchsorted(middles[self.numbers], scaled)
        self.indices.copy_(torch.gather(order[self.numbers], 1, places))

    def forward(self, weights: torch.Tensor, left: float = 0.0) -> torch.Tensor:
        """The weights that the layer computes with. left: 1 to 0, how much of the moving choice is to come.

        Soft: a weight u in steps is the mean of the entries by the shares softmax(-|u - entry| / softness).
        """
        rows, scales = self._slowed(self.tables())[self.numbers], self.scales(weights)
        if left > 0 and rows.shape[1] <= FEW:
            softness = SOFT / rows.shape[1] * left + HARD
            apart = ((weights / scales).flatten(1)[:, :, None] - rows[:, None, :]).abs()
            soft = (torch.softmax(-apart / softness, dim=2) * rows[:, None, :]).sum(dim=2)
            return soft.reshape(weights.shape) * scales
        held = torch.gather(rows, 1, self.indices).reshape(weights.shape) * scales
        return held + (weights - weights.detach()) if left > 0 else held

    def _slowed(self, tables: torch.Tensor) -> torch.Tensor:
        """The tables with gradients such that an entry moves about as far as one of its weights would."""
        places = self.numbers[:, None] * self.is_free.shape[1] + self.indices
        members = torch.bincount(places.flatten(), minlength=tables.numel()).reshape(tables.shape)
        largest = (self.start.detach().mean() * LARGEST) ** 2
        slow = 1 / (members.clamp(min=1) * largest)
        return tables * slow + (tables * (1 - slow)).detach()

    @torch.no_grad()
    def grid(self, axis: int = 0) -> Grid:
        """Scales and ascending tables as plain arrays."""
        scales = (self.start * torch.exp(self.gains)).cpu().numpy()
        tables = np.sort(self.tables().cpu().numpy().astype(np.int8), axis=1)
        if len(tables) == 1:
            return Grid(scales, tables[0], axis)
        return Grid(scales, tables, axis, self.numbers.cpu().numpy().astype(np.uint8))


class SharedNet(nn.Module):
    """A folded student with some layers' weights shared; `plans`: by the weights' name.

    steps: of the training that it is made for.
    """

    done: torch.Tensor

    def __init__(
        self,
        net: StudentNet,
        plans: Mapping[str, Plan],
        importances: Mapping[str, torch.Tensor],
        steps: int,
    ) -> None:
        super().__init__()
        self.net, self.last_choice = net, round(SETTLED * steps)
        self.names = list(plans)
        self.shared = nn.ModuleList(
            SharedWeights(net.get_parameter(name), importances[name], plan) for name, plan in plans.items()
        )
        self.register_buffer("done", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left = 0.0
        if self.training:
            left = max(0.0, 1 - int(self.done) / max(self.last_choice, 1))
            self.done += 1
        held = {}
        for name, shared in zip(self.names, self.shared, strict=True):
            assert isinstance(shared, SharedWeights)
            weights = self.net.get_parameter(name)
            if left > 0:
                shared.choose(weights)
            held[name] = shared(weights, left)
        y: torch.Tensor = functional_call(self.net, held, (x,))
        return y

    @torch.no_grad()
    def finished(self) -> tuple[StudentNet, dict[str, Grid]]:
        """The student with the shared weights in it, and their grids by name."""
        grids = {}
        for name, shared in zip(self.names, self.shared, strict=True):
            assert isinstance(shared, SharedWeights)
            parameter, grid = self.net.get_parameter(name), shared.grid()
            held = shared(parameter).cpu().numpy()
            parameter.copy_(torch.from_numpy(grid.values(held)))  # in numpy's products, as a reader has them
            grids[name] = grid
        return self.net.eval(), grids

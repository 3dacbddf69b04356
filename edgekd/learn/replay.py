"""Batches of views, made when they are asked for: no epoch's pixels are ever held where they are many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgekd.data import Dataset
from edgekd.data.pixels import as_floats

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_KEPT_BYTES = 1 << 26  # a set of views up to this size is made once and kept


class Replay:
    """Rows of the views of some samples.

    make(x, ids, view) -> float32 [N, ...]: the pixels of a view; ids int64 [samples] index the data set.
    views: how many there are, of which any may be asked for.
    """

    def __init__(
        self, data: Dataset, ids: Ints, make: Callable[[npt.NDArray[Any], Ints, int], Floats], views: int
    ) -> None:
        self.data, self.ids, self.make = data, ids, make
        sample_bytes = 4 * int(np.prod(data.x.shape[1:]))
        self._keep = len(ids) * sample_bytes * views <= _KEPT_BYTES
        self._kept: dict[int, torch.Tensor] = {}

    def rows(self, view: int, rows: torch.Tensor) -> torch.Tensor:
        """float32 [len(rows), ...] of `view`; rows int64 index `ids`."""
        if not self._keep:
            ids = self.ids[rows.numpy()]
            return torch.from_numpy(np.ascontiguousarray(self.make(self.data.x[ids], ids, view)))
        if view not in self._kept:
            every = self.make(self.data.x[self.ids], self.ids, view)
            self._kept[view] = torch.from_numpy(np.ascontiguousarray(every))
        return self._kept[view][rows]

    def part(self, view: int, start: int = 0) -> Callable[[slice], Floats]:
        """A function from a slice, counted from row `start` on, to those rows' pixels."""
        ids = self.ids[start:]
        return lambda rows: self.make(self.data.x[ids[rows]], ids[rows], view)


def plain_rows(data: Dataset, split: str) -> Callable[[slice], Floats]:
    """A function from a slice of a split's rows to their plain pixels."""
    ids = data.splits[split]
    return lambda rows: as_floats(data.x[ids[rows]])

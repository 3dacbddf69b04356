"""The table of a few int8 values that stands best for many weights: k-means in one dimension, solved exactly.

In one dimension the clusters are intervals, so dynamic programming over where they end finds the least
weighted squared error there is (Wang and Song 2011, Ckmeans.1d.dp), without a random start. The best whole
number for an interval is its rounded mean: rounding is part of the optimum. One entry is 0: zero weights,
dead channels and padding need it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekd.qgraph.encoding import Int8

Reals = npt.NDArray[np.float64]

LARGEST = 127  # of an entry; -128 is no weight
_BINS = 2  # of a whole number: values nearer to each other than that stay together


def best_table(values: Reals, importances: Reals, entries: int) -> Int8:
    """int8 [entries], ascending, with a 0: the one of least `sum(importances * (values - nearest)**2)`.

    values: any shape, in units of the table (-127 to 127 and a little beyond); importances: not negative, the
    same shape. Exact for multiples of a half; others move by a quarter at most before clusters are formed.
    Entries that nothing needs are 0.
    """
    points = _Points.of(np.asarray(values, np.float64).ravel(), np.asarray(importances, np.float64).ravel())
    return np.sort(_intervals(points, entries)).astype(np.int8)


def error_of(values: Reals, importances: Reals, table: npt.NDArray[np.generic]) -> float:
    """What `best_table` makes smallest."""
    apart = np.abs(np.asarray(values, np.float64).ravel()[:, None] - table.astype(np.float64)[None, :])
    return float((np.asarray(importances, np.float64).ravel() * apart.min(axis=1) ** 2).sum())


@dataclass(frozen=True, eq=False)
class _Points:
    """Values in ascending order, near ones together: sums of importance, of it times value, times square."""

    weight: Reals
    first: Reals
    second: Reals

    @staticmethod
    def of(values: Reals, importances: Reals) -> _Points:
        if not importances.sum() > 0:
            importances = np.ones_like(importances)
        place = np.rint(values * _BINS).astype(np.int64)
        place -= place.min(initial=0)
        sums = [np.bincount(place, importances * values**power) for power in range(3)]
        kept = sums[0] > 0
        weight, first, second = (np.asarray(each[kept], np.float64) for each in sums)
        return _Points(weight, first, second)


def _intervals(points: _Points, entries: int) -> Reals:
    """The entries of the best split of the points into `entries` intervals, one of which stands for 0.

    best[z, j]: least error of the first j points in as many intervals as there have been rounds; z: whether
    one of them has the entry 0. An interval may be empty: its entry is 0.
    """
    sums = [np.concatenate([[0.0], np.cumsum(each)]) for each in (points.weight, points.first, points.second)]
    weight, first, second = (each[None, :] - each[:, None] for each in sums)  # of points i to j
    entry = np.clip(np.rint(first / np.where(weight > 0, weight, 1.0)), -LARGEST, LARGEST)
    backwards = np.tril(np.ones(weight.shape, bool), -1)
    free = np.where(backwards, np.inf, second - 2 * entry * first + entry**2 * weight)
    zero = np.where(backwards, np.inf, second)
    best = np.full((2, len(free)), np.inf)
    best[0, 0] = 0.0
    rounds = []
    for _ in range(entries):
        options = (best[0, :, None] + free, best[1, :, None] + free, best[0, :, None] + zero)
        plain, after, fresh = (option.min(axis=0) for option in options)
        rounds.append((*(option.argmin(axis=0) for option in options), fresh < after))
        best = np.stack([plain, np.minimum(after, fresh)])
    found, last, has_zero = [], len(free) - 1, True
    for plain_start, after_start, fresh_start, is_fresh in reversed(rounds):
        is_zero = has_zero and bool(is_fresh[last])
        start = fresh_start if is_zero else after_start if has_zero else plain_start
        begin = int(start[last])
        found.append(0.0 if is_zero else float(entry[begin, last]))
        has_zero = has_zero and not is_zero
        last = begin
    return np.array(found)

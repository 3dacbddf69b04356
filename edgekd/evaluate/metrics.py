"""Accuracy and what surrounds it: per class, confusion, an interval, how two outputs differ (numpy only)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import VerifyError

Labels = npt.NDArray[np.int64]
Scores = npt.NDArray[Any]


def top1(scores: Scores) -> Labels:
    """The class of each row of `scores` [N, classes]; the first where several are equal, as on the device."""
    return np.asarray(scores.reshape(len(scores), -1).argmax(axis=1), np.int64)


def correct(labels: Labels, scores: Scores) -> int:
    """How many of `labels` int64 [N] equal the top class of `scores` [N, classes]."""
    if len(labels) != len(scores):
        raise VerifyError(f"{len(scores)} outputs for {len(labels)} labels; measure each sample once")
    return int((top1(scores) == labels).sum())


def accuracy(labels: Labels, scores: Scores) -> float:
    """Share of correct samples, 0 .. 1. Raises VerifyError for no samples: there is nothing to say."""
    if len(labels) == 0:
        raise VerifyError("accuracy of no samples is not a number; give at least one")
    return correct(labels, scores) / len(labels)


def confusion(labels: Labels, scores: Scores, classes: int) -> npt.NDArray[np.int64]:
    """int64 [classes, classes]: row = true class, column = predicted class."""
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise VerifyError(f"a label is outside 0 .. {classes - 1}; check y")
    table = np.bincount(labels * classes + top1(scores), minlength=classes * classes)
    return table.reshape(classes, classes).astype(np.int64)


def per_class(table: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Accuracy of each class from a confusion table; NaN for a class without samples."""
    totals = table.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.diag(table) / totals, np.float64)


def wilson(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval for a share (95 % by default); Wilson 1927.

    >>> low, high = wilson(351, 360)
    >>> f"{low:.4f} {high:.4f}"
    '0.9532 0.9868'
    """
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def agreement(scores: Scores, others: Scores) -> float:
    """Share of samples whose top class is the same in both."""
    return accuracy(top1(others), scores)


def difference_histogram(values: Scores, others: Scores) -> dict[int, int]:
    """How often each difference `values - others` occurs, in steps of the integers given; sorted."""
    if values.shape != others.shape:
        raise VerifyError(f"outputs of shape {values.shape} cannot be compared with {others.shape}")
    steps, counts = np.unique(values.astype(np.int64) - others.astype(np.int64), return_counts=True)
    return {int(step): int(count) for step, count in zip(steps, counts, strict=True)}

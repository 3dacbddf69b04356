"""Accuracy and what surrounds it: per class, confusion, calibration, how two outputs differ (numpy only)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import VerifyError

Labels = npt.NDArray[np.int64]
Scores = npt.NDArray[Any]

BINS = 15  # of the reliability table, as in most papers


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


def softmax(scores: Scores) -> npt.NDArray[np.float64]:
    """Probabilities of logits [N, classes]."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True), dtype=np.float64)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float64)


def reliability(labels: Labels, chances: npt.NDArray[np.float64], bins: int = BINS) -> list[dict[str, Any]]:
    """Per bin of equal width of the top class's probability: samples, mean probability, accuracy.

    chances: probabilities [N, classes]. Bins without samples are left out; bin b holds b/bins < p <=
    (b+1)/bins.
    """
    confidence, right = chances.max(axis=1), top1(chances) == labels
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    rows = []
    for b in range(bins):
        held = place == b
        if held.any():
            figures = {"confidence": float(confidence[held].mean()), "accuracy": float(right[held].mean())}
            rows.append({"above": b / bins, "samples": int(held.sum()), **figures})
    return rows


def calibration_error(rows: Sequence[Mapping[str, Any]]) -> float:
    """ECE of `reliability` rows: mean distance of accuracy and confidence, weighed by samples.

    Guo et al. 2017 (arXiv 1706.04599).
    """
    samples = sum(row["samples"] for row in rows)
    return float(sum(row["samples"] * abs(row["accuracy"] - row["confidence"]) for row in rows) / samples)


def agreement(scores: Scores, others: Scores) -> float:
    """Share of samples whose top class is the same in both."""
    return accuracy(top1(others), scores)


def difference_histogram(values: Scores, others: Scores) -> dict[int, int]:
    """How often each difference `values - others` occurs, in steps of the integers given; sorted."""
    if values.shape != others.shape:
        raise VerifyError(f"outputs of shape {values.shape} cannot be compared with {others.shape}")
    steps, counts = np.unique(values.astype(np.int64) - others.astype(np.int64), return_counts=True)
    return {int(step): int(count) for step, count in zip(steps, counts, strict=True)}

"""What answers are worth: golden outputs, accuracy, area under the ROC curve. Plain Python, no numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def top1(values: Sequence[float]) -> int:
    """The first largest value's place."""
    return max(range(len(values)), key=values.__getitem__)


def squared_error(taken: Sequence[float], given: Sequence[float]) -> float:
    """The mean of the squared differences: how abnormal an autoencoder finds a sample."""
    return float(sum((a - b) * (a - b) for a, b in zip(taken, given, strict=True)) / len(given))


def anomaly_score(taken: Sequence[float], given: Sequence[float]) -> float:
    """Of a model that gives its input again, or of one with the logits normal and abnormal."""
    return squared_error(taken, given) if len(taken) == len(given) else given[1] - given[0]


def auc(labels: Sequence[int], scores: Sequence[float]) -> float | None:
    """The chance that a sample of label 1 scores above one of label 0, ties by half; None for one label."""
    order = sorted(range(len(scores)), key=scores.__getitem__)
    ranks, begin = [0.0] * len(scores), 0
    while begin < len(order):
        end = begin
        while end + 1 < len(order) and scores[order[end + 1]] == scores[order[begin]]:
            end += 1
        for place in range(begin, end + 1):
            ranks[order[place]] = (begin + end) / 2 + 1
        begin = end + 1
    ones = sum(1 for label in labels if label == 1)
    zeros = len(labels) - ones
    if not ones or not zeros:
        return None
    above = sum(rank for rank, label in zip(ranks, labels, strict=True) if label == 1)
    return float((above - ones * (ones + 1) / 2) / (ones * zeros))


def share_equal(left: Sequence[Any], right: Sequence[Any]) -> float:
    """How many of two sequences' values are equal, of 1."""
    return float(sum(a == b for a, b in zip(left, right, strict=True)) / len(left))


def quality(metric: str | None, answers: Sequence[float], truth: Sequence[float] | None) -> float | None:
    """The metric of a variant's answers (classes, or anomaly scores): accuracy, auc or agreement."""
    if metric is None or truth is None or not answers:
        return None
    if metric == "auc":
        if not all(math.isfinite(score) for score in answers):
            return None
        return auc([int(label) for label in truth], answers)
    return share_equal(answers, truth)


def compare_golden(
    outputs: Sequence[Sequence[float]], golden: Sequence[Sequence[float]], rule: dict[str, Any]
) -> dict[str, Any]:
    """Differences from the golden outputs in quantization steps, held to the bundle's tolerance.

    Integers of an exact variant count in steps as they are. `max_difference_steps` is None where a number
    is not finite, and then nothing is within.
    """
    step = 1.0 if rule["exact"] else rule["step"]
    rows = zip(outputs, golden, strict=True)
    flat = [abs(a - b) / step for x, y in rows for a, b in zip(x, y, strict=True)]
    worst = max(flat) if all(math.isfinite(value) for value in flat) else None
    within = worst is not None and worst <= rule["tolerance_steps"] + (0 if rule["exact"] else 1e-6)
    agreement = share_equal([top1(x) for x in outputs], [top1(y) for y in golden])
    told = {"samples": len(golden), "step": rule["step"], "tolerance_steps": rule["tolerance_steps"]}
    return told | {
        "exact": rule["exact"],
        "max_difference_steps": worst,
        "within_tolerance": within,
        "agreement": agreement,
    }

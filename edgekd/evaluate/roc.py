"""The area under the ROC curve, its interval, and the paired fall of it between two models (numpy only)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edgekd.errors import VerifyError
from edgekd.evaluate.intervals import Interval

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

_Z95 = 1.959963984540054


def auc(labels: Labels, scores: Floats) -> Interval:
    """The chance that an abnormal sample (label 1) scores above a normal one (0), ties by half.

    The interval is DeLong's (1988), cut to 0 .. 1. labels int64 [N], scores float64 [N]. Raises VerifyError
    unless both labels occur and the scores are numbers.
    """
    normal, abnormal = _placements(labels, scores)
    value = float(abnormal.mean())
    half = _Z95 * math.sqrt(_variance(normal) + _variance(abnormal))
    return Interval(value, max(0.0, value - half), min(1.0, value + half))


def paired_auc_drop(labels: Labels, before: Floats, after: Floats) -> Interval:
    """How much the area falls from `before` to `after`, two models' scores of the same samples.

    DeLong, DeLong, Clarke-Pearson 1988 (Biometrics 44: 837-845): the placements of each sample under the
    two models are subtracted first, so that what both find hard cancels.
    """
    normal_before, abnormal_before = _placements(labels, before)
    normal_after, abnormal_after = _placements(labels, after)
    value = float(abnormal_before.mean() - abnormal_after.mean())
    spread = _variance(normal_before - normal_after) + _variance(abnormal_before - abnormal_after)
    half = _Z95 * math.sqrt(spread)
    return Interval(value, max(-1.0, value - half), min(1.0, value + half))


def _placements(labels: Labels, scores: Floats) -> tuple[Floats, Floats]:
    """For each normal sample the share of abnormal ones above it; for each abnormal, of normal ones below."""
    if len(labels) != len(scores):
        raise VerifyError(f"{len(scores)} scores for {len(labels)} labels; measure each sample once")
    if not np.isfinite(scores).all():
        raise VerifyError("a score is NaN or infinite, and has no place in an order; check the model")
    if set(np.unique(labels).tolist()) != {0, 1}:
        raise VerifyError("AUC needs labels 0 (normal) and 1 (abnormal), both of them; check y and the split")
    normal, abnormal = np.sort(scores[labels == 0]), np.sort(scores[labels == 1])
    below = _midrank(normal, scores[labels == 1])
    above = 1 - _midrank(abnormal, scores[labels == 0])
    return above, below


def _midrank(among: Floats, values: Floats) -> Floats:
    """The share of the sorted `among` that lies below each value, ties by half."""
    left, right = np.searchsorted(among, values, "left"), np.searchsorted(among, values, "right")
    return np.asarray((left + right) / (2 * len(among)), np.float64)


def _variance(placements: Floats) -> float:
    """Of their mean."""
    return float(placements.var(ddof=1) / len(placements)) if len(placements) > 1 else 0.25


def anomaly_scores(x: npt.NDArray[np.float32], outputs: npt.NDArray[np.float32]) -> Floats:
    """How abnormal each sample is, float64 [N]: an autoencoder's mean squared error, or logit 1 less logit 0.

    x: inputs [N, ...]; outputs: of the inputs' size, or [N, 2]. Raises VerifyError for another shape.
    """
    wide = outputs.reshape(len(outputs), -1).astype(np.float64)
    flat = x.reshape(len(x), -1)
    if wide.shape == flat.shape:
        return np.asarray(np.square(wide - flat).mean(axis=1), np.float64)
    if wide.shape[1] == 2:
        return np.asarray(wide[:, 1] - wide[:, 0], np.float64)
    raise VerifyError(
        f"AUC needs as many outputs as inputs ({flat.shape[1]}) or two classes; the model has {wide.shape[1]}"
    )

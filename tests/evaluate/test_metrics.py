"""Metrics against cases counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.errors import VerifyError
from edgekd.evaluate import metrics

LABELS = np.array([0, 1, 2, 1])
SCORES = np.array([[9, 1, 0], [0, 5, 5], [7, 1, 0], [3, 2, 1]], np.int8)  # predicts 0, 1, 0, 0


def test_accuracy_and_confusion() -> None:
    assert metrics.accuracy(LABELS, SCORES) == 0.5
    table = metrics.confusion(LABELS, SCORES, 3)
    assert table.tolist() == [[1, 0, 0], [1, 1, 0], [1, 0, 0]]
    assert metrics.per_class(table).tolist() == [1.0, 0.5, 0.0]


def test_equal_scores_take_the_first_class_as_the_device_does() -> None:
    assert metrics.top1(SCORES).tolist() == [0, 1, 0, 0]


def test_a_class_without_samples_has_no_accuracy() -> None:
    assert np.isnan(metrics.per_class(metrics.confusion(LABELS[:1], SCORES[:1], 3))[2])


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 10, 0.0, 0.27753), (5, 10, 0.23659, 0.76341), (10, 10, 0.72247, 1.0), (0, 0, 0.0, 1.0)],
)
def test_wilson_against_published_figures(successes: int, trials: int, low: float, high: float) -> None:
    assert metrics.wilson(successes, trials) == pytest.approx((low, high), abs=1e-4)


def test_agreement_and_histogram() -> None:
    assert metrics.agreement(SCORES, SCORES) == 1.0
    others = SCORES.copy()
    others[0, 0] -= 2
    assert metrics.difference_histogram(SCORES, others) == {0: 11, 2: 1}
    with pytest.raises(VerifyError, match="cannot be compared"):
        metrics.difference_histogram(SCORES, SCORES[:2])


def test_nothing_to_measure_is_said() -> None:
    with pytest.raises(VerifyError, match="no samples"):
        metrics.accuracy(LABELS[:0], SCORES[:0])
    with pytest.raises(VerifyError, match="4 outputs for 3 labels"):
        metrics.accuracy(LABELS[:3], SCORES)
    with pytest.raises(VerifyError, match="outside 0"):
        metrics.confusion(LABELS, SCORES, 2)

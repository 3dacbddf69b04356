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


def test_softmax_by_hand() -> None:
    chances = metrics.softmax(np.array([[0.0, np.log(3.0)], [1000.0, 1000.0]]))
    assert chances.ravel() == pytest.approx([0.25, 0.75, 0.5, 0.5])
    assert metrics.softmax(SCORES).sum(axis=1) == pytest.approx(1)


def test_calibration_by_hand() -> None:
    """Two bins: at 0.9 half are right, at 0.6 all: (2 * 0.4 + 1 * 0.4) / 3."""
    chances = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    rows = metrics.reliability(np.array([0, 1, 1]), chances, bins=2)
    assert rows == [
        {"above": 0.5, "samples": 3, "confidence": pytest.approx(0.8), "accuracy": pytest.approx(2 / 3)}
    ]
    rows = metrics.reliability(np.array([0, 1, 1]), chances, bins=10)
    assert [(row["above"], row["samples"], row["accuracy"]) for row in rows] == [(0.5, 1, 1.0), (0.8, 2, 0.5)]
    assert metrics.calibration_error(rows) == pytest.approx((1 * 0.4 + 2 * 0.4) / 3)


def test_certain_and_uniform_answers_have_a_bin() -> None:
    rows = metrics.reliability(np.array([0, 0]), np.array([[1.0, 0.0], [0.0, 1.0]]))
    assert [(row["above"], row["samples"]) for row in rows] == [(14 / 15, 2)]
    assert metrics.calibration_error(rows) == 0.5


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

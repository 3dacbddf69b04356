"""AUC by counting pairs, its interval by an independent formula, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.errors import VerifyError
from edgekd.evaluate.roc import anomaly_scores, auc, paired_auc_drop

Y = np.array([0, 0, 0, 1, 1], np.int64)
SCORE = np.array([0.1, 0.4, 0.35, 0.8, 0.4])


def by_pairs(labels: np.ndarray, scores: np.ndarray) -> float:
    pairs = [(a > n) + (a == n) / 2 for n in scores[labels == 0] for a in scores[labels == 1]]
    return float(np.mean(pairs))


def test_every_pair_counted() -> None:
    assert auc(Y, SCORE).value == pytest.approx(5.5 / 6) == pytest.approx(by_pairs(Y, SCORE))


@pytest.mark.parametrize("seed", range(4))
def test_many_pairs_with_ties(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, 80)
    scores = np.round(random.normal(labels, 1.0), 1)
    found = auc(labels, scores)
    assert found.value == pytest.approx(by_pairs(labels, scores))
    assert 0 <= found.low < found.value < found.high <= 1


def test_the_interval_holds_the_truth_in_95_of_100_draws() -> None:
    """Two normal distributions one deviation apart: the true area is 0.7602."""
    random, held = np.random.default_rng(7), 0
    labels = np.repeat([0, 1], [60, 40])
    for _ in range(600):
        found = auc(labels, random.normal(labels, 1.0))
        held += found.low <= 0.76025 <= found.high
    assert 0.90 <= held / 600 <= 0.98  # 0.94 in the long run at this size


def test_a_paired_fall_is_known_better_than_two_areas() -> None:
    random = np.random.default_rng(3)
    labels = np.repeat([0, 1], [100, 100])
    before = random.normal(labels, 1.0)
    after = before + random.normal(0, 0.1, 200)
    drop = paired_auc_drop(labels, before, after)
    assert drop.value == pytest.approx(auc(labels, before).value - auc(labels, after).value)
    alone = auc(labels, before)
    assert drop.high - drop.low < 0.2 * (alone.high - alone.low)
    same = paired_auc_drop(labels, before, before)
    assert (same.low, same.value, same.high) == (0, 0, 0)


def test_perfect_and_reversed_order() -> None:
    assert auc(Y, Y.astype(float)).value == 1.0
    assert auc(Y, -Y.astype(float)).value == 0.0


def test_scores_of_an_autoencoder_and_of_two_classes() -> None:
    x = np.zeros((2, 3), np.float32)
    outputs = np.array([[0, 0, 3], [1, 1, 1]], np.float32)
    assert anomaly_scores(x, outputs).tolist() == [3.0, 1.0]
    assert anomaly_scores(x, outputs[:, :2] + [[0, 2]]).tolist() == [2.0, 2.0]
    with pytest.raises(VerifyError, match=r"as many outputs as inputs \(3\) or two classes; the model has 1"):
        anomaly_scores(x, outputs[:, :1])


@pytest.mark.parametrize(
    ("labels", "scores", "said"),
    [
        ([0, 0], [1.0, 2.0], "both of them"),
        ([1, 1], [1.0, 2.0], "both of them"),
        ([0, 2], [1.0, 2.0], "labels 0"),
        ([0, 1], [1.0], "1 scores for 2 labels"),
        ([0, 1], [1.0, float("nan")], "NaN or infinite"),
    ],
)
def test_what_has_no_area_is_refused(labels: list[int], scores: list[float], said: str) -> None:
    with pytest.raises(VerifyError, match=said):
        auc(np.array(labels), np.array(scores))

"""Scores on the device, in plain Python, are those that the host computes."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.device.agent.scoring import auc, compare_golden, quality, squared_error, top1
from edgekd.device.bench import check_golden
from edgekd.errors import VerifyError
from edgekd.evaluate import roc

EXACT = {"step": 0.25, "tolerance_steps": 0, "exact": True}
STEPS = {"step": 0.5, "tolerance_steps": 1, "exact": False}


@pytest.mark.parametrize("seed", range(4))
def test_auc_is_the_hosts_ties_included(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels, scores = random.integers(0, 2, 60), random.integers(0, 12, 60) / 4
    assert auc(labels.tolist(), scores.tolist()) == pytest.approx(roc.auc(labels, scores).value, abs=1e-12)


def test_auc_of_one_label_or_of_no_number_is_none() -> None:
    assert auc([1, 1], [0.5, 0.6]) is None
    assert quality("auc", [float("nan"), 1.0], [0, 1]) is None


def test_an_anomaly_is_the_hosts_squared_error() -> None:
    random = np.random.default_rng(5)
    x, y = random.normal(size=(3, 20)).astype(np.float32), random.normal(size=(3, 20)).astype(np.float32)
    own = [squared_error(a.tolist(), b.tolist()) for a, b in zip(x, y, strict=True)]
    assert own == pytest.approx(roc.anomaly_scores(x, y).tolist(), rel=1e-6)


def test_the_first_of_equal_classes_and_shares() -> None:
    assert top1([1.0, 3.0, 3.0]) == 1
    assert quality("accuracy", [1, 2, 3, 4], [1, 2, 0, 4]) == 0.75
    assert quality("agreement", [1, 2], [1, 2]) == 1.0
    assert quality(None, [1], [1]) is None and quality("accuracy", [], []) is None


def test_golden_differences_are_counted_in_steps_and_nan_is_never_within() -> None:
    golden = [[0.0, 1.0], [2.0, 3.0]]
    same = compare_golden([[0.5, 1.5], [2.5, 3.5]], golden, STEPS)
    assert (same["max_difference_steps"], same["within_tolerance"], same["agreement"]) == (1.0, True, 1.0)
    far = compare_golden([[1.0, 0.0], [3.0, 2.0]], golden, STEPS)
    assert (far["max_difference_steps"], far["within_tolerance"], far["agreement"]) == (2.0, False, 0.0)
    nan = compare_golden([[float("nan"), 0.0], [0.0, 0.0]], golden, STEPS)
    assert (nan["max_difference_steps"], nan["within_tolerance"]) == (None, False)
    with pytest.raises(VerifyError, match="no finite number"):
        check_golden("board", "int8", nan)


def test_an_exact_variant_may_not_be_one_step_off() -> None:
    assert compare_golden([[1.0, -5.0]], [[1.0, -5.0]], EXACT)["within_tolerance"]
    off = compare_golden([[1.0, -4.0]], [[1.0, -5.0]], EXACT)
    assert (off["max_difference_steps"], off["within_tolerance"]) == (1.0, False)

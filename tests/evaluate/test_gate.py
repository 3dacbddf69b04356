"""The gate's three outcomes, its words, and the records that it reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgekd.errors import VerifyError
from edgekd.evaluate.evaluation import Answers, drop_between, headline, new_evaluation, of_classes, of_scores
from edgekd.evaluate.gate import FAILED, PASSED, UNDECIDED, Budget, Verdict, judge


def answers(right: int, samples: int, first: int = 0) -> Answers:
    """`right` samples answered well in a row from `first` on, the others badly."""
    y = np.zeros(samples, np.int64)
    top1 = np.ones(samples, np.int64)
    top1[first : first + right] = 0
    return Answers(y, top1)


def figures(before: Answers, after: Answers) -> dict[str, Any]:
    right = (after.top1 == after.y).astype(float)
    record = of_classes(after.y, np.stack([right, 1 - right], axis=1), (), probabilities=True)
    record["drop"] = drop_between(before, after, "distill")
    return headline(new_evaluation(split="test", samples=len(after.y), model="compress", **record))


@pytest.mark.parametrize(
    ("right_before", "right_after", "samples", "budget", "outcome"),
    [
        (990, 988, 1000, 0.02, PASSED),
        (990, 890, 1000, 0.02, FAILED),
        (990, 971, 1000, 0.02, UNDECIDED),  # 1.9 points lost: below the budget, not surely
        (990, 968, 1000, 0.02, UNDECIDED),  # 2.2 points lost: above the budget, not surely
        (99, 97, 100, 0.01, UNDECIDED),
        (9900, 9700, 10_000, 0.01, FAILED),  # the same shares of more samples
        (90, 95, 100, 0.01, PASSED),
        (10, 10, 10, 0.02, UNDECIDED),  # ten samples, none lost, prove nothing
        (1000, 1000, 1000, 0.02, PASSED),
    ],
)
def test_noise_neither_passes_nor_fails(
    right_before: int, right_after: int, samples: int, budget: float, outcome: str
) -> None:
    found = figures(answers(right_before, samples), answers(right_after, samples))
    assert judge(found, Budget(budget)).outcome == outcome


def test_the_test_is_paired() -> None:
    """The same accuracies: where the errors are the same samples the drop is known far better."""
    nested = figures(answers(900, 1000), answers(890, 1000))
    apart = figures(answers(900, 1000), answers(890, 1000, first=110))
    assert nested["drop"]["value"] == apart["drop"]["value"] == pytest.approx(0.01)
    width = {name: row["drop"]["high"] - row["drop"]["low"] for name, row in (("n", nested), ("a", apart))}
    assert width["n"] < width["a"] / 2
    assert judge(nested, Budget(0.02)).outcome == PASSED and judge(apart, Budget(0.02)).outcome == UNDECIDED
    assert nested["drop"]["mcnemar_p"] < 0.01 < apart["drop"]["mcnemar_p"]


def test_the_reason_has_the_figures() -> None:
    verdict = judge(figures(answers(990, 1000), answers(971, 1000)), Budget(0.02))
    assert verdict.reason.startswith(
        "accuracy on test fell by 1.90 points (95 % interval of the fall 1.22 to "
    )
    assert "1000 samples) against distill, and gate.max_accuracy_drop allows 2.00" in verdict.reason
    assert "samples would decide" in verdict.reason
    better = judge(figures(answers(900, 1000), answers(950, 1000)), Budget(0.02))
    assert "rose by 5.00 points" in better.reason and better.outcome == PASSED


@pytest.mark.parametrize(
    ("least", "outcome"), [(0.0, PASSED), (0.90, PASSED), (0.95, UNDECIDED), (0.99, FAILED)]
)
def test_the_least_accuracy(least: float, outcome: str) -> None:
    found = figures(answers(950, 1000), answers(950, 1000)) | {"drop": None}
    verdict = judge(found, Budget(0.02, least))
    assert verdict.outcome == outcome
    assert ("gate.min_accuracy asks for" in verdict.reason) == (least > 0)


def test_what_fails_is_said_before_what_is_undecided() -> None:
    found = figures(answers(99, 100), answers(97, 100))
    verdict = judge(found, Budget(0.02, 0.999))
    assert isinstance(verdict, Verdict) and verdict.outcome == FAILED and "min_accuracy" in verdict.reason


def test_the_record_of_classes() -> None:
    y = np.array([0, 1, 1, 2])
    outputs = np.array([[9.0, 0, 0], [0, 9, 0], [9, 0, 0], [0, 0, 9]])
    record = of_classes(y, outputs, ("a", "b", "c"), probabilities=False)
    assert record["value"] == 0.75 and record["confusion"] == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert record["per_class"][1] == {
        "class": "b",
        "samples": 2,
        "accuracy": 0.5,
        "low": pytest.approx(0.0126, abs=1e-4),
        "high": pytest.approx(0.9874, abs=1e-4),
    }
    assert record["ece"] == pytest.approx(0.25, abs=1e-3)
    with pytest.raises(VerifyError, match="3 outputs and the data 2 classes"):
        of_classes(y, outputs, ("a", "b"), probabilities=False)
    with pytest.raises(VerifyError, match="outside 0"):
        of_classes(y, outputs[:, :2], (), probabilities=False)


def test_many_classes_have_no_confusion_table() -> None:
    y = np.arange(101)
    record = of_classes(y, np.eye(101), (), probabilities=True)
    assert record["confusion"] is None and len(record["per_class"]) == 101 and record["value"] == 1.0


def test_a_class_without_samples_has_no_accuracy_and_any_interval() -> None:
    row = of_classes(np.array([0, 0]), np.eye(2), (), probabilities=True)["per_class"][1]
    assert row == {"class": "1", "samples": 0, "accuracy": None, "low": 0.0, "high": 1.0}


def test_areas_are_compared_as_areas() -> None:
    y = np.array([0, 0, 0, 1, 1, 1])
    before, after = Answers(y, score=np.arange(6.0)), Answers(y, score=np.array([0, 1, 5, 3, 4, 2.0]))
    assert of_scores(y, before.score)["metric"] == "auc"
    drop = drop_between(before, after, "distill")
    assert drop["value"] == pytest.approx(3 / 9) and "lost" not in drop
    assert set(before.arrays()) == {"y", "score"}


def test_evaluations_that_do_not_belong_together() -> None:
    with pytest.raises(VerifyError, match="other samples"):
        drop_between(answers(5, 10), answers(5, 11), "distill")
    y = np.zeros(10, np.int64)
    with pytest.raises(VerifyError, match="other metrics"):
        drop_between(answers(5, 10), Answers(y, score=np.zeros(10)), "distill")

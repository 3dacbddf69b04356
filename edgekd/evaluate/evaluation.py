"""The evaluation record (schema 1): how good a model is on one split, and how much was lost on the way.

FORMATS.md describes each key, and a test holds the two together. What does not apply is null.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import VerifyError
from edgekd.evaluate import metrics
from edgekd.evaluate.intervals import Interval, clopper_pearson, mcnemar, paired_drop
from edgekd.evaluate.roc import auc, paired_auc_drop

SCHEMA = 1
KEYS = (
    "schema",
    "model",
    "split",
    "samples",
    "metric",
    "value",
    "low",
    "high",
    "per_class",
    "confusion",
    "ece",
    "reliability",
    "drop",
)
# A confusion table beyond this many classes says nothing to a reader and takes megabytes.
MAX_CONFUSION_CLASSES = 100

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model said of each sample: its class (`right`: correctly), and for AUC its score."""

    y: Labels
    top1: Labels | None = None
    score: npt.NDArray[np.float64] | None = None

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What of it is there, by name: to be written to a file."""
        found = {"y": self.y, "top1": self.top1, "score": self.score}
        return {name: array for name, array in found.items() if array is not None}


def of_classes(
    y: Labels, outputs: Floats, classes: tuple[str, ...], *, probabilities: bool
) -> dict[str, Any]:
    """Accuracy and its exact interval, per class, confusion and calibration of outputs [N, classes].

    probabilities: the outputs are; else they are logits. Raises VerifyError where the class counts differ.
    """
    count = outputs.shape[1]
    if classes and len(classes) != count:
        raise VerifyError(
            f"the model has {count} outputs and the data {len(classes)} classes; they must be equal"
        )
    table = metrics.confusion(y, outputs, count)
    overall = clopper_pearson(int(np.diag(table).sum()), int(table.sum()))
    chances = outputs.astype(np.float64) if probabilities else metrics.softmax(outputs)
    rows = metrics.reliability(y, chances)
    return {
        "metric": "accuracy",
        **_limits(overall),
        "per_class": [_class_row(table, c, classes[c] if classes else str(c)) for c in range(count)],
        "confusion": table.tolist() if count <= MAX_CONFUSION_CLASSES else None,
        "ece": metrics.calibration_error(rows),
        "reliability": rows,
    }


def of_scores(y: Labels, score: npt.NDArray[np.float64]) -> dict[str, Any]:
    """AUC and DeLong's interval of scores that are higher for abnormal samples (label 1)."""
    return {"metric": "auc", **_limits(auc(y, score))}


def drop_between(before: Answers, after: Answers, against: str) -> dict[str, Any]:
    """How much of the metric was lost from `before` to `after`, on the same samples, with its interval.

    Raises VerifyError unless both answer the same samples with the same kind of answer.
    """
    if not np.array_equal(before.y, after.y):
        raise VerifyError(f"the evaluations of this model and of {against} are of other samples")
    if before.score is not None and after.score is not None:
        return {"against": against, **_limits(paired_auc_drop(after.y, before.score, after.score))}
    if before.top1 is None or after.top1 is None:
        raise VerifyError(f"the evaluations of this model and of {against} are of other metrics")
    was, is_now = before.top1 == before.y, after.top1 == after.y
    lost, gained = int((was & ~is_now).sum()), int((~was & is_now).sum())
    counts = {"lost": lost, "gained": gained, "mcnemar_p": mcnemar(lost, gained)}
    return {"against": against, **_limits(paired_drop(lost, gained, len(after.y))), **counts}


def new_evaluation(**known: Any) -> dict[str, Any]:
    """A record with every key; what does not apply is None."""
    return {key: known.get(key) for key in KEYS} | {"schema": SCHEMA}


def headline(record: Mapping[str, Any]) -> dict[str, Any]:
    """The figures that a manifest keeps."""
    kept = ("metric", "value", "low", "high", "split", "samples", "ece", "drop")
    return {key: record[key] for key in kept}


def _limits(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def _class_row(table: npt.NDArray[np.int64], row: int, name: str) -> dict[str, Any]:
    right, samples = int(table[row, row]), int(table[row].sum())
    found = clopper_pearson(right, samples)
    value = found.value if samples else None  # a class without samples has no accuracy
    return {"class": name, "samples": samples, "accuracy": value, "low": found.low, "high": found.high}

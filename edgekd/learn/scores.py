"""How good a float model is on the splits that every learning stage reports."""

from __future__ import annotations

import numpy as np
import torch

from edgekd.data import Dataset
from edgekd.evaluate.metrics import accuracy
from edgekd.evaluate.roc import anomaly_scores, auc
from edgekd.learn.replay import plain_rows
from edgekd.learn.torch_tools import PLAIN, Machine, predict_rows


def scores(net: torch.nn.Module, data: Dataset, machine: Machine = PLAIN) -> dict[str, float]:
    """Accuracy on the plain samples of "validation" and "test": `accuracy_validation`, `accuracy_test`.

    Of a model that gives vectors again: its mean squared error on "validation" (normal samples alone) and the
    area under the ROC curve of that error on "test", as `error_validation`, `auc_test`.
    """
    found = {}
    for split in ("validation", "test"):
        labels, rows = data.y[data.splits[split]], plain_rows(data, split)
        outputs = predict_rows(net, len(labels), rows, machine)
        if not data.reconstructed:
            found[f"accuracy_{split}"] = accuracy(labels, outputs)
            continue
        errors = anomaly_scores(rows(slice(None)), outputs)
        if split == "test":
            found["auc_test"] = auc(labels, errors).value
        else:
            found["error_validation"] = float(np.mean(errors))
    return found

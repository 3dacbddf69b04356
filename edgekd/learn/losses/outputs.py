"""Losses on real outputs of any shape: regression, and an autoencoder's reconstruction of its input."""

from __future__ import annotations

import torch
from torch.nn import functional


def difference(student: torch.Tensor, wanted: torch.Tensor, *, kind: str, delta: float = 1.0) -> torch.Tensor:
    """Mean over all elements of e = student - wanted, both [N, ...]:

    "mse": e^2. "mae": |e|. "huber": e^2 / 2 up to |e| = delta, then delta (|e| - delta / 2).
    """
    if kind == "mse":
        return functional.mse_loss(student, wanted)
    if kind == "mae":
        return functional.l1_loss(student, wanted)
    return functional.huber_loss(student, wanted, delta=delta)

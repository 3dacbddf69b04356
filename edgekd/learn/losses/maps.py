"""Losses on inner maps [N, C, H, W]: they need the teacher beside the student. Both sides have equal H, W."""

from __future__ import annotations

import torch
from torch.nn import functional


def fitnet(guided: torch.Tensor, hint: torch.Tensor) -> torch.Tensor:
    """Romero et al. 2015 (arXiv 1412.6550): mean over all elements of (guided - hint)^2.

    guided: the student's map behind a regressor that gives it the teacher's channels; hint: the teacher's.
    The paper has half the sum a sample; the mean's size does not depend on the layer.
    """
    return functional.mse_loss(guided, hint)


def attention(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Zagoruyko, Komodakis 2017 (arXiv 1612.03928): mean over the batch of |Q_student - Q_teacher|^2.

    Q: the sum over channels of the squared map, as a vector over positions divided by its length. 0 where
    both look at the same places, 2 where at none in common.
    """
    return (_where(student) - _where(teacher)).square().sum(dim=1).mean()


def _where(maps: torch.Tensor) -> torch.Tensor:
    return functional.normalize(maps.square().sum(dim=1).flatten(1), dim=1)

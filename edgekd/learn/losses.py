"""Distillation losses. Formulas, worked numbers and papers: docs/methods/distillation.md."""

from __future__ import annotations

import torch
from torch.nn import functional


def hinton(
    student: torch.Tensor,
    teacher: torch.Tensor,
    labels: torch.Tensor,
    *,
    temperature: float,
    hard_share: float,
) -> torch.Tensor:
    """Hinton, Vinyals, Dean 2015 (arXiv 1503.02531): mean over the batch of

        hard_share * CE(labels, student)
        + (1 - hard_share) * T^2 * KL(softmax(teacher/T) || softmax(student/T))

    student, teacher: logits [N, classes]; labels: int64 [N]. T^2 keeps the soft gradient's size as T grows.
    """
    hard = functional.cross_entropy(student, labels)
    log_student = functional.log_softmax(student / temperature, dim=1)
    log_teacher = functional.log_softmax(teacher / temperature, dim=1)
    soft = functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return hard_share * hard + (1.0 - hard_share) * temperature**2 * soft

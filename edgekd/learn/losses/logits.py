"""Losses on logits [N, classes]: each is a mean over the batch, and needs nothing but a stored prediction.

Those with a temperature T carry the factor T^2, so that the gradient's size does not fall as T grows.
"""

from __future__ import annotations

import torch
from torch.nn import functional

_TINY = 1e-8  # keeps a division by a deviation of 0 finite


def hard(student: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy with the labels int64 [N]: -log softmax(student)_label."""
    return functional.cross_entropy(student, labels)


def kd(student: torch.Tensor, teacher: torch.Tensor, *, temperature: float) -> torch.Tensor:
    """Hinton, Vinyals, Dean 2015 (arXiv 1503.02531): T^2 KL(softmax(teacher/T) || softmax(student/T))."""
    log_student = functional.log_softmax(student / temperature, dim=1)
    log_teacher = functional.log_softmax(teacher / temperature, dim=1)
    divergence = functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return temperature**2 * divergence


def decoupled(
    student: torch.Tensor,
    teacher: torch.Tensor,
    labels: torch.Tensor,
    *,
    temperature: float,
    alpha: float = 1.0,
    beta: float = 8.0,
) -> torch.Tensor:
    """DKD, Zhao et al. 2022 (arXiv 2203.08679), its scale normalised:

        T^2 (alpha TCKD + beta NCKD) / (alpha + beta)

    TCKD: KL between (p_label, 1 - p_label) of teacher and student; NCKD: KL between their softmax over the
    other classes alone. The paper's beta of 8 makes a step eight times as long and wants a warm-up of 20
    epochs; divided by alpha + beta it wants none.
    """
    student, teacher = student / temperature, teacher / temperature
    target = _kl(_target_or_not(student, labels), _target_or_not(teacher, labels))
    others = _kl(_others(student, labels).log_softmax(dim=1), _others(teacher, labels).log_softmax(dim=1))
    return temperature**2 * (alpha * target + beta * others) / (alpha + beta)


def dist(
    student: torch.Tensor,
    teacher: torch.Tensor,
    *,
    temperature: float,
    alpha: float = 1.0,
    beta: float = 1.0,
) -> torch.Tensor:
    """DIST, Huang et al. 2022 (arXiv 2205.10536), its scale normalised:

        T^2 (alpha (1 - mean over samples of r) + beta (1 - mean over classes of r)) / (alpha + beta)

    r: Pearson's correlation of the student's and the teacher's softmax(logits / T), along the classes of a
    sample ("inter") and along the batch for a class ("intra"). What matters is the order and the ratio of
    the differences, not the values themselves.
    """
    p, q = (student / temperature).softmax(dim=1), (teacher / temperature).softmax(dim=1)
    inter, intra = 1 - _correlation(p, q).mean(), 1 - _correlation(p.t(), q.t()).mean()
    return temperature**2 * (alpha * inter + beta * intra) / (alpha + beta)


def logit_mse(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Kim et al. 2021 (arXiv 2105.08919): mean over batch and classes of (student - teacher)^2."""
    return functional.mse_loss(student, teacher)


def standardized(logits: torch.Tensor) -> torch.Tensor:
    """Sun et al. 2024 (arXiv 2403.01427): (logits - mean) / deviation, both over a sample's classes.

    The student then need not match the size of the teacher's logits, only their pattern.
    """
    centred = logits - logits.mean(dim=1, keepdim=True)
    return centred / (centred.square().mean(dim=1, keepdim=True) + _TINY).sqrt()


def _kl(log_student: torch.Tensor, log_teacher: torch.Tensor) -> torch.Tensor:
    return functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)


def _target_or_not(scaled: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """log (p_label, 1 - p_label) [N, 2]; the second from the other logits, which loses no digits near 1."""
    whole = scaled.logsumexp(dim=1)
    target = scaled.gather(1, labels[:, None])[:, 0] - whole
    rest = _others(scaled, labels).logsumexp(dim=1) - whole
    return torch.stack([target, rest], dim=1)


def _others(scaled: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """[N, classes - 1]: every logit but the label's."""
    kept = torch.ones_like(scaled, dtype=torch.bool).scatter(1, labels[:, None], False)
    return scaled[kept].view(len(scaled), -1)


def _correlation(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Pearson's r of each row; 0 where a row is constant."""
    a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    return functional.cosine_similarity(a, b, dim=1, eps=_TINY)

"""A recipe's `[distill] loss` as one function: the sum of its terms, each with its weight."""

from __future__ import annotations

from collections.abc import Callable

import torch

from edgekd.errors import VerifyError
from edgekd.learn.losses import logits
from edgekd.learn.losses.outputs import difference
from edgekd.recipe import HINTS, ON_OUTPUTS, DistillParams, LossTerm

# (the student's outputs, (the teacher's outputs, labels)) -> a scalar
Loss = Callable[[torch.Tensor, tuple[torch.Tensor, ...]], torch.Tensor]


def student_loss(params: DistillParams) -> Loss:
    """The loss that `params` describes, as a function of (outputs, (teacher's outputs, labels)); no hints.

    Raises VerifyError when called with outputs and targets of different shapes.
    """
    terms = [term for term in params.terms if term.name not in HINTS]

    def loss(student: torch.Tensor, targets: tuple[torch.Tensor, ...]) -> torch.Tensor:
        teacher, labels = targets[0], targets[1]
        parts = [term.weight * _value(term, student, teacher, labels) for term in terms]
        return sum(parts[1:], parts[0])

    return loss


def _value(
    term: LossTerm, student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    if term.name == "hard":
        return logits.hard(student, labels)
    wanted = labels if term.by_labels else teacher
    if student.shape != wanted.shape:
        raise VerifyError(
            f"loss {term.name}: the student's outputs have shape {tuple(student.shape[1:])} and "
            f"{'the labels' if wanted is labels else 'the stored predictions'} {tuple(wanted.shape[1:])}; "
            "give both the same classes or outputs"
        )
    if term.name in ON_OUTPUTS:
        return difference(student, wanted, kind=term.name, delta=term.delta)
    if term.standardize:
        student, teacher = logits.standardized(student), logits.standardized(teacher)
    return _on_logits(term, student, teacher, labels)


def _on_logits(
    term: LossTerm, student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    if term.name == "logit-mse":
        return logits.logit_mse(student, teacher)
    if term.name == "kd":
        return logits.kd(student, teacher, temperature=term.temperature)
    parts = {"alpha": 1.0, "beta": 8.0 if term.name == "dkd" else 1.0}
    parts |= {name: value for name in parts if (value := getattr(term, name)) is not None}
    if term.name == "dkd":
        return logits.decoupled(student, teacher, labels, temperature=term.temperature, **parts)
    return logits.dist(student, teacher, temperature=term.temperature, **parts)

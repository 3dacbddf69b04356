"""Hinton's loss against a case computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from edgekd.learn.losses import hinton

STUDENT = torch.tensor([[2.0, 0.0]])
TEACHER = torch.tensor([[0.0, 2.0]])
LABELS = torch.tensor([1])


def by_hand(temperature: float, hard_share: float) -> float:
    p = 1 / (1 + math.exp(2 / temperature))  # the teacher's share of class 0; the student's of class 1
    kl = p * math.log(p / (1 - p)) + (1 - p) * math.log((1 - p) / p)
    hard = math.log(1 + math.exp(2))
    return hard_share * hard + (1 - hard_share) * temperature**2 * kl


@pytest.mark.parametrize(("temperature", "hard_share"), [(1.0, 0.0), (4.0, 0.1), (4.0, 1.0), (2.5, 0.5)])
def test_against_the_formula(temperature: float, hard_share: float) -> None:
    value = hinton(STUDENT, TEACHER, LABELS, temperature=temperature, hard_share=hard_share)
    assert value.item() == pytest.approx(by_hand(temperature, hard_share), rel=1e-5)


def test_the_worked_example_of_the_documentation() -> None:
    value = hinton(STUDENT, TEACHER, LABELS, temperature=4.0, hard_share=0.1)
    assert value.item() == pytest.approx(1.9761, abs=1e-4)


def test_a_student_that_equals_its_teacher_has_no_soft_loss() -> None:
    assert hinton(TEACHER, TEACHER, LABELS, temperature=4.0, hard_share=0.0).item() == pytest.approx(
        0, abs=1e-6
    )


def test_the_soft_gradient_keeps_its_size_with_temperature() -> None:
    """The factor T^2: at high temperature the gradient is the centred difference of logits / classes."""
    sizes = []
    for temperature in (20.0, 200.0):
        student = STUDENT.clone().requires_grad_()
        hinton(student, TEACHER, LABELS, temperature=temperature, hard_share=0.0).backward()
        assert student.grad is not None
        sizes.append(student.grad.abs().max().item())
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)
    assert sizes[1] == pytest.approx(1.0, rel=0.01)  # (z - v) / N, both centred: 2 / 2


def test_the_mean_is_over_samples() -> None:
    one = hinton(STUDENT, TEACHER, LABELS, temperature=4.0, hard_share=0.1)
    three = hinton(
        STUDENT.repeat(3, 1), TEACHER.repeat(3, 1), LABELS.repeat(3), temperature=4.0, hard_share=0.1
    )
    assert three.item() == pytest.approx(one.item(), rel=1e-6)

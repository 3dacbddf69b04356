"""Each loss against a case computed by hand and against a numeric gradient; sums as recipes ask for them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from edgekd.errors import VerifyError
from edgekd.learn.losses import decoupled, difference, dist, hard, kd, logit_mse, standardized, student_loss
from edgekd.recipe import DistillParams, LossTerm

STUDENT = torch.tensor([[2.0, 0.0]])
TEACHER = torch.tensor([[0.0, 2.0]])
LABELS = torch.tensor([1])

# Two samples, three classes, for what needs several.
Z = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]], dtype=torch.float64)
V = torch.tensor([[3.0, 1.0, 0.0], [0.5, -2.0, 2.0]], dtype=torch.float64)
Y = torch.tensor([0, 2])


def softmax(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp(x / temperature) for x in row]
    return [x / sum(powers) for x in powers]


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def pearson(a: list[float], b: list[float]) -> float:
    a, b = [x - sum(a) / len(a) for x in a], [x - sum(b) / len(b) for x in b]
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(
        sum(x * x for x in a) * sum(y * y for y in b)
    )


def by_hand(temperature: float, hard_share: float) -> float:
    p = 1 / (1 + math.exp(2 / temperature))  # the teacher's share of class 0; the student's of class 1
    divergence = p * math.log(p / (1 - p)) + (1 - p) * math.log((1 - p) / p)
    return hard_share * math.log(1 + math.exp(2)) + (1 - hard_share) * temperature**2 * divergence


def asked(**table: Any) -> float:
    return float(student_loss(DistillParams(**table))(STUDENT, (TEACHER, LABELS)))


@pytest.mark.parametrize(("temperature", "hard_share"), [(1.0, 0.0), (4.0, 0.1), (4.0, 1.0), (2.5, 0.5)])
def test_hintons_loss_against_the_formula(temperature: float, hard_share: float) -> None:
    value = asked(temperature=temperature, hard_share=hard_share)
    assert value == pytest.approx(by_hand(temperature, hard_share), rel=1e-5)


def test_the_worked_example_of_the_documentation() -> None:
    assert asked(temperature=4.0, hard_share=0.1) == pytest.approx(1.9761, abs=1e-4)


def test_cross_entropy_by_hand() -> None:
    expected = -sum(math.log(softmax(Z[i].tolist(), 1)[Y[i]]) for i in range(2)) / 2
    assert hard(Z, Y).item() == pytest.approx(expected)


def test_the_soft_gradient_keeps_its_size_with_temperature() -> None:
    """The factor T^2: at high temperature the gradient is the centred difference of logits / classes."""
    sizes = []
    for temperature in (20.0, 200.0):
        student = STUDENT.clone().requires_grad_()
        kd(student, TEACHER, temperature=temperature).backward()
        assert student.grad is not None
        sizes.append(student.grad.abs().max().item())
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)
    assert sizes[1] == pytest.approx(1.0, rel=0.01)  # (z - v) / N, both centred: 2 / 2


def test_the_soft_gradient_is_t_times_the_difference_of_the_distributions() -> None:
    student = Z.clone().requires_grad_()
    kd(student, V, temperature=3.0).backward()
    expected = 3.0 * ((Z / 3).softmax(1) - (V / 3).softmax(1)) / len(Z)
    assert student.grad is not None and torch.allclose(student.grad, expected)


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 8.0), (1.0, 0.0), (0.0, 1.0), (2.0, 6.0)])
def test_dkd_by_hand(alpha: float, beta: float) -> None:
    total = 0.0
    for z, v, y in zip(Z.tolist(), V.tolist(), Y.tolist(), strict=True):
        q, p = softmax(z, 2.0), softmax(v, 2.0)
        target = kl([p[y], 1 - p[y]], [q[y], 1 - q[y]])
        others = [c for c in range(3) if c != y]
        rest = kl([p[c] / (1 - p[y]) for c in others], [q[c] / (1 - q[y]) for c in others])
        total += (alpha * target + beta * rest) / (alpha + beta)
    value = decoupled(Z, V, Y, temperature=2.0, alpha=alpha, beta=beta)
    assert value.item() == pytest.approx(4 * total / 2)


def test_dkds_parts_are_hintons_loss_with_the_weights_of_its_paper() -> None:
    """KL = TCKD + (1 - p_label) NCKD, sample by sample: equation 5 of the paper."""
    for i in range(2):
        z, v, y = Z[i : i + 1], V[i : i + 1], Y[i : i + 1]
        share = 1 - softmax(v[0].tolist(), 2.0)[int(y)]
        target = decoupled(z, v, y, temperature=2.0, alpha=1, beta=0)
        others = decoupled(z, v, y, temperature=2.0, alpha=0, beta=1)
        assert kd(z, v, temperature=2.0).item() == pytest.approx((target + share * others).item())


def test_dkd_of_a_very_sure_student_stays_finite_and_exact() -> None:
    z, v = torch.tensor([[60.0, 0.0, 1.0]]), torch.tensor([[50.0, 0.0, 1.0]])
    z.requires_grad_()
    value = decoupled(z, v, torch.tensor([0]), temperature=1.0)
    value.backward()
    assert math.isfinite(value.item()) and z.grad is not None and torch.isfinite(z.grad).all()


def test_dist_by_hand() -> None:
    q = [softmax(row, 4.0) for row in Z.tolist()]
    p = [softmax(row, 4.0) for row in V.tolist()]
    inter = 1 - sum(pearson(a, b) for a, b in zip(q, p, strict=True)) / 2
    columns = zip(zip(*q, strict=True), zip(*p, strict=True), strict=True)
    intra = 1 - sum(pearson(list(a), list(b)) for a, b in columns) / 3
    value = dist(Z, V, temperature=4.0, alpha=2.0, beta=1.0)
    assert value.item() == pytest.approx(16 * (2 * inter + intra) / 3)


def test_dist_sees_the_pattern_and_not_the_size() -> None:
    two = V[:, :2]  # of two classes every correlation is 1 or -1: 1 here, whatever the size
    assert dist(3 * two, two, temperature=1.0, alpha=1, beta=0).item() == pytest.approx(0, abs=1e-9)


def test_logit_mse_is_twice_hintons_limit() -> None:
    z, v = Z - Z.mean(1, keepdim=True), V - V.mean(1, keepdim=True)
    by_elements = sum((a - b) ** 2 for a, b in zip(z.ravel().tolist(), v.ravel().tolist(), strict=True)) / 6
    assert logit_mse(z, v).item() == pytest.approx(by_elements)
    assert kd(z, v, temperature=1000.0).item() == pytest.approx(by_elements / 2, rel=0.01)


def test_standardized_logits_have_mean_0_and_deviation_1() -> None:
    rows = standardized(Z)
    assert rows.mean(1).tolist() == pytest.approx([0, 0], abs=1e-9)
    assert rows.square().mean(1).tolist() == pytest.approx([1, 1])
    assert torch.allclose(standardized(5 * Z + 3), rows)
    assert torch.isfinite(standardized(torch.ones(1, 4))).all()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("mse", (0.25 + 9) / 2), ("mae", (0.5 + 3) / 2), ("huber", (0.125 + 2 * (3 - 1)) / 2)],
)
def test_losses_on_real_outputs_by_hand(kind: str, expected: float) -> None:
    value = difference(torch.tensor([[0.5], [3.0]]), torch.zeros(2, 1), kind=kind, delta=2.0)
    assert value.item() == pytest.approx(expected)


@pytest.mark.parametrize(
    "term",
    [
        LossTerm("hard"),
        LossTerm("kd", temperature=3.0),
        LossTerm("kd", standardize=True),
        LossTerm("dkd", temperature=2.0),
        LossTerm("dkd", alpha=1.0, beta=1.0, standardize=True),
        LossTerm("dist"),
        LossTerm("dist", standardize=True),
        LossTerm("logit-mse"),
        LossTerm("logit-mse", standardize=True),
        LossTerm("mse"),
        LossTerm("mae"),
        LossTerm("huber", delta=0.7),
    ],
    ids=lambda term: f"{term.name}{' standardized' if term.standardize else ''}",
)
def test_the_gradient_is_the_numeric_one(term: LossTerm) -> None:
    loss = student_loss(DistillParams(loss=(term,)))
    assert torch.autograd.gradcheck(lambda z: loss(z, (V, Y)), (Z.clone().requires_grad_(),))


@pytest.mark.parametrize("name", ["kd", "dkd", "dist", "logit-mse", "mse", "mae", "huber"])
@pytest.mark.parametrize("standardize", [False, True])
def test_a_student_that_equals_its_teacher_has_no_loss(name: str, standardize: bool) -> None:
    loss = student_loss(DistillParams(loss=(LossTerm(name, standardize=standardize),)))
    assert loss(V, (V, Y)).item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("name", ["hard", "kd", "dkd", "dist", "logit-mse"])
def test_the_mean_is_over_samples(name: str) -> None:
    loss = student_loss(DistillParams(loss=(LossTerm(name, alpha=1.0, beta=0.0),)))
    three = loss(Z.repeat(3, 1), (V.repeat(3, 1), Y.repeat(3)))
    assert three.item() == pytest.approx(loss(Z, (V, Y)).item())


def test_a_list_of_terms_is_their_weighted_sum() -> None:
    terms = (LossTerm("hard", 0.3), LossTerm("kd", 2.0, 3.0), LossTerm("logit-mse", 0.5))
    value = student_loss(DistillParams(loss=terms))(Z, (V, Y))
    parts = (0.3 * hard(Z, Y), 2.0 * kd(Z, V, temperature=3.0), 0.5 * logit_mse(Z, V))
    assert value.item() == pytest.approx(sum(part.item() for part in parts))


@pytest.mark.parametrize("name", ["dkd", "dist", "logit-mse"])
def test_a_name_alone_shares_with_the_labels(name: str) -> None:
    value = student_loss(DistillParams(loss=name, temperature=4.0, hard_share=0.2))(Z, (V, Y))
    alone = student_loss(DistillParams(loss=(LossTerm(name, temperature=4.0),)))(Z, (V, Y))
    assert value.item() == pytest.approx((0.2 * hard(Z, Y) + 0.8 * alone).item())


def test_hard_alone_never_looks_at_the_teacher() -> None:
    nothing = torch.full_like(V, torch.nan)
    assert student_loss(DistillParams(loss="hard"))(Z, (nothing, Y)).item() == pytest.approx(
        hard(Z, Y).item()
    )


def test_an_autoencoders_labels_are_its_inputs() -> None:
    inputs = torch.ones(2, 3, dtype=torch.float64)
    value = student_loss(DistillParams(loss="mse", hard_share=0.25))(Z, (V, inputs))
    expected = 0.25 * (Z - 1).square().mean() + 0.75 * (Z - V).square().mean()
    assert value.item() == pytest.approx(expected.item())


@pytest.mark.parametrize("name", ["kd", "dkd", "dist", "logit-mse", "mse"])
def test_other_classes_than_the_teachers_are_refused(name: str) -> None:
    with pytest.raises(VerifyError, match=r"outputs have shape \(3,\) and the stored predictions \(2,\)"):
        student_loss(DistillParams(loss=(LossTerm(name),)))(Z, (V[:, :2], Y))

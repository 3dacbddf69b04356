"""Mixup between stored views: the mix and its loss by hand, drawn by seed, epoch and batch alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekd.learn.distill import distill_student, fit
from edgekd.learn.losses import kd, student_loss
from edgekd.learn.mixup import mixed, mixed_loss, share_of
from edgekd.learn.torch_tools import deterministic
from edgekd.learn.training import Batch, Watch
from edgekd.recipe import DistillParams
from tests.learn.chain import Chain
from tests.learn.test_training import SAMPLES, digest, network
from tests.learn.test_training import batches as labelled

X = torch.tensor([[1.0, 0.0], [3.0, 4.0], [5.0, -2.0]])
TEACHER = torch.tensor([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
LABELS = torch.tensor([0, 1, 0])
Z = torch.tensor([[0.5, 0.0], [0.1, 0.7], [0.0, 0.3]])


def stored(epoch: int, rows: torch.Tensor) -> Batch:
    return X[rows], (TEACHER[rows], LABELS[rows])


def test_the_mix_by_hand() -> None:
    rows = torch.tensor([2, 0, 1])
    x, targets = mixed(stored, 0.4, 7, "distill")(3, rows)
    share = share_of(0.4, 7, "distill", 3, 2)
    assert float(targets[0]) == share and 0.5 <= share <= 1
    for place, (mine, before) in enumerate(((2, 1), (0, 2), (1, 0))):
        expected = [
            share * a + (1 - share) * b for a, b in zip(X[mine].tolist(), X[before].tolist(), strict=True)
        ]
        assert x[place].tolist() == pytest.approx(expected)
        assert torch.equal(targets[1][place], TEACHER[before]) and targets[2][place] == LABELS[before]
        assert torch.equal(targets[3][place], TEACHER[mine]) and targets[4][place] == LABELS[mine]


def test_the_loss_is_the_shares_of_both() -> None:
    loss = student_loss(DistillParams(hard_share=0.3))
    of_a, of_b = (TEACHER, LABELS), (TEACHER.roll(1, 0), LABELS.roll(1, 0))
    value = mixed_loss(loss)(Z, (torch.tensor(0.75), *of_b, *of_a))
    assert value.item() == pytest.approx(0.75 * loss(Z, of_a).item() + 0.25 * loss(Z, of_b).item())


def test_its_gradient_is_that_of_the_mixed_predictions() -> None:
    """s KL(p_a || q) + (1 - s) KL(p_b || q) is KL(s p_a + (1 - s) p_b || q) and a constant."""
    z, other = Z.clone().requires_grad_(), TEACHER.roll(1, 0)
    loss = student_loss(DistillParams(hard_share=0.0, temperature=2.0))
    mixed_loss(loss)(z, (torch.tensor(0.75), other, LABELS, TEACHER, LABELS)).backward()
    both = Z.clone().requires_grad_()
    mix = 0.75 * (TEACHER / 2).softmax(1) + 0.25 * (other / 2).softmax(1)
    kd(both, 2 * mix.log(), temperature=2.0).backward()
    assert z.grad is not None and both.grad is not None and torch.allclose(z.grad, both.grad, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_the_shares_are_betas(alpha: float) -> None:
    """Of Beta(a, a) the variance is 1 / (4 (2 a + 1)); 400 draws find it to a fifth."""
    shares = np.array([share_of(alpha, 1, "distill", 0, row) for row in range(400)])
    assert np.square(shares - 0.5).mean() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.2)
    assert len(set(shares.tolist())) > 300 and (shares * 65_536 == np.rint(shares * 65_536)).all()


def run(mixup: float, work: Path | None = None, dies_in: int = -1) -> str:
    """A small run with an average and mixup; its weights' digest."""
    params = DistillParams(loss="hard", epochs=5, batch_samples=8, learning_rate=0.05, ema=0.9, mixup=mixup)

    def fed(epoch: int, rows: torch.Tensor) -> Batch:
        if epoch == dies_in:
            raise KeyboardInterrupt
        x, (labels,) = labelled(epoch, rows)
        return x, (labels, labels)

    net = network()
    with deterministic(1):
        fit(net, fed, student_loss(params), params, SAMPLES, 3, Watch(work=work))
    return digest(net)


def test_a_stopped_run_with_mixup_and_average_ends_in_the_unbroken_runs_bytes(tmp_path: Path) -> None:
    unbroken = run(0.8)
    for epoch in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            run(0.8, tmp_path, epoch)
    assert run(0.8, tmp_path) == unbroken != run(0.0)


def test_a_student_learns_from_mixed_views(chain: Chain, tmp_path: Path) -> None:
    distill = dataclasses.replace(chain.recipe.distill, mixup=0.4, epochs=12)
    metrics = distill_student(
        chain.data, chain.knowledge, dataclasses.replace(chain.recipe, distill=distill), tmp_path
    )
    assert metrics["accuracy_test"] > 0.4


def test_no_mixup_changes_nothing(chain: Chain, tmp_path: Path) -> None:
    """The chain's student again: the fields that came later are at their defaults."""
    distill_student(chain.data, chain.knowledge, chain.recipe, tmp_path)
    name = "student.safetensors"
    assert (tmp_path / name).read_bytes() == (chain.student / name).read_bytes()

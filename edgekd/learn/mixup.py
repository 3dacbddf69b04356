"""Mixup between the stored views of a batch: two samples as one, and the targets of both for it.

Zhang et al. 2018 (arXiv 1710.09412), as patient teaching uses it (arXiv 2106.05237). With the share s of
the first sample,

    x = s x_a + (1 - s) x_b        L = s L(z, targets of a) + (1 - s) L(z, targets of b)

For kd this is the divergence from the mix of the two stored predictions, but for a constant; for mse on
outputs it is the distance from the mix of both, but for a constant. s is drawn from Beta(alpha, alpha), the
larger half of it, so that a is the one that one sees.
"""

from __future__ import annotations

import torch

from edgekd.data.randomness import words
from edgekd.evaluate.intervals import beta_quantile
from edgekd.learn.training import Batch, Batches, Loss


def mixed(batches: Batches, alpha: float, seed: int, purpose: str) -> Batches:
    """`batches`, each sample mixed with the one before it (a batch's order is drawn anew each epoch).

    The share is one a batch, drawn from Philox by seed, epoch and the batch's first row: what went before
    does not matter, so a resumed run draws the same. Targets: (share, those of b, those of a).
    """

    def mixing(epoch: int, rows: torch.Tensor) -> Batch:
        x, targets = batches(epoch, rows)
        share = share_of(alpha, seed, purpose, epoch, int(rows[0]))
        others = tuple(target.roll(1, 0) for target in targets)
        return share * x + (1 - share) * x.roll(1, 0), (torch.tensor(share), *others, *targets)

    return mixing


def mixed_loss(loss: Loss) -> Loss:
    """`loss` for the targets that `mixed` gives: of both samples, by their shares."""

    def mixing(outputs: torch.Tensor, targets: tuple[torch.Tensor, ...]) -> torch.Tensor:
        share, both = targets[0], targets[1:]
        half = len(both) // 2
        return share * loss(outputs, both[half:]) + (1 - share) * loss(outputs, both[:half])

    return mixing


def share_of(alpha: float, seed: int, purpose: str, epoch: int, row: int) -> float:
    """The larger sample's share in one batch, 0.5 .. 1, a multiple of 1/65536."""
    word = int(words(seed, f"{purpose}-mixup", epoch, row, count=1)[0])
    share = beta_quantile(((word >> 11) + 0.5) / 2**53, alpha, alpha)
    return round(max(share, 1 - share) * 65_536) / 65_536

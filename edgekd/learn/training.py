"""The one training loop: AdamW, a one-cycle learning rate, batches in a seeded order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from edgekd.data.randomness import permutation
from edgekd.errors import VerifyError
from edgekd.progress import Progress

# (epoch, rows of the training split) -> (inputs, what the loss needs); rows are int64.
Batch = tuple[torch.Tensor, tuple[torch.Tensor, ...]]
Batches = Callable[[int, torch.Tensor], Batch]
Loss = Callable[[torch.Tensor, tuple[torch.Tensor, ...]], torch.Tensor]


@dataclass(frozen=True)
class Schedule:
    """epochs over `samples` training samples; `learning_rate` is the peak of the cycle."""

    samples: int
    epochs: int
    batch_samples: int
    learning_rate: float
    weight_decay: float
    seed: int
    purpose: str  # names the stream that orders the batches


def train(
    net: torch.nn.Module, batches: Batches, loss: Loss, schedule: Schedule, progress: Progress
) -> float:
    """Train `net` in place and leave it in evaluation mode; returns the last epoch's mean loss.

    The last, smaller batch of an epoch is left out where there is a full one. Raises VerifyError when the
    loss is no longer a number.
    """
    size = min(schedule.batch_samples, schedule.samples)
    steps = schedule.samples // size
    optimizer = torch.optim.AdamW(_groups(net, schedule.weight_decay), lr=schedule.learning_rate)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, schedule.learning_rate, total_steps=max(2, schedule.epochs * steps)
    )
    net.train()
    mean = 0.0
    for epoch in range(schedule.epochs):
        order = permutation(schedule.seed, schedule.purpose, epoch, count=schedule.samples)
        rows = torch.from_numpy(order)
        total = 0.0
        for step in range(steps):
            inputs, targets = batches(epoch, rows[step * size : (step + 1) * size])
            value = loss(net(inputs), targets)
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            cycle.step()
            total += value.item()
        mean = total / steps
        if not mean < float("inf"):
            raise VerifyError(
                f"{schedule.purpose}: the loss is {mean} in epoch {epoch + 1}; take a smaller learning_rate"
            )
        progress(schedule.purpose, epoch + 1, schedule.epochs)
    net.eval()
    return mean


def _groups(net: torch.nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weights decay; biases and batch norm do not."""
    decayed = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]

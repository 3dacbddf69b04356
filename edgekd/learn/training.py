"""The one training loop: AdamW or SGD, a one-cycle learning rate, batches in a seeded order.

Plain torch: what a framework would add (Fabric, Accelerate: seconds of import, a dozen packages) is
here 200 lines, and what decides the bytes stays in sight. Under `torchrun` each process takes its
share of every batch. With a work directory a killed run continues behind its last whole epoch and
ends in the same bytes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import distributed
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from edgekd.data.randomness import permutation, torch_seed
from edgekd.errors import ConfigError, VerifyError
from edgekd.learn.logs import epoch_log
from edgekd.learn.resume import State, restore, store
from edgekd.learn.torch_tools import PLAIN, Machine
from edgekd.progress import Progress, silent

# (epoch, rows of the training split) -> (inputs, what the loss needs, labels last); rows are int64.
Batch = tuple[torch.Tensor, tuple[torch.Tensor, ...]]
Batches = Callable[[int, torch.Tensor], Batch]
Loss = Callable[[torch.Tensor, tuple[torch.Tensor, ...]], torch.Tensor]

_TOLD_EVERY_S = 1.0


@dataclass(frozen=True)
class Schedule:
    """epochs over `samples` training samples; `learning_rate` is the peak of the cycle."""

    samples: int
    epochs: int
    batch_samples: int
    learning_rate: float
    weight_decay: float
    seed: int
    purpose: str  # names the stream that orders the batches, and the run's checkpoint
    optimizer: str = "adamw"
    ema: float = 0.0

    @property
    def batch(self) -> int:
        return min(self.batch_samples, self.samples)

    @property
    def steps(self) -> int:
        """Steps an epoch; the last, smaller batch is left out where there is a full one."""
        return self.samples // self.batch


@dataclass(frozen=True)
class Watch:
    """What a run may use that decides no byte of its result.

    work: where it keeps its last epoch, to continue after a kill. log: a .csv that gets
    a line an epoch, or a folder for TensorBoard's events. behind: called with the epochs done and the network
    behind each; what it raises ends the run.
    """

    progress: Progress = silent
    work: Path | None = None
    log: Path | None = None
    behind: Callable[[int, torch.nn.Module], None] | None = None


def train(
    net: torch.nn.Module,
    batches: Batches,
    loss: Loss,
    schedule: Schedule,
    watch: Watch = Watch(),
    machine: Machine = PLAIN,
) -> float:
    """Train `net` in place and leave it on the CPU in evaluation mode; returns the last epoch's mean loss.

    Raises VerifyError when the loss is no longer a number, naming epoch, step and samples; the last whole
    epoch stays in `watch.work`.
    """
    machine.place(net)
    state = State(net, _optimizer(net, schedule), _average(net, schedule.ema), 0, 0.0)
    file = watch.work / f"{schedule.purpose}.safetensors" if watch.work else None
    restore(state, schedule, file)
    net.train()
    log = epoch_log(watch.log if rank() == 0 else None, schedule.purpose, schedule.epochs)
    # Layers that draw (dropout) take torch's global generator: seeded by epoch, and put back behind.
    with torch.random.fork_rng(), log as told:
        while state.epoch < schedule.epochs:
            torch.manual_seed(torch_seed(schedule.seed, f"{schedule.purpose}-layers", state.epoch))
            started = time.monotonic()
            mean, accuracy = _epoch(state, batches, loss, schedule, watch, machine)
            state.epoch, state.loss = state.epoch + 1, mean
            if rank() == 0:
                store(state, schedule, file)
                told(state.epoch, mean, accuracy, time.monotonic() - started)
            if watch.behind is not None:
                watch.behind(state.epoch, state.net)
    if state.average is not None:
        net.load_state_dict(state.average.module.state_dict())
    net.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    net.eval()
    return state.loss


def _epoch(
    state: State, batches: Batches, loss: Loss, schedule: Schedule, watch: Watch, machine: Machine
) -> tuple[float, float]:
    """One epoch; (mean loss, share of the samples whose label is the largest logit, NaN without labels)."""
    order = permutation(schedule.seed, schedule.purpose, state.epoch, count=schedule.samples)
    rows, size, steps = torch.from_numpy(order), schedule.batch, schedule.steps
    net = _replicated(state.net, size)
    total = hits = 0.0
    told = time.monotonic()
    for step in range(steps):
        mine = rows[step * size : (step + 1) * size][rank() :: world()]
        inputs, targets = batches(state.epoch, mine)
        targets = tuple(t.to(machine.torch_device()) for t in targets)
        with machine.autocast():
            output = net(machine.prepared(inputs))
        value = loss(output.float(), targets)
        _set_rate(state.optimizer, schedule, state.epoch * steps + step)
        state.optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        state.optimizer.step()
        if state.average is not None:
            state.average.update_parameters(state.net)
        number = _mean(value.item())
        if not math.isfinite(number):
            raise VerifyError(
                f"{schedule.purpose}: the loss is {number} in epoch {state.epoch + 1}, step {step + 1} "
                f"(training rows {', '.join(map(str, mine[:4].tolist()))}, ...); take a smaller learning_rate"
            )
        total += number
        hits += _hits(output, targets)
        if step + 1 == steps or time.monotonic() - told > _TOLD_EVERY_S:
            told = time.monotonic()
            label = f"{schedule.purpose}: loss {total / (step + 1):.3f}"
            watch.progress(label, state.epoch * steps + step + 1, schedule.epochs * steps)
    return total / steps, _mean(hits / (steps * (size // world())))


def rank() -> int:
    """This process's number under torchrun; 0 alone."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def one_cycle(step: int, total: int) -> tuple[float, float]:
    """(share of the peak learning rate, momentum) at `step` of `total`: cosines up over 30 %, then down.

    Smith and Topin 2017 (arXiv 1708.07120) with torch's constants: from 1/25 of the peak to it and down to
    1/250,000; momentum from 0.95 to 0.85 and back.
    """
    top = 0.3 * max(total, 2) - 1
    last = max(total, 2) - 1

    def between(start: float, end: float, part: float) -> float:
        return end + (start - end) / 2 * (1 + math.cos(math.pi * part))

    if step <= top:
        return between(1 / 25, 1, step / top), between(0.95, 0.85, step / top)
    part = (step - top) / (last - top)
    return between(1, 1 / 250_000, part), between(0.85, 0.95, part)


def _set_rate(optimizer: torch.optim.Optimizer, schedule: Schedule, step: int) -> None:
    share, momentum = one_cycle(step, schedule.epochs * schedule.steps)
    for group in optimizer.param_groups:
        group["lr"] = schedule.learning_rate * share
        if "betas" in group:
            group["betas"] = (momentum, group["betas"][1])
        else:
            group["momentum"] = momentum


def _optimizer(net: torch.nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    groups = _groups(net.parameters(), schedule.weight_decay)
    if schedule.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=schedule.learning_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=schedule.learning_rate)


def _groups(parameters: Iterable[torch.nn.Parameter], weight_decay: float) -> list[dict[str, object]]:
    """Weights decay; biases and batch norm do not."""
    every = [p for p in parameters if p.requires_grad]
    decayed, others = [p for p in every if p.ndim > 1], [p for p in every if p.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _average(net: torch.nn.Module, decay: float) -> AveragedModel | None:
    """The running mean of weights and statistics that stands in for the last ones."""
    if not decay:
        return None
    mean = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(net, multi_avg_fn=mean, use_buffers=True)


def _replicated(net: torch.nn.Module, batch: int) -> torch.nn.Module:
    """`net`, with its gradients averaged over the processes where there are several."""
    if world() == 1:
        return net
    if batch % world():
        raise ConfigError(
            f"batches of {batch} samples cannot be shared by {world()} processes; take a multiple"
        )
    return torch.nn.parallel.DistributedDataParallel(net)


def _mean(value: float) -> float:
    """The mean over the processes: all see the same loss, and all stop at the same NaN."""
    if world() == 1:
        return value
    shared = torch.tensor([value], dtype=torch.float64)
    distributed.all_reduce(shared)
    return float(shared) / world()


def _hits(output: torch.Tensor, targets: tuple[torch.Tensor, ...]) -> float:
    labels = targets[-1] if targets else None
    if labels is None or labels.ndim != 1 or labels.is_floating_point() or output.ndim != 2:
        return math.nan
    return float((output.detach().argmax(dim=1) == labels).sum())

"""The training loop: a resumed run ends in an unbroken one's bytes; processes share batches."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekd.errors import ArtifactError, ConfigError, VerifyError
from edgekd.learn.torch_tools import Machine, deterministic, has_bf16
from edgekd.learn.training import Batch, Schedule, Watch, one_cycle, train

ROOT = Path(__file__).resolve().parents[2]
SAMPLES, STEPS = 40, 5
SCHEDULE = Schedule(SAMPLES, 6, 8, 0.05, 0.01, 3, "little", ema=0.9)
X = torch.from_numpy(np.random.Generator(np.random.Philox(1)).normal(size=(SAMPLES, 3, 4, 4))).float()
Y = (X.mean(dim=(1, 2, 3)) > 0).long()


def network() -> torch.nn.Module:
    """A convolution, batch norm, dropout: state that a resumed run must bring back, and drawn numbers."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = (torch.nn.Flatten(), torch.nn.Dropout(0.3), torch.nn.Linear(64, 2))
        return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.BatchNorm2d(4), *head)


def batches(epoch: int, rows: torch.Tensor) -> Batch:
    return X[rows] + epoch / 100, (Y[rows],)


def loss(logits: torch.Tensor, targets: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits, targets[0])


def digest(net: torch.nn.Module) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        found.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


def trained(schedule: Schedule, work: Path | None = None, machine: Machine = Machine()) -> str:  # noqa: B008
    net = network()
    with deterministic(1):
        train(net, batches, loss, schedule, Watch(work=work), machine)
    return digest(net)


def stopped(schedule: Schedule, work: Path, epoch: int) -> None:
    """A run that dies in the middle of `epoch`."""

    def dying(number: int, rows: torch.Tensor) -> Batch:
        if number == epoch:
            raise KeyboardInterrupt
        return batches(number, rows)

    with pytest.raises(KeyboardInterrupt), deterministic(1):
        train(network(), dying, loss, schedule, Watch(work=work))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_run_stopped_thrice_ends_in_the_unbroken_runs_bytes(optimizer: str, tmp_path: Path) -> None:
    schedule = dataclasses.replace(SCHEDULE, optimizer=optimizer)
    unbroken = trained(schedule)
    for epoch in (1, 3, 5):
        stopped(schedule, tmp_path, epoch)
    assert trained(schedule, tmp_path) == unbroken
    assert trained(schedule, tmp_path) == unbroken  # nothing is left to train: the end is read


PROGRAM = """
import sys, time
from pathlib import Path
from tests.learn.test_training import *
slow = lambda epoch, rows: (time.sleep(0.02), batches(epoch, rows))[1]
net = network()
with deterministic(1):
    train(net, slow, loss, SCHEDULE, Watch(work=Path(sys.argv[1])))
print(digest(net))
"""


def test_a_process_killed_at_three_random_points_ends_in_the_same_bytes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    random = np.random.Generator(np.random.Philox(time.time_ns()))
    file = tmp_path / "little.safetensors"
    for _ in range(3):
        before = file.stat().st_mtime_ns if file.exists() else 0
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None and (not file.exists() or file.stat().st_mtime_ns == before):
                time.sleep(0.005)
            time.sleep(float(random.uniform(0, 0.1)))
            process.kill()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == trained(SCHEDULE)


def test_what_another_schedule_left_is_not_taken(tmp_path: Path) -> None:
    stopped(SCHEDULE, tmp_path, 2)
    other = dataclasses.replace(SCHEDULE, learning_rate=0.01)
    assert trained(other, tmp_path) == trained(other)


@pytest.mark.parametrize("cut", [0, 7, 300, -1])
def test_a_damaged_last_epoch_is_named(tmp_path: Path, cut: int) -> None:
    stopped(SCHEDULE, tmp_path, 2)
    file = tmp_path / "little.safetensors"
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(ArtifactError, match=r"little\.safetensors is damaged .* remove it"):
        trained(SCHEDULE, tmp_path)


def test_a_loss_that_is_no_number_leaves_the_last_good_epoch(tmp_path: Path) -> None:
    def poisoned(epoch: int, rows: torch.Tensor) -> Batch:
        inputs, targets = batches(epoch, rows)
        return inputs * (math.nan if epoch == 2 else 1), targets

    said = r"little: the loss is nan in epoch 3, step 1 \(training rows \d+, \d+, .*smaller learning_rate"
    with pytest.raises(VerifyError, match=said), deterministic(1):
        train(network(), poisoned, loss, SCHEDULE, Watch(work=tmp_path))
    assert trained(SCHEDULE, tmp_path) == trained(SCHEDULE)


def test_the_cycle_is_torchs() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.5, momentum=0.9)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=40)
    for step in range(40):
        share, momentum = one_cycle(step, 40)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * share, rel=1e-9)
        assert optimizer.param_groups[0]["momentum"] == pytest.approx(momentum, rel=1e-9)
        optimizer.step()
        if step < 39:
            cycle.step()


def test_the_average_is_the_running_mean_of_the_weights() -> None:
    """By hand over four steps of one weight: a_1 = w_1, a_2 = 0.8 a_1 + 0.2 w_2, and so on."""
    schedule = Schedule(1, 4, 1, 0.1, 0.0, 1, "mean", "sgd", 0.8)
    seen: list[float] = []

    def weight(ema: float) -> float:
        net = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(net.weight, 1.0)

        def one(epoch: int, rows: torch.Tensor) -> Batch:
            seen.append(float(net.weight.detach()))
            return torch.ones(1, 1), ()

        changed = dataclasses.replace(schedule, ema=ema)
        train(net, one, lambda y, t: (y - 3).square().mean(), changed)
        return float(net.weight.detach())

    last = weight(0.0)
    _, first, second, third = seen
    expected = first
    for each in (second, third, last):
        expected = 0.8 * expected + 0.2 * each
    assert weight(0.8) == pytest.approx(expected, rel=1e-6) != pytest.approx(last, rel=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_both_precisions_learn(precision: str) -> None:
    net = network()
    schedule = dataclasses.replace(SCHEDULE, epochs=12, ema=0.0)
    value = train(net, batches, loss, schedule, machine=Machine(precision=precision))
    assert value < 0.5
    assert next(net.parameters()).dtype == torch.float32 and next(net.parameters()).is_contiguous()
    assert isinstance(has_bf16("cpu"), bool)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_gpu_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match='finds none here; set device = "cpu"'):
        trained(SCHEDULE, machine=Machine(device="gpu"))


SHARED_BATCHES = """
import sys
import torch
from tests.learn.test_training import *
from edgekd.learn.training import rank
torch.distributed.init_process_group("gloo")
net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 2))
torch.nn.init.zeros_(net[1].weight), torch.nn.init.zeros_(net[1].bias)
with deterministic(1):
    value = train(net, batches, loss, SCHEDULE)
torch.distributed.barrier()  # none leaves while another still talks
if rank() == 0:
    torch.save({"loss": value, "weight": net[1].weight.detach()}, sys.argv[1])
torch.distributed.destroy_process_group()
"""


def test_two_processes_give_the_gradients_of_one(tmp_path: Path) -> None:
    """Without batch norm the halves of a batch add up: the same weights to rounding."""
    program, out = tmp_path / "program.py", tmp_path / "out.pt"
    program.write_text(SHARED_BATCHES)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(program), str(out)]
    done = subprocess.run(
        [sys.executable, *launch],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shared = torch.load(out, weights_only=True)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 2))
    torch.nn.init.zeros_(net[1].weight), torch.nn.init.zeros_(net[1].bias)
    value = train(net, batches, loss, SCHEDULE)
    assert torch.allclose(shared["weight"], net[1].weight, atol=1e-5)
    assert shared["loss"] == pytest.approx(value, rel=1e-4)

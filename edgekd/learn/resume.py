"""A training run's last whole epoch on disk: weights, optimizer, average and counts in one safetensors file.

A file is written beside and renamed, so that a kill leaves the old epoch or the new one. It belongs to
one schedule; what another schedule left is not taken.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch.optim.swa_utils import AveragedModel

from edgekd.errors import ArtifactError
from edgekd.learn.torch_tools import plain

if TYPE_CHECKING:
    from edgekd.learn.training import Schedule

_NET, _AVERAGE, _OPTIMIZER = "net.", "average.", "optimizer."


@dataclass
class State:
    """What changes while a run trains. epoch: whole epochs behind it; loss: the last one's mean."""

    net: torch.nn.Module
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None
    epoch: int
    loss: float


def store(state: State, schedule: Schedule, file: Path | None) -> None:
    """Write `state` to `file` (nothing where None)."""
    if file is None:
        return
    tensors = {_NET + name: plain(t) for name, t in state.net.state_dict().items()}
    if state.average is not None:
        tensors |= {_AVERAGE + name: plain(t).clone() for name, t in state.average.state_dict().items()}
    for index, row in state.optimizer.state_dict()["state"].items():
        tensors |= {f"{_OPTIMIZER}{index}.{name}": plain(t) for name, t in row.items() if t is not None}
    header = {"epoch": state.epoch, "loss": state.loss, "schedule": asdict(schedule)}
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        # Written by Python: a full disk is then an OSError that says so.
        temporary.write_bytes(save(tensors, {"edgekd": json.dumps(header, sort_keys=True)}))
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def restore(state: State, schedule: Schedule, file: Path | None) -> None:
    """Bring `state` to where `file` left off, if it is there and of the same schedule.

    Raises ArtifactError when it is damaged.
    """
    if file is None or not file.is_file():
        return
    try:
        with safe_open(str(file), framework="pt") as opened:
            header: dict[str, Any] = json.loads((opened.metadata() or {})["edgekd"])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        if header["schedule"] != asdict(schedule):
            return
        _put(state, tensors)
        state.epoch, state.loss = int(header["epoch"]), float(header["loss"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        detail = str(error).splitlines()[0]
        raise ArtifactError(f"{file} is damaged ({detail}); remove it to train from the start") from None


def _put(state: State, tensors: dict[str, torch.Tensor]) -> None:
    def below(prefix: str) -> dict[str, torch.Tensor]:
        return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

    state.net.load_state_dict(below(_NET))
    if state.average is not None:
        state.average.load_state_dict(below(_AVERAGE))
    rows: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in below(_OPTIMIZER).items():
        index, key = name.split(".", 1)
        rows.setdefault(int(index), {})[key] = tensor
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": rows, "param_groups": groups})

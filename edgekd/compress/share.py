"""Weight sharing: a layer's weights become indices of a few bits into small tables of int8 values.

The tables start where the squared error, weighted by how much the stored knowledge minds each weight (the
diagonal of the Fisher information), is least, and are then trained with everything else (shared_net.py). What
comes out are a student whose weights are exactly scale times table entry, and the tables beside it, which the
quantizer takes over as they are. docs/methods/weight-sharing.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from edgekd.compress.shared_net import Plan, SharedNet
from edgekd.data.randomness import permutation
from edgekd.errors import ArtifactError, ConfigError
from edgekd.learn.distill import fit
from edgekd.learn.student import StudentNet
from edgekd.learn.torch_tools import Machine, load_weights, save_weights
from edgekd.learn.training import Batches, Loss, Watch
from edgekd.qgraph.encoding import MOST_TABLES, Encoding
from edgekd.qgraph.rounding import Grid
from edgekd.recipe import CompressParams, DistillParams

FILE = "tables.safetensors"
WHOLE = 256  # entries of a table of int8 values that has them all: a layer of so many stays at 8 bits
PURPOSE = "compress-share"
WORTH = 0.75  # of its bytes at 8 bits: a layer that would keep more stays as it is, unless it is named
_SAMPLES, _BATCH = 4096, 32  # that the importances are measured on
_PARTS = ("table", "scales", "channel_tables")


@dataclass(frozen=True, eq=False)
class Course:
    """What a student is tuned with: what `fit` takes beside the network."""

    batches: Batches
    loss: Loss
    tuning: DistillParams
    samples: int
    seed: int
    watch: Watch
    machine: Machine


def share(net: StudentNet, params: CompressParams, course: Course) -> tuple[StudentNet, dict[str, Grid]]:
    """A tuned student with shared weights, and their grids by the weights' name.

    Averages of weights (distill.ema) are not taken: a mean of indices is none. Raises ConfigError as `plans`.
    """
    chosen = plans(net, params)
    importances = squared_gradients(net, course)
    schedule_steps = course.samples // min(course.tuning.batch_samples, course.samples)
    shared = SharedNet(net, chosen, importances, schedule_steps * course.tuning.epochs)
    if course.tuning.epochs:
        tuning = replace(course.tuning, ema=0.0)
        given = course.batches, course.loss, tuning, course.samples, course.seed, course.watch
        fit(shared, *given, PURPOSE, course.machine)
    return shared.finished()


def plans(net: StudentNet, params: CompressParams) -> dict[str, Plan]:
    """How each layer that is shared is shared, by its weights' name.

    Depthwise convolutions stay at 8 bits, and so do dense layers unless the recipe names all: each of their
    weights is used once, and decoding costs more than the layer. So does a layer that is hardly smaller then.
    Raises ConfigError for a layer that is not there, groups that do not divide, or where no layer is left.
    """
    fixed = {each.layer: each.entries for each in params.layer_entries}
    found: dict[str, Plan] = {}
    known = []
    for index, spec in enumerate(net.structure.layers):
        if not spec.weights:
            continue
        name = f"layers.{index}.conv.weight" if spec.kind == "conv" else f"layers.{index}.weight"
        layer = name.removesuffix(".weight")
        known.append(layer)
        named = layer in fixed
        usual = spec.groups == 1 and (spec.kind == "conv" or params.share_layers == "all")
        entries = fixed.get(layer, params.entries)
        if not (usual or named) or entries == WHOLE:
            continue
        plan = Plan(entries, _groups(spec.outputs, params.group_channels, layer), spec.kind == "conv")
        stored = stored_bytes(plan, spec.outputs, spec.weights)
        if stored < spec.weights * (1 if named else WORTH):
            found[name] = plan
        elif named:
            raise ConfigError(
                f"compress.layer_entries: {entries} entries are too many for the {spec.weights} weights of "
                f"{layer}: with its tables it would take {stored} bytes; leave it out"
            )
    _check_names(fixed, known)
    if not found:
        raise ConfigError(
            "compress.methods: share makes no layer of this student smaller; leave it out, take fewer "
            'entries or a larger group_channels, or share dense layers by compress.share_layers = "all"'
        )
    return found


def _groups(channels: int, group_channels: int, layer: str) -> int:
    """How many tables a layer gets."""
    if not group_channels or group_channels >= channels:
        return 1
    if channels % group_channels:
        raise ConfigError(
            f"compress.group_channels: groups of {group_channels} do not divide the {channels} channels of "
            f"{layer}; take a divisor, or 0 for one table a layer"
        )
    if channels // group_channels > MOST_TABLES:
        raise ConfigError(
            f"compress.group_channels: groups of {group_channels} give {layer} "
            f"{channels // group_channels} tables and {MOST_TABLES} is the most; take larger groups"
        )
    return channels // group_channels


def _check_names(fixed: Mapping[str, int], known: list[str]) -> None:
    for layer in fixed:
        if layer not in known:
            raise ConfigError(
                f"compress.layer_entries: the student has no layer {layer!r} with weights; it has "
                f"{', '.join(known)}"
            )


def stored_bytes(plan: Plan, channels: int, weights: int) -> int:
    """A layer's indices, tables and what a kernel is told more, in flash."""
    tables = np.zeros((plan.groups, plan.entries), np.int8)
    bits = (plan.entries - 1).bit_length()
    return Encoding(bits, tables, plan.channel_tables(channels)).stored_bytes(weights)


def sharing(net: StudentNet, grids: Mapping[str, Grid]) -> dict[str, int]:
    """What the stage reports: layers that share, their weights (a byte each at 8 bits), bytes as they are."""
    stored = 0
    for name, grid in grids.items():
        weights = net.get_parameter(name)
        groups = len(np.atleast_2d(grid.table))
        plan = Plan(grid.table.shape[-1], groups, grid.scales.size > 1)
        stored += stored_bytes(plan, len(weights), weights.numel())
    every = sum(net.get_parameter(name).numel() for name in grids)
    return {"layers": len(grids), "weights": every, "stored_bytes": stored}


def squared_gradients(net: StudentNet, course: Course) -> dict[str, torch.Tensor]:
    """By parameter the mean squared gradient of the loss over small batches of the stored knowledge.

    Near a minimum it is the diagonal of the Fisher information, which says how much the loss rises with the
    square of a weight's change. One pass over at most 4,096 samples of the first view.
    """
    machine = course.machine
    machine.place(net)
    order = torch.from_numpy(permutation(course.seed, f"{PURPOSE}-importance", 0, count=course.samples))
    sums = {name: torch.zeros_like(parameter) for name, parameter in net.named_parameters()}
    for rows in torch.split(order[:_SAMPLES], _BATCH):
        inputs, targets = course.batches(0, rows)
        net.zero_grad()
        with machine.autocast():
            output = net(machine.prepared(inputs))
        value = course.loss(output.float(), tuple(t.to(machine.torch_device()) for t in targets))
        value.backward()  # type: ignore[no-untyped-call]
        for name, parameter in net.named_parameters():
            if parameter.grad is not None:
                sums[name] += parameter.grad**2
    net.zero_grad()
    net.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return {name: each.cpu().contiguous() for name, each in sums.items()}


def save_tables(grids: Mapping[str, Grid], out: Path) -> None:
    """Write the grids beside a student."""
    tensors = {}
    for name, grid in grids.items():
        parts = (grid.table, grid.scales, grid.channel_tables)
        for part, values in zip(_PARTS, parts, strict=True):
            if values is not None:
                tensors[f"{name}.{part}"] = torch.from_numpy(np.ascontiguousarray(values))
    save_weights(tensors, out / FILE)


def load_tables(directory: Path) -> dict[str, Grid]:
    """Read what `save_tables` wrote. Raises ArtifactError when it is absent or broken."""
    path = directory / FILE
    tensors = {name: tensor.numpy() for name, tensor in load_weights(path).items()}
    names = list(dict.fromkeys(name.rpartition(".")[0] for name in tensors))
    try:
        return {
            name: Grid(
                tensors[f"{name}.scales"],
                tensors[f"{name}.table"],
                0,
                tensors.get(f"{name}.channel_tables"),
            )
            for name in names
        }
    except KeyError as error:
        raise ArtifactError(f"{path} lacks {error}; compress the student again") from None

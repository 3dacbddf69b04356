"""The teacher: trained on augmented samples, or brought and tuned. A student loads it for hints alone.

Directory: `teacher.json` (structure, classes, the data's checksum), `teacher.safetensors`, and
`teacher.onnx` or `teacher.pt2` where the teacher is a file of others' making.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekd.data import Dataset, load_dataset
from edgekd.data.augment import augmented
from edgekd.data.randomness import torch_seed
from edgekd.errors import ArtifactError, ConfigError
from edgekd.learn.checkpoint import load_checkpoint
from edgekd.learn.exported import ExportedNet
from edgekd.learn.foreign import OnnxNet
from edgekd.learn.networks import build
from edgekd.learn.replay import Replay
from edgekd.learn.scores import scores
from edgekd.learn.torch_tools import (
    Machine,
    deterministic,
    files_sha256,
    fill,
    initialise,
    load_weights,
    machine_of,
    save_weights,
)
from edgekd.learn.training import Batch, Schedule, Watch, train
from edgekd.recipe import Recipe, TeacherParams, teacher_seed

SCHEMA = 1
NONE = "none"
# Models that are files: how one is kept in the teacher's directory, and what runs it.
FILES: dict[str, tuple[str, Callable[[bytes, bool, int, str], nn.Module]]] = {
    "onnx": ("teacher.onnx", OnnxNet),
    "exported": ("teacher.pt2", ExportedNet),
}


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained teacher, or the mean of several. `net` maps float32 [N, C, H, W] to logits.

    sha256: of its files; of several, each one's, joined by "+" in sorted order. weights: of the mean, each
    digest's share.
    """

    net: nn.Module
    classes: tuple[str, ...]
    dataset_sha256: str
    sha256: str
    weights: tuple[tuple[str, float], ...] = ()

    @property
    def shares(self) -> tuple[tuple[str, float], ...]:
        """Digest and share of each teacher; one alone has all."""
        return self.weights or ((self.sha256, 1.0),)


def train_teacher(
    dataset_dir: Path,
    recipe: Recipe,
    out: Path,
    *,
    watch: Watch = Watch(),  # noqa: B008  (frozen)
) -> dict[str, Any]:
    """Stage: train the recipe's teacher on the training split and write it into `out`.

    Returns its accuracy on "validation" and "test" (an autoencoder's error and area under the ROC curve) and
    the number of its parameters. The teacher "none" is a header without weights.
    """
    data, params, machine = load_dataset(dataset_dir), recipe.teacher, machine_of(recipe)
    if data.reconstructed:
        data.check_normal()
    channels = int(data.x.shape[1])
    seed = teacher_seed(recipe)
    net = _new(params, channels, data.outputs, seed, out)
    loss, figures = 0.0, {}
    if params.model != NONE:
        with deterministic(recipe.threads):
            loss = _fit(net, data, params, seed, watch, machine)
            figures = placed_scores(net, data, machine)
    header = {
        "schema": SCHEMA,
        "model": params.model,
        "width": params.width,
        "channels": channels,
        "inputs": params.inputs,
        "classes": list(data.classes),
        "dataset_sha256": data.sha256,
    } | ({"outputs": data.outputs} if data.reconstructed else {})
    (out / "teacher.json").write_text(json.dumps(header, indent=1, sort_keys=True) + "\n", "utf-8")
    save_weights(net.state_dict(), out / "teacher.safetensors")
    return figures | {"parameters": sum(p.numel() for p in net.parameters()), "loss": loss}


def _new(params: TeacherParams, channels: int, classes: int, seed: int, out: Path) -> nn.Module:
    """The network with the weights that it starts from; a model that is a file is kept in `out`."""
    path = Path(params.checkpoint)
    if params.model == NONE:
        return nn.Module()
    if params.model in FILES:
        name, kind = FILES[params.model]
        try:
            model = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}; set teacher.checkpoint") from None
        (out / name).write_bytes(model)
        return kind(model, params.inputs == "unit", classes, path.name)
    net = build(params.model, channels, classes, params.width, params.code)
    if ":" not in params.model:  # a function's network brings what it starts from
        initialise(net, torch_seed(seed, "teacher-weights"))
    if params.checkpoint:
        fill(net, load_checkpoint(path), path)
    return net


def placed_scores(net: nn.Module, data: Dataset, machine: Machine) -> dict[str, float]:
    """How good `net` is on the plain samples of "validation" and "test", computed on `machine`."""
    net.to(machine.torch_device())
    found = scores(net, data, machine)
    net.to("cpu")
    return found


def load_teacher(directory: Path, code: str = "") -> Teacher:
    """Read what `train_teacher` wrote. Raises ArtifactError when it is absent or broken.

    code: the file of the module that a teacher of the form package.module:function comes from.
    """
    path = directory / "teacher.safetensors"
    digest = teacher_sha256(directory)
    try:
        header = json.loads((directory / "teacher.json").read_text("utf-8"))
        classes = tuple(header["classes"])
        outputs = header.get("outputs", len(classes))
        if header["model"] == NONE:
            net = nn.Module()
        elif header["model"] in FILES:
            name, kind = FILES[header["model"]]
            net = kind((directory / name).read_bytes(), header["inputs"] == "unit", outputs, name)
        else:
            net = build(header["model"], header["channels"], outputs, header["width"], code)
        dataset_sha256 = str(header["dataset_sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{directory}/teacher.json is not readable ({error}); train the teacher again"
        ) from None
    fill(net, load_weights(path), path)
    net.eval()
    return Teacher(net, classes, dataset_sha256, digest)


def teacher_sha256(directory: Path) -> str:
    """The digest that a knowledge file names its teacher by: over its files in a fixed order."""
    more = [directory / name for name, _ in FILES.values() if (directory / name).is_file()]
    return files_sha256(directory / "teacher.json", directory / "teacher.safetensors", *more)


def _fit(
    net: nn.Module, data: Dataset, params: TeacherParams, seed: int, watch: Watch, machine: Machine
) -> float:
    if params.epochs == 0:
        return 0.0
    ids, population = data.splits["train"], len(data.y)
    labels = torch.from_numpy(data.y[ids])
    where = {"seed": seed, "purpose": "teacher-view", "population": population}
    replay = Replay(
        data,
        ids,
        lambda x, ids, view: augmented(x, ids, params.augment, view=view, **where),  # type: ignore[arg-type]
        views=params.epochs,
    )

    def batches(epoch: int, rows: torch.Tensor) -> Batch:
        x = replay.rows(epoch, rows)
        return x, (x if data.reconstructed else labels[rows],)

    schedule = Schedule(
        samples=len(ids),
        epochs=params.epochs,
        batch_samples=params.batch_samples,
        learning_rate=params.learning_rate,
        weight_decay=params.weight_decay,
        seed=seed,
        purpose="teacher",
        optimizer=params.optimizer,
        ema=params.ema,
    )
    loss = _reconstruction if data.reconstructed else _cross_entropy
    return train(net, batches, loss, schedule, watch, machine)


def _cross_entropy(logits: torch.Tensor, targets: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return nn.functional.cross_entropy(logits, targets[0])


def _reconstruction(outputs: torch.Tensor, targets: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return nn.functional.mse_loss(outputs, targets[0])

"""The teacher: a small convolutional network, trained on augmented samples. No student imports this module.

Directory: `teacher.json` (structure, classes, the data's checksum) and `teacher.safetensors`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgekd.data import Dataset, load_dataset
from edgekd.data.augment import augmented
from edgekd.data.randomness import torch_seed
from edgekd.errors import ArtifactError
from edgekd.evaluate.metrics import accuracy
from edgekd.learn.torch_tools import (
    deterministic,
    files_sha256,
    fill,
    initialise,
    load_weights,
    predict,
    save_weights,
)
from edgekd.learn.training import Batch, Schedule, train
from edgekd.progress import Progress, silent
from edgekd.recipe import Recipe, TeacherParams

SCHEMA = 1


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained teacher. sha256: of its two files; `net` maps float32 [N, C, H, W] to logits."""

    net: nn.Module
    classes: tuple[str, ...]
    dataset_sha256: str
    sha256: str


def convnet(channels: int, classes: int, width: int) -> nn.Sequential:
    """Four 3 x 3 convolutions with batch norm, a pool between them and a global one behind."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    # torch fills new layers from its global generator; ours are filled by `initialise` or from a file.
    with torch.random.fork_rng(devices=[]):
        return nn.Sequential(
            *block(channels, width),
            *block(width, width),
            nn.MaxPool2d(2),
            *block(width, 2 * width),
            *block(2 * width, 2 * width),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(2 * width, classes),
        )


# Teacher architectures by the name that a recipe gives.
MODELS = {"convnet": convnet}


def train_teacher(
    dataset_dir: Path, recipe: Recipe, out: Path, *, progress: Progress = silent
) -> dict[str, Any]:
    """Stage: train the recipe's teacher on the training split and write it into `out`.

    Returns its accuracy on "validation" and "test" and the number of its parameters.
    """
    data, params = load_dataset(dataset_dir), recipe.teacher
    net = MODELS[params.model](data.x.shape[1], len(data.classes), params.width)
    with deterministic(recipe.threads):
        initialise(net, torch_seed(recipe.seed, "teacher-weights"))
        loss = _fit(net, data, params, recipe.seed, progress)
        scores = {
            split: accuracy(data.part(split)[1], predict(net, data.part(split)[0])) for split in EVALUATED
        }
    header = {
        "schema": SCHEMA,
        "model": params.model,
        "width": params.width,
        "channels": int(data.x.shape[1]),
        "classes": list(data.classes),
        "dataset_sha256": data.sha256,
    }
    (out / "teacher.json").write_text(json.dumps(header, indent=1, sort_keys=True) + "\n", "utf-8")
    save_weights(net.state_dict(), out / "teacher.safetensors")
    return {
        "accuracy_validation": scores["validation"],
        "accuracy_test": scores["test"],
        "parameters": sum(p.numel() for p in net.parameters()),
        "loss": loss,
    }


EVALUATED = ("validation", "test")


def load_teacher(directory: Path) -> Teacher:
    """Read what `train_teacher` wrote. Raises ArtifactError when it is absent or broken."""
    path = directory / "teacher.safetensors"
    digest = teacher_sha256(directory)
    try:
        header = json.loads((directory / "teacher.json").read_text("utf-8"))
        classes = tuple(header["classes"])
        net = MODELS[header["model"]](header["channels"], len(classes), header["width"])
        dataset_sha256 = str(header["dataset_sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{directory}/teacher.json is not readable ({error}); train the teacher again"
        ) from None
    fill(net, load_weights(path), path)
    net.eval()
    return Teacher(net, classes, dataset_sha256, digest)


def teacher_sha256(directory: Path) -> str:
    """The digest that a knowledge file names its teacher by: over teacher.json and teacher.safetensors."""
    return files_sha256(directory / "teacher.json", directory / "teacher.safetensors")


def _fit(net: nn.Module, data: Dataset, params: TeacherParams, seed: int, progress: Progress) -> float:
    ids = data.splits["train"]
    x, y = data.part("train")
    labels = torch.from_numpy(y)
    epochs: dict[int, torch.Tensor] = {}

    def batches(epoch: int, rows: torch.Tensor) -> Batch:
        if epoch not in epochs:
            epochs.clear()
            view = augmented(x, ids, params.augment, seed=seed, purpose="teacher-view", view=epoch)
            epochs[epoch] = torch.from_numpy(np.ascontiguousarray(view))
        return epochs[epoch][rows], (labels[rows],)

    schedule = Schedule(
        samples=len(ids),
        epochs=params.epochs,
        batch_samples=params.batch_samples,
        learning_rate=params.learning_rate,
        weight_decay=params.weight_decay,
        seed=seed,
        purpose="teacher",
    )
    return train(
        net, batches, lambda logits, t: nn.functional.cross_entropy(logits, t[0]), schedule, progress
    )

"""One trial: a student of the space, trained from the stored knowledge and judged on the validation split."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from edgekd.data import Dataset, load_dataset
from edgekd.errors import ConfigError
from edgekd.evaluate.metrics import top1
from edgekd.learn.distill import Lesson, fit, lesson, new_student
from edgekd.learn.losses import student_loss
from edgekd.learn.mix import open_knowledge
from edgekd.learn.qat import QuantNet
from edgekd.learn.student import PaddedConv, StudentNet, fold, load_student
from edgekd.learn.torch_tools import Machine, deterministic, machine_of, predict
from edgekd.learn.training import Watch
from edgekd.recipe import DistillParams, Recipe
from edgekd.search.space import Candidate

_LOOKS = 8  # at the validation split in the course of a trial

# (epochs done, accuracy) -> nothing; may raise, which ends the trial.
Told = Callable[[int, float], None]


@dataclass(frozen=True, eq=False)
class Classroom:
    """What every trial of a search is taught with. parent: the student whose weights trials begin with."""

    data: Dataset
    lesson: Lesson
    recipe: Recipe
    machine: Machine
    parent: StudentNet | None

    @property
    def classes(self) -> int:
        return len(self.data.classes)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.data.x.shape[1:])

    @property
    def judged(self) -> int:
        """Samples that an accuracy is told from."""
        return len(self.data.part("validation")[1])

    def accuracy(self, net: torch.nn.Module) -> float:
        """On the validation split: never on the test split."""
        x, y = self.data.part("validation")
        return float((top1(predict(net, x, self.machine)) == y).mean())


def open_classroom(dataset_dir: Path, knowledge_dir: Path, recipe: Recipe, parent: Path | None) -> Classroom:
    """Raises ConfigError for samples without classes or images, and what their readers raise."""
    data = load_dataset(dataset_dir)
    if data.reconstructed or data.x.ndim != 4:
        raise ConfigError(
            f"recipe {recipe.name}: a search compares classifiers of images; its samples have the shape "
            f"{tuple(data.x.shape[1:])}"
        )
    knowledge = open_knowledge(knowledge_dir, data)
    net = load_student(parent).net if parent is not None else None
    return Classroom(data, lesson(knowledge, data), recipe, machine_of(recipe), net)


def run_trial(room: Classroom, candidate: Candidate, told: Told) -> float:
    """Train the candidate; its accuracy on the validation split, with its weights' bits.

    told: called a few times in its course. The same candidate gives the same number.
    """
    recipe, params = room.recipe, trial_params(room.recipe)
    every = max(1, params.epochs // _LOOKS)

    def behind(epoch: int, net: torch.nn.Module) -> None:
        if epoch % every == 0 and epoch < params.epochs:
            told(epoch, room.accuracy(net))

    with deterministic(recipe.threads):
        structure = candidate.structure(room.input_shape, room.classes)
        net = new_student(structure, recipe.seed, recipe.student.branches)
        if room.parent is not None:
            inherit(net, room.parent)
        loss, samples = student_loss(recipe.distill), len(room.lesson.knowledge.ids)
        watch = Watch(behind=behind)
        fit(net, room.lesson.batches, loss, params, samples, recipe.seed, watch, "search", room.machine)
        return room.accuracy(_rounded(room, fold(net), candidate))


def trial_params(recipe: Recipe) -> DistillParams:
    """[distill] with the search's own epochs and learning rate, where it has them."""
    search, distill = recipe.search, recipe.distill
    rate = search.learning_rate or distill.learning_rate
    return dataclasses.replace(distill, epochs=search.epochs or distill.epochs, learning_rate=rate)


def _rounded(room: Classroom, net: StudentNet, candidate: Candidate) -> torch.nn.Module:
    """The folded student, held in integers where some weights have fewer than 8 bits; tuned where
    [quantize] says qat."""
    bits = candidate.layer_bits(room.input_shape[0])
    if not bits:
        return net
    recipe, quantize = room.recipe, room.recipe.quantize
    held = QuantNet(net, {f"layers.{index}.conv": count for index, count in bits.items()})
    held.calibrate(torch.from_numpy(room.data.part("calibration")[0]))
    if quantize.method == "qat":
        tuning = dataclasses.replace(
            recipe.distill, epochs=quantize.epochs, learning_rate=quantize.learning_rate
        )
        loss = student_loss(tuning)
        samples = len(room.lesson.knowledge.ids)
        fit(
            held, room.lesson.batches, loss, tuning, samples, recipe.seed, Watch(), "search-qat", room.machine
        )
    return held.eval()


def inherit(net: StudentNet, parent: StudentNet) -> int:
    """Begin with the parent's filters: of the n-th layer of a kind and size those of its n-th, as many
    channels as both have; the rest stays as it was drawn. Returns how many layers took something.

    net: with batch norm, whose statistics are its own to find; parent: folded. Slices of a trained network
    are what once-for-all supernets hand down (Cai et al. 2020, arXiv 1908.09791).
    """
    waiting: dict[tuple[object, ...], list[torch.Tensor]] = {}
    for key, weight in _filters(parent):
        waiting.setdefault(key, []).append(weight)
    taken = 0
    with torch.no_grad():
        for key, weight in _filters(net):
            if waiting.get(key):
                given = waiting[key].pop(0)
                cut = tuple(slice(0, min(a, b)) for a, b in zip(weight.shape, given.shape, strict=True))
                weight[cut] = given[cut]
                taken += 1
    return taken


def _filters(net: StudentNet) -> list[tuple[tuple[object, ...], torch.Tensor]]:
    """(kind, kernel, depthwise or not) and weights of each layer that has some, in order."""
    found: list[tuple[tuple[object, ...], torch.Tensor]] = []
    for spec, layer in zip(net.structure.layers, net.layers, strict=True):
        if spec.weights:
            module = layer.conv if isinstance(layer, PaddedConv) else layer
            key = (spec.kind, spec.kernel, spec.groups > 1)
            found.append((key, module.get_parameter("weight")))
    return found

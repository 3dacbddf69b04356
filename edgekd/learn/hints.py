"""Hints: while the student learns, the teacher runs beside it, and maps of named layers are compared.

The teacher is frozen and in evaluation mode, and sees the very view that the student sees. All else stays as
it is: the stored predictions are read, the loop is the same. FitNets' regressors (1 x 1 convolutions, trained
with the student, then forgotten) are part of what a killed run brings back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from edgekd.data.randomness import torch_seed
from edgekd.declaration import suggest
from edgekd.errors import ConfigError, VerifyError
from edgekd.learn.knowledge import Knowledge
from edgekd.learn.losses.maps import attention, fitnet
from edgekd.learn.student import StudentNet
from edgekd.learn.torch_tools import Machine, initialise
from edgekd.learn.training import Batch, Batches, Loss
from edgekd.recipe import LossTerm

Maps = dict[str, torch.Tensor]


class Beside(nn.Module):
    """The student, and the regressors that are trained with it."""

    def __init__(self, student: nn.Module, regressors: Sequence[nn.Module]) -> None:
        super().__init__()
        self.student, self.regressors = student, nn.ModuleList(regressors)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.student(x)
        return logits


@dataclass(frozen=True, eq=False)
class Hints:
    """The terms, the frozen teacher, what both sides' named layers gave last, and the student in `net`."""

    terms: tuple[LossTerm, ...]
    teacher: nn.Module
    students: Maps
    teachers: Maps
    net: Beside
    machine: Machine

    def around(self, batches: Batches, loss: Loss) -> tuple[Batches, Loss]:
        """Batches whose inputs reach the loss, and the loss with the hints' terms added."""

        def with_inputs(epoch: int, rows: torch.Tensor) -> Batch:
            x, targets = batches(epoch, rows)
            return x, (x, *targets)

        def added(outputs: torch.Tensor, targets: tuple[torch.Tensor, ...]) -> torch.Tensor:
            return loss(outputs, targets[1:]) + self.value(targets[0])

        return with_inputs, added

    def value(self, x: torch.Tensor) -> torch.Tensor:
        """The weighted sum of the terms for the batch that the student has just seen."""
        with torch.no_grad(), self.machine.autocast():
            self.teacher(self.machine.prepared(x))
        total = torch.zeros((), device=x.device)
        for term, regressor in zip(self.terms, self.net.regressors, strict=True):
            mine, theirs = (
                self.students[term.student_layer].float(),
                self.teachers[term.teacher_layer].float(),
            )
            mine, theirs = _same_size(mine, theirs)
            part = fitnet(regressor(mine), theirs) if term.name == "fitnet" else attention(mine, theirs)
            total = total + term.weight * part
        return total


def hints_of(
    student: StudentNet, terms: tuple[LossTerm, ...], directory: Path, code: str, seed: int, machine: Machine
) -> Hints:
    """Hints from the teacher in `directory` for `student`.

    code: the file of a teacher of the form package.module:function. Raises ConfigError for layers that are
    not there or give no maps of sizes that fit.
    """
    from edgekd.learn.teacher import load_teacher

    teacher = load_teacher(directory, code).net.requires_grad_(False).eval()
    students = _tapped(student, [term.student_layer for term in terms], "student_layer")
    teachers = _tapped(teacher, [term.teacher_layer for term in terms], "teacher_layer")
    x, training = torch.zeros(1, *student.structure.input_shape), student.training
    with torch.no_grad():
        student.eval()(x)
        teacher(x)
    student.train(training)
    regressors = [_regressor(term, students, teachers) for term in terms]
    net = Beside(student, regressors)
    initialise(net.regressors, torch_seed(seed, "hint-weights"))
    machine.place(teacher)
    return Hints(terms, teacher, students, teachers, net, machine)


def check_teacher(directory: Path | None, terms: Sequence[LossTerm], knowledge: Knowledge) -> Path:
    """The teacher's directory. Raises ConfigError where there is none, VerifyError for another teacher."""
    if directory is None:
        raise ConfigError(
            f"distill.loss: {terms[0].name} compares inner maps with the teacher's, and this student learns "
            "from a file alone; leave the term out, or train it where the teacher is"
        )
    from edgekd.learn.teacher import teacher_sha256

    if teacher_sha256(directory) not in knowledge.teachers:
        raise VerifyError(f"{directory} is not the teacher whose predictions are stored; make them again")
    return directory


def _tapped(net: nn.Module, names: Sequence[str], key: str) -> Maps:
    """A table that holds what the modules `names` of `net` gave when it ran last."""
    modules, found = dict(net.named_modules()), Maps()

    def keep(name: str, output: torch.Tensor) -> None:
        found[name] = output

    for name in dict.fromkeys(names):
        if name not in modules:
            raise ConfigError(f"distill.loss: {key} is {name!r}{suggest(name, [n for n in modules if n])}")
        modules[name].register_forward_hook(lambda module, taken, output, name=name: keep(name, output))
    return found


def _regressor(term: LossTerm, students: Maps, teachers: Maps) -> nn.Module:
    """What brings the student's channels to the teacher's, for fitnet."""
    mine, theirs = students[term.student_layer], teachers[term.teacher_layer]
    for name, maps in ((term.student_layer, mine), (term.teacher_layer, theirs)):
        if not isinstance(maps, torch.Tensor) or maps.ndim != 4:
            raise ConfigError(f"distill.loss: layer {name!r} gives no maps [N, C, H, W]; name one that does")
    sizes = sorted((tuple(mine.shape[2:]), tuple(theirs.shape[2:])))
    if any(large % small for small, large in zip(*sizes, strict=True)):
        raise ConfigError(
            f"distill.loss: {term.student_layer} gives maps of {tuple(mine.shape[2:])} and "
            f"{term.teacher_layer} of {tuple(theirs.shape[2:])}; name layers of equal sizes, or of multiples"
        )
    if term.name != "fitnet":
        return nn.Identity()
    with torch.random.fork_rng(devices=[]):
        return nn.Conv2d(mine.shape[1], theirs.shape[1], 1)


def _same_size(mine: torch.Tensor, theirs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both with the smaller one's height and width, the larger by means of its pixels."""

    def pooled(maps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        ratio = [max(1, a // b) for a, b in zip(maps.shape[2:], like.shape[2:], strict=True)]
        return maps if ratio == [1, 1] else functional.avg_pool2d(maps, ratio)

    return pooled(mine, theirs), pooled(theirs, mine)

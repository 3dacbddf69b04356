"""The student's training, from the knowledge file and the data set; with hints alone a teacher is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from edgekd.data import Dataset, load_dataset
from edgekd.data.randomness import torch_seed
from edgekd.learn.hints import Hints, check_teacher, hints_of
from edgekd.learn.knowledge import Knowledge
from edgekd.learn.losses import student_loss
from edgekd.learn.mix import open_knowledge
from edgekd.learn.mixup import mixed, mixed_loss
from edgekd.learn.replay import Replay
from edgekd.learn.scores import scores
from edgekd.learn.structure import MODELS, Structure
from edgekd.learn.student import StudentNet, fold, save_student
from edgekd.learn.torch_tools import PLAIN, Machine, deterministic, initialise, machine_of
from edgekd.learn.training import Batch, Batches, Loss, Schedule, Watch, train
from edgekd.recipe import DistillParams, Recipe


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a student is taught with: the stored views, replayed, and the teacher's logits beside them."""

    knowledge: Knowledge
    replay: Replay
    labels: torch.Tensor  # int64 [samples]

    def batches(self, epoch: int, rows: torch.Tensor) -> Batch:
        """Epoch e shows view e mod views, each equally often. An autoencoder's label is the view."""
        view = epoch % self.knowledge.views
        said = torch.from_numpy(self.knowledge.read(view, rows.numpy()))
        x = self.replay.rows(view, rows)
        return x, (said, x if self.replay.data.reconstructed else self.labels[rows])


def lesson(knowledge: Knowledge, data: Dataset) -> Lesson:
    """Views of `knowledge`, replayed from `data`. Raises ArtifactError for abnormal training vectors."""
    if data.reconstructed:
        data.check_normal()
    count = len(data.y)
    replay = Replay(
        data, knowledge.ids, lambda x, ids, view: knowledge.view(x, ids, view, count), knowledge.views
    )
    return Lesson(knowledge, replay, torch.from_numpy(data.y[knowledge.ids]))


def fit(
    net: torch.nn.Module,
    batches: Batches,
    loss: Loss,
    params: DistillParams,
    samples: int,
    seed: int,
    watch: Watch = Watch(),  # noqa: B008  (frozen)
    purpose: str = "distill",
    machine: Machine = PLAIN,
    hints: Hints | None = None,
) -> float:
    """Train `net` in place with the recipe's [distill]; returns the last epoch's mean loss."""
    if params.mixup:
        batches, loss = mixed(batches, params.mixup, seed, purpose), mixed_loss(loss)
    schedule = Schedule(
        samples=samples,
        epochs=params.epochs,
        batch_samples=params.batch_samples,
        learning_rate=params.learning_rate,
        weight_decay=params.weight_decay,
        seed=seed,
        purpose=purpose,
        optimizer=params.optimizer,
        ema=params.ema,
    )
    if hints is not None:
        net, (batches, loss) = hints.net, hints.around(batches, loss)
    return train(net, batches, loss, schedule, watch, machine)


def new_student(structure: Structure, seed: int, branches: str = "none") -> StudentNet:
    """An untrained student with batch norm, its weights drawn from `seed`; branches: as in [student]."""
    net = StudentNet(structure, normalised=True, branched=branches == "qarepvgg")
    initialise(net, torch_seed(seed, "student-weights"))
    return net


def distill_student(
    dataset_dir: Path,
    knowledge_dir: Path,
    recipe: Recipe,
    out: Path,
    *,
    watch: Watch = Watch(),  # noqa: B008
    teacher_dir: Path | None = None,
) -> dict[str, Any]:
    """Stage: train the recipe's student from the knowledge file and write it, folded, into `out`.

    teacher_dir: read only where the loss has hints, which look into the teacher.

    Returns its float scores on "validation" and "test", weight bytes (int8 weights and int32 biases) and
    multiply-accumulates. Raises BudgetError when the structure exceeds the recipe's limits.
    """
    data = load_dataset(dataset_dir)
    knowledge = open_knowledge(knowledge_dir, data)
    structure = MODELS[recipe.student.model](recipe.student, data.x.shape[1:], len(data.classes))
    taught, machine = lesson(knowledge, data), machine_of(recipe)
    with deterministic(recipe.threads):
        net = new_student(structure, recipe.seed, recipe.student.branches)
        hints = None
        if terms := recipe.distill.hints:
            place = check_teacher(teacher_dir, terms, knowledge)
            hints = hints_of(net, terms, place, recipe.teacher.code, recipe.seed, machine)
        loss = fit(
            net,
            taught.batches,
            student_loss(recipe.distill),
            recipe.distill,
            len(knowledge.ids),
            recipe.seed,
            watch,
            machine=machine,
            hints=hints,
        )
        folded = fold(net)
        metrics = student_metrics(folded, data)
    save_student(folded, data.classes, data.sha256, knowledge.sha256, out)
    return metrics | {"loss": loss}


def student_metrics(net: StudentNet, data: Dataset) -> dict[str, Any]:
    """What every stage that makes a student reports: how good by split, bytes, multiply-accumulates."""
    return scores(net, data) | {"weight_bytes": net.structure.weight_bytes, "macs": net.structure.macs}

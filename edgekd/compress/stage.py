"""The stage that runs a recipe's compression methods in order, fine-tuning after each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekd.compress.lowrank import lowrank
from edgekd.data import load_dataset
from edgekd.errors import VerifyError
from edgekd.learn.distill import fit, lesson, student_metrics
from edgekd.learn.losses import student_loss
from edgekd.learn.mix import open_knowledge
from edgekd.learn.structure import check_limits
from edgekd.learn.student import StudentNet, load_student, save_student
from edgekd.learn.torch_tools import deterministic, machine_of
from edgekd.learn.training import Watch
from edgekd.recipe import CompressParams, Recipe

# A method takes a folded student and gives a smaller one, untuned.
METHODS: dict[str, Callable[[StudentNet, CompressParams], StudentNet]] = {"lowrank": lowrank}


def compress_student(
    student_dir: Path,
    dataset_dir: Path,
    knowledge_dir: Path,
    recipe: Recipe,
    out: Path,
    *,
    watch: Watch = Watch(),  # noqa: B008  (frozen)
) -> dict[str, Any]:
    """Stage: apply [compress].methods to the student and write the result, a student again, into `out`.

    With no methods the student is passed on as it is. Returns float accuracy, bytes and multiply-accumulates
    of the result, and bytes saved. Raises BudgetError when the result exceeds the recipe's limits.
    """
    data, student = load_dataset(dataset_dir), load_student(student_dir)
    knowledge = open_knowledge(knowledge_dir, data)
    if student.knowledge_sha256 != knowledge.sha256:
        raise VerifyError(
            f"{student_dir} was distilled from other knowledge than {knowledge_dir}; distill it again"
        )
    net, params, machine = student.net, recipe.compress, machine_of(recipe)
    tuning = dataclasses.replace(recipe.distill, epochs=params.epochs, learning_rate=params.learning_rate)
    with deterministic(recipe.threads):
        if params.methods:
            taught = lesson(knowledge, data)
        for method in params.methods:
            net = METHODS[method](net, params)
            if params.epochs:
                samples, purpose = len(knowledge.ids), f"compress-{method}"
                loss = student_loss(tuning)
                fit(net, taught.batches, loss, tuning, samples, recipe.seed, watch, purpose, machine)
        check_limits(net.structure, recipe.student)
        metrics = student_metrics(net, data)
    save_student(net, data.classes, data.sha256, knowledge.sha256, out)
    saved = student.net.structure.weight_bytes - net.structure.weight_bytes
    return metrics | {"weight_bytes_saved": saved, "methods": list(params.methods)}

"""The stage that runs a recipe's compression methods in order, fine-tuning and judging after each."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekd.compress.gate import Gate
from edgekd.compress.lowrank import lowrank
from edgekd.compress.prune import prune
from edgekd.compress.share import Course, save_tables, share, sharing
from edgekd.compress.sparsify import sparsify, zero_weights, zeros_kept
from edgekd.data import Dataset, load_dataset
from edgekd.errors import VerifyError
from edgekd.learn.distill import fit, lesson, student_metrics
from edgekd.learn.knowledge import Knowledge
from edgekd.learn.losses import student_loss
from edgekd.learn.mix import open_knowledge
from edgekd.learn.structure import check_limits
from edgekd.learn.student import StudentNet, load_student, save_student
from edgekd.learn.torch_tools import deterministic, machine_of
from edgekd.learn.training import Watch
from edgekd.qgraph.rounding import Grid
from edgekd.recipe import CompressParams, Recipe

# A method takes a folded student and gives a smaller one, untuned. ("share" is none: it tunes by itself.)
METHODS: dict[str, Callable[[StudentNet, CompressParams], StudentNet]] = {
    "lowrank": lowrank,
    "prune": prune,
    "sparsify": sparsify,
}


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

    With no methods the student is passed on as it is; with "share" the tables of its weights lie beside it.
    Returns float accuracy, bytes and multiply-accumulates of the result, and bytes saved; of several methods
    also the figures behind each ("steps"). Raises BudgetError when the result exceeds the recipe's limits,
    when a target cannot be reached, or when the student fails the gate in between; ConfigError for layers or
    groups that cannot be shared as asked.
    """
    data, student = load_dataset(dataset_dir), load_student(student_dir)
    knowledge = open_knowledge(knowledge_dir, data)
    if student.knowledge_sha256 != knowledge.sha256:
        raise VerifyError(
            f"{student_dir} was distilled from other knowledge than {knowledge_dir}; distill it again"
        )
    methods = recipe.compress.methods
    with deterministic(recipe.threads):
        if methods:
            net, grids, more = _compressed(student.net, data, knowledge, recipe, watch)
        else:
            net, grids, more = student.net, {}, {}
        check_limits(net.structure, recipe.student)
        metrics = student_metrics(net, data)
    save_student(net, data.classes, data.sha256, knowledge.sha256, out)
    if "share" in methods:
        save_tables(grids, out)
        more["shared"] = sharing(net, grids)
    saved = student.net.structure.weight_bytes - net.structure.weight_bytes
    return metrics | {"weight_bytes_saved": saved, "methods": list(methods)} | more


def _compressed(
    net: StudentNet, data: Dataset, knowledge: Knowledge, recipe: Recipe, watch: Watch
) -> tuple[StudentNet, dict[str, Grid], dict[str, Any]]:
    """The student behind all methods, each tuned and (but the last, whose gate is the stage's) judged.

    Beside it the tables of shared weights, and what else is reported.
    """
    params, machine, loss = recipe.compress, machine_of(recipe), student_loss(recipe.distill)
    tuning = dataclasses.replace(recipe.distill, epochs=params.epochs, learning_rate=params.learning_rate)
    batches, samples = lesson(knowledge, data).batches, len(knowledge.ids)
    course = Course(batches, loss, tuning, samples, recipe.seed, watch, machine)
    several = len(params.methods) > 1
    gate = Gate(net, data, recipe.gate) if several else None
    steps: list[dict[str, Any]] = []
    grids: dict[str, Grid] = {}
    sparse = False
    for method in params.methods:
        if method != "share":
            net = METHODS[method](net, params)
        sparse = sparse or method == "sparsify"
        with zeros_kept(net) if sparse else contextlib.nullcontext():
            if method == "share":
                net, grids = share(net, params, course)
            elif params.epochs:
                purpose = f"compress-{method}"
                fit(net, batches, loss, tuning, samples, recipe.seed, watch, purpose, machine)
        if several:
            steps.append({"method": method} | student_metrics(net, data))
        if gate is not None and method != params.methods[-1]:
            gate.check(net, method, params.methods)
    more: dict[str, Any] = {"steps": steps} if several else {}
    return net, grids, more | ({"zero_weights": zero_weights(net)} if sparse else {})

"""The stage that runs a recipe's compression methods in order, fine-tuning and judging after each."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from edgekd.compress.gate import Gate
from edgekd.compress.lowrank import lowrank
from edgekd.compress.prune import prune, widths_within
from edgekd.compress.share import Course, save_tables, share, sharing
from edgekd.compress.sparsify import sparsify, zero_weights, zeros_kept
from edgekd.compress.widths import DeviceCosts
from edgekd.data import Dataset, load_dataset
from edgekd.errors import ArtifactError, VerifyError
from edgekd.learn.distill import fit, lesson, student_metrics
from edgekd.learn.knowledge import Knowledge
from edgekd.learn.losses import student_loss
from edgekd.learn.mix import open_knowledge
from edgekd.learn.renorm import renormalised
from edgekd.learn.structure import check_limits
from edgekd.learn.student import StudentNet, fold, load_student, save_student
from edgekd.learn.torch_tools import deterministic, machine_of
from edgekd.learn.training import Watch
from edgekd.qgraph.rounding import Grid
from edgekd.recipe import CompressParams, Recipe
from edgekd.recipe.limits import LayerChannels

# A method takes a folded student and gives a smaller one, untuned. ("share" is none: it tunes by itself.)
METHODS: dict[str, Callable[[StudentNet, CompressParams], StudentNet]] = {
    "lowrank": lowrank,
    "prune": prune,
    "sparsify": sparsify,
}


WIDTHS = "widths.json"


def choose_widths(student_dir: Path, recipe: Recipe, costs: DeviceCosts, out: Path) -> dict[str, Any]:
    """Stage: find the widths that keep [compress].prune_to and write them, as prune_channels has them.

    costs: of a structure on the device. Returns what the student and the narrower one cost. Raises
    BudgetError where no widths keep it: the nearest, and by how much it is too dear.
    """
    net = load_student(student_dir).net
    with deterministic(recipe.threads):
        widths, narrow = widths_within(net, recipe.compress, costs)
    (out / WIDTHS).write_text(json.dumps({"schema": 1, "prune_channels": widths}, indent=1) + "\n", "utf-8")
    return {"widths": widths, "before": dict(costs(net.structure)), "after": dict(costs(narrow))}


def with_widths(params: CompressParams, widths_dir: Path) -> CompressParams:
    """The parameters with the widths that `choose_widths` wrote. Raises ArtifactError for a broken file."""
    path = widths_dir / WIDTHS
    try:
        rows = json.loads(path.read_text("utf-8"))["prune_channels"]
        widths = tuple(LayerChannels(str(row["layer"]), int(row["channels"])) for row in rows)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is not readable ({error}); run compress again") from None
    return dataclasses.replace(params, prune_channels=widths)


def compress_student(
    student_dir: Path,
    dataset_dir: Path,
    knowledge_dir: Path,
    recipe: Recipe,
    out: Path,
    *,
    watch: Watch = Watch(),  # noqa: B008  (frozen)
    widths_dir: Path | None = None,
) -> dict[str, Any]:
    """Stage: apply [compress].methods to the student and write the result, a student again, into `out`.

    widths_dir: what `choose_widths` made; read only where the recipe prunes to a device's limits.

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
    if widths_dir is not None:
        recipe = dataclasses.replace(recipe, compress=with_widths(recipe.compress, widths_dir))
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
    params, steps, sparse = recipe.compress, list[dict[str, Any]](), False
    grids: dict[str, Grid] = {}
    several = len(params.methods) > 1
    gate = Gate(net, data, recipe.gate) if several else None
    for method in params.methods:
        course = _course(method, data, knowledge, recipe, watch)
        if method != "share":
            net = METHODS[method](net, params)
        sparse = sparse or method == "sparsify"
        if method == "share":
            with zeros_kept(net) if sparse else contextlib.nullcontext():
                net, grids = share(net, params, course)
        elif course.tuning.epochs:
            net = _tuned(net, method, course, sparse, data if params.batch_norm else None)
        if several:
            steps.append({"method": method} | student_metrics(net, data))
        if gate is not None and method != params.methods[-1]:
            gate.check(net, method, params.methods)
    more: dict[str, Any] = {"steps": steps} if several else {}
    return net, grids, more | ({"zero_weights": zero_weights(net)} if sparse else {})


def _course(method: str, data: Dataset, knowledge: Knowledge, recipe: Recipe, watch: Watch) -> Course:
    """What a method is fine-tuned with: [distill], with [compress]'s epochs and rate or the method's own."""
    params, batches = recipe.compress, lesson(knowledge, data).batches
    own = next((row for row in params.tuning if row.method == method), params)
    tuning = dataclasses.replace(recipe.distill, epochs=own.epochs, learning_rate=own.learning_rate)
    loss, machine = student_loss(recipe.distill), machine_of(recipe)
    return Course(batches, loss, tuning, len(knowledge.ids), recipe.seed, watch, machine)


def _tuned(net: StudentNet, method: str, course: Course, sparse: bool, data: Dataset | None) -> StudentNet:
    """The student behind fine-tuning, folded; data: where batch norm is put back for it.

    sparse: whether weights that are zero stay so.
    """
    taught = net if data is None else renormalised(net, torch.from_numpy(data.part("calibration")[0]))
    with zeros_kept(taught) if sparse else contextlib.nullcontext():
        given = course.batches, course.loss, course.tuning, course.samples, course.seed, course.watch
        fit(taught, *given, f"compress-{method}", course.machine)
    return taught if data is None else fold(taught)

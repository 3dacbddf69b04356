"""Which loss teaches best, if any? The same student with each of them, over several seeds, all else equal.

Every loss is compared with "hard" (labels only) seed by seed: initial weights, order of the batches, views,
epochs and learning rate are those of that seed in all of them. So is the size of the step: AdamW's does not
depend on the scale of the loss, and for SGD each loss is scaled so that its first gradient is as long as
that of the labels' loss.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from edgekd.data import Dataset, load_dataset
from edgekd.errors import ConfigError
from edgekd.evaluate.intervals import Interval, deviation, mean_of
from edgekd.evaluate.metrics import accuracy
from edgekd.learn.distill import Lesson, fit, lesson, new_student
from edgekd.learn.losses import Loss, student_loss
from edgekd.learn.mix import open_knowledge
from edgekd.learn.structure import MODELS
from edgekd.learn.student import StudentNet, fold
from edgekd.learn.torch_tools import Machine, deterministic, machine_of, predict
from edgekd.progress import Progress, silent
from edgekd.recipe import DistillParams, LossTerm, Recipe

SPLIT = "test"
BASELINE = "hard"
CONFIDENCE = 0.95
_FIRST_SAMPLES = 512  # what the first gradient is taken over
_SHORTEST = 1e-12
# Standardized logits have deviation 1, and with them the divergence is small: the paper weighs it nine times.
STANDARDIZED_WEIGHT = 9.0


def distillation_report(
    dataset_dir: Path, knowledge_dir: Path, recipe: Recipe, out: Path, *, progress: Progress = silent
) -> dict[str, Any]:
    """Stage: float accuracy on "test" with labels only and with each loss of the recipe's [ablation].

    Writes `ablation.json` into `out` and returns it. All students learn from the same knowledge, so the
    spread is of students, not of teachers.
    """
    data = load_dataset(dataset_dir)
    if data.reconstructed or recipe.teacher.model == "none":
        raise ConfigError(
            f"recipe {recipe.name} has no classes or no teacher to compare losses by; "
            "report on a recipe that distills a classifier"
        )
    if "recipe" in recipe.ablation.losses and recipe.distill.hints:
        raise ConfigError(
            f"recipe {recipe.name}: a report compares losses on stored predictions, and its own has hints; "
            "leave recipe out of ablation.losses"
        )
    knowledge = open_knowledge(knowledge_dir, data)
    structure = MODELS[recipe.student.model](recipe.student, data.x.shape[1:], len(data.classes))
    taught, machine = lesson(knowledge, data), machine_of(recipe)
    names = [BASELINE, *(name for name in recipe.ablation.losses if name != BASELINE)]
    values: dict[str, list[float]] = {name: [] for name in names}
    seeds, done = recipe.ablation.seeds, 0
    with deterministic(recipe.threads):
        for number in range(seeds):
            for name in names:
                params = variant(recipe.distill, name)
                net = new_student(structure, recipe.seed + number, recipe.student.branches)
                values[name].append(_one(net, taught, params, data, recipe.seed + number, machine))
                done += 1
                progress("ablation", done, seeds * len(names))
    report = summary(values)
    (out / "ablation.json").write_text(json.dumps(report, indent=1, sort_keys=True) + "\n", "utf-8")
    return report


def variant(params: DistillParams, name: str) -> DistillParams:
    """The recipe's [distill] with another loss: a term, one with "-std" (standardized), or "recipe"."""
    if name == "recipe":
        return params
    term = name.removesuffix("-std")
    if term == name:
        return dataclasses.replace(params, loss=name)
    share = params.hard_share
    soft = LossTerm(term, STANDARDIZED_WEIGHT * (1 - share), params.temperature, standardize=True)
    return dataclasses.replace(params, loss=(LossTerm(BASELINE, share), soft) if share else (soft,))


def summary(values: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Mean and spread (standard deviation) of each loss, its paired difference to labels only, and verdicts.

    values: loss -> accuracy of each seed; "hard" among them. The intervals hold together at 95 %
    (Bonferroni): of k comparisons each is made at 1 - 0.05 / k.
    """
    baseline = values[BASELINE]
    others = [name for name in values if name != BASELINE]
    confidence = 1 - (1 - CONFIDENCE) / max(1, len(others))
    rows = []
    for name, found in values.items():
        row: dict[str, Any] = {"loss": name, "mean": mean_of(found).value, "spread": deviation(found)}
        row["values"] = list(found)
        if name != BASELINE:
            differences = [a - b for a, b in zip(found, baseline, strict=True)]
            gain = mean_of(differences, confidence)
            row["difference"] = _shown(gain)
            row["verdict"] = _verdict(gain)
        rows.append(row)
    return {
        "split": SPLIT,
        "seeds": len(baseline),
        "baseline": BASELINE,
        "comparisons": len(others),
        "rows": rows,
        "verdict": _sentence(rows, len(baseline)),
    }


def _shown(gain: Interval) -> dict[str, float | None]:
    """As JSON has it: no infinities; a limit that one seed cannot give is null."""
    wide = gain.high == float("inf")
    return {"mean": gain.value, "low": None if wide else gain.low, "high": None if wide else gain.high}


def _verdict(gain: Interval) -> str:
    if gain.low > 0:
        return "better"
    return "worse" if gain.high < 0 else "not told apart"


def _sentence(rows: Sequence[Mapping[str, Any]], seeds: int) -> str:
    """What the seeds carry, and nothing else."""
    said = []
    for word in ("better", "worse"):
        found = [
            f"{row['loss']} ({_points(row['difference'])})" for row in rows if row.get("verdict") == word
        ]
        if found:
            said.append(f"{word} than labels only: {', '.join(found)}")
    if not said:
        return f"no loss is told apart from labels only by {seeds} seeds: no claim is made"
    return "; ".join(said) + f"; together at 95 %, {seeds} seeds, one teacher"


def _points(difference: Mapping[str, float]) -> str:
    half = 50 * (difference["high"] - difference["low"])
    return f"{100 * difference['mean']:+.2f} ± {half:.2f} points"


def equal_step(
    loss: Loss, net: torch.nn.Module, inputs: torch.Tensor, targets: tuple[torch.Tensor, ...]
) -> Loss:
    """`loss` times what makes its gradient by the untrained `net`'s weights as long as the labels' loss's."""
    lengths = []
    for each in (student_loss(DistillParams(loss=BASELINE)), loss):
        copied = copy.deepcopy(net)  # batch norm counts what it has seen, and must not have seen this
        gradients = torch.autograd.grad(each(copied(inputs), targets), list(copied.parameters()))
        lengths.append(math.sqrt(sum(float(g.square().sum()) for g in gradients)))
    scale = lengths[0] / max(lengths[1], _SHORTEST)
    return lambda student, t: scale * loss(student, t)


def _one(
    net: StudentNet, taught: Lesson, params: DistillParams, data: Dataset, seed: int, machine: Machine
) -> float:
    loss = student_loss(params)
    if params.optimizer == "sgd":
        rows = torch.arange(min(_FIRST_SAMPLES, len(taught.labels)))
        loss = equal_step(loss, net, *taught.batches(0, rows))
    fit(net, taught.batches, loss, params, len(taught.labels), seed, machine=machine)
    x, y = data.part(SPLIT)
    return accuracy(y, predict(fold(net), x))

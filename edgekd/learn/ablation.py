"""Does the teacher help? The same student with and without it, over several seeds, all else equal."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

from edgekd.data import Dataset, load_dataset
from edgekd.evaluate.metrics import accuracy
from edgekd.learn.distill import Lesson, fit, hard_loss, lesson, new_student, soft_loss
from edgekd.learn.knowledge import FILE, read_knowledge
from edgekd.learn.structure import MODELS, Structure
from edgekd.learn.student import fold
from edgekd.learn.torch_tools import deterministic, predict
from edgekd.learn.training import Loss
from edgekd.progress import Progress, silent
from edgekd.recipe import DistillParams, Recipe

SEEDS = 5
SPLIT = "test"

# Two-sided 95 % points of Student's t by degrees of freedom; seeds are few.
_T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def distillation_report(
    dataset_dir: Path,
    knowledge_dir: Path,
    recipe: Recipe,
    out: Path,
    *,
    seeds: int = SEEDS,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Stage: float accuracy on "test" with and without distillation; writes `ablation.json` into `out`.

    Equal in both: initial weights, epochs, batches, views and the size of the step. AdamW's step does not
    depend on the loss's scale, so the T^2 of the soft loss is no larger step.
    """
    data = load_dataset(dataset_dir)
    knowledge = read_knowledge(knowledge_dir / FILE, data)
    structure = MODELS[recipe.student.model](recipe.student, data.x.shape[1:], len(data.classes))
    taught = lesson(knowledge, data)
    losses: dict[str, Loss] = {"with": soft_loss(recipe.distill), "without": hard_loss}
    results: dict[str, list[float]] = {name: [] for name in losses}
    with deterministic(recipe.threads):
        for number in range(seeds):
            for name, loss in losses.items():
                seed = recipe.seed + number
                results[name].append(_one(structure, taught, loss, recipe.distill, data, seed))
                progress("ablation", 2 * number + 1 + (name == "without"), 2 * seeds)
    report = summary(results["with"], results["without"])
    (out / "ablation.json").write_text(json.dumps(report, indent=1, sort_keys=True) + "\n", "utf-8")
    return report


def summary(with_teacher: list[float], without: list[float]) -> dict[str, Any]:
    """Mean and spread (standard deviation) of both, and the paired difference with its 95 % interval."""
    differences = [a - b for a, b in zip(with_teacher, without, strict=True)]
    mean, spread = statistics.fmean(differences), _spread(differences)
    half = _T95.get(len(differences) - 1, 2.0) * spread / math.sqrt(len(differences))
    return {
        "split": SPLIT,
        "seeds": len(differences),
        "with_distillation": _row(with_teacher),
        "without_distillation": _row(without),
        "difference": {"mean": mean, "low": mean - half, "high": mean + half, "spread": spread},
        "verdict": _verdict(mean, half, len(differences)),
    }


def _verdict(mean: float, half: float, seeds: int) -> str:
    figure = f"{100 * mean:+.2f} ± {100 * half:.2f} points (95 %, {seeds} seeds)"
    if mean - half > 0:
        return f"distillation helps: {figure}"
    if mean + half < 0:
        return f"distillation harms: {figure}"
    return f"no effect beyond the spread: {figure}"


def _row(values: list[float]) -> dict[str, Any]:
    return {"mean": statistics.fmean(values), "spread": _spread(values), "values": values}


def _spread(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _one(
    structure: Structure, taught: Lesson, loss: Loss, params: DistillParams, data: Dataset, seed: int
) -> float:
    net = new_student(structure, seed)
    fit(net, taught.batches, loss, params, len(taught.labels), seed)
    x, y = data.part(SPLIT)
    return accuracy(y, predict(fold(net), x))

"""A training stage under `torchrun`: every process runs this program, the first writes the result.

    torchrun --nproc-per-node 2 -m edgekd.learn.launch JOB.json

JOB.json holds `stage` ("teacher" or "distill"), `recipe` (the recipe's tables with absolute paths),
`dataset`, `knowledge` (for distill), `teacher` (for hints), `out` and, if wanted, `work` and `log`:
directories that all processes see. With `told` true the first process says on stdout, a line of JSON each,
its "progress", then "metrics", or the "error" that ended it. Each process takes its share of every batch,
gradients are averaged: gloo on CPUs, nccl on GPUs, one machine or several (torchrun's own --nnodes and
--rdzv-endpoint). Batch norm's statistics are each process's own, the first one's are kept; so the number
of processes is part of the result.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from torch import distributed

from edgekd.declaration import build
from edgekd.errors import ArtifactError, ConfigError, EdgekdError
from edgekd.learn.distill import distill_student
from edgekd.learn.teacher import train_teacher
from edgekd.learn.torch_tools import machine_of
from edgekd.learn.training import Watch, rank
from edgekd.progress import silent
from edgekd.recipe import Recipe


def main(arguments: list[str]) -> int:
    """Run the job; 0, or the error's exit code with its sentence on stderr."""
    told = False
    try:
        job = read_job(arguments)
        told = job["told"]
        machine_of(job["recipe"]).torch_device()
        distributed.init_process_group("nccl" if job["recipe"].device == "gpu" else "gloo")
        try:
            metrics = run_job(job)
        finally:
            distributed.destroy_process_group()
    except EdgekdError as error:
        if told:
            _say({"error": [type(error).__name__, str(error)]})
        print(f"edgekd: {error}", file=sys.stderr)
        return error.exit_code
    if metrics is not None:
        _say({"metrics": metrics} if told else metrics)
    return 0


def _say(table: dict[str, Any]) -> None:
    print(json.dumps(table, sort_keys=True), flush=True)


def _progress(label: str, done: int, total: int) -> None:
    """Where nobody listens any more this raises, and torchrun ends the other processes."""
    _say({"progress": [label, done, total]})


def read_job(arguments: list[str]) -> dict[str, Any]:
    """The job with its recipe built and its places as paths. Raises ConfigError or ArtifactError."""
    if len(arguments) != 1:
        raise ConfigError(
            "this takes one argument: a job's .json file (edgekd/learn/launch.py says what is in it)"
        )
    path = Path(arguments[0])
    try:
        table = json.loads(path.read_text("utf-8"))
        stage, recipe = table["stage"], build(Recipe, table["recipe"], str(path), "recipe")
        places = {
            name: Path(table[name])
            for name in ("dataset", "knowledge", "teacher", "out", "work", "log")
            if name in table
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is not a readable job ({error}); write it again") from None
    needed = {"teacher": ("dataset", "out"), "distill": ("dataset", "knowledge", "out")}
    missing = [name for name in needed.get(stage, ("stage",)) if name not in places]
    if missing:
        raise ConfigError(f"{path}: the job needs {missing[0]!r}; stages are teacher and distill")
    return {"stage": stage, "recipe": recipe, "told": bool(table.get("told"))} | places


def run_job(job: dict[str, Any]) -> dict[str, Any] | None:
    """The stage's metrics in the first process, None in the others, which write into a place of their own."""
    first = rank() == 0
    progress = _progress if job["told"] and first else silent
    watch = Watch(progress, job.get("work"), job.get("log") if first else None)
    with tempfile.TemporaryDirectory(prefix="edgekd-") as elsewhere:
        out = job["out"] if rank() == 0 else Path(elsewhere)
        if job["stage"] == "teacher":
            metrics = train_teacher(job["dataset"], job["recipe"], out, watch=watch)
        else:
            places = (job["dataset"], job["knowledge"])
            teacher = job.get("teacher")
            metrics = distill_student(*places, job["recipe"], out, watch=watch, teacher_dir=teacher)
    return metrics if rank() == 0 else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
